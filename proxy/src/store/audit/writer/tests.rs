//! The writer without its thread: months, failures, recovery.

use std::fs;

use rusqlite::Connection;

use super::*;
use crate::clock::ManualClock;
use crate::store::audit::tests::{NOON, row, transids};
use crate::store::audit::{Appended, AuditReader, AuditStore, LookupRow, OnFailure, Progress, RefusedRow};
use crate::store::{Failure, Fault};

mod disk;
mod ended;
mod lost;

/// A writer without its thread.
fn writer(dir: &Path, now: Time) -> (Writer, ManualClock) {
    writer_with(dir, now, Options::default())
}

fn writer_with(dir: &Path, now: Time, options: Options) -> (Writer, ManualClock) {
    let (clock, hand) = Clock::manual(now);
    let shared = Arc::new(Shared::new(&options, Failure::default(), &clock));
    (Writer::open(dir, options, shared, clock).unwrap(), hand)
}

/// Commits one batch; the result of each of its rows.
fn settle(writer: &mut Writer, rows: Vec<LookupRow>) -> Vec<Result<(), AuditUnavailable>> {
    let (mut batch, waiting): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .map(|row| {
            let result = writer.shared.waiters.join(|| Ok::<_, ()>(())).unwrap();
            (Entry { row: Row::Lookup(row), awaited: Awaited::Queued }, result)
        })
        .unzip();
    writer.commit_batch(&mut batch);
    assert!(batch.is_empty());
    waiting.into_iter().map(|mut result| result.try_recv().unwrap()).collect()
}

fn records(dir: &Path, month: &str) -> Vec<(i64, String)> {
    let connection = Connection::open(dir.join(format!("audit-{month}.db"))).unwrap();
    let mut all = connection.prepare("SELECT id, transid FROM record ORDER BY id").unwrap();
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// Number, answered, refused.
fn gaps(dir: &Path, month: &str) -> Vec<(i64, i64, i64)> {
    let connection = Connection::open(dir.join(format!("audit-{month}.db"))).unwrap();
    let mut all = connection.prepare("SELECT id, answered, refused FROM gap ORDER BY id").unwrap();
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn numbered<const N: usize>(records: [(i64, &str); N]) -> Vec<(i64, String)> {
    records.map(|(id, transid)| (id, transid.to_owned())).into()
}

#[test]
fn a_writer_that_hangs_is_seen_while_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _) = writer(dir.path(), NOON);
    let store = AuditStore { shared: Arc::clone(&writer.shared), writer: std::sync::Mutex::default() };
    // A count of refusals is being written, and the disk does not answer.
    store.append_refused(RefusedRow { peer: None, reason: "token", count: 1, first: NOON, last: NOON });
    writer.shared.busy.toggle();
    store.expire(2);
    store.expire(2);
    assert!(store.can_record());
    store.expire(2);
    assert!(!store.can_record(), "it has taken as long as half of what a request would wait");
    writer.shared.busy.toggle();
    store.expire(2);
    assert!(store.can_record());
}

#[test]
fn the_row_of_a_call_outlives_a_disk_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) =
        writer_with(dir.path(), NOON, Options { min_free: u64::MAX, ..Options::default() });
    let refused = |reason| RefusedRow { peer: None, reason, count: 1, first: NOON, last: NOON };
    let entry = |reason| Entry { row: Row::Refused(refused(reason)), awaited: Awaited::Not };
    for reason in ["one", "two"] {
        let mut batch = vec![entry(reason)];
        writer.commit_batch(&mut batch);
    }
    assert_eq!(settle(&mut writer, vec![row(NOON, "lost")]), [Err(AuditUnavailable::Failed)]);
    writer.options.min_free = 0;
    hand.advance(LONGEST_PAUSE);
    // No request arrives meanwhile.
    writer.recover();
    let store = AuditStore { shared: Arc::clone(&writer.shared), writer: std::sync::Mutex::default() };
    assert!(store.is_complete());
    assert_eq!(gaps(dir.path(), "2026-01"), [(1, 0, 1)]);
    let reasons = || {
        let connection = Connection::open(dir.path().join("audit-2026-01.db")).unwrap();
        let mut all = connection
            .prepare("SELECT text FROM refused JOIN name ON name.id = reason ORDER BY refused.id")
            .unwrap();
        let rows = all.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(reasons(), ["one", "two"]);

    // There is a bound to them.
    writer.options.min_free = u64::MAX;
    let mut batch: Vec<_> = (0..=KEPT).map(|_| entry("many")).collect();
    writer.disk_check_at = Duration::ZERO;
    writer.commit_batch(&mut batch);
    assert!(!store.is_complete());
    writer.options.min_free = 0;
    hand.advance(LONGEST_PAUSE);
    assert_eq!(settle(&mut writer, vec![row(NOON, "after")]), [Ok(())]);
    assert_eq!(reasons().len(), 2 + KEPT);
}

