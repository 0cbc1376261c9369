//! Reads the audit as an auditor does: the SQLite files, opened read-only, while the proxy runs or after its end.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

/// A row of the view `lookup`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LookupRow {
    pub(crate) client: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) peer: String,
    pub(crate) operation: Option<String>,
    pub(crate) card: Option<String>,
    pub(crate) transid: Option<String>,
    pub(crate) outcome: String,
    pub(crate) reason: Option<String>,
    pub(crate) code: String,
    pub(crate) carrier_code: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) age_s: Option<f64>,
    pub(crate) carrier_transid: Option<String>,
    pub(crate) latency_ms: f64,
    pub(crate) authenticated: bool,
}

/// All audit records of a folder, oldest first.
pub(crate) fn rows(data: &Path) -> Vec<LookupRow> {
    segments(data).iter().flat_map(|segment| read(segment)).collect()
}

/// The audit segments of a folder, oldest first.
pub(crate) fn segments(data: &Path) -> Vec<PathBuf> {
    let files =
        std::fs::read_dir(data).expect("the proxy's folder").map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<PathBuf> = files
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("audit-") && name.ends_with(".db")
        })
        .collect();
    segments.sort();
    segments
}

fn read(segment: &Path) -> Vec<LookupRow> {
    let connection =
        Connection::open_with_flags(segment, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a segment");
    let mut records = connection
        .prepare(
            r#"SELECT client, "group", account, peer, operation, card, transid, outcome, reason, code,
                      carrier_code, status, age_s, carrier_transid, latency_ms, authenticated
               FROM lookup ORDER BY id"#,
        )
        .expect("the view");
    let rows = records.query_map([], |row| {
        Ok(LookupRow {
            client: row.get(0)?,
            group: row.get(1)?,
            account: row.get(2)?,
            peer: row.get(3)?,
            operation: row.get(4)?,
            card: row.get(5)?,
            transid: row.get(6)?,
            outcome: row.get(7)?,
            reason: row.get(8)?,
            code: row.get(9)?,
            carrier_code: row.get(10)?,
            status: row.get(11)?,
            age_s: row.get(12)?,
            carrier_transid: row.get(13)?,
            latency_ms: row.get(14)?,
            authenticated: row.get(15)?,
        })
    });
    rows.expect("records").map(|row| row.expect("a record")).collect()
}

/// Edits a segment as the owner of the file can: without its triggers, which are restored afterwards.
pub(crate) fn dropping_triggers<T>(segment: &Path, edit: impl FnOnce(&Connection) -> T) -> T {
    let connection = Connection::open(segment).expect("a segment");
    let mut listed =
        connection.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").expect("a schema");
    let triggers = listed.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("triggers");
    let triggers: Vec<(String, String)> = triggers.map(|trigger| trigger.expect("a trigger")).collect();
    drop(listed);
    for (name, _) in &triggers {
        connection.execute(&format!("DROP TRIGGER {name}"), []).expect("an owner");
    }
    let edited = edit(&connection);
    for (_, sql) in &triggers {
        connection.execute(sql, []).expect("an owner");
    }
    edited
}
