//! Segments as earlier versions wrote them: see `tests/data/audit-1/README.md`.

use super::*;
use crate::store::audit::query::{self, Exported, Field, Filter};
use crate::store::audit::{Bodies, Identifiers};

/// A copy of the folder as a proxy of schema version 1 left it.
fn version_1() -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/audit-1");
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[test]
fn ended_and_running_segments_of_version_1_verify_against_their_anchors() {
    let dir = version_1();
    let anchors = anchors(dir.path());
    let key = PublicKey::of_folder(dir.path()).unwrap();
    let scope = Scope { anchors: &anchors, public_keys: std::slice::from_ref(&key), ..Scope::default() };
    let report = verify(dir.path(), &scope, |_, _| {}).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!((report.segments.len(), report.rows, report.anchors), (2, 70, 4));
    assert_eq!(report.confirmed.map(|(month, row)| (month.to_string(), row)), Some(("2026-02".into(), 70)));
}

#[test]
fn a_running_segment_of_version_1_continues_in_version_1() {
    let dir = version_1();
    let (clock, _) = Clock::manual(FEBRUARY.plus(Duration::from_secs(10 * 86_400)));
    let store = AuditStore::open(dir.path(), Options::default(), clock).unwrap();
    append_call(&store, FEBRUARY.plus(Duration::from_secs(10 * 86_400)));
    assert_eq!(store.append(row(FEBRUARY.plus(Duration::from_secs(10 * 86_400)), "later")).wait(), Ok(()));
    store.close();
    let connection = Connection::open(february(dir.path())).unwrap();
    assert_eq!(schema_and_batches(&connection), (1, 1, 1));
    assert!(connection.prepare("SELECT body FROM call").is_err());
    drop(connection);
    assert_eq!(damage(dir.path(), &anchors(dir.path())), []);
    let found =
        query::lookups(dir.path(), &Filter { transid: Some("later".into()), ..Filter::default() }, 10, None);
    assert_eq!(found.unwrap().len(), 1);
    let exported = query::Export::open(dir.path(), Month::parse("2026-02").unwrap()).unwrap();
    let mut last = None;
    exported
        .rows(Exported::Calls, |_, row| -> Result<(), StoreError> {
            last = row.last().cloned();
            Ok(())
        })
        .unwrap();
    assert_eq!(last, Some(Field::Null));
}

#[test]
fn a_batch_of_version_1_has_no_body_and_one_of_version_2_hashes_it() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, _) = Clock::manual(FEBRUARY);
    let store = AuditStore::open(dir.path(), Options::default(), clock).unwrap();
    append_call(&store, FEBRUARY);
    assert_eq!(store.append(row(FEBRUARY, "first")).wait(), Ok(()));
    store.close();
    let connection = Connection::open(february(dir.path())).unwrap();
    assert_eq!(schema_and_batches(&connection), (2, 2, 2));
    let body: Vec<u8> = connection.query_row("SELECT body FROM call", [], |row| row.get(0)).unwrap();
    assert_eq!((body[0], body.len()), (1, 33));
    drop(connection);
    assert_eq!(damage(dir.path(), &[]), []);
    let altered = copy_of(&dir);
    tamper(altered.path(), |connection| connection.execute("UPDATE call SET body = x'0300'", []));
    assert!(damage(altered.path(), &[])[0].what.contains("not those that were committed"));
    // The same rows in a batch of version 1: the chain of a program that knows no bodies.
    let forged = copy_of(&dir);
    tamper(forged.path(), |connection| connection.execute("UPDATE batch SET version = 1", []));
    let found = damage(forged.path(), &[]);
    assert!(found[0].what.contains("the version of its batch has no such column"), "{found:?}");
    let unknown = copy_of(&dir);
    tamper(unknown.path(), |connection| connection.execute("UPDATE batch SET version = 3", []));
    assert!(damage(unknown.path(), &[])[0].what.contains("are of version 3, and the segment is of 2"));
}

#[test]
fn where_cards_are_hashed_with_a_key_bodies_are_too() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, _) = Clock::manual(FEBRUARY);
    let options = Options { identifiers: Identifiers::Keyed, bodies: Bodies::Full, ..Options::default() };
    let store = AuditStore::open(dir.path(), options, clock).unwrap();
    append_call(&store, FEBRUARY);
    store.close();
    let connection = Connection::open(february(dir.path())).unwrap();
    let body: Vec<u8> = connection.query_row("SELECT body FROM call", [], |row| row.get(0)).unwrap();
    assert_eq!((body[0], body.len()), (2, 33));
    let shown: String = connection.query_row("SELECT body FROM carrier_call", [], |row| row.get(0)).unwrap();
    assert!(shown.starts_with("hmac-sha256:"), "{shown}");
}

fn append_call(store: &AuditStore, at: Time) {
    store.append_call(CallRow {
        at,
        transid: Some("1000012026022011593300000001".into()),
        previous: None,
        card: Card::parse(CardKind::Msisdn, "14765004176").ok(),
        account: "fleet-1".into(),
        operation: "userstatusrealsingle",
        code: Some("0".into()),
        fault: None,
        status: Some("00".into()),
        latency: Duration::from_millis(30),
        bytes: Some(2),
        body: store.body(b"{}"),
    });
}

/// The version of the schema, the lowest and the highest of the batches.
fn schema_and_batches(connection: &Connection) -> (i64, i64, i64) {
    let schema = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let range = "SELECT min(version), max(version) FROM batch";
    let (least, most) = connection.query_row(range, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    (schema, least, most)
}

fn copy_of(dir: &TempDir) -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    fs::copy(february(dir.path()), february(copied.path())).unwrap();
    copied
}
