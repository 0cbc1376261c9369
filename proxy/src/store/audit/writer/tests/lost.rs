//! A segment that is gone while it is written: what its note says, what ends it, and what `verify` says of it.

use super::*;
use crate::store::audit::evidence::anchor::{self, LOG};
use crate::store::audit::evidence::lost::acknowledge;
use crate::store::audit::evidence::verify::{Report, Scope, verify};

const MONTH: Duration = Duration::from_secs(30 * 86_400);
const SECOND: Duration = Duration::from_secs(1);

/// One batch of each of these.
fn write(writer: &mut Writer, names: &[&str]) {
    for name in names {
        let at = writer.clock.now();
        assert_eq!(settle(writer, vec![row(at, name)]), [Ok(())]);
    }
    writer.run_maintenance();
}

/// Removes the segment that is written, and lets the writer notice.
fn lose(writer: &mut Writer, hand: &ManualClock) {
    fs::remove_file(writer.month.path(&writer.dir)).unwrap();
    hand.advance(SECOND);
    writer.check_path();
    assert!(writer.backoff.is_none());
}

fn verified(dir: &Path, anchors: &[anchor::Anchor], own_anchors: bool) -> Report {
    verify(dir, &Scope { anchors, own_anchors, ..Scope::default() }, |_, _| {}).unwrap()
}

fn anchors(dir: &Path) -> Vec<anchor::Anchor> {
    anchor::tail(&dir.join(LOG))
}

fn notes(dir: &Path, month: Month) -> Vec<(String, String)> {
    let connection = Connection::open(month.path(dir)).unwrap();
    let mut all = connection
        .prepare("SELECT text, detail FROM note JOIN name ON name.id = what ORDER BY note.id")
        .unwrap();
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn verify_names_the_lost_rows_of_a_month_after_others_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) = writer(dir.path(), NOON);
    write(&mut writer, &["a", "b"]);
    hand.advance(MONTH);
    write(&mut writer, &["c"]);
    hand.advance(Duration::from_secs(600));
    write(&mut writer, &["d"]);
    let kept = anchors(dir.path());
    lose(&mut writer, &hand);
    write(&mut writer, &["e", "f"]);
    let words = "as lost: 2026-02 rows 3-4 through ";
    let own = anchors(dir.path());
    for anchors in [&[][..], &own, &kept] {
        let report = verified(dir.path(), anchors, true);
        assert!(!report.damage.is_empty() && report.losses.is_empty(), "{report:?}");
        let noted = |what: &str| what.contains(words) && what.contains("not acknowledged");
        assert!(report.damage.iter().all(|damage| noted(&damage.what)), "{report:?}");
    }
    acknowledge(dir.path(), "by=test", writer.clock.now()).unwrap();
    hand.advance(SECOND);
    writer.run_maintenance();
    for anchors in [&[][..], &own, &kept] {
        let report = verified(dir.path(), anchors, true);
        assert_eq!(report.damage, []);
        assert!(report.losses.len() == 1 && report.losses[0].contains(words), "{report:?}");
    }
    let report = verified(dir.path(), &kept, false);
    assert!(!report.damage.is_empty(), "kept elsewhere");
    assert!(report.damage.iter().all(|damage| damage.what.contains(", acknowledged at ")), "{report:?}");
}

#[test]
fn a_segment_without_rows_that_is_lost_is_no_damage() {
    for months in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        if months > 0 {
            write(&mut writer(dir.path(), NOON).0, &["a", "b"]);
        }
        let (mut writer, hand) = writer(dir.path(), NOON.plus(MONTH));
        lose(&mut writer, &hand);
        assert_eq!(notes(dir.path(), writer.month).len(), 1);
        assert!(!writer.shared.alarms.holds(Condition::RowsLost));
        write(&mut writer, &["c"]);
        for anchors in [&[][..], &anchors(dir.path())] {
            assert_eq!(verified(dir.path(), anchors, true).damage, []);
        }
    }
}

