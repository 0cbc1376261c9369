//! Log of the received calls: counters of all of them, and a list of the latest.
//!
//! A call is counted when its request has been read, before it is answered, held or broken off. It is *in flight* until
//! its response is passed to the connection, the simulator breaks the connection, or the caller disconnects. The
//! counters continue when the list is full; the list then drops its oldest call.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::card::Card;
use crate::operation::Operation;

/// One call, as the carrier saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Time since the simulator's start, by its clock.
    pub at: Duration,
    /// The operation; `None` for a path that the carrier does not have.
    pub operation: Option<Operation>,
    /// The request's path, truncated to 64 bytes.
    pub path: String,
    /// The appid as sent, or that of the token (API v5), truncated to 64 bytes; empty when absent.
    pub appid: String,
    /// The transid as sent, truncated to 64 bytes; empty when absent.
    pub transid: String,
    /// The card, when there was exactly one and it was well formed.
    pub card: Option<Card>,
    /// The code of the envelope in the response; `None` if the script sends something else.
    pub code: Option<String>,
    /// The call's outcome.
    pub outcome: Outcome,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being answered, held at a gate, or hanging.
    InFlight,
    /// Its whole response was passed to the connection.
    Answered,
    /// The script broke its connection, or the simulator stopped while it was held.
    Broken,
    /// Its caller disconnected first, or the simulator was killed.
    Abandoned,
}

/// The counters, since the start or the latest [`reset_counts`](crate::Simulator::reset_counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Calls received, for every operation, for fetches of a token and for unknown paths.
    pub calls: u64,
    /// Calls of actions (`smsstatusreset`, `sim-sms-status`).
    pub actions: u64,
    /// Calls that ended as [`Outcome::Answered`].
    pub answered: u64,
    /// Calls that ended as [`Outcome::Broken`].
    pub broken: u64,
    /// Calls that ended as [`Outcome::Abandoned`].
    pub abandoned: u64,
    /// Calls whose (appid, transid) had been seen before.
    pub repeated: u64,
    /// Calls in flight now; a reset does not change it.
    pub in_flight: u64,
    /// The most calls that were in flight at once; a reset sets it to the calls in flight now.
    pub max_in_flight: u64,
}

/// A transid that was received more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// The account.
    pub appid: String,
    /// The transid, as sent.
    pub transid: String,
    /// Calls with this transid, the first included.
    pub calls: u64,
}

/// The most repeated transids that are listed; the counter continues.
const MAX_REPEATED: usize = 10_000;

/// Counters, list of calls, and repeated transids.
pub(crate) struct CallLog {
    counts: Counts,
    codes: HashMap<String, u64>,
    cards: HashMap<String, u64>,
    operations: HashMap<Operation, u64>,
    /// The latest calls, in the order of their numbers; the first of them is number `first`.
    calls: VecDeque<Call>,
    first: u64,
    max_calls: usize,
    transids: Transids,
    repeated: BTreeMap<(String, String), u64>,
}

impl CallLog {
    /// An empty log that lists the latest `max_calls` calls and stores the latest `max_transids` transids.
    pub(crate) fn new(max_calls: usize, max_transids: usize) -> Self {
        Self {
            counts: Counts::default(),
            codes: HashMap::new(),
            cards: HashMap::new(),
            operations: HashMap::new(),
            calls: VecDeque::new(),
            first: 0,
            max_calls,
            transids: Transids { max: max_transids, ..Transids::default() },
            repeated: BTreeMap::new(),
        }
    }

    pub(crate) fn connected(&mut self) {
        self.counts.connections += 1;
    }

    /// Records that an account used this transid; returns whether it was used before.
    pub(crate) fn record_transid(&mut self, appid: &str, transid: &str) -> bool {
        let seen = !self.transids.insert(appid, transid);
        if seen {
            self.counts.repeated += 1;
            let key = (clipped(appid), clipped(transid));
            if self.repeated.len() < MAX_REPEATED || self.repeated.contains_key(&key) {
                // The first call of the pair was not listed, so the second makes it two.
                *self.repeated.entry(key).or_insert(1) += 1;
            }
        }
        seen
    }

    /// Adds a call in flight; returns its number for [`end`](Self::end).
    pub(crate) fn begin(&mut self, call: Call) -> u64 {
        let counts = &mut self.counts;
        counts.calls += 1;
        counts.in_flight += 1;
        counts.max_in_flight = counts.max_in_flight.max(counts.in_flight);
        if let Some(operation) = call.operation {
            counts.actions += u64::from(operation.is_action());
            *self.operations.entry(operation).or_default() += 1;
        }
        if let Some(code) = &call.code {
            count(&mut self.codes, code);
        }
        if let Some(card) = &call.card {
            count(&mut self.cards, &card.number);
        }
        let number = self.first + self.calls.len() as u64;
        let [path, appid, transid] = [&call.path, &call.appid, &call.transid].map(|text| clipped(text));
        self.calls.push_back(Call { path, appid, transid, ..call });
        while self.calls.len() > self.max_calls {
            self.calls.pop_front();
            self.first += 1;
        }
        number
    }