/// A waiter that waits too long for a commit gets an error while its row is queued, and the row says the same; while
/// the row is being committed, the waiter gets the result of that commit.
#[test]
fn what_a_client_is_told_is_what_its_record_says() {
    for on_failure in [OnFailure::Refuse, OnFailure::Answer] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = writer_with(dir.path(), NOON, Options { on_failure, ..Options::default() });
        let store = AuditStore { shared: Arc::clone(&writer.shared), writer: std::sync::Mutex::default() };
        let action = LookupRow { action: true, ..row(NOON, "action") };
        let mut committing = store.append(row(NOON, "committing"));
        let mut batch = Vec::new();
        let shared = Arc::clone(&writer.shared);
        let consumer = shared.queue.consumer();
        assert_eq!(consumer.take(&mut batch, None), Received::Items);
        store.append_refused(RefusedRow { peer: None, reason: "token", count: 1, first: NOON, last: NOON });
        let (mut late, mut acted) = (store.append(row(NOON, "late")), store.append(action));
        let gone = store.append(row(NOON, "gone"));
        drop(gone);
        assert!(store.can_record());
        store.expire(1);
        assert!(!store.can_record(), "a row has waited for half as long as anybody waits");
        let mut fresh = store.append(row(NOON, "fresh"));
        store.expire(1);

        let refuses = on_failure == OnFailure::Refuse;
        let full = Some(Err(AuditUnavailable::Full));
        let result = |appended: &mut Appended| match &mut appended.0 {
            Progress::Refused(why) => Some(Err(*why)),
            Progress::Waiting(waiting) => waiting.try_recv().ok(),
        };
        assert_eq!(result(&mut committing), if refuses { None } else { full }, "{on_failure:?}");
        assert_eq!([result(&mut late), result(&mut acted)], [full; 2]);
        assert_eq!(result(&mut fresh), None);
        writer.commit_batch(&mut batch);
        assert_eq!(result(&mut committing), refuses.then_some(Ok(())));
        assert_eq!(consumer.take(&mut batch, None), Received::Items);
        writer.commit_batch(&mut batch);
        assert_eq!(result(&mut fresh), Some(Ok(())));
        store.expire(1);
        assert!(store.can_record());

        let connection = Connection::open(dir.path().join("audit-2026-01.db")).unwrap();
        let mut all = connection
            .prepare("SELECT transid, outcome, coalesce(reason, ''), code, coalesce(status, '') FROM lookup")
            .unwrap();
        let rows = all.query_map([], |row| {
            Ok((0..5).map(|n| row.get::<_, String>(n).unwrap()).collect::<Vec<_>>().join(" "))
        });
        let rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
        let late = if refuses { ["failed audit 73 ", "failed action-begun 99 "] } else { ["hit  0 00"; 2] };
        assert_eq!(
            rows,
            [
                "committing hit  0 00".to_owned(),
                format!("late {}", late[0]),
                format!("action {}", late[1]),
                "gone hit  0 00".to_owned(),
                "fresh hit  0 00".to_owned(),
            ]
        );
        assert_eq!(gaps(dir.path(), "2026-01"), [], "each of them has its record");
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_later_month_begins_a_segment_and_an_earlier_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) = writer(dir.path(), NOON);
    let (february, april) = (NOON.plus(30 * DAY), NOON.plus(90 * DAY));
    hand.advance(90 * DAY);
    let rows = vec![
        row(NOON, "a"),
        row(february, "b"),
        row(NOON, "c"), // The clock was stepped back.
        row(april, "d"),
        row(february, "e"),
    ];
    assert_eq!(settle(&mut writer, rows), [Ok(()); 5]);
    drop(writer);
    assert_eq!(records(dir.path(), "2026-01"), numbered([(1, "a")]));
    assert_eq!(records(dir.path(), "2026-02"), numbered([(2, "b"), (3, "c")]));
    assert_eq!(records(dir.path(), "2026-04"), numbered([(4, "d"), (5, "e")]));

    // A start with the clock behind goes on in the newest; numbers and horizons go on too.
    let (mut writer, _) = self::writer(dir.path(), NOON);
    assert_eq!(settle(&mut writer, vec![row(NOON, "f")]), [Ok(())]);
    assert_eq!(records(dir.path(), "2026-04"), numbered([(4, "d"), (5, "e"), (6, "f")]));
    // A start in a later month begins it, after whichever segment has the last record.
    let (mut writer, _) = self::writer(dir.path(), NOON.plus(130 * DAY));
    drop(self::writer(dir.path(), NOON.plus(160 * DAY)));
    assert_eq!(settle(&mut writer, vec![row(NOON, "g")]), [Ok(())]);
    assert_eq!(records(dir.path(), "2026-05"), numbered([(7, "g")]));
    assert_eq!(records(dir.path(), "2026-06"), numbered([]));
}

