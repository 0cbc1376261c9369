//! Removed segments, one by one, and a folder rolled back, with and without notes that explain it.

use super::*;
use crate::store::audit::evidence::lost::{acknowledge, at_start};
use crate::store::audit::retention::prune;

const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// Four months with two rows each, and a snapshot of the folder after each of them.
fn months() -> (TempDir, Vec<TempDir>) {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = Clock::manual(NOON);
    let mut snapshots = Vec::new();
    for month in 0..4_u32 {
        let now = NOON.plus(MONTH * month);
        hand.set(now);
        let store = AuditStore::open(dir.path(), Options::default(), clock.clone()).unwrap();
        for row_of in ["a", "b"] {
            assert_eq!(store.append(row(now, row_of)).wait(), Ok(()));
        }
        store.close();
        let snapshot = tempfile::tempdir().unwrap();
        copy_all(dir.path(), snapshot.path());
        snapshots.push(snapshot);
    }
    (dir, snapshots)
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn name(month: u32) -> String {
    Month::of(NOON.plus(MONTH * month)).to_string()
}

fn file(dir: &Path, month: u32) -> PathBuf {
    Month::of(NOON.plus(MONTH * month)).path(dir)
}

/// Whether the report is of damage, or of nothing at all.
fn is_bad(report: &Report) -> bool {
    !report.damage.is_empty() || report.segments.is_empty()
}

#[test]
fn every_set_of_removed_segments_is_found() {
    let (dir, _) = months();
    let anchors = anchors(dir.path());
    for removed in 1..16_u32 {
        let copied = tempfile::tempdir().unwrap();
        copy_all(dir.path(), copied.path());
        let gone: Vec<u32> = (0..4).filter(|month| removed & (1 << month) != 0).collect();
        gone.iter().for_each(|&month| fs::remove_file(file(copied.path(), month)).unwrap());
        let report = verify(copied.path(), &Scope::default(), |_, _| {}).unwrap();
        // Without anchors the newest may be removed, since nothing that is left knows them.
        let tail = gone.iter().rev().zip((0..4).rev()).all(|(gone, newest)| *gone == newest);
        assert_eq!(is_bad(&report), !tail || gone.len() == 4, "{gone:?}: {report:?}");
        let scope = Scope { anchors: &anchors, ..Scope::default() };
        let report = verify(copied.path(), &scope, |_, _| {}).unwrap();
        for month in gone {
            let what = "segment is missing";
            let found =
                |damage: &Damage| damage.segment.to_string() == name(month) && damage.what.contains(what);
            assert!(report.damage.iter().any(found), "{month}: {report:?}");
        }
    }
}

#[test]
fn a_month_out_of_scope_is_not_missed() {
    let (dir, _) = months();
    let anchors = anchors(dir.path());
    [0, 3].iter().for_each(|&month| fs::remove_file(file(dir.path(), month)).unwrap());
    let of = |from: u32, to: u32| {
        let month = |number| Month::parse(&name(number));
        let scope = Scope { from: month(from), to: month(to), anchors: &anchors, ..Scope::default() };
        verify(dir.path(), &scope, |_, _| {}).unwrap()
    };
    let report = of(1, 2);
    assert_eq!((report.damage, report.segments.len()), (vec![], 2));
    assert!(report.anchors > 0 && report.confirmed.is_some());
    assert!(is_bad(&of(0, 2)) && is_bad(&of(1, 3)) && is_bad(&of(3, 3)));
}

#[test]
fn a_pruned_month_is_explained_by_its_note_and_by_that_of_a_later_one() {
    let (dir, _) = months();
    let anchors = anchors(dir.path());
    let april = NOON.plus(MONTH * 3);
    let verified = || {
        let scope = Scope { anchors: &anchors, ..Scope::default() };
        let report = verify(dir.path(), &scope, |_, _| {}).unwrap();
        assert_eq!(report.damage, []);
        report.pruned.len()
    };
    let pruned = |month| prune(dir.path(), Month::parse(&name(month)).unwrap(), "by=test", april).unwrap();
    pruned(0);
    assert_eq!(verified(), 1, "the note waits for the proxy");
    AuditStore::open(dir.path(), Options::default(), Clock::manual(april).0).unwrap().close();
    assert_eq!(verified(), 1, "it is in the chain");
    pruned(1);
    pruned(2);
    AuditStore::open(dir.path(), Options::default(), Clock::manual(april).0).unwrap().close();
    assert_eq!(verified(), 3);
    // The manifest says what a pruned month was: an anchor of another head contradicts it.
    let head = anchors.iter().rev().find(|anchor| anchor.segment == name(1)).unwrap();
    for other in
        [Anchor { head: "0".repeat(64), ..head.clone() }, Anchor { last: head.last + 1, ..head.clone() }]
    {
        let report = verify(dir.path(), &Scope { anchors: &[other], ..Scope::default() }, |_, _| {}).unwrap();
        assert!(report.damage[0].what.contains("manifest contradicts"), "{report:?}");
    }
}

#[test]
fn a_forged_note_hides_no_segment_that_was_not_pruned() {
    let (dir, _) = months();
    let kept = anchors(dir.path());
    fs::remove_file(file(dir.path(), 3)).unwrap();
    let forged = NoteRow { at: NOON.plus(MONTH * 2), what: "pruned", detail: "2027-01".into() };
    notes::leave(dir.path(), &forged).unwrap();
    let assert_found = || {
        let found = damage(dir.path(), &kept);
        let newest: Vec<_> = found.iter().filter(|damage| damage.segment.to_string() == name(3)).collect();
        assert!(newest.iter().any(|damage| damage.what.contains("is missing")), "{found:?}");
    };
    assert_found();
    // Behind a later segment, whose manifest does not list it, the note is in the chain.
    fs::remove_file(dir.path().join(LOG)).unwrap();
    let may = Clock::manual(NOON.plus(MONTH * 4)).0;
    AuditStore::open(dir.path(), Options::default(), may).unwrap().close();
    assert!(file(dir.path(), 4).exists() && notes::leave(dir.path(), &forged).is_ok());
    assert_found();
}

#[test]
fn a_pruned_month_without_rows_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    for month in 0..3_u32 {
        let now = NOON.plus(MONTH * month);
        let store = AuditStore::open(dir.path(), Options::default(), Clock::manual(now).0).unwrap();
        if month != 1 {
            assert_eq!(store.append(row(now, "a")).wait(), Ok(()));
        }
        store.close();
    }
    let kept = anchors(dir.path());
    assert!(kept.iter().any(|anchor| anchor.segment == name(1)));
    for month in 0..2 {
        prune(dir.path(), Month::parse(&name(month)).unwrap(), "by=test", NOON.plus(MONTH * 2)).unwrap();
    }
    assert_eq!(damage(dir.path(), &kept), []);
}

