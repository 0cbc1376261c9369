//! Answers for those who ask again: `replay = "same-answer"`.
//!
//! A gateway whose answer was lost may send the very same request once more. While the first is under way, the second
//! waits for its answer; afterwards it gets a copy. Card and path must be those of the first, since neither is signed.
//! What failed is not kept: it is tried anew, through the cache. Entries leave with the replay window, so their number is
//! bounded by the replay table's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cmiot_signer::{AppId, Card};
use tokio::sync::watch;

use super::replay::Number;
use crate::store::audit::identity::PastCard;

/// What was told, by transid.
#[derive(Debug)]
pub struct Repeats<T> {
    told: Mutex<BTreeMap<(Number, AppId), Told<T>>>,
}

#[derive(Debug)]
struct Told<T> {
    operation: String,
    card: PastCard,
    /// None after a restart: the audit knows what was asked, not the answer.
    answer: Option<watch::Receiver<Option<T>>>,
}

/// What a transid was first used for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The operation's name.
    pub operation: String,
    /// The card.
    pub card: Card,
}

/// Whose turn it is to find the answer.
#[derive(Debug)]
pub enum Turn<T> {
    /// This request's; the others wait for what it tells.
    First(Teller<T>),
    /// Another one's; wait for it.
    Again(Listener<T>),
    /// Nobody's: the transid was used for something else.
    Other,
}

/// Tells the answer to those who ask again. Dropped without a word, the next one finds it anew.
#[derive(Debug)]
pub struct Teller<T>(watch::Sender<Option<T>>);

/// Hears the answer.
#[derive(Debug)]
pub struct Listener<T>(watch::Receiver<Option<T>>);

impl<T> Default for Repeats<T> {
    fn default() -> Self {
        Self { told: Mutex::default() }
    }
}

impl<T: Clone> Repeats<T> {
    /// Takes a turn with a transid.
    pub fn enter(&self, appid: AppId, number: Number, asked: Asked) -> Turn<T> {
        let mut told = self.lock();
        if let Some(before) = told.get(&(number, appid)) {
            if before.operation != asked.operation || !before.card.is(&asked.card) {
                return Turn::Other;
            }
            if let Some(answer) = &before.answer
                && (answer.borrow().is_some() || answer.has_changed().is_ok())
            {
                return Turn::Again(Listener(answer.clone()));
            }
        }
        let (teller, answer) = watch::channel(None);
        let Asked { operation, card } = asked;
        let first = Told { operation, card: PastCard::Plain(card), answer: Some(answer) };
        told.insert((number, appid), first);
        Turn::First(Teller(teller))
    }

    /// Notes what a transid was used for before a restart.
    pub fn remember(&self, appid: AppId, number: Number, operation: &str, card: PastCard) {
        let told = Told { operation: operation.to_owned(), card, answer: None };
        self.lock().insert((number, appid), told);
    }

    /// Forgets transids with stamps before this Unix second.
    pub fn sweep(&self, floor: u64) {
        let mut told = self.lock();
        while told.first_key_value().is_some_and(|((number, _), _)| number.unix() < floor) {
            told.pop_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Number, AppId), Told<T>>> {
        // The map is whole at every step.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Teller<T> {
    /// Tells the answer, now and to whoever asks later.
    pub fn tell(self, answer: T) {
        self.0.send_replace(Some(answer));
    }
}

impl<T: Clone> Listener<T> {
    /// Waits for the answer; none when the first one left without it.
    pub async fn hear(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cmiot_signer::{CardKind, Sequence, Stamp, Transid};

    fn key() -> (AppId, Number) {
        let appid = AppId::parse("A1").unwrap();
        let transid = Transid::new(&appid, Stamp::FIRST, Sequence::FIRST);
        (appid, Number::of(&transid))
    }

    fn asked(card: &str) -> Asked {
        Asked { operation: "x".to_owned(), card: Card::parse(CardKind::Msisdn, card).unwrap() }
    }

    #[tokio::test]
    async fn those_who_ask_again_get_the_first_ones_answer() {
        let repeats = Repeats::default();
        let (appid, number) = key();
        let Turn::First(teller) = repeats.enter(appid, number, asked("1")) else { panic!("the first") };
        let Turn::Again(early) = repeats.enter(appid, number, asked("1")) else { panic!("meanwhile") };
        assert!(matches!(repeats.enter(appid, number, asked("2")), Turn::Other), "cards are not signed");
        teller.tell(7);
        let Turn::Again(late) = repeats.enter(appid, number, asked("1")) else { panic!("afterwards") };
        assert_eq!((early.hear().await, late.hear().await), (Some(7), Some(7)));
    }

    #[tokio::test]
    async fn an_answer_that_was_never_told_is_found_anew() {
        let repeats = Repeats::<u32>::default();
        let (appid, number) = key();
        let Turn::First(teller) = repeats.enter(appid, number, asked("1")) else { panic!("the first") };
        let Turn::Again(early) = repeats.enter(appid, number, asked("1")) else { panic!("meanwhile") };
        drop(teller);
        assert_eq!(early.hear().await, None);
        assert!(matches!(repeats.enter(appid, number, asked("1")), Turn::First(_)));
    }

    #[test]
    fn after_a_restart_only_the_same_card_is_found_anew() {
        let repeats = Repeats::<u32>::default();
        let (appid, number) = key();
        repeats.remember(appid, number, "x", PastCard::Plain(asked("1").card));
        assert!(matches!(repeats.enter(appid, number, asked("2")), Turn::Other));
        assert!(matches!(repeats.enter(appid, number, asked("1")), Turn::First(_)));
        repeats.sweep(Stamp::FIRST.to_unix() + 1);
        assert!(matches!(repeats.enter(appid, number, asked("2")), Turn::First(_)));
        // What cannot be told was none.
        repeats.remember(appid, number, "x", PastCard::Unknown);
        assert!(matches!(repeats.enter(appid, number, asked("2")), Turn::Other));
    }
}
