//! A disk without room or that fails: without traffic, at a start and at a stop.

use super::*;

/// The rows of table `refused`.
fn refusals(dir: &Path) -> i64 {
    let connection = Connection::open(dir.join("audit-2026-01.db")).unwrap();
    connection.query_row("SELECT count(*) FROM refused", [], |row| row.get(0)).unwrap()
}

fn count_of_refusals() -> Entry {
    let row = RefusedRow { peer: None, reason: "token", count: 1, first: NOON, last: NOON };
    Entry { row: Row::Refused(row), awaited: Awaited::Not }
}

#[test]
fn a_start_without_room_on_the_disk_says_so_before_the_first_request() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _) = writer_with(dir.path(), NOON, Options { min_free: u64::MAX, ..Options::default() });
    let store = AuditStore { shared: Arc::clone(&writer.shared), writer: std::sync::Mutex::default() };
    assert!(!store.healthy() && !store.can_record());
}

#[test]
fn a_disk_that_fills_while_no_request_arrives_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) = writer(dir.path(), NOON);
    let shared = Arc::clone(&writer.shared);
    let consumer = shared.queue.consumer();
    assert!(shared.healthy.load(Ordering::Acquire));
    writer.options.min_free = u64::MAX;
    writer.check_disk_when_idle(&consumer);
    assert!(shared.healthy.load(Ordering::Acquire), "checked less than a second ago");
    hand.advance(CHECK_EVERY);
    writer.check_disk_when_idle(&consumer);
    assert!(!shared.healthy.load(Ordering::Acquire));
    writer.options.min_free = 0;
    hand.advance(FIRST_PAUSE);
    writer.recover();
    assert!(shared.healthy.load(Ordering::Acquire));
}

#[test]
fn a_stop_during_the_backoff_writes_what_is_kept_if_the_disk_works_again() {
    for (min_free, rows, counts) in [(0, 1, vec![(1, 0, 1)]), (u64::MAX, 0, vec![])] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _hand) = writer(dir.path(), NOON);
        writer.options.min_free = u64::MAX;
        writer.disk_check_at = Duration::ZERO;
        writer.commit_batch(&mut vec![count_of_refusals()]);
        assert_eq!(settle(&mut writer, vec![row(NOON, "a")]), [Err(AuditUnavailable::Failed)]);
        // The clock stands: the next attempt is not due.
        writer.options.min_free = min_free;
        writer.finish();
        assert_eq!(refusals(dir.path()), rows);
        assert_eq!(gaps(dir.path(), "2026-01"), counts);
    }
}

#[test]
fn a_refusal_without_a_record_is_counted_as_refused_under_either_policy() {
    for (on_failure, counts) in [(OnFailure::Answer, (1, 1, 2)), (OnFailure::Refuse, (1, 0, 3))] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { on_failure, min_free: u64::MAX, ..Options::default() };
        let (mut writer, hand) = writer_with(dir.path(), NOON, options);
        let refused = LookupRow { outcome: "refused", ..row(NOON, "refused") };
        let failed = LookupRow { outcome: "failed", ..row(NOON, "failed") };
        let failures = [Err(AuditUnavailable::Failed); 3];
        assert_eq!(settle(&mut writer, vec![row(NOON, "answered"), refused, failed]), failures);
        writer.options.min_free = 0;
        hand.advance(LONGEST_PAUSE);
        writer.recover();
        assert_eq!(gaps(dir.path(), "2026-01"), [counts]);
    }
}
