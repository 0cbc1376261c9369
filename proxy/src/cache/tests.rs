//! The whole cache: purges against reads and insertions at the same time.

use super::*;
use crate::clock::ManualClock;
use crate::config::ConfigFile;
use crate::operation::USER_STATUS;
use cmiot_signer::CardKind;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

pub(crate) fn key(number: &str) -> Key {
    let card = Card::parse(CardKind::Msisdn, number).unwrap();
    Key::new(&"fleet".into(), USER_STATUS, &card)
}

pub(crate) fn entry(status: &str, answered_at: i64) -> Entry {
    let code = Code::parse("0").unwrap();
    let verdict = stored_verdict(code, Some(Status::from_code(status)));
    Entry {
        reply: Arc::new(CarrierReply {
            body: bytes::Bytes::from_static(b"{}"),
            content_type: ContentType::UTF_8,
            verdict,
            translated: None,
        }),
        answered_at: Time::from_secs(answered_at),
        stale: false,
        hits: Hits::default(),
    }
}

const NOON: i64 = 1_768_449_600;
const CARD: &str = "1064800000001";

struct TestCache {
    cache: Arc<Cache>,
    clock: ManualClock,
    _dir: tempfile::TempDir,
}

fn test_cache() -> TestCache {
    let dir = tempfile::tempdir().unwrap();
    let text = "[cache]\nttl_jitter_percent = 0\n[[account]]\nname = \"fleet\"\nappid = \"1\"\nebid = \"1\"\npassword = \"x\"";
    let file = ConfigFile::parse(Path::new("test.toml"), text).unwrap();
    let config = Config::check(&file, dir.path()).unwrap();
    let (clock, manual) = Clock::manual(Time::from_secs(NOON));
    let store = Arc::new(CacheStore::open(dir.path(), 100).unwrap());
    TestCache { cache: Arc::new(Cache::new(&config, store, clock)), clock: manual, _dir: dir }
}

impl TestCache {
    fn put(&self, status: &str) {
        assert!(self.cache.insert(&self.cache.fill_token(), &key(CARD), &Arc::new(entry(status, NOON))));
    }

    async fn purge(&self, selection: &Selection, mode: PurgeMode) -> Purged {
        self.cache.purge(selection, mode, || {}).await.unwrap()
    }

    async fn freshness(&self) -> Option<Freshness> {
        self.cache.look_up(&key(CARD)).await.map(|candidate| candidate.freshness)
    }
}

#[tokio::test]
async fn an_entry_of_the_future_is_expired_and_replaced_in_memory_and_file() {
    let test = test_cache();
    let put = |status: &str, at: i64| {
        test.cache.insert(&test.cache.fill_token(), &key(CARD), &Arc::new(entry(status, at)))
    };
    let found = || async {
        test.cache
            .look_up(&key(CARD))
            .await
            .map(|candidate| candidate.entry.answered_at.as_secs().cast_signed() - NOON)
    };
    test.clock.step(86_400);
    assert!(put("00", NOON + 86_400));
    assert_eq!(found().await, Some(86_400));
    test.clock.step(-86_400);
    assert_eq!(found().await, None, "expired");
    assert!(put("02", NOON));
    assert_eq!(found().await, Some(0), "replaced");
    test.cache.store.flush().await.unwrap();
    test.cache.memory.remove(|_, _| true);
    assert_eq!(found().await, Some(0), "replaced in the file, too");
}

#[tokio::test]
async fn an_entry_of_the_future_does_not_count_as_new_when_that_time_comes() {
    let test = test_cache();
    test.clock.step(3_600);
    let answered = Arc::new(entry("00", NOON + 3_600));
    assert!(test.cache.insert(&test.cache.fill_token(), &key(CARD), &answered));
    test.clock.step(-3_600);
    test.cache.remove_future();
    test.cache.store.flush().await.unwrap();
    test.clock.advance(Duration::from_secs(3_600));
    assert_eq!(test.freshness().await, None);
}

#[tokio::test]
async fn a_hard_purge_leaves_nothing_in_memory_or_file() {
    let test = test_cache();
    test.put("00");
    let purged = test.purge(&Selection::default(), PurgeMode::Hard).await;
    assert_eq!((purged.memory, purged.file), (1, 1));
    assert_eq!(test.freshness().await, None);
    assert!(test.cache.inspect(&key(CARD)).await.is_none());
}

