//! Positions and leases persist; a lost state is never replaced silently.

use std::fs;

use super::*;

fn appid(text: &str) -> AppId {
    AppId::parse(text).unwrap()
}

fn fault(opened: Result<StateStore, StoreError>) -> Fault {
    opened.expect_err("it must not open").fault().clone()
}

#[test]
fn a_position_persists_per_appid_and_node() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = HighWaterMark { next: 1, floor: 0, ceiling: 0 };
    let moved = HighWaterMark { next: 1_001, floor: 0, ceiling: 1_700_000_060 };
    let store = StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap();
    assert_eq!(store.advance(&appid("100001"), 0, |_| moved), Ok(Advance { before: fresh, after: moved }));
    drop(store);
    let store = StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap();
    assert_eq!(store.advance(&appid("100001"), 0, |read| read), Ok(Advance { before: moved, after: moved }));
    let unmoved = Advance { before: fresh, after: fresh };
    assert_eq!(store.advance(&appid("100001"), 1, |read| read), Ok(unmoved));
    assert_eq!(store.advance(&appid("0100001"), 0, |read| read), Ok(unmoved));
    assert_eq!(store.probe(), Ok(()));
}

#[test]
fn a_position_outside_its_bounds_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap();
    let wrong = HighWaterMark { next: 1_000_001, floor: 0, ceiling: 0 };
    assert!(store.advance(&appid("100001"), 0, |_| wrong).is_err());
    let fresh = HighWaterMark { next: 1, floor: 0, ceiling: 0 };
    let unmoved = Advance { before: fresh, after: fresh };
    assert_eq!(store.advance(&appid("100001"), 0, |read| read), Ok(unmoved));
}

#[test]
fn a_used_folder_without_its_state_is_refused_until_accepted() {
    for used in [cache::FILE, "audit-2026-01.db"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(used), "something").unwrap();
        let error = StateStore::open(dir.path(), OnStateLoss::Refuse).err().unwrap();
        assert_eq!(error.fault(), &Fault::StateLost);
        assert!(error.to_string().contains("--accept-lost-state"), "{error}");
        assert_eq!(
            fault(StateStore::open(dir.path(), OnStateLoss::Refuse)),
            Fault::StateLost,
            "the refusal creates no file"
        );

        let floor = 1_800_000_000;
        drop(StateStore::open(dir.path(), OnStateLoss::StartOver { floor }).unwrap());
        // A second start with the option changes nothing.
        drop(StateStore::open(dir.path(), OnStateLoss::StartOver { floor: 5 }).unwrap());
        let store = StateStore::open(dir.path(), OnStateLoss::Refuse).unwrap();
        let read = store.advance(&appid("100001"), 7, |read| read).unwrap().before;
        assert_eq!(read, HighWaterMark { next: 1, floor, ceiling: floor });
    }
}

#[test]
fn an_empty_or_unreadable_state_is_lost() {
    for left in [Vec::new(), vec![b'x'; 5_000]] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(cache::FILE), "something").unwrap();
        fs::write(dir.path().join(FILE), &left).unwrap();
        assert_eq!(fault(StateStore::open(dir.path(), OnStateLoss::Refuse)), Fault::StateLost);
        drop(StateStore::open(dir.path(), OnStateLoss::StartOver { floor: 9 }).unwrap());
        assert!(StateStore::open(dir.path(), OnStateLoss::Refuse).is_ok());
    }
}

#[test]
fn a_state_with_a_damaged_page_is_lost_and_can_be_started_over() {
    for page in 2..=4_usize {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(cache::FILE), "something").unwrap();
        let store = StateStore::open(dir.path(), OnStateLoss::StartOver { floor: 3 }).unwrap();
        store.advance(&appid("100001"), 0, |read| HighWaterMark { next: 7, ..read }).unwrap();
        store.close();
        drop(store);
        let path = dir.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[(page - 1) * 4_096..page * 4_096].fill(0xa5);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(fault(StateStore::open(dir.path(), OnStateLoss::Refuse)), Fault::StateLost, "page {page}");
        let store = StateStore::open(dir.path(), OnStateLoss::StartOver { floor: 9 }).unwrap();
        let read = store.advance(&appid("100001"), 0, |read| read).unwrap().before;
        assert_eq!(read, HighWaterMark { next: 1, floor: 9, ceiling: 9 });
        assert_eq!(fs::read(dir.path().join("state.db.lost")).unwrap(), bytes, "kept for recovery");
    }
}

#[test]
fn a_state_that_is_not_lost_is_never_started_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(cache::FILE), "something").unwrap();
    let path = dir.path().join(FILE);
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (it)").unwrap();
    assert_eq!(fault(StateStore::open(dir.path(), OnStateLoss::StartOver { floor: 9 })), Fault::Foreign);
    fs::remove_file(&path).unwrap();
    drop(StateStore::open(dir.path(), OnStateLoss::StartOver { floor: 9 }).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let newer = fault(StateStore::open(dir.path(), OnStateLoss::StartOver { floor: 9 }));
    assert!(matches!(newer, Fault::Newer { found: 99, .. }), "{newer:?}");
}

#[test]
fn a_first_start_that_crashed_is_not_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), "").unwrap();
    assert!(StateStore::open(dir.path(), OnStateLoss::Refuse).is_ok());
}