#[test]
fn a_clock_set_forwards_begins_no_month_before_it_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) = writer(dir.path(), NOON);
    let clock = writer.clock.clone();
    // 2026-03 by the wall clock.
    hand.set(NOON.plus(50 * DAY));
    assert_eq!(settle(&mut writer, vec![row(clock.now(), "a"), row(NOON, "b")]), [Ok(()); 2]);
    // Set right again: nothing was rolled. The time that is believed does go on, into February.
    hand.set(NOON);
    assert_eq!(settle(&mut writer, vec![row(clock.now(), "c")]), [Ok(())]);
    hand.advance(30 * DAY);
    hand.step(30 * 86_400);
    assert_eq!(settle(&mut writer, vec![row(clock.now(), "d")]), [Ok(())]);
    // Confirmed by the carrier, the wall clock counts.
    clock.compare(clock.moment(), clock.now());
    assert_eq!(settle(&mut writer, vec![row(clock.now(), "e")]), [Ok(())]);
    drop(writer);
    assert_eq!(records(dir.path(), "2026-01"), numbered([(1, "a"), (2, "b"), (3, "c")]));
    assert_eq!(records(dir.path(), "2026-02"), numbered([(4, "d")]));
    assert_eq!(records(dir.path(), "2026-03"), numbered([(5, "e")]));
}

#[test]
fn a_full_disk_refuses_the_batch_and_leaves_the_file_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) = writer(dir.path(), NOON);
    assert_eq!(settle(&mut writer, vec![row(NOON, "before")]), [Ok(())]);
    let connection = &writer.segment.as_ref().unwrap().connection;
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    connection.pragma_update(None, "max_page_count", pages).unwrap();
    let many: Vec<_> = (0..200).map(|n| row(NOON, &format!("lost {n}"))).collect();
    assert_eq!(settle(&mut writer, many), [Err(AuditUnavailable::Failed); 200]);
    assert!(!writer.shared.healthy.load(Ordering::Acquire));
    // Opened again after the pause, without the limit.
    hand.advance(FIRST_PAUSE);
    assert_eq!(settle(&mut writer, vec![row(NOON, "after")]), [Ok(())]);
    assert!(writer.shared.healthy.load(Ordering::Acquire));
    drop(writer);
    assert_eq!(gaps(dir.path(), "2026-01"), [(2, 0, 200)]);
    assert_eq!(records(dir.path(), "2026-01"), numbered([(1, "before"), (3, "after")]));
}

#[test]
fn pauses_double_and_a_probe_ends_the_trouble_without_traffic() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) = writer(dir.path(), NOON);
    // A folder where the next month's file should be.
    let february = NOON.plus(30 * DAY);
    hand.advance(30 * DAY);
    let path = dir.path().join("audit-2026-02.db");
    fs::create_dir(&path).unwrap();
    assert_eq!(
        settle(&mut writer, vec![row(NOON, "a"), row(february, "b")]),
        [Ok(()), Err(AuditUnavailable::Failed)]
    );
    let pause = |writer: &Writer| writer.backoff.as_ref().map(|backoff| backoff.pause);
    let mut expected = FIRST_PAUSE;
    for _ in 0..8 {
        assert_eq!(pause(&writer), Some(expected));
        hand.advance(expected - Duration::from_micros(1));
        writer.recover();
        assert_eq!(pause(&writer), Some(expected), "too early: not tried");
        hand.advance(Duration::from_micros(1));
        writer.recover();
        expected = (expected * 2).min(LONGEST_PAUSE);
    }
    assert_eq!(expected, LONGEST_PAUSE);
    fs::remove_dir(&path).unwrap();
    hand.advance(LONGEST_PAUSE);
    writer.recover();
    assert_eq!(pause(&writer), None);
    assert!(writer.shared.healthy.load(Ordering::Acquire));
    assert_eq!(settle(&mut writer, vec![row(february, "c")]), [Ok(())]);
    // The recovery wrote what was missed.
    assert_eq!(gaps(dir.path(), "2026-02"), [(2, 0, 1)]);
    assert_eq!(records(dir.path(), "2026-02"), numbered([(3, "c")]));
}

