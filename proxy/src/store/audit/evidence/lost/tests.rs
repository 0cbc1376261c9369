//! Starts after something went missing, and what ends the alarm.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::alarms::Condition;
use crate::clock::Clock;
use crate::store::audit::log::month::Month;
use crate::store::audit::tests::{NOON, row};
use crate::store::audit::{AuditStore, Options};

const HOUR: Duration = Duration::from_secs(3_600);

/// A start at an hour: what it says is lost, and whether the alarm says so too. Rows are appended, then it stops.
fn start(dir: &Path, hour: u32, transids: &[&str]) -> Option<OpenLoss> {
    let now = NOON.plus(HOUR * hour);
    let store = AuditStore::open(dir, Options::default(), Clock::manual(now).0).unwrap();
    let lost = store.lost();
    assert_eq!(store.alarms().holds(Condition::RowsLost), lost.is_some());
    for transid in transids {
        assert_eq!(store.append(row(now, transid)).wait(), Ok(()));
    }
    store.close();
    lost
}

fn through(hour: u32) -> Option<OpenLoss> {
    Some(OpenLoss { through: NOON.plus(HOUR * hour) })
}

fn segment(dir: &Path) -> PathBuf {
    Month::of(NOON).path(dir)
}

/// The notes of the chain about losses.
fn noted(dir: &Path) -> Vec<(String, String)> {
    month::list(dir).unwrap().iter().rev().flat_map(|month| read_notes(&month.path(dir)).unwrap()).collect()
}

#[test]
fn a_start_notices_what_is_missing_once_and_the_acknowledgement_ends_it() {
    type Damaging = fn(&Path, &Path);
    let damages: [(&str, Damaging); 4] = [
        ("emptied", |file, _| fs::write(file, "").unwrap()),
        ("gone", |file, _| fs::remove_file(file).unwrap()),
        ("rolled back", |file, earlier| assert!(fs::copy(earlier, file).is_ok())),
        ("another's", |file, _| {
            let other = tempfile::tempdir().unwrap();
            start(other.path(), 1, &["x", "y", "z"]);
            fs::copy(segment(other.path()), file).unwrap();
        }),
    ];
    for (how, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let earlier = dir.path().join("earlier");
        assert_eq!(start(dir.path(), 0, &["a"]), None);
        fs::copy(segment(dir.path()), &earlier).unwrap();
        assert_eq!(start(dir.path(), 1, &["b", "c"]), None, "nothing is missing");
        damage(&segment(dir.path()), &earlier);
        assert_eq!(start(dir.path(), 2, &[]), through(1), "{how}");
        let first = if how == "rolled back" { 2 } else { 1 };
        let detail = format!("2026-01 rows {first}-3 through 2026-01-15T13:00:00.000+08:00");
        assert_eq!(noted(dir.path()), [(LOST.to_owned(), detail.clone())], "{how}");
        // It stays so over restarts, and is noted once.
        assert_eq!(start(dir.path(), 3, &["d"]), through(1), "{how}");
        assert_eq!(noted(dir.path()).len(), 1);
        // Acknowledged while nothing runs.
        assert_eq!(acknowledge(dir.path(), "by=test", NOON.plus(HOUR * 4)).unwrap().len(), 1);
        assert_eq!(start(dir.path(), 5, &["e"]), None, "{how}");
        assert_eq!(start(dir.path(), 6, &[]), None, "{how}");
        assert_eq!(noted(dir.path())[1], (ACKNOWLEDGED.to_owned(), format!("by=test {detail}")), "{how}");
        // Until rows are missing again.
        fs::write(segment(dir.path()), "").unwrap();
        assert_eq!(start(dir.path(), 7, &[]), through(6), "{how}");
    }
}

#[test]
fn an_acknowledgement_reaches_a_running_writer_and_ends_only_what_was_lost_before() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path(), 0, &["a"]);
    fs::remove_file(segment(dir.path())).unwrap();
    let (clock, hand) = Clock::manual(NOON.plus(HOUR));
    let store = AuditStore::open(dir.path(), Options::default(), clock).unwrap();
    assert_eq!(store.lost(), through(0));
    acknowledge(dir.path(), "by=test", NOON.plus(HOUR)).unwrap();
    // The writer checks every second of its clock; it needs some real time per step, or the clock runs for months.
    while store.lost().is_some() {
        hand.advance(Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!store.alarms().holds(Condition::RowsLost));
    store.close();
    // One that waits since before the next loss does not end that.
    acknowledge(dir.path(), "by=test", NOON.plus(HOUR * 9)).unwrap();
    fs::remove_file(segment(dir.path())).unwrap();
    assert_eq!(start(dir.path(), 2, &[]), start(dir.path(), 3, &[]));
    assert!(start(dir.path(), 4, &[]).is_some());
    let kinds: Vec<String> = noted(dir.path()).into_iter().map(|(what, _)| what).collect();
    assert_eq!(kinds, [ACKNOWLEDGED, LOST]);
}

