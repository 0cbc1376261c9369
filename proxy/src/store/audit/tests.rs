//! The audit store as its callers see it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use cmiot_signer::{AppId, Card, CardKind};
use rusqlite::Connection;

use super::log::month::Month;
use super::*;
use crate::clock::Time;

/// 2026-01-15T12:00:00+08:00
pub(in super::super) const NOON: Time = Time::from_secs(1_768_449_600);

pub(in super::super) fn row(at: Time, transid: &str) -> LookupRow {
    LookupRow {
        at,
        client: Some(AppId::parse("GW0001").unwrap()),
        group: Some("fleet".into()),
        account: Some("fleet-1".into()),
        peer: "192.0.2.7".parse().unwrap(),
        operation: Some("userstatusrealsingle"),
        card: Some(Card::parse(CardKind::Msisdn, "14765004176").unwrap()),
        transid: Some(transid.into()),
        outcome: "hit",
        reason: None,
        code: "0".into(),
        carrier_code: Some("0".into()),
        status: Some("00".into()),
        age: Some(Duration::from_millis(27_250)),
        carrier_transid: Some("1000012026011511593300000001".into()),
        latency: Duration::from_micros(1_234),
        authenticated: true,
        action: false,
    }
}

pub(super) fn transids(dir: &Path, since: Time) -> Vec<String> {
    let mut found = Vec::new();
    AuditReader::new(dir)
        .authenticated_since(since, |past| {
            found.push(past.transid.to_owned());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    found
}

fn open(dir: &Path) -> (AuditStore, crate::clock::ManualClock) {
    let (clock, hand) = Clock::manual(NOON);
    (AuditStore::open(dir, Options::default(), clock).unwrap(), hand)
}

fn file(dir: &Path) -> std::path::PathBuf {
    Month::of(NOON).path(dir)
}

#[test]
fn an_action_is_begun_by_a_row_whose_number_is_known() {
    for identifiers in [Identifiers::Plain, Identifiers::Keyed] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { identifiers, ..Options::default() };
        let store = AuditStore::open(dir.path(), options, Clock::manual(NOON).0).unwrap();
        let client = AppId::parse("GW0001").unwrap();
        let card = Card::parse(CardKind::Msisdn, "14765004176").unwrap();
        let begun = |at, transid: &str| BegunRow {
            at,
            client,
            transid: transid.into(),
            operation: "smsstatusreset",
            card,
        };
        // Rows before and after, so that numbers are those of the rows and not of the batch.
        let around: Vec<_> = (0..3).map(|n| store.append(row(NOON, &format!("t{n}")))).collect();
        let early = store.append_begun(begun(NOON.minus(Duration::from_secs(9)), "early"));
        let late = store.append_begun(begun(NOON, "late"));
        let note = NoteRow { at: NOON, what: "unaccounted", detail: "client=GW0001 transid=no".into() };
        let note = store.append_note(note);
        assert!(around.into_iter().all(|appended| appended.wait() == Ok(())));
        let rows = [early, late, note].map(|noted| noted.wait().unwrap());

        let connection = Connection::open(file(dir.path())).unwrap();
        let text = |row: i64| -> String {
            connection.query_row("SELECT detail FROM note WHERE id = ?1", [row], |row| row.get(0)).unwrap()
        };
        let detail = text(rows[1]);
        let plain = "client=GW0001 transid=late operation=smsstatusreset msisdn=14765004176";
        assert_eq!(detail == plain, identifiers == Identifiers::Plain, "{detail}");
        assert_eq!(detail.contains("5004176"), identifiers == Identifiers::Plain, "{detail}");
        assert!(text(rows[0]).contains("transid=early") && text(rows[2]).contains("transid=no"));

        let mut found = Vec::new();
        AuditReader::new(dir.path())
            .begun_since(NOON, |past| found.push((past.row, past.client, past.transid.to_owned(), past.at)))
            .unwrap();
        assert_eq!(found, [(rows[1], client, "late".to_owned(), NOON)]);
        store.close();
        assert_eq!(store.append_begun(begun(NOON, "closed")).wait(), Err(AuditUnavailable::Closed));
    }
}

#[test]
fn an_acknowledged_row_is_in_the_file_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let appended: Vec<_> = (0..50).map(|n| store.append(row(NOON, &format!("t{n}")))).collect();
    assert!(appended.into_iter().all(|appended| appended.wait() == Ok(())));
    // What a kill leaves: the files as they are now, nothing closed.
    let left = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|extension| extension != "db-shm") {
            fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
        }
    }
    let (again, _) = open(left.path());
    assert_eq!(again.append(row(NOON, "after")).wait(), Ok(()));
    let mut expected: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    expected.push("after".into());
    expected.reverse();
    assert_eq!(transids(left.path(), NOON), expected);
}

