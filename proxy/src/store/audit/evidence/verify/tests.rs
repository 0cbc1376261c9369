//! Tampers with small segments in every way there is, as somebody would who owns the file: triggers dropped first and
//! put back afterwards.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cmiot_signer::{Card, CardKind};
use rusqlite::types::Value;
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, Time};
use crate::store::audit::evidence::anchor::{self, LOG};
use crate::store::audit::log::notes;
use crate::store::audit::tests::{NOON, row};
use crate::store::audit::{AuditStore, CallRow, LookupRow, NoteRow, Options, RefusedRow};

mod forged;
mod removed;
mod versions;

const FEBRUARY: Time = Time::from_secs(NOON.as_micros() / 1_000_000 + 30 * 86_400);

/// Two months, the second with rows in every table, four batches, runs and a block.
fn written() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = Clock::manual(NOON);
    let options =
        Options { run: 5, block: 2, anchor_every: Duration::from_secs(86_400), ..Options::default() };
    let store = AuditStore::open(dir.path(), options, clock.clone()).unwrap();
    assert_eq!(store.append(row(NOON, "january")).wait(), Ok(()));
    store.close();
    hand.set(FEBRUARY);
    notes::leave(dir.path(), &NoteRow { at: FEBRUARY, what: "erased", detail: "2025-01".into() }).unwrap();
    let store = AuditStore::open(dir.path(), options, clock).unwrap();
    for n in 0..4_u32 {
        let at = FEBRUARY.plus(Duration::from_secs(n.into()));
        let card = Card::parse(CardKind::Msisdn, &format!("1476500417{}", 9 - n)).unwrap();
        store.append_call(CallRow {
            at,
            transid: Some(format!("10000120260115115933{n:08}").as_str().into()),
            previous: None,
            card: Some(card),
            account: "fleet-1".into(),
            operation: "userstatusrealsingle",
            code: Some("0".into()),
            fault: (n == 1).then_some("timeout"),
            status: Some("00".into()),
            latency: Duration::from_millis(30),
            bytes: Some(60),
            body: store.body(b"{}").filter(|_| n != 2),
        });
        store.append_refused(RefusedRow { peer: None, reason: "token", count: 7, first: NOON, last: at });
        store.shared.missed(1, 0, at);
        for m in 0..2 {
            let row = LookupRow { card: Some(card), ..row(at, &format!("february {n} {m}")) };
            assert_eq!(store.append(row).wait(), Ok(()));
        }
    }
    store.close();
    dir
}

fn january(dir: &Path) -> PathBuf {
    dir.join("audit-2026-01.db")
}

fn february(dir: &Path) -> PathBuf {
    dir.join("audit-2026-02.db")
}

fn copy(dir: &Path) -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    for name in ["audit-2026-01.db", "audit-2026-02.db"] {
        fs::copy(dir.join(name), copied.path().join(name)).unwrap();
        let path = copied.path().join(name);
        let mut mode = fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
        fs::set_permissions(path, mode).unwrap();
    }
    copied
}

