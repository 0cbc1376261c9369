//! The cache as a whole: purges against whatever is under way.

use super::*;
use crate::clock::ManualClock;
use crate::config::ConfigFile;
use cmiot_signer::CardKind;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

pub(crate) fn key(number: &str) -> Key {
    let card = Card::parse(CardKind::Msisdn, number).unwrap();
    Key::new(&"fleet".into(), crate::operation::USER_STATUS, &card)
}

pub(crate) fn entry(status: &str, answered_at: i64) -> Entry {
    let verdict = crate::carrier::dialect::v2::stored_verdict(
        Code::parse("0").unwrap(),
        Some(Status::from_code(status)),
    );
    Entry {
        reply: Arc::new(CarrierReply {
            body: bytes::Bytes::from_static(b"{}"),
            content_type: ContentType::UTF_8,
            verdict,
        }),
        answered_at: Time::from_secs(answered_at),
        stale: false,
        hits: Hits::default(),
    }
}

const NOON: i64 = 1_768_449_600;
const CARD: &str = "1064800000001";

struct Bench {
    cache: Arc<Cache>,
    hand: ManualClock,
    _dir: tempfile::TempDir,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let written = "[cache]\nttl_jitter_percent = 0\n[[account]]\nname = \"fleet\"\nappid = \"1\"\nebid = \"1\"\npassword = \"x\"";
    let file = ConfigFile::parse(Path::new("test.toml"), written).unwrap();
    let config = Config::check(&file, dir.path()).unwrap();
    let (clock, hand) = Clock::manual(Time::from_secs(NOON));
    let store = Arc::new(CacheStore::open(dir.path(), 100).unwrap());
    Bench { cache: Arc::new(Cache::new(&config, store, clock)), hand, _dir: dir }
}

impl Bench {
    fn put(&self, status: &str) {
        assert!(self.cache.insert(&self.cache.fill_token(), &key(CARD), &Arc::new(entry(status, NOON))));
    }

    async fn purge(&self, selection: &Selection, depth: PurgeMode) -> Purged {
        self.cache.purge(selection, depth, || {}).await.unwrap()
    }

    async fn freshness(&self) -> Option<Freshness> {
        self.cache.look_up(&key(CARD)).await.map(|held| held.freshness)
    }
}

#[tokio::test]
async fn what_was_answered_in_the_future_is_expired_and_replaced_in_memory_and_file() {
    let bench = bench();
    let put = |status: &str, at: i64| {
        bench.cache.insert(&bench.cache.fill_token(), &key(CARD), &Arc::new(entry(status, at)))
    };
    let held = || async {
        bench
            .cache
            .look_up(&key(CARD))
            .await
            .map(|held| held.entry.answered_at.as_secs().cast_signed() - NOON)
    };
    bench.hand.step(86_400);
    assert!(put("00", NOON + 86_400));
    assert_eq!(held().await, Some(86_400));
    bench.hand.step(-86_400);
    assert_eq!(held().await, None, "expired");
    assert!(put("02", NOON));
    assert_eq!(held().await, Some(0), "replaced");
    bench.cache.store.flush().await.unwrap();
    bench.cache.memory.remove(|_, _| true);
    assert_eq!(held().await, Some(0), "replaced in the file, too");
}

#[tokio::test]
async fn what_was_answered_in_the_future_does_not_pass_for_new_when_that_time_comes() {
    let bench = bench();
    bench.hand.step(3_600);
    let answered = Arc::new(entry("00", NOON + 3_600));
    assert!(bench.cache.insert(&bench.cache.fill_token(), &key(CARD), &answered));
    bench.hand.step(-3_600);
    bench.cache.remove_future();
    bench.cache.store.flush().await.unwrap();
    bench.hand.advance(Duration::from_secs(3_600));
    assert_eq!(bench.freshness().await, None);
}

#[tokio::test]
async fn a_hard_purge_leaves_nothing_in_memory_or_file() {
    let bench = bench();
    bench.put("00");
    let purged = bench.purge(&Selection::default(), PurgeMode::Hard).await;
    assert_eq!((purged.memory, purged.file), (1, 1));
    assert_eq!(bench.freshness().await, None);
    assert!(bench.cache.inspect(&key(CARD)).await.is_none());
}