#[test]
fn what_is_lost_while_it_is_written_is_refused_after_the_next_start_and_until_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, hand) = writer(dir.path(), NOON);
    // By a clock that was an hour ahead.
    hand.advance(Duration::from_secs(3_600));
    let ahead = first.clock.now();
    write(&mut first, &["a", "b"]);
    hand.set(NOON);
    lose(&mut first, &hand);
    let shared = Arc::clone(&first.shared);
    let says = |shared: &Shared| {
        let flag = shared.lost_while_running.load(Ordering::Relaxed);
        (shared.lost().map(|lost| lost.through), flag, shared.alarms.holds(Condition::RowsLost))
    };
    assert_eq!(says(&shared), (None, true, true), "this process knows what was used");
    write(&mut first, &["c"]);
    drop(first);
    for restart in 0..2 {
        let (mut later, hand) = writer(dir.path(), NOON.plus(SECOND * 10));
        assert_eq!(says(&later.shared), (Some(ahead), false, true));
        if restart == 1 {
            acknowledge(dir.path(), "by=test", later.clock.now()).unwrap();
            hand.advance(SECOND);
            later.run_maintenance();
            assert_eq!(says(&later.shared), (None, false, false));
            assert_eq!(later.shared.acknowledgements.load(Ordering::Relaxed), 1);
        }
    }
    assert_eq!(says(&writer(dir.path(), NOON.plus(SECOND * 20)).0.shared), (None, false, false));
}

#[test]
fn an_acknowledgement_ends_what_was_lost_while_running_too() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, hand) = writer(dir.path(), NOON);
    write(&mut writer, &["a"]);
    lose(&mut writer, &hand);
    acknowledge(dir.path(), "by=test", writer.clock.now()).unwrap();
    hand.advance(SECOND);
    writer.run_maintenance();
    assert!(!writer.shared.lost_while_running.load(Ordering::Relaxed));
    assert!(!writer.shared.alarms.holds(Condition::RowsLost));
}

#[test]
fn a_loss_that_is_open_is_noted_again_when_its_note_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    write(&mut writer(dir.path(), NOON).0, &["a"]);
    fs::remove_file(Month::of(NOON).path(dir.path())).unwrap();
    let february = NOON.plus(MONTH);
    let (mut later, hand) = writer(dir.path(), february);
    write(&mut later, &["b"]);
    lose(&mut later, &hand);
    let lost: Vec<String> = notes(dir.path(), later.month)
        .into_iter()
        .filter(|(what, _)| what == "lost")
        .map(|(_, detail)| detail.split_once(" through").unwrap().0.to_owned())
        .collect();
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(lost[0].starts_with("2026-01 rows 1-1") && lost[1].starts_with("2026-02 rows "), "{lost:?}");
    let text = later.shared.alarms.list()[0].text.clone();
    assert!(lost.iter().all(|lost| text.english.contains(lost)), "{text}");
}

#[test]
fn a_segment_that_is_gone_when_the_month_rolls_is_lost_whether_before_or_after_it_is_closed() {
    for closed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut first, hand) = writer(dir.path(), NOON);
        write(&mut first, &["a", "b"]);
        let january = first.month;
        hand.advance(MONTH);
        let now = first.clock.now();
        let remove = || fs::remove_file(january.path(dir.path())).unwrap();
        if closed {
            first.roll(now);
            remove();
        } else {
            // Less than a second before the roll: the path is not checked again.
            remove();
        }
        write(&mut first, &["c"]);
        let kinds: Vec<String> = notes(dir.path(), first.month).into_iter().map(|(what, _)| what).collect();
        assert_eq!(kinds, ["segment-lost", "lost"], "closed: {closed}");
        assert!(first.shared.alarms.holds(Condition::RowsLost));
        drop(first);
        let (later, _) = writer(dir.path(), now.plus(SECOND * 10));
        assert!(later.shared.lost().is_some(), "closed: {closed}");
        let report = verified(dir.path(), &anchors(dir.path()), true);
        assert!(!report.damage.is_empty(), "closed: {closed}");
    }
}