/// Does something to the second segment; whether it worked and changed anything.
fn tamper(dir: &Path, act: impl FnOnce(&Connection) -> rusqlite::Result<usize>) -> bool {
    let connection = Connection::open(february(dir)).unwrap();
    let triggers: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    // Nothing here has to survive a power loss.
    connection.execute_batch("PRAGMA synchronous = off; BEGIN").unwrap();
    for (name, _) in &triggers {
        connection.execute(&format!("DROP TRIGGER {name}"), []).unwrap();
    }
    let done = act(&connection);
    for (_, sql) in &triggers {
        connection.execute(sql, []).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    done.is_ok_and(|changed| changed > 0)
}

/// The folder's own anchors.
fn anchors(dir: &Path) -> Vec<Anchor> {
    anchor::read(&dir.join(LOG)).unwrap().anchors
}

fn damage(dir: &Path, anchors: &[Anchor]) -> Vec<Damage> {
    verify(dir, &Scope { anchors, ..Scope::default() }, |_, _| {}).unwrap().damage
}

const TABLES: [&str; 13] = [
    "record",
    "call",
    "refused",
    "gap",
    "note",
    "batch",
    "name",
    "segment",
    "manifest",
    "card_run",
    "card_entry",
    "card_block",
    "card_block_entry",
];

/// The table's key and its columns with their types.
fn columns(connection: &Connection, table: &str) -> Vec<(String, String)> {
    let mut info = connection.prepare(&format!("PRAGMA table_info({table})")).unwrap();
    let rows = info.query_map([], |row| Ok((row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The condition that selects each row: its rowid, or its whole key.
fn keys(connection: &Connection, table: &str) -> Vec<String> {
    let key = match table {
        "card_entry" => "'run = ' || run || ' AND card = ''' || card || ''' AND id = ' || id",
        "card_block_entry" => "'block = ' || block || ' AND card = ''' || card || ''' AND id = ' || id",
        _ => "'rowid = ' || rowid",
    };
    let mut all = connection.prepare(&format!("SELECT {key} FROM {table}")).unwrap();
    all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn what_was_written_is_found_whole() {
    let dir = written();
    let anchors = anchors(dir.path());
    let key = PublicKey::of_folder(dir.path()).unwrap();
    let scope = Scope { anchors: &anchors, public_keys: std::slice::from_ref(&key), ..Scope::default() };
    let report = verify(dir.path(), &scope, |_, _| {}).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.segments.iter().map(Month::to_string).collect::<Vec<_>>(), ["2026-01", "2026-02"]);
    // A note and a lookup; four times: a call, a count, a gap and two lookups.
    assert_eq!(report.rows, 2 + 4 * 5);
    assert!(report.anchors >= 2, "{}", report.anchors);
    let connection = Connection::open(february(dir.path())).unwrap();
    for table in TABLES {
        let rows = keys(&connection, table).len();
        assert!(rows > 0, "{table} is tried too");
    }
}

#[test]
fn every_edit_and_every_removal_of_a_look_up_is_found() {
    assert!(edit_and_remove(&["record"]) >= 8 * 22);
}

#[test]
fn every_edit_and_every_removal_of_another_row_is_found() {
    assert!(edit_and_remove(&["call", "refused", "gap", "note"]) >= 4 * 16 + 4 * 7 + 4 * 6 + 5);
}

#[test]
fn every_edit_and_every_removal_of_what_holds_them_together_is_found() {
    assert!(edit_and_remove(&["batch", "name", "segment", "manifest"]) > 50);
}

#[test]
fn every_edit_and_every_removal_of_the_index_is_found() {
    assert!(edit_and_remove(&["card_run", "card_entry", "card_block", "card_block_entry"]) > 50);
}

/// The number of changes tried, all of them found.
fn edit_and_remove(tables: &[&str]) -> usize {
    let dir = written();
    let connection = Connection::open(february(dir.path())).unwrap();
    let mut tried = 0;
    for &table in tables {
        for key in keys(&connection, table) {
            let mut acts = vec![(format!("DELETE FROM {table} WHERE {key}"), Value::Null)];
            for (column, kind) in columns(&connection, table) {
                let sql = format!("SELECT \"{column}\" FROM {table} WHERE {key}");
                let now: Value = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
                let then = match now {
                    Value::Integer(number) if column == "authenticated" => Value::Integer(1 - number),
                    Value::Integer(number) => Value::Integer(number + 1_000),
                    Value::Text(text) => Value::Text(text + "x"),
                    Value::Blob(mut bytes) => {
                        bytes[31] ^= 1;
                        Value::Blob(bytes)
                    }
                    Value::Null if kind == "INTEGER" => Value::Integer(1),
                    Value::Null if kind == "BLOB" => Value::Blob(vec![3]),
                    Value::Null => Value::Text("x".into()),
                    Value::Real(_) => panic!("no column holds fractions"),
                };
                acts.push((format!("UPDATE {table} SET \"{column}\" = ?1 WHERE {key}"), then));
            }
            for (sql, value) in acts {
                let copied = copy(dir.path());
                let changed = tamper(copied.path(), |connection| match &value {
                    Value::Null => connection.execute(&sql, []),
                    value => connection.execute(&sql, [value]),
                });
                assert!(changed, "{sql}");
                let found = damage(copied.path(), &[]);
                assert!(!found.is_empty(), "{sql} with {value:?} was not found");
                assert!(
                    found.iter().all(|damage| damage.segment.to_string() == "2026-02"),
                    "{sql}: {found:?}"
                );
                tried += 1;
            }
        }
    }
    tried
}

#[test]
fn every_swap_and_every_insertion_is_found() {
    let dir = written();
    let connection = Connection::open(february(dir.path())).unwrap();
    for table in ["record", "call", "refused", "gap"] {
        let numbers: Vec<String> = keys(&connection, table);
        for pair in numbers.windows(2) {
            let [a, b] = [&pair[0], &pair[1]].map(|key| key.replace("rowid = ", ""));
            let copied = copy(dir.path());
            assert!(tamper(copied.path(), |connection| {
                connection.execute(&format!("UPDATE {table} SET id = -1 WHERE id = {a}"), [])?;
                connection.execute(&format!("UPDATE {table} SET id = {a} WHERE id = {b}"), [])?;
                connection.execute(&format!("UPDATE {table} SET id = {b} WHERE id = -1"), [])
            }));
            assert_ne!(damage(copied.path(), &[]), [], "{table} {a} and {b} swapped");
        }
        for number in ["-1", "1000"] {
            let copied = copy(dir.path());
            let list = columns(&connection, table).split_off(1);
            let list: Vec<String> = list.into_iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let list = list.join(", ");
            let sql =
                format!("INSERT INTO {table} (id, {list}) SELECT {number}, {list} FROM {table} LIMIT 1");
            assert!(tamper(copied.path(), |connection| connection.execute(&sql, [])));
            assert_ne!(damage(copied.path(), &[]), [], "{sql}");
        }
    }
}

#[test]
fn a_cut_off_tail_is_found_up_to_the_last_anchor() {
    let dir = written();
    let anchors = anchors(dir.path());
    let connection = Connection::open(february(dir.path())).unwrap();
    let mut ends: Vec<i64> = connection
        .prepare("SELECT last FROM batch ORDER BY last")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let last = ends.pop().unwrap();
    assert_eq!(anchors.last().unwrap().last, last, "the last words are signed");
    for end in ends {
        let copied = copy(dir.path());
        assert!(tamper(copied.path(), |connection| {
            for table in ["record", "call", "refused", "gap", "note", "card_entry"] {
                connection.execute(&format!("DELETE FROM {table} WHERE id > {end}"), [])?;
            }
            connection.execute(
                &format!("DELETE FROM card_entry WHERE run IN (SELECT id FROM card_run WHERE last > {end})"),
                [],
            )?;
            connection.execute(&format!("DELETE FROM card_run WHERE last > {end}"), [])?;
            connection
                .execute("DELETE FROM card_block_entry WHERE block NOT IN (SELECT id FROM card_run)", [])?;
            connection.execute("DELETE FROM card_block WHERE id NOT IN (SELECT id FROM card_run)", [])?;
            connection.execute(
                "DELETE FROM name WHERE id NOT IN (SELECT outcome FROM record UNION SELECT reason FROM record
                    UNION SELECT \"group\" FROM record UNION SELECT account FROM record
                    UNION SELECT operation FROM record UNION SELECT account FROM call UNION SELECT fault FROM call
                    UNION SELECT operation FROM call UNION SELECT reason FROM refused UNION SELECT what FROM note)",
                [],
            ).ok();
            connection.execute(&format!("DELETE FROM batch WHERE last > {end}"), [])
        }));
        // Without its anchor the change cannot be detected: that is the open window.
        let unseen: Vec<String> = damage(copied.path(), &[]).into_iter().map(|damage| damage.what).collect();
        assert!(unseen.iter().all(|what| what.contains("name")), "{unseen:?}");
        let found = damage(copied.path(), &anchors);
        assert!(found.iter().any(|damage| damage.what.contains("cut off")), "{found:?}");
        let earlier: Vec<Anchor> = anchors.iter().filter(|anchor| anchor.last <= end).cloned().collect();
        assert!(!damage(copied.path(), &earlier).iter().any(|damage| damage.what.contains("cut off")));
    }
}

#[test]
fn a_replaced_file_and_an_altered_view_are_found() {
    let (dir, other) = (written(), tempfile::tempdir().unwrap());
    let (clock, _hand) = Clock::manual(NOON);
    let store = AuditStore::open(other.path(), Options::default(), clock).unwrap();
    assert_eq!(store.append(row(NOON, "another january")).wait(), Ok(()));
    store.close();
    let copied = copy(dir.path());
    fs::copy(january(other.path()), january(copied.path())).unwrap();
    let found = damage(copied.path(), &[]);
    assert!(found.iter().any(|damage| damage.what.contains("replaced")), "{found:?}");

    let copied = copy(dir.path());
    assert!(tamper(copied.path(), |connection| {
        connection.execute("DROP VIEW by_day", [])?;
        connection.execute("CREATE VIEW by_day AS SELECT 1", []).map(|_| 1)
    }));
    assert!(damage(copied.path(), &[]).iter().any(|damage| damage.what.contains("by_day")));
}

#[test]
fn a_page_that_cannot_be_read_is_damage_and_not_an_error() {
    let dir = written();
    let copied = copy(dir.path());
    let path = february(copied.path());
    let root: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'record'", [], |row| row.get(0))
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let start = (usize::try_from(root).unwrap() - 1) * 4_096;
    bytes[start..start + 4_096].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let found = damage(copied.path(), &[]);
    assert!(found.iter().any(|damage| damage.what.contains("cannot be read")), "{found:?}");
}

/// A row of `sqlite_schema`, with its root page.
type SchemaRow = (String, String, String, i64, Option<String>);

fn schema_of(path: &Path) -> Vec<SchemaRow> {
    let connection = Connection::open(path).unwrap();
    let mut all =
        connection.prepare("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema").unwrap();
    let rows = all
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}