#[test]
fn a_folder_that_is_rolled_back_is_found_against_later_anchors_alone() {
    let (dir, snapshots) = months();
    let later = anchors(dir.path());
    let (newest, older) = snapshots.split_last().unwrap();
    for snapshot in older {
        let own = anchors(snapshot.path());
        assert_eq!(damage(snapshot.path(), &own), [], "it is whole in itself");
        assert_ne!(damage(snapshot.path(), &later), []);
    }
    assert_eq!(damage(newest.path(), &later), []);
    // The segment alone is rolled back, under the anchors of the folder.
    let store =
        AuditStore::open(dir.path(), Options::default(), Clock::manual(NOON.plus(MONTH * 3)).0).unwrap();
    assert_eq!(store.append(row(NOON.plus(MONTH * 3), "c")).wait(), Ok(()));
    store.close();
    fs::copy(file(newest.path(), 3), file(dir.path(), 3)).unwrap();
    let found = damage(dir.path(), &anchors(dir.path()));
    assert!(found.iter().any(|damage| damage.what.contains("is cut off")), "{found:?}");
}

#[test]
fn an_acknowledged_loss_is_damage_against_anchors_kept_elsewhere_in_the_words_of_its_note() {
    let (dir, _) = months();
    let kept = anchors(dir.path());
    let april = NOON.plus(MONTH * 3);
    fs::write(file(dir.path(), 3), "").unwrap();
    assert_eq!(at_start(dir.path(), april).unwrap().through(), Some(april));
    let verified = |own_anchors: bool| {
        let all = anchors(dir.path());
        let anchors = if own_anchors { &all } else { &kept };
        verify(dir.path(), &Scope { anchors, own_anchors, ..Scope::default() }, |_, _| {}).unwrap()
    };
    let start = || {
        let store = AuditStore::open(dir.path(), Options::default(), Clock::manual(april).0).unwrap();
        assert_eq!(store.append(row(april, "again")).wait(), Ok(()));
        store.close();
    };
    start();
    let words = "as lost: 2026-04 rows 7-8 through 2026-04-15T12:00:00.000+08:00";
    for own in [true, false] {
        let report = verified(own);
        assert!(report.damage.iter().any(|damage| damage.what.contains(words)), "{report:?}");
        assert!(report.damage[0].what.contains("not acknowledged") && report.losses.is_empty(), "{report:?}");
    }
    assert_eq!(acknowledge(dir.path(), "by=test", april).unwrap().len(), 1);
    start();
    let report = verified(false);
    assert!(report.damage.iter().all(|damage| damage.what.contains(", acknowledged at ")), "{report:?}");
    assert!(!report.damage.is_empty());
    let report = verified(true);
    assert_eq!(report.damage, [], "the folder's own anchors are worth no more than its own notes");
    assert!(report.losses.len() == 1 && report.losses[0].contains(words), "{report:?}");
}
