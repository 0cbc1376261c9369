//! The calls that arrived: counted without end, and the latest of them kept.
//!
//! A call is counted when its request has been read, before it is answered, held or broken off. It is *in
//! flight* until its answer is handed to the connection, its connection is broken on purpose, or its caller
//! leaves. Counters go on when the list of calls is full; the list then forgets its oldest.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::lookup::Card;
use crate::operation::Operation;

/// One call, as the carrier saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Time since the simulator's start, by its clock.
    pub at: Duration,
    /// What was called; `None` for a path that the carrier does not have.
    pub operation: Option<Operation>,
    /// The request's path, cut at 64 bytes.
    pub path: String,
    /// The appid as sent, cut at 64 bytes; empty when absent.
    pub appid: String,
    /// The transid as sent, cut at 64 bytes; empty when absent.
    pub transid: String,
    /// The card, when there was exactly one and it was well formed.
    pub card: Option<Card>,
    /// The code of the envelope that is (or is about to be) answered; `None` where the script answers
    /// something else.
    pub code: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being answered, held at a gate, or hanging.
    InFlight,
    /// Its whole answer was handed to the connection.
    Answered,
    /// The script broke it off, or the simulator stopped while it was held.
    Broken,
    /// Its caller left first, or the simulator was killed.
    Abandoned,
}

/// The counters, since the start or the latest [`reset_counts`](crate::Simulator::reset_counts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Calls that arrived, of every operation and of unknown paths.
    pub calls: u64,
    /// Those of them that were actions (`smsstatusreset`).
    pub actions: u64,
    /// Calls that ended as [`Outcome::Answered`].
    pub answered: u64,
    /// Calls that ended as [`Outcome::Broken`].
    pub broken: u64,
    /// Calls that ended as [`Outcome::Abandoned`].
    pub abandoned: u64,
    /// Calls whose (appid, transid) had been seen before.
    pub repeated: u64,
    /// Calls in flight now; a reset leaves it.
    pub in_flight: u64,
    /// The most that were in flight at once; a reset sets it to those in flight now.
    pub max_in_flight: u64,
}

/// A transid that came more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Under this account.
    pub appid: String,
    /// The transid, as sent.
    pub transid: String,
    /// How many calls came with it, the first included.
    pub calls: u64,
}

/// How many different repeated transids are listed by name; the counter goes on.
const MOST_REPEATED: usize = 10_000;

/// The book of calls.
pub(crate) struct Ledger {
    counts: Counts,
    codes: HashMap<String, u64>,
    cards: HashMap<String, u64>,
    operations: HashMap<Operation, u64>,
    /// The latest calls, in the order of their numbers; the first of them is number `first`.
    calls: VecDeque<Call>,
    first: u64,
    keep: usize,
    transids: Transids,
    repeated: BTreeMap<(String, String), u64>,
}

impl Ledger {
    /// An empty book that lists the latest `keep` calls and remembers the latest `remember` transids.
    pub(crate) fn new(keep: usize, remember: usize) -> Self {
        Self {
            counts: Counts::default(),
            codes: HashMap::new(),
            cards: HashMap::new(),
            operations: HashMap::new(),
            calls: VecDeque::new(),
            first: 0,
            keep,
            transids: Transids { most: remember, ..Transids::default() },
            repeated: BTreeMap::new(),
        }
    }

    pub(crate) fn connected(&mut self) {
        self.counts.connections += 1;
    }

    /// Notes that an account used this transid; says whether it had been used before.
    pub(crate) fn see_transid(&mut self, appid: &str, transid: &str) -> bool {
        let seen = !self.transids.insert(appid, transid);
        if seen {
            self.counts.repeated += 1;
            let key = (clipped(appid), clipped(transid));
            if self.repeated.len() < MOST_REPEATED || self.repeated.contains_key(&key) {
                // The first call of the pair was not listed, so the second makes it two.
                *self.repeated.entry(key).or_insert(1) += 1;
            }
        }
        seen
    }

    /// Enters a call in flight; returns its number for [`end`](Self::end).
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
        while self.calls.len() > self.keep {
            self.calls.pop_front();
            self.first += 1;
        }
        number
    }

    /// Enters what became of call `number`.
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

    /// Starts counting anew. Transids seen stay seen, and calls in flight stay in flight.
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

