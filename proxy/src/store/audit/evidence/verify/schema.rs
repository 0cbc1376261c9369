//! Compares a segment's schema with that of its own version, and has SQLite check every table against its indexes.
//!
//! Auditors rely on views, triggers and indexes too. Apart from the migrations' objects only the tables of statistics
//! that SQLite creates on `ANALYZE` may exist, exactly as SQLite creates them: they change no result, only its speed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};

use super::Report;
use crate::store::audit::log::month::Month;
use crate::store::files;
use crate::store::schema::{self, Kind};

/// A row of `sqlite_schema` without its root page.
type Object = (String, String, String, Option<String>);

/// The tables that `ANALYZE` adds.
const STATISTICS: [(&str, &str); 2] = [
    ("sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("sqlite_stat4", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
];

/// The most findings of SQLite's own check that are reported.
const MOST_FINDINGS: usize = 10;

/// Compares every row of the schema.
pub(super) fn compare(connection: &Connection, month: Month, report: &mut Report) -> rusqlite::Result<()> {
    let version = schema::version_of(connection)?;
    let (mut found, mut expected) = (objects(connection)?, expected(version)?);
    // Objects of both are removed, one for one.
    expected.retain(|object| match found.iter().position(|other| other == object) {
        Some(place) => {
            found.swap_remove(place);
            false
        }
        None => true,
    });
    for (kind, name, ..) in expected {
        report.damage(month, None, format!("{kind} {name} is not as the proxy made it"));
    }
    for (kind, name, table, sql) in found {
        let statistics = STATISTICS.iter().any(|&(own, text)| {
            kind == "table" && name == own && table == own && sql.as_deref() == Some(text)
        });
        if !statistics {
            report.damage(month, None, format!("{kind} {name} of {table} was added to the schema"));
        }
    }
    Ok(())
}

/// The schema of a version, built once.
fn expected(version: i64) -> rusqlite::Result<Vec<Object>> {
    static BUILT: Mutex<BTreeMap<i64, Vec<Object>>> = Mutex::new(BTreeMap::new());
    // A version is inserted whole or not at all.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(objects) = built.get(&version) {
        return Ok(objects.clone());
    }
    let made = Connection::open_in_memory()?;
    schema::build_in_memory(&made, Kind::Audit, version)?;
    let objects = objects(&made)?;
    built.insert(version, objects.clone());
    Ok(objects)
}

fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    connection
        .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect()
}

/// Runs SQLite's check of all pages, every index against its table, and every value against its column; returns the
/// findings. It has a connection of its own, so it can run in parallel with the scan of rows.
pub(super) fn check_integrity(path: &Path) -> Vec<String> {
    let check = || -> rusqlite::Result<Vec<String>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(files::BUSY_TIMEOUT)?;
        connection.execute_batch("PRAGMA trusted_schema = off; PRAGMA cell_size_check = on")?;
        let mut check = connection.prepare(&format!("PRAGMA integrity_check({MOST_FINDINGS})"))?;
        let findings = check.query_map([], |row| row.get(0))?;
        findings.collect()
    };
    let findings = check().unwrap_or_else(|error| vec![error.to_string()]);
    findings
        .into_iter()
        .filter(|finding| finding != "ok")
        .map(|finding| finding.replace('\n', "; "))
        .collect()
}