#[test]
fn what_waits_at_the_close_is_committed_and_nothing_after() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let last = store.append(row(NOON, "last"));
    store.close();
    assert_eq!(last.wait(), Ok(()));
    assert_eq!(store.append(row(NOON, "late")).wait(), Err(AuditUnavailable::Closed));
    assert!(!dir.path().join("audit-2026-01.db-wal").exists(), "the last to close leaves no WAL");
    assert_eq!(transids(dir.path(), NOON), ["last"]);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, _hand) = Clock::manual(NOON);
    let store = AuditStore::open(dir.path(), Options { queue: 2, ..Options::default() }, clock).unwrap();
    // Another program holds the write lock, so that the writer waits.
    let other = Connection::open(file(dir.path())).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The writer takes two at most before it waits, two more find room.
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for n in 0..5 {
        let appended = store.append(row(NOON, &n.to_string()));
        match appended.0 {
            Progress::Refused(why) => {
                assert_eq!(why, AuditUnavailable::Full);
                refused += 1;
            }
            Progress::Waiting(_) => waiting.push(appended),
        }
    }
    assert!(refused >= 1);
    other.execute_batch("ROLLBACK").unwrap();
    let committed = waiting.into_iter().map(Appended::wait).filter(Result::is_ok).count();
    assert_eq!(committed + refused, 5);
    assert_eq!(transids(dir.path(), NOON).len(), committed);
}

#[test]
fn a_failed_batch_refuses_all_its_rows_and_the_writer_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, hand) = open(dir.path());
    assert_eq!(store.append(row(NOON, "before")).wait(), Ok(()));
    let other = Connection::open(file(dir.path())).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON record WHEN NEW.transid LIKE '%bad'
             BEGIN SELECT RAISE(ABORT, 'broken disk'); END",
        )
        .unwrap();
    // Both in one batch: the writer waits while they come.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = store.append(row(NOON, "bad"));
    let second = store.append(row(NOON, "also bad"));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!((first.wait(), second.wait()), (Err(AuditUnavailable::Failed), Err(AuditUnavailable::Failed)));
    assert!(!store.healthy());
    // Within the pause, a good row is refused too: nothing was tried.
    assert_eq!(store.append(row(NOON, "early")).wait(), Err(AuditUnavailable::Failed));
    hand.advance(Duration::from_secs(10));
    assert_eq!(store.append(row(NOON, "good")).wait(), Ok(()));
    assert!(store.healthy());
    assert_eq!(transids(dir.path(), NOON), ["good", "before"]);
}

#[test]
fn nothing_is_altered_or_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    assert_eq!(store.append(row(NOON, "t")).wait(), Ok(()));
    let other = Connection::open(file(dir.path())).unwrap();
    for (table, column) in [("record", "at"), ("batch", "horizon"), ("name", "text")] {
        let altered = other.execute(&format!("UPDATE {table} SET {column} = {column}"), []).unwrap_err();
        assert!(altered.to_string().contains("never altered"), "{altered}");
        let deleted = other.execute(&format!("DELETE FROM {table}"), []).unwrap_err();
        assert!(deleted.to_string().contains("never deleted"), "{deleted}");
    }
}

#[test]
fn the_stock_shell_reads_a_live_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let refused = LookupRow {
        client: None,
        group: None,
        account: None,
        peer: "2001:db8::7".parse().unwrap(),
        operation: None,
        card: None,
        transid: None,
        outcome: "refused",
        reason: Some("token"),
        code: "7".into(),
        carrier_code: None,
        status: None,
        age: None,
        carrier_transid: None,
        authenticated: false,
        ..row(Time::from_micros(NOON.as_micros() + 7_000), "")
    };
    assert_eq!(store.append(row(NOON, "GW00012026011512000000000001")).wait(), Ok(()));
    assert_eq!(store.append(refused).wait(), Ok(()));
    let shell = Command::new("sqlite3")
        .args(["-readonly", "-noheader", "-list"])
        .arg(file(dir.path()))
        .arg("SELECT * FROM lookup ORDER BY id")
        .output();
    let printed = match shell {
        Ok(shell) => {
            assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
            String::from_utf8(shell.stdout).unwrap()
        }
        // A machine without the shell still checks the view.
        Err(_) => printed(&Connection::open(file(dir.path())).unwrap()),
    };
    let expected = "\
1|2026-01-15T12:00:00.000+08:00|GW0001|fleet|fleet-1|192.0.2.7|userstatusrealsingle|msisdn|14765004176|\
GW00012026011512000000000001|hit||0|ok|0|00|normal|27.25|1000012026011511593300000001|1.234|1||
2|2026-01-15T12:00:00.007+08:00||||2001:db8::7|||||refused|token|7|credentials|||||| 1.234|0||
";
    assert_eq!(printed, expected.replace("| 1.234", "|1.234"));
}