/// The latest pairs of appid and transid, each as 64 bits: among a million pairs, the odds of two
/// different ones being taken for one are 3 in 100 million.
#[derive(Default)]
struct Transids {
    seen: HashSet<u64>,
    order: VecDeque<u64>,
    most: usize,
}

impl Transids {
    /// Whether the pair is new.
    fn insert(&mut self, appid: &str, transid: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (appid, transid).hash(&mut hasher);
        let pair = hasher.finish();
        if self.most == 0 || !self.seen.insert(pair) {
            return self.most == 0;
        }
        self.order.push_back(pair);
        if self.order.len() > self.most
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

/// At most 64 bytes of what a caller sent, cut between characters.
fn clipped(text: &str) -> String {
    text[..text.floor_char_boundary(64)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::CardKind;

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
        let mut ledger = Ledger::new(2, 10);
        for card in ["A", "B", "A", "C"] {
            let number = ledger.begin(call(card));
            ledger.end(number, Outcome::Answered);
        }
        let listed: Vec<_> =
            ledger.calls().into_iter().filter_map(|call| call.card).map(|c| c.number).collect();
        assert_eq!(listed, ["A", "C"]);
        assert_eq!((ledger.counts().calls, ledger.counts().answered), (4, 4));
        assert_eq!((ledger.count_for("a"), ledger.count_code("0"), ledger.count_for("D")), (2, 4, 0));
    }

    #[test]
    fn the_most_in_flight_is_remembered() {
        let mut ledger = Ledger::new(10, 10);
        let (first, second) = (ledger.begin(call("A")), ledger.begin(call("B")));
        ledger.end(second, Outcome::Abandoned);
        assert_eq!((ledger.counts().in_flight, ledger.counts().max_in_flight), (1, 2));
        assert_eq!(ledger.calls()[1].outcome, Outcome::Abandoned);
        ledger.end(first, Outcome::Broken);
        assert_eq!((ledger.counts().broken, ledger.counts().abandoned), (1, 1));
    }

    #[test]
    fn a_reset_leaves_calls_in_flight_alone() {
        let mut ledger = Ledger::new(10, 10);
        let before = ledger.begin(call("A"));
        ledger.reset();
        assert_eq!(ledger.counts(), Counts { in_flight: 1, max_in_flight: 1, ..Counts::default() });
        let after = ledger.begin(call("B"));
        ledger.end(before, Outcome::Answered);
        assert_eq!(ledger.calls()[0].outcome, Outcome::InFlight, "the old call's end is not the new one's");
        ledger.end(after, Outcome::Broken);
        assert_eq!(ledger.calls()[0].outcome, Outcome::Broken);
    }

    #[test]
    fn a_list_of_none_still_counts() {
        let mut ledger = Ledger::new(0, 0);
        let number = ledger.begin(call("A"));
        ledger.end(number, Outcome::Answered);
        assert!(!ledger.see_transid("a", "t") && !ledger.see_transid("a", "t"));
        assert_eq!((ledger.calls().len(), ledger.counts().answered), (0, 1));
    }

    #[test]
    fn a_transid_is_repeated_under_its_own_account_only() {
        let mut ledger = Ledger::new(10, 10);
        let seen = [("a", "1"), ("b", "1"), ("a", "1"), ("a", "1")].map(|(a, t)| ledger.see_transid(a, t));
        assert_eq!(seen, [false, false, true, true]);
        let expected = Repeated { appid: "a".to_owned(), transid: "1".to_owned(), calls: 3 };
        assert_eq!((ledger.repeated(), ledger.counts().repeated), (vec![expected], 2));
    }

    #[test]
    fn only_the_latest_transids_are_remembered() {
        let mut ledger = Ledger::new(10, 2);
        let seen = ["1", "2", "3", "1", "3"].map(|transid| ledger.see_transid("a", transid));
        assert_eq!(seen, [false, false, false, false, true]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(clipped(&"x".repeat(100)).len(), 64);
        assert_eq!(clipped(&format!("{}é", "x".repeat(63))), "x".repeat(63));
    }
}