#[tokio::test]
async fn a_soft_purge_leaves_it_for_failures_in_memory_and_file() {
    let test = test_cache();
    test.put("00");
    assert_eq!(test.purge(&Selection::default(), PurgeMode::Soft).await.file, 1);
    assert_eq!(test.freshness().await, Some(Freshness::IfError));
    assert_eq!(
        test.cache.get_in_memory(&key(CARD), test.cache.clock.now()).unwrap().ttl(test.cache.clock.now()),
        Some(-1)
    );
    test.cache.memory.remove(|_, _| true);
    assert_eq!(test.freshness().await, Some(Freshness::IfError), "marked in the file, too");
    test.put("00");
    assert_eq!(test.freshness().await, Some(Freshness::Fresh), "a new answer is fresh");
}

#[tokio::test]
async fn a_purge_selects_by_group_operation_card_and_status() {
    let test = test_cache();
    test.put("02");
    for (selection, purged) in [
        (Selection { group: Some("other".into()), ..Selection::default() }, 0),
        (Selection { operation: Some("other".into()), ..Selection::default() }, 0),
        (Selection { status: Some("00".into()), ..Selection::default() }, 0),
        (Selection { card: Some(key("1064800000002").card), ..Selection::default() }, 0),
        (Selection { status: Some("02".into()), card: Some(key(CARD).card), ..Selection::default() }, 1),
    ] {
        let found = test.purge(&selection, PurgeMode::Hard).await;
        assert_eq!((found.memory, found.file), (purged, purged), "{selection:?}");
    }
}

#[tokio::test]
async fn the_response_to_a_call_before_a_purge_is_stored_nowhere() {
    let test = test_cache();
    let token = test.cache.fill_token();
    test.purge(&Selection::default(), PurgeMode::Hard).await;
    assert!(!test.cache.insert(&token, &key(CARD), &Arc::new(entry("00", NOON))));
    assert_eq!(test.freshness().await, None);
    test.put("00");
    assert_eq!(test.freshness().await, Some(Freshness::Fresh));
}

/// Readers, writers and purges at once: an entry that is found is from a call after the last purge that had returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_interleaving_restores_an_older_entry() {
    let test = test_cache();
    let (started, returned) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..3_i64 {
        let (cache, started, returned) =
            (Arc::clone(&test.cache), Arc::clone(&started), Arc::clone(&returned));
        tasks.spawn(async move {
            for round in 0..150_i64 {
                // The entry's time is the number of purges that had started before the call.
                let token = cache.fill_token();
                let response = entry("00", NOON - 40 + started.load(SeqCst));
                tokio::task::yield_now().await;
                cache.insert(&token, &key(CARD), &Arc::new(response));
                if (round + worker) % 3 == 0 {
                    cache.memory.remove(|_, _| true); // as eviction does: the next reader goes to the file
                }
                let before = returned.load(SeqCst);
                if let Some(candidate) = cache.look_up(&key(CARD)).await {
                    let found = candidate.entry.answered_at.as_micros() / 1_000_000 - (NOON - 40);
                    assert!(
                        found >= before,
                        "asked for before purge {}, found after purge {before}",
                        found + 1
                    );
                }
            }
        });
    }
    for _ in 0..30 {
        started.fetch_add(1, SeqCst);
        test.purge(&Selection::default(), PurgeMode::Hard).await;
        returned.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_frequent_entry_is_refreshed_ahead_in_the_last_fifth_of_its_freshness() {
    let test = test_cache();
    test.put("00");
    let due = |hits| {
        let candidate = test.cache.get_in_memory(&key(CARD), test.cache.clock.now()).unwrap();
        candidate.should_refresh_ahead(test.cache.clock.now(), hits)
    };
    test.clock.advance(Duration::from_secs(47));
    assert!(!due(0));
    test.clock.advance(Duration::from_secs(1));
    assert!(due(0));
    assert!(!due(100), "looked up too rarely");
    test.clock.advance(Duration::from_secs(12));
    assert!(!due(0), "stale: refreshed by the next lookup");
}
