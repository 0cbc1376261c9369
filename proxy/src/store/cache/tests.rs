//! `cache.db`: newer responses win, losses are counted, a corrupt file is created again.

use std::fs;
use std::io::{Seek, SeekFrom, Write as _};

use cmiot_signer::CardKind;

use super::*;

/// Later than the times of these tests' responses.
const LATEST: Time = Time::from_secs(1_000);

fn card(number: u32) -> Card {
    Card::parse(CardKind::Msisdn, &format!("1064830{number:06}")).unwrap()
}

pub(super) fn row(number: u32, answered_at: i64) -> CacheRow {
    CacheRow {
        group: "fleet".into(),
        operation: "userstatusrealsingle".into(),
        card: card(number),
        parameters: String::new(),
        code: "0".into(),
        status: Some("00".into()),
        answered_at: Time::from_secs(answered_at),
        body: Bytes::from(format!("answer {number} of {answered_at}")),
        charset: None,
        carrier: None,
        stale: false,
    }
}

pub(super) fn load(store: &CacheStore, number: u32) -> Option<CacheRow> {
    store.load("fleet", "userstatusrealsingle", &card(number), "").unwrap()
}

#[test]
fn saved_rows_are_loaded_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = CacheStore::open(dir.path(), 100).unwrap();
    assert_eq!(load(&store, 1), None);
    let plain = row(1, 10);
    let bare = CacheRow { code: "01016".into(), status: None, body: Bytes::new(), ..row(2, 11) };
    store.save(plain.clone(), LATEST);
    store.save(bare.clone(), LATEST);
    store.close();
    store.save(row(3, 12), LATEST);
    assert_eq!(store.losses(), CacheLosses { dropped: 1, failed: 0 });
    assert_eq!(store.flush().wait().unwrap_err().fault(), &Fault::Closed);

    let store = CacheStore::open(dir.path(), 100).unwrap();
    assert_eq!((load(&store, 1), load(&store, 2), load(&store, 3)), (Some(plain), Some(bare), None));
    assert_eq!(store.count(), Ok(2));
    for other in [("other", "userstatusrealsingle"), ("fleet", "balancerealsingle")] {
        assert_eq!(store.load(other.0, other.1, &card(1), ""), Ok(None));
    }
    let imsi = Card::parse(CardKind::Imsi, card(1).as_str()).unwrap();
    assert_eq!(store.load("fleet", "userstatusrealsingle", &imsi, ""), Ok(None));
}

#[test]
fn queued_bodies_are_limited_in_bytes_and_dropped_ones_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = CacheStore::open(dir.path(), 100).unwrap();
    let large = |number| CacheRow { body: vec![b'x'; MAX_QUEUED_BYTES / 2 + 1].into(), ..row(number, 10) };
    // Another writer has the lock: the first body waits for it, and the second finds no room.
    let other = Connection::open(dir.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.save(large(1), LATEST);
    store.save(large(2), LATEST);
    assert_eq!(store.losses(), CacheLosses { dropped: 1, failed: 0 });
    other.execute_batch("ROLLBACK").unwrap();
    store.flush().wait().unwrap();
    store.save(large(3), LATEST);
    store.flush().wait().unwrap();
    assert_eq!((store.count(), store.losses().dropped), (Ok(2), 1));
    assert_eq!(store.shared.queued_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn an_older_response_never_replaces_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = CacheStore::open(dir.path(), 100).unwrap();
    for at in [10, 30, 20] {
        store.save(row(1, at), LATEST);
    }
    store.flush().wait().unwrap();
    assert_eq!(load(&store, 1), Some(row(1, 30)));
    store.save(row(1, 29), LATEST);
    store.flush().wait().unwrap();
    assert_eq!(load(&store, 1), Some(row(1, 30)));
}

#[test]
fn a_response_in_the_future_is_replaced_and_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = CacheStore::open(dir.path(), 100).unwrap();
    store.save(row(1, 86_400), LATEST);
    store.save(row(2, 86_400), LATEST);
    store.save(row(3, 1_000), LATEST);
    store.save(row(1, 999), LATEST);
    store.flush().wait().unwrap();
    assert_eq!(load(&store, 1), Some(row(1, 999)));
    let future = Selection { answered_after: Some(LATEST), ..Selection::default() };
    assert_eq!(store.remove_where(future).wait(), Ok(1));
    assert_eq!((load(&store, 2), load(&store, 3)), (None, Some(row(3, 1_000))));
}

