//! The table of kept responses by itself: turns, purges, bounds.

use std::convert::Infallible;

use super::*;
use crate::cache::said::Said;
use crate::cache::tests::entry;
use crate::operation::USER_STATUS;
use bytes::Bytes;
use cmiot_signer::{CardKind, Sequence, Stamp, Transid};

fn appid() -> AppId {
    AppId::parse("A1").unwrap()
}

fn number(sequence: u32) -> Number {
    Number::of(&Transid::new(&appid(), Stamp::FIRST, Sequence::new(sequence).unwrap()))
}

fn asked(group: &str, card: &str) -> Asked {
    let card = Card::parse(CardKind::Msisdn, card).unwrap();
    Asked { group: group.into(), operation: USER_STATUS, card, parameters: Default::default() }
}

fn response(status: &str, bytes: usize) -> Response {
    let entry = entry(status, 0);
    let said = Said { body: Bytes::from(vec![b'x'; bytes]), ..(*entry.said).clone() };
    Some(Arc::new(Entry { said: said.into(), ..entry }))
}

impl Repeats {
    fn turn(&self, sequence: u32, group: &str, card: &str, used: bool) -> Turn {
        let turn = self.enter(appid(), number(sequence), asked(group, card), || Ok::<_, Infallible>(used));
        turn.unwrap()
    }

    fn first(&self, sequence: u32) -> Teller {
        match self.turn(sequence, "g", "1", false) {
            Turn::First(teller) => teller,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the same request again gets a kept response; it is refused otherwise.
    fn keeps(&self, sequence: u32) -> bool {
        match self.turn(sequence, "g", "1", true) {
            Turn::Kept(_) => true,
            Turn::Used => false,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn those_who_ask_again_get_the_first_response() {
    let repeats = Repeats::default();
    let teller = repeats.first(1);
    let Turn::Wait(early) = repeats.turn(1, "g", "1", true) else { panic!("meanwhile") };
    let told = response("00", 80);
    repeats.tell(teller, told.clone());
    assert_eq!(early.hear().await, Some(told.clone()));
    let Turn::Kept(late) = repeats.turn(1, "g", "1", true) else { panic!("afterwards") };
    assert!(Arc::ptr_eq(&late.unwrap(), &told.unwrap()), "it is shared, not copied");
}

#[test]
fn another_card_and_another_group_get_nothing() {
    let repeats = Repeats::default();
    let teller = repeats.first(1);
    for (group, card) in [("g", "2"), ("h", "1")] {
        assert!(matches!(repeats.turn(1, group, card, true), Turn::Used), "meanwhile: {group} {card}");
    }
    repeats.tell(teller, response("00", 80));
    assert!(!repeats.keeps(1), "refused once, in another group");
    repeats.tell(repeats.first(2), response("00", 80));
    assert!(matches!(repeats.turn(2, "g", "2", true), Turn::Used), "another card");
    assert!(repeats.keeps(2), "which is another request");
    assert!(matches!(repeats.turn(2, "h", "1", true), Turn::Used), "another group");
    assert!(!repeats.keeps(2), "refused once");
}

#[test]
fn what_was_refused_in_another_mode_stays_refused() {
    let repeats = Repeats::default();
    repeats.tell(repeats.first(1), response("00", 1_000));
    repeats.refused(appid(), number(1));
    repeats.refused(appid(), number(2));
    assert!(!repeats.keeps(1));
    assert_eq!(repeats.large.load(Ordering::Relaxed), 0);
}

#[test]
fn a_used_transid_without_a_kept_response_is_never_new() {
    let repeats = Repeats::default();
    assert!(!repeats.keeps(1), "used before the client's mode was changed, or before a restart");
    // And what is kept here is not new, whatever the replay table says.
    repeats.tell(repeats.first(2), response("00", 80));
    assert!(matches!(repeats.turn(2, "g", "1", false), Turn::Kept(_)));
    assert!(matches!(repeats.turn(2, "g", "2", false), Turn::Used));
}

#[test]
fn what_the_replay_table_refuses_leaves_no_trace() {
    let repeats = Repeats::default();
    assert_eq!(repeats.enter(appid(), number(1), asked("g", "1"), || Err(7)).unwrap_err(), 7);
    assert!(!repeats.keeps(1));
}

#[tokio::test]
async fn a_request_that_got_no_response_may_be_tried_anew() {
    let repeats = Repeats::default();
    let teller = repeats.first(1);
    let Turn::Wait(early) = repeats.turn(1, "g", "1", true) else { panic!("meanwhile") };
    drop(teller);
    assert_eq!(early.hear().await, None);
    let Turn::First(teller) = repeats.turn(1, "g", "1", true) else { panic!("again") };
    repeats.tell(teller, response("00", 80));
    assert!(repeats.keeps(1));
}

#[test]
fn a_purge_forgets_what_it_covers_and_what_is_under_way() {
    let repeats = Repeats::default();
    let under_way = repeats.first(1);
    repeats.tell(repeats.first(2), response("00", 80));
    repeats.tell(repeats.first(3), response("02", 80));
    let status = |entry: &Entry| entry.said.verdict.status.unwrap().code().to_owned();
    repeats.purge(|_, entry| entry.is_none_or(|entry| status(entry) == "00"));
    repeats.tell(under_way, response("00", 80));
    assert_eq!([1, 2, 3].map(|sequence| repeats.keeps(sequence)), [false, false, true]);
}

#[test]
fn large_bodies_are_bounded_by_client_and_in_all_and_small_ones_are_not() {
    let repeats = Repeats::new(Room { client: 2_000, all: 3_000 });
    for sequence in 1..=3 {
        repeats.tell(repeats.first(sequence), response("00", 1_000));
    }
    repeats.tell(repeats.first(4), response("00", 80));
    assert_eq!([1, 2, 3, 4].map(|sequence| repeats.keeps(sequence)), [false, true, true, true]);
    assert_eq!(repeats.large.load(Ordering::Relaxed), 2_000);
    // Another client gets what is left, and keeps nothing where nothing is.
    let other = AppId::parse("B1").unwrap();
    for (sequence, keeps) in [(1, true), (2, true)] {
        let enter =
            |used| repeats.enter(other, number(sequence), asked("g", "1"), || Ok::<_, Infallible>(used));
        let Turn::First(teller) = enter(false).unwrap() else { panic!("the first") };
        repeats.tell(teller, response("00", 1_000));
        assert_eq!(matches!(enter(true).unwrap(), Turn::Kept(_)), keeps);
    }
    let longer = repeats.first(5);
    repeats.tell(longer, response("00", 2_500));
    assert!(!repeats.keeps(5), "longer than the client's room");
    // The room comes back with the window, and with a purge.
    repeats.purge(|_, _| true);
    assert_eq!(repeats.large.load(Ordering::Relaxed), 0);
    repeats.tell(repeats.first(6), response("00", 1_000));
    (0..SHARDS).for_each(|_| repeats.sweep(Stamp::FIRST.to_unix() + 1));
    assert_eq!(repeats.large.load(Ordering::Relaxed), 0);
    assert!(!repeats.keeps(6));
}

#[test]
fn a_kept_response_costs_little() {
    assert!(std::mem::size_of::<(Number, Slot)>() <= 80, "{}", std::mem::size_of::<(Number, Slot)>());
}
