//! The idempotency cache alone: retries, purges, limits.

use std::convert::Infallible;

use super::*;
use crate::cache::intern::CarrierReply;
use crate::cache::tests::entry;
use crate::operation::USER_STATUS;
use bytes::Bytes;
use cmiot_signer::{CardKind, Sequence, Stamp, Transid};

fn appid() -> AppId {
    AppId::parse("A1").unwrap()
}

fn number(sequence: u32) -> TransidKey {
    TransidKey::of(&Transid::new(&appid(), Stamp::FIRST, Sequence::new(sequence).unwrap()))
}

fn asked(group: &str, card: &str) -> Fingerprint {
    let card = Card::parse(CardKind::Msisdn, card).unwrap();
    Fingerprint { group: group.into(), operation: USER_STATUS, card, parameters: Default::default() }
}

fn response(status: &str, bytes: usize) -> Response {
    let entry = entry(status, 0);
    let reply = CarrierReply { body: Bytes::from(vec![b'x'; bytes]), ..(*entry.reply).clone() };
    Some(Arc::new(Entry { reply: reply.into(), ..entry }))
}

impl IdempotencyCache {
    fn state_of(&self, sequence: u32, group: &str, card: &str, used: bool) -> RetryState {
        let state = self.enter(appid(), number(sequence), asked(group, card), || Ok::<_, Infallible>(used));
        state.unwrap()
    }

    fn first(&self, sequence: u32) -> Completer {
        match self.state_of(sequence, "g", "1", false) {
            RetryState::New(completer) => completer,
            other => panic!("{other:?}"),
        }
    }

    /// Whether a retry gets a stored response; otherwise it is refused.
    fn has_stored(&self, sequence: u32) -> bool {
        match self.state_of(sequence, "g", "1", true) {
            RetryState::Stored(_) => true,
            RetryState::Mismatch => false,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn retries_get_the_first_response() {
    let cache = IdempotencyCache::default();
    let completer = cache.first(1);
    let RetryState::InFlight(early) = cache.state_of(1, "g", "1", true) else { panic!("meanwhile") };
    let expected = response("00", 80);
    cache.complete(completer, expected.clone());
    assert_eq!(early.wait().await, Some(expected.clone()));
    let RetryState::Stored(late) = cache.state_of(1, "g", "1", true) else { panic!("afterwards") };
    assert!(Arc::ptr_eq(&late.unwrap(), &expected.unwrap()), "it is shared, not copied");
}

#[test]
fn another_card_and_another_group_get_nothing() {
    let cache = IdempotencyCache::default();
    let completer = cache.first(1);
    for (group, card) in [("g", "2"), ("h", "1")] {
        assert!(
            matches!(cache.state_of(1, group, card, true), RetryState::Mismatch),
            "meanwhile: {group} {card}"
        );
    }
    cache.complete(completer, response("00", 80));
    assert!(!cache.has_stored(1), "refused once, in another group");
    cache.complete(cache.first(2), response("00", 80));
    assert!(matches!(cache.state_of(2, "g", "2", true), RetryState::Mismatch), "another card");
    assert!(cache.has_stored(2), "which is another request");
    assert!(matches!(cache.state_of(2, "h", "1", true), RetryState::Mismatch), "another group");
    assert!(!cache.has_stored(2), "refused once");
}

#[test]
fn a_transid_refused_in_another_mode_stays_refused() {
    let cache = IdempotencyCache::default();
    cache.complete(cache.first(1), response("00", 1_000));
    cache.refused(appid(), number(1));
    cache.refused(appid(), number(2));
    assert!(!cache.has_stored(1));
    assert_eq!(cache.large.load(Ordering::Relaxed), 0);
}

#[test]
fn a_used_transid_without_a_stored_response_is_never_new() {
    let cache = IdempotencyCache::default();
    assert!(!cache.has_stored(1), "used before the client's mode was changed, or before a restart");
    // A stored response is never new, even if the replay cache does not have its transid.
    cache.complete(cache.first(2), response("00", 80));
    assert!(matches!(cache.state_of(2, "g", "1", false), RetryState::Stored(_)));
    assert!(matches!(cache.state_of(2, "g", "2", false), RetryState::Mismatch));
}

#[test]
fn a_refusal_of_the_replay_cache_changes_nothing() {
    let cache = IdempotencyCache::default();
    assert_eq!(cache.enter(appid(), number(1), asked("g", "1"), || Err(7)).unwrap_err(), 7);
    assert!(!cache.has_stored(1));
}

#[tokio::test]
async fn a_request_without_a_response_may_be_tried_again() {
    let cache = IdempotencyCache::default();
    let completer = cache.first(1);
    let RetryState::InFlight(early) = cache.state_of(1, "g", "1", true) else { panic!("meanwhile") };
    drop(completer);
    assert_eq!(early.wait().await, None);
    let RetryState::New(completer) = cache.state_of(1, "g", "1", true) else { panic!("again") };
    cache.complete(completer, response("00", 80));
    assert!(cache.has_stored(1));
}

#[test]
fn a_purge_removes_covered_responses_and_requests_in_flight() {
    let cache = IdempotencyCache::default();
    let in_flight = cache.first(1);
    cache.complete(cache.first(2), response("00", 80));
    cache.complete(cache.first(3), response("02", 80));
    let status = |entry: &Entry| entry.reply.verdict.status.unwrap().code().to_owned();
    cache.purge(|_, entry| entry.is_none_or(|entry| status(entry) == "00"));
    cache.complete(in_flight, response("00", 80));
    assert_eq!([1, 2, 3].map(|sequence| cache.has_stored(sequence)), [false, false, true]);
}

#[test]
fn large_bodies_are_limited_per_client_and_in_total_and_small_ones_are_not() {
    let cache = IdempotencyCache::new(Capacity { client: 2_000, all: 3_000 });
    for sequence in 1..=3 {
        cache.complete(cache.first(sequence), response("00", 1_000));
    }
    cache.complete(cache.first(4), response("00", 80));
    assert_eq!([1, 2, 3, 4].map(|sequence| cache.has_stored(sequence)), [false, true, true, true]);
    assert_eq!(cache.large.load(Ordering::Relaxed), 2_000);
    // Another client gets the rest, and stores nothing once nothing is left.
    let other = AppId::parse("B1").unwrap();
    for (sequence, keeps) in [(1, true), (2, true)] {
        let enter =
            |used| cache.enter(other, number(sequence), asked("g", "1"), || Ok::<_, Infallible>(used));
        let RetryState::New(completer) = enter(false).unwrap() else { panic!("the first") };
        cache.complete(completer, response("00", 1_000));
        assert_eq!(matches!(enter(true).unwrap(), RetryState::Stored(_)), keeps);
    }
    let longer = cache.first(5);
    cache.complete(longer, response("00", 2_500));
    assert!(!cache.has_stored(5), "longer than the client's room");
    // The end of the window and a purge release the room.
    cache.purge(|_, _| true);
    assert_eq!(cache.large.load(Ordering::Relaxed), 0);
    cache.complete(cache.first(6), response("00", 1_000));
    (0..SHARDS).for_each(|_| cache.sweep(Stamp::FIRST.to_unix() + 1));
    assert_eq!(cache.large.load(Ordering::Relaxed), 0);
    assert!(!cache.has_stored(6));
}

#[test]
fn a_stored_response_needs_little_memory() {
    assert!(std::mem::size_of::<(TransidKey, Slot)>() <= 80, "{}", std::mem::size_of::<(TransidKey, Slot)>());
}