#[tokio::test]
async fn a_soft_purge_keeps_it_for_bad_days_through_memory_and_file() {
    let bench = bench();
    bench.put("00");
    assert_eq!(bench.purge(&Selection::default(), PurgeMode::Soft).await.file, 1);
    assert_eq!(bench.freshness().await, Some(Freshness::IfError));
    assert_eq!(
        bench.cache.get_in_memory(&key(CARD), bench.cache.clock.now()).unwrap().ttl(bench.cache.clock.now()),
        Some(-1)
    );
    bench.cache.memory.remove(|_, _| true);
    assert_eq!(bench.freshness().await, Some(Freshness::IfError), "the file knows it too");
    bench.put("00");
    assert_eq!(bench.freshness().await, Some(Freshness::Fresh), "a new answer is fresh");
}

#[tokio::test]
async fn a_purge_selects_by_group_operation_card_and_status() {
    let bench = bench();
    bench.put("02");
    for (selection, purged) in [
        (Selection { group: Some("other".into()), ..Selection::default() }, 0),
        (Selection { operation: Some("other".into()), ..Selection::default() }, 0),
        (Selection { status: Some("00".into()), ..Selection::default() }, 0),
        (Selection { card: Some(key("1064800000002").card), ..Selection::default() }, 0),
        (Selection { status: Some("02".into()), card: Some(key(CARD).card), ..Selection::default() }, 1),
    ] {
        let found = bench.purge(&selection, PurgeMode::Hard).await;
        assert_eq!((found.memory, found.file), (purged, purged), "{selection:?}");
    }
}

#[tokio::test]
async fn an_answer_asked_for_before_a_purge_is_stored_nowhere() {
    let bench = bench();
    let ticket = bench.cache.fill_token();
    bench.purge(&Selection::default(), PurgeMode::Hard).await;
    assert!(!bench.cache.insert(&ticket, &key(CARD), &Arc::new(entry("00", NOON))));
    assert_eq!(bench.freshness().await, None);
    bench.put("00");
    assert_eq!(bench.freshness().await, Some(Freshness::Fresh));
}

/// Readers, writers and purges at once: whatever is found was asked for after the last purge that had returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_interleaving_brings_an_older_answer_back() {
    let bench = bench();
    let (begun, returned) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..3_i64 {
        let (cache, begun, returned) = (Arc::clone(&bench.cache), Arc::clone(&begun), Arc::clone(&returned));
        tasks.spawn(async move {
            for round in 0..150_i64 {
                // How many purges had begun when it was asked for is how late the answer is dated.
                let ticket = cache.fill_token();
                let answer = entry("00", NOON - 40 + begun.load(SeqCst));
                tokio::task::yield_now().await;
                cache.insert(&ticket, &key(CARD), &Arc::new(answer));
                if (round + worker) % 3 == 0 {
                    cache.memory.remove(|_, _| true); // as eviction does: the next reader goes to the file
                }
                let before = returned.load(SeqCst);
                if let Some(held) = cache.look_up(&key(CARD)).await {
                    let found = held.entry.answered_at.as_micros() / 1_000_000 - (NOON - 40);
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
        begun.fetch_add(1, SeqCst);
        bench.purge(&Selection::default(), PurgeMode::Hard).await;
        returned.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn what_is_asked_for_often_is_due_in_the_last_fifth_of_its_freshness() {
    let bench = bench();
    bench.put("00");
    let due = |hits| {
        let held = bench.cache.get_in_memory(&key(CARD), bench.cache.clock.now()).unwrap();
        held.should_refresh_ahead(bench.cache.clock.now(), hits)
    };
    bench.hand.advance(Duration::from_secs(47));
    assert!(!due(0));
    bench.hand.advance(Duration::from_secs(1));
    assert!(due(0));
    assert!(!due(100), "asked for too rarely");
    bench.hand.advance(Duration::from_secs(12));
    assert!(!due(0), "stale: refreshed by whoever asks");
}