#[test]
fn names_of_a_failed_batch_are_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) = writer(dir.path(), NOON);
    let other = Connection::open(dir.path().join("audit-2026-01.db")).unwrap();
    other
        .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON batch BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    let named = |name: &str| LookupRow { group: Some(name.into()), ..row(NOON, name) };
    assert_eq!(settle(&mut writer, vec![named("first")]), [Err(AuditUnavailable::Failed)]);
    other.execute_batch("DROP TRIGGER broken").unwrap();
    hand.advance(FIRST_PAUSE);
    assert_eq!(settle(&mut writer, vec![named("second"), named("first"), named("second")]), [Ok(()); 3]);
    let groups: Vec<String> = other
        .prepare(r#"SELECT "group" FROM lookup ORDER BY id"#)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(groups, ["second", "first", "second"]);
}

#[test]
fn everything_since_a_moment_is_found_whatever_the_clock_did() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = writer(dir.path(), NOON);
    let at = |seconds: u64| NOON.plus(Duration::from_secs(seconds));
    // Stepped back by 1,000 s for a while, then set right.
    for (seconds, transid) in [(0, "a"), (1_100, "b"), (100, "c"), (110, "d"), (1_120, "e"), (1_110, "f")] {
        assert_eq!(settle(&mut writer, vec![row(at(seconds), transid)]), [Ok(())]);
    }
    for (since, found) in [
        (0, vec!["f", "e", "d", "c", "b", "a"]),
        (1, vec!["f", "e", "d", "c", "b"]),
        (1_100, vec!["f", "e", "b"]),
        (1_101, vec!["f", "e"]),
        (1_120, vec!["e"]),
        (1_121, vec![]),
    ] {
        assert_eq!(transids(dir.path(), at(since)), found, "since {since}");
    }
    // The month before is read too, and what was not authenticated is not.
    let february = NOON.plus(30 * DAY);
    let bad = LookupRow { authenticated: false, ..row(february, "bad") };
    assert_eq!(settle(&mut writer, vec![row(february, "g"), bad]), [Ok(()); 2]);
    assert_eq!(transids(dir.path(), at(1_120)), ["g", "e"]);
    let mut first = Vec::new();
    AuditReader::new(dir.path())
        .authenticated_since(NOON, |past| {
            let card = row(NOON, "").card.unwrap();
            let is_it = past.card.is_some_and(|past| past.is(&card));
            first.push((past.client.as_str().to_owned(), past.at, past.outcome.to_owned(), is_it));
            std::ops::ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(first, [("GW0001".to_owned(), february, "hit".to_owned(), true)]);
}

#[test]
fn the_highest_stamp_sent_to_the_carrier_is_found_in_any_segment() {
    let dir = tempfile::tempdir().unwrap();
    let reader = AuditReader::new(dir.path());
    let highest = || reader.highest_carrier_stamp().unwrap().map(cmiot_signer::Stamp::to_unix);
    assert_eq!(highest(), None);
    let (mut writer, _) = writer(dir.path(), NOON);
    let carrier = |transid: &str| LookupRow { carrier_transid: Some(transid.into()), ..row(NOON, "t") };
    let none = LookupRow { carrier_transid: None, ..row(NOON, "t") };
    assert_eq!(settle(&mut writer, vec![none]), [Ok(())]);
    assert_eq!(highest(), None);
    let rows = vec![carrier("Z2026011511000000000009"), carrier("0NZ2026011512000000000001")];
    assert_eq!(settle(&mut writer, rows), [Ok(()); 2]);
    let later = LookupRow { at: NOON.plus(30 * DAY), ..carrier("1000012026011511593300000001") };
    assert_eq!(settle(&mut writer, vec![later]), [Ok(())]);
    assert_eq!(highest(), Some(NOON.as_secs()));
}

#[test]
fn a_newer_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(writer(dir.path(), NOON));
    Connection::open(dir.path().join("audit-2026-01.db"))
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let (clock, _hand) = Clock::manual(NOON);
    let shared = Arc::new(Shared::new(&Options::default(), Failure::default(), &clock));
    let error = Writer::open(dir.path(), Options::default(), shared, clock).err().unwrap();
    assert!(matches!(error.fault(), Fault::Newer { found: 99, .. }), "{error}");
}