fn printed(connection: &Connection) -> String {
    let mut statement = connection.prepare("SELECT * FROM lookup ORDER BY id").unwrap();
    let columns = statement.column_count();
    let lines = statement.query_map([], |row| {
        (0..columns)
            .map(|column| {
                Ok(match row.get::<_, rusqlite::types::Value>(column)? {
                    rusqlite::types::Value::Null => String::new(),
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Real(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    rusqlite::types::Value::Blob(_) => "blob".into(),
                })
            })
            .collect::<rusqlite::Result<Vec<_>>>()
    });
    lines.unwrap().map(|line| line.unwrap().join("|") + "\n").collect()
}

#[test]
fn a_row_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Process, queue: 2_000, ..Options::default() };
    let (clock, _hand) = Clock::manual(NOON);
    let store = AuditStore::open(dir.path(), options, clock).unwrap();
    let size = || fs::metadata(file(dir.path())).unwrap().len();
    store.close();
    let empty = size();
    let (clock, _hand) = Clock::manual(NOON);
    let store = AuditStore::open(dir.path(), options, clock).unwrap();
    let rows: Vec<_> =
        (0..2_000).map(|n| store.append(row(NOON, &format!("GW000120260115120000{n:08}")))).collect();
    assert!(rows.into_iter().all(|row| row.wait() == Ok(())));
    store.close();
    let each = (size() - empty) / 2_000;
    // The target is 250 with chain and indexes; a chain and a card index take some 60 of them.
    assert!(each < 190, "{each} bytes a row");
}

#[test]
fn below_the_reserve_nothing_is_written_and_both_policies_say_what_they_did() {
    for (on_failure, counted) in [(OnFailure::Refuse, (0, 1)), (OnFailure::Answer, (1, 0))] {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(NOON);
        let short = Options { min_free: u64::MAX, on_failure, ..Options::default() };
        let store = AuditStore::open(dir.path(), short, clock.clone()).unwrap();
        assert_eq!(store.append(row(NOON, "short")).wait(), Err(AuditUnavailable::Failed));
        assert_eq!((store.healthy(), store.missed()), (false, 1));
        store.close();
        assert_eq!(transids(dir.path(), NOON), Vec::<String>::new());

        // The same failure within one process.
        let options = Options { on_failure, ..Options::default() };
        let store = AuditStore::open(dir.path(), options, clock).unwrap();
        let other = Connection::open(file(dir.path())).unwrap();
        other
            .execute_batch(
                "CREATE TRIGGER broken BEFORE INSERT ON record BEGIN SELECT RAISE(ABORT, 'broken disk'); END",
            )
            .unwrap();
        assert_eq!(store.append(row(NOON, "lost")).wait(), Err(AuditUnavailable::Failed));
        other.execute_batch("DROP TRIGGER broken").unwrap();
        hand.advance(Duration::from_secs(10));
        assert_eq!(store.append(row(NOON, "after")).wait(), Ok(()));
        let gaps: Vec<(i64, i64, i64)> = other
            .prepare("SELECT id, answered, refused FROM gap")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(gaps, [(1, counted.0, counted.1)], "the first row written afterwards");
        assert_eq!(transids(dir.path(), NOON), ["after"]);
    }
}

#[test]
fn a_group_may_read_the_segments_and_a_sealed_one_is_read_only() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir().unwrap();
    let group = fs::metadata(dir.path()).unwrap().gid();
    let (clock, hand) = Clock::manual(NOON);
    let options = Options { group: Some(group), ..Options::default() };
    let store = AuditStore::open(dir.path(), options, clock.clone()).unwrap();
    assert_eq!(store.append(row(NOON, "t")).wait(), Ok(()));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for name in ["audit-2026-01.db", "audit-2026-01.db-wal", "audit-2026-01.db-shm"] {
        assert_eq!(mode(&dir.path().join(name)), 0o640, "{name}");
    }
    let february = NOON.plus(Duration::from_secs(30 * 86_400));
    hand.set(february);
    assert_eq!(store.append(row(february, "u")).wait(), Ok(()));
    store.close();
    AuditStore::open(dir.path(), options, clock).unwrap().close();
    assert_eq!(mode(&file(dir.path())), 0o440);
    let sealed = Connection::open(file(dir.path())).unwrap();
    let journal: String = sealed.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(journal, "delete");
}