#[test]
fn removals_follow_the_saves_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = CacheStore::open(dir.path(), 100).unwrap();
    store.save(row(1, 10), LATEST);
    let first = store.remove("fleet", "userstatusrealsingle", &card(1));
    let second = store.remove("fleet", "userstatusrealsingle", &card(1));
    store.save(row(1, 5), LATEST);
    assert_eq!((first.wait(), second.wait(), store.flush().wait()), (Ok(1), Ok(0), Ok(())));
    assert_eq!(load(&store, 1), Some(row(1, 5)), "the removed row's age does not count");
}

#[test]
fn a_selection_removes_rows_that_meet_every_condition() {
    let dir = tempfile::tempdir().unwrap();
    let store = CacheStore::open(dir.path(), 100).unwrap();
    store.save(row(1, 10), LATEST);
    store.save(CacheRow { status: Some("02".into()), ..row(2, 20) }, LATEST);
    store.save(CacheRow { group: "other".into(), status: Some("02".into()), ..row(3, 30) }, LATEST);
    store.save(CacheRow { operation: "balancerealsingle".into(), status: None, ..row(4, 40) }, LATEST);
    let remove = |selection| store.remove_where(selection).wait().unwrap();
    let any = Selection::default;
    assert_eq!(remove(Selection { status: Some("02".into()), group: Some("fleet".into()), ..any() }), 1);
    assert_eq!(remove(Selection { operation: Some("balancerealsingle".into()), ..any() }), 1);
    assert_eq!(remove(Selection { answered_before: Some(Time::from_secs(10)), ..any() }), 0);
    assert_eq!(remove(Selection { answered_before: Some(Time::from_secs(11)), ..any() }), 1);
    assert_eq!(store.count(), Ok(1));
    assert_eq!(remove(any()), 1);
    assert_eq!(store.count(), Ok(0));
}

#[test]
fn a_full_queue_drops_saves_but_no_removal() {
    let dir = tempfile::tempdir().unwrap();
    let store = CacheStore::open(dir.path(), 2).unwrap();
    // Another program holds the write lock, so that the writer waits.
    let other = Connection::open(dir.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The writer takes at most two before it waits; two more find room.
    for number in 0..5 {
        store.save(row(number, 10), LATEST);
    }
    assert!(store.losses().dropped >= 1);
    let removed = store.remove_where(Selection::default());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(removed.wait(), Ok(5 - store.losses().dropped));
}

#[test]
fn garbage_is_moved_aside_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = vec![b'x'; 10_000];
    fs::write(dir.path().join(FILE), &garbage).unwrap();
    let store = CacheStore::open(dir.path(), 100).unwrap();
    store.save(row(1, 10), LATEST);
    store.flush().wait().unwrap();
    assert_eq!(load(&store, 1), Some(row(1, 10)));
    assert_eq!(fs::read(dir.path().join("cache.db.corrupt")).unwrap(), garbage);
}

#[test]
fn a_foreign_database_is_not_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (it)").unwrap();
    assert_eq!(CacheStore::open(dir.path(), 100).err().unwrap().fault(), &Fault::Foreign);
}

#[test]
fn a_file_that_becomes_corrupt_while_serving_is_created_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = CacheStore::open(dir.path(), 1_000).unwrap();
    for number in 0..500 {
        store.save(row(number, 10), LATEST);
    }
    store.close();
    let path = dir.path().join(FILE);
    let length = fs::metadata(&path).unwrap().len();
    assert!(length > 3 * 4_096, "{length} bytes are too few to spoil only the last pages");
    let store = CacheStore::open(dir.path(), 1_000).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(2 * 4_096)).unwrap();
    file.write_all(&vec![0xFF; usize::try_from(length).unwrap() - 2 * 4_096]).unwrap();
    drop(file);

    let spoilt =
        (0..500).find_map(|number| store.load("fleet", "userstatusrealsingle", &card(number), "").err());
    assert!(spoilt.expect("some page was spoilt").is_corrupt());
    store.save(row(1, 20), LATEST);
    store.flush().wait().unwrap();
    assert_eq!((load(&store, 1), store.count()), (Some(row(1, 20)), Ok(1)));
    assert!(dir.path().join("cache.db.corrupt").exists());
}