    /// Records the outcome of call `number`.
    pub(crate) fn end(&mut self, number: u64, outcome: Outcome) {
        self.counts.in_flight -= 1;
        match outcome {
            Outcome::InFlight => {}
            Outcome::Answered => self.counts.answered += 1,
            Outcome::Broken => self.counts.broken += 1,
            Outcome::Abandoned => self.counts.abandoned += 1,
        }
        // A call before `first` is no longer listed.
        let listed = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(call) = listed.and_then(|at| self.calls.get_mut(at)) {
            call.outcome = outcome;
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn count_for(&self, card: &str) -> u64 {
        self.cards.get(&card.to_ascii_uppercase()).copied().unwrap_or(0)
    }

    pub(crate) fn count_code(&self, code: &str) -> u64 {
        self.codes.get(code).copied().unwrap_or(0)
    }

    pub(crate) fn count_operation(&self, operation: Operation) -> u64 {
        self.operations.get(&operation).copied().unwrap_or(0)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.iter().cloned().collect()
    }

    pub(crate) fn repeated(&self) -> Vec<Repeated> {
        let listed = self.repeated.iter();
        listed
            .map(|((appid, transid), calls)| Repeated {
                appid: appid.clone(),
                transid: transid.clone(),
                calls: *calls,
            })
            .collect()
    }

    /// Resets the counters and the list. Recorded transids and calls in flight stay.
    pub(crate) fn reset(&mut self) {
        let in_flight = self.counts.in_flight;
        self.counts = Counts { in_flight, max_in_flight: in_flight, ..Counts::default() };
        self.codes.clear();
        self.cards.clear();
        self.operations.clear();
        self.repeated.clear();
        self.first += self.calls.len() as u64;
        self.calls.clear();
    }
}

/// The latest pairs of appid and transid, each as a hash of 64 bits: among a million pairs, the probability of a
/// collision is 3 in 100 million.
#[derive(Default)]
struct Transids {
    seen: HashSet<u64>,
    order: VecDeque<u64>,
    max: usize,
}

impl Transids {
    /// Whether the pair is new.
    fn insert(&mut self, appid: &str, transid: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (appid, transid).hash(&mut hasher);
        let pair = hasher.finish();
        if self.max == 0 || !self.seen.insert(pair) {
            return self.max == 0;
        }
        self.order.push_back(pair);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

fn count(counters: &mut HashMap<String, u64>, key: &str) {
    match counters.get_mut(key) {
        Some(counter) => *counter += 1,
        None => {
            counters.insert(key.to_owned(), 1);
        }
    }
}

/// At most 64 bytes of a caller's text, truncated between characters.
fn clipped(text: &str) -> String {
    text[..text.floor_char_boundary(64)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::CardKind;

    fn call(card: &str) -> Call {
        Call {
            at: Duration::ZERO,
            operation: Some(Operation::Status),
            path: "/v2/userstatusrealsingle".to_owned(),
            appid: "a".to_owned(),
            transid: "t".to_owned(),
            card: Some(Card { kind: CardKind::Iccid, number: card.to_owned() }),
            code: Some("0".to_owned()),
            outcome: Outcome::InFlight,
        }
    }

    #[test]
    fn counters_outlive_the_list() {
        let mut log = CallLog::new(2, 10);
        for card in ["A", "B", "A", "C"] {
            let number = log.begin(call(card));
            log.end(number, Outcome::Answered);
        }
        let listed: Vec<_> = log.calls().into_iter().filter_map(|call| call.card).map(|c| c.number).collect();
        assert_eq!(listed, ["A", "C"]);
        assert_eq!((log.counts().calls, log.counts().answered), (4, 4));
        assert_eq!((log.count_for("a"), log.count_code("0"), log.count_for("D")), (2, 4, 0));
    }

    #[test]
    fn the_most_in_flight_is_remembered() {
        let mut log = CallLog::new(10, 10);
        let (first, second) = (log.begin(call("A")), log.begin(call("B")));
        log.end(second, Outcome::Abandoned);
        assert_eq!((log.counts().in_flight, log.counts().max_in_flight), (1, 2));
        assert_eq!(log.calls()[1].outcome, Outcome::Abandoned);
        log.end(first, Outcome::Broken);
        assert_eq!((log.counts().broken, log.counts().abandoned), (1, 1));
    }

    #[test]
    fn a_reset_leaves_calls_in_flight_alone() {
        let mut log = CallLog::new(10, 10);
        let before = log.begin(call("A"));
        log.reset();
        assert_eq!(log.counts(), Counts { in_flight: 1, max_in_flight: 1, ..Counts::default() });
        let after = log.begin(call("B"));
        log.end(before, Outcome::Answered);
        assert_eq!(log.calls()[0].outcome, Outcome::InFlight, "the old call's end is not the new one's");
        log.end(after, Outcome::Broken);
        assert_eq!(log.calls()[0].outcome, Outcome::Broken);
    }

    #[test]
    fn a_list_of_none_still_counts() {
        let mut log = CallLog::new(0, 0);
        let number = log.begin(call("A"));
        log.end(number, Outcome::Answered);
        assert!(!log.record_transid("a", "t") && !log.record_transid("a", "t"));
        assert_eq!((log.calls().len(), log.counts().answered), (0, 1));
    }

    #[test]
    fn a_transid_is_repeated_under_its_own_account_only() {
        let mut log = CallLog::new(10, 10);
        let seen = [("a", "1"), ("b", "1"), ("a", "1"), ("a", "1")].map(|(a, t)| log.record_transid(a, t));
        assert_eq!(seen, [false, false, true, true]);
        let expected = Repeated { appid: "a".to_owned(), transid: "1".to_owned(), calls: 3 };
        assert_eq!((log.repeated(), log.counts().repeated), (vec![expected], 2));
    }

    #[test]
    fn only_the_latest_transids_are_remembered() {
        let mut log = CallLog::new(10, 2);
        let seen = ["1", "2", "3", "1", "3"].map(|transid| log.record_transid("a", transid));
        assert_eq!(seen, [false, false, false, false, true]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(clipped(&"x".repeat(100)).len(), 64);
        assert_eq!(clipped(&format!("{}é", "x".repeat(63))), "x".repeat(63));
    }
}