#[test]
fn a_loss_is_noticed_by_a_later_month_too_and_its_note_is_read_there() {
    let dir = tempfile::tempdir().unwrap();
    let days = |days: u32| NOON.plus(HOUR * 24 * days);
    let open = |now| AuditStore::open(dir.path(), Options::default(), Clock::manual(now).0).unwrap();
    for now in [days(0), days(30)] {
        let store = open(now);
        assert_eq!(store.append(row(now, "t")).wait(), Ok(()));
        store.close();
    }
    fs::remove_file(Month::of(days(30)).path(dir.path())).unwrap();
    let lost = Some(OpenLoss { through: days(30) });
    let store = open(days(60));
    assert_eq!(store.lost(), lost);
    store.close();
    let words = noted(dir.path());
    assert_eq!(words[0].1, "2026-02 rows 2-2 through 2026-02-14T12:00:00.000+08:00");
    // A month later: the note is in a segment that has ended.
    let store = open(days(90));
    assert_eq!(store.lost(), lost);
    store.close();
    acknowledge(dir.path(), "by=test", days(91)).unwrap();
    let store = open(days(120));
    assert_eq!(store.lost(), None);
    store.close();
}

#[test]
fn anchors_that_are_gone_are_noticed_once_and_the_acknowledgement_ends_it() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 3] = [
        ("emptied", |log| fs::write(log, "").unwrap()),
        ("gone", |log| fs::remove_file(log).unwrap()),
        ("overwritten", |log| fs::write(log, "x\n".repeat(40_000)).unwrap()),
    ];
    for (how, harm) in harms {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(anchor::LOG);
        let open = |hour: u32| {
            let store =
                AuditStore::open(dir.path(), Options::default(), Clock::manual(NOON.plus(HOUR * hour)).0);
            let store = store.unwrap();
            let alarms = store.alarms().list();
            store.close();
            alarms
        };
        // Without rows there is nothing that an anchor would prove.
        assert_eq!(open(0), []);
        harm(&log);
        assert_eq!(open(0), [], "{how}");
        assert_eq!(start(dir.path(), 0, &["a", "b"]), None);
        harm(&log);
        for hour in [1, 2] {
            let alarms = open(hour);
            assert!(alarms[0].text.english.contains("anchors.log has no anchor"), "{how}: {alarms:?}");
            assert!(alarms[0].text.english.contains("rows up to 2,"), "{how}: {alarms:?}");
        }
        assert_eq!(noted(dir.path()).len(), 1, "{how}");
        let acknowledged = acknowledge(dir.path(), "by=test", NOON.plus(HOUR * 3)).unwrap();
        assert!(acknowledged[0].starts_with("anchors.log has no anchor"), "{acknowledged:?}");
        for _ in 0..2 {
            assert_eq!(open(4), [], "{how}");
        }
        let kinds: Vec<String> = noted(dir.path()).into_iter().map(|(what, _)| what).collect();
        assert_eq!(kinds, [ANCHORS_LOST, ACKNOWLEDGED], "{how}");
    }
}

#[test]
fn the_text_of_a_note_is_read_as_it_is_written() {
    let loss = Loss {
        month: Month::parse("2026-11").unwrap(),
        first: 4,
        last: 20,
        through: Time::from_micros(1_768_449_600_123_000),
    };
    assert_eq!(Loss::parse(&loss.to_string()), Some(loss.clone()));
    for text in
        ["", "2026-11", "2026-13 rows 4-20 through 2026-01-15T12:00:00+08:00", "2026-11 rows 4 through x"]
    {
        assert_eq!(Loss::parse(text), None, "{text}");
    }
    let anchor = |last, at: i64| Anchor {
        at,
        time: String::new(),
        segment: "2026-11".into(),
        last,
        head: String::new(),
        signature: String::new(),
    };
    let at = loss.through.as_micros();
    assert!(anchor(4, at).is_covered_by(&loss) && anchor(20, at - 1).is_covered_by(&loss));
    assert!(
        anchor(3, at).is_covered_by(&loss)
            && !anchor(2, at).is_covered_by(&loss)
            && !anchor(21, at).is_covered_by(&loss)
            && !anchor(4, at + 1).is_covered_by(&loss)
    );
}
