//! Rules of the script: which calls they match, how those are treated, and how often.
//!
//! The first rule that matches and is not used up decides; without one, the carrier sends the default answer. Rules
//! apply only to calls that passed the carrier's checks and throttle, so that a wrong token is refused under every
//! script. [`Rule::parse`] reads a rule from text such as `prefix=1476 status=02 latency=300ms`.

mod parse;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::behaviour::{Answer, Behaviour, Gate};
use crate::lookup::Lookup;
use crate::operation::Operation;

pub use parse::RuleError;

/// One rule of the script: condition, treatment and number of uses.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The calls that it matches.
    pub when: Match,
    /// The treatment of those calls.
    pub then: Behaviour,
    /// The number of calls after which it is used up; `None` for no limit.
    pub times: Option<u32>,
}

/// The calls that a rule matches: those that satisfy all three conditions.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Only these cards.
    pub card: CardMatch,
    /// Only this operation.
    pub operation: Option<Operation>,
    /// Only this account.
    pub appid: Option<String>,
}

/// The cards that a rule matches.
#[derive(Clone, Default)]
pub enum CardMatch {
    /// Every card.
    #[default]
    Any,
    /// This number, in either case.
    Is(String),
    /// Numbers with this prefix, in either case.
    Prefix(String),
    /// None: the rule is for fetches of a token of API v5, which have no card.
    Token,
    /// Lookups for which this predicate is true. It is called with the simulator locked, so it must not call the
    /// [`Simulator`](crate::Simulator), and should be fast.
    Where(Arc<dyn Fn(&Lookup) -> bool + Send + Sync>),
}

impl Rule {
    /// A rule for every call.
    #[must_use]
    pub fn any() -> Self {
        Self::of(CardMatch::Any)
    }

    /// A rule for the card of this number.
    #[must_use]
    pub fn card(number: impl Into<String>) -> Self {
        Self::of(CardMatch::Is(number.into()))
    }

    /// A rule for cards whose number begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self::of(CardMatch::Prefix(prefix.into()))
    }

    /// A rule for lookups that satisfy `holds` (see [`CardMatch::Where`]).
    #[must_use]
    pub fn matching(holds: impl Fn(&Lookup) -> bool + Send + Sync + 'static) -> Self {
        Self::of(CardMatch::Where(Arc::new(holds)))
    }

    /// A rule for fetches of a token of API v5. Other rules do not match these; [`Rule::status`] replaces the token.
    #[must_use]
    pub fn token() -> Self {
        Self::of(CardMatch::Token)
    }

    fn of(card: CardMatch) -> Self {
        Self { when: Match { card, ..Match::default() }, then: Behaviour::default(), times: None }
    }

    /// Restricts the rule to calls of `operation`.
    #[must_use]
    pub fn operation(mut self, operation: Operation) -> Self {
        self.when.operation = Some(operation);
        self
    }

    /// Restricts the rule to calls of the account `appid`.
    #[must_use]
    pub fn appid(mut self, appid: impl Into<String>) -> Self {
        self.when.appid = Some(appid.into());
        self
    }

    /// Sends this answer.
    #[must_use]
    pub fn then(mut self, answer: Answer) -> Self {
        self.then.answer = answer;
        self
    }

    /// Answers code 0 with this STATUS (or the verdict field of another operation).
    #[must_use]
    pub fn status(self, status: impl Into<String>) -> Self {
        self.then(Answer::Status(status.into()))
    }

    /// Answers this code, with the carrier's text for it and an empty result.
    #[must_use]
    pub fn code(self, code: impl Into<String>) -> Self {
        self.then(Answer::Code(code.into()))
    }

    /// Answers this body with HTTP status 200.
    #[must_use]
    pub fn body(self, bytes: impl Into<Bytes>) -> Self {
        self.then(Answer::body(bytes))
    }

    /// Delays the answer by this time.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.then.latency = Some(latency);
        self
    }

    /// Holds the calls at `gate`.
    #[must_use]
    pub fn gate(mut self, gate: &Gate) -> Self {
        self.then.gate = Some(gate.clone());
        self
    }

    /// Sets the `Date` header this many seconds ahead of the clock.
    #[must_use]
    pub fn date_offset(mut self, seconds: i64) -> Self {
        self.then.date_offset = seconds;
        self
    }

    /// Writes text as `\uXXXX`.
    #[must_use]
    pub fn escaped(mut self) -> Self {
        self.then.escaped = true;
        self
    }

    /// Writes the envelope's `status` as a number.
    #[must_use]
    pub fn numeric(mut self) -> Self {
        self.then.numeric = true;
        self
    }

    /// Limits the rule to this many calls.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

impl Match {
    /// Whether `lookup` satisfies all conditions.
    pub(crate) fn holds(&self, lookup: &Lookup) -> bool {
        self.operation.is_none_or(|operation| operation == lookup.operation)
            && self.appid.as_ref().is_none_or(|appid| *appid == lookup.appid)
            && self.card.holds(lookup)
    }

    /// Whether the rule is for fetches of a token of `appid`.
    pub(crate) fn holds_fetch(&self, appid: &str) -> bool {
        matches!(self.card, CardMatch::Token) && self.appid.as_ref().is_none_or(|one| one == appid)
    }
}

impl CardMatch {
    fn holds(&self, lookup: &Lookup) -> bool {
        let number = lookup.card.number.as_str();
        match self {
            Self::Any => true,
            Self::Is(wanted) => number.eq_ignore_ascii_case(wanted),
            Self::Prefix(prefix) => {
                number.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
            }
            Self::Token => false,
            Self::Where(holds) => holds(lookup),
        }
    }
}

impl fmt::Debug for CardMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("Any"),
            Self::Is(number) => f.debug_tuple("Is").field(number).finish(),
            Self::Prefix(prefix) => f.debug_tuple("Prefix").field(prefix).finish(),
            Self::Token => f.write_str("Token"),
            Self::Where(_) => f.write_str("Where(..)"),
        }
    }
}

/// The active rules, with the remaining uses of each.
#[derive(Default)]
pub(crate) struct Script {
    rules: Vec<Rule>,
}

impl Script {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    pub(crate) fn append(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(crate) fn put_first(&mut self, rule: Rule) {
        self.rules.insert(0, rule);
    }

    /// The treatment of `lookup`; counts as one use of its rule.
    pub(crate) fn decide(&mut self, lookup: &Lookup) -> Behaviour {
        self.first(|rule| rule.holds(lookup))
    }

    /// The treatment of a fetch of a token of `appid`; counts as one use of its rule.
    pub(crate) fn decide_fetch(&mut self, appid: &str) -> Behaviour {
        self.first(|rule| rule.holds_fetch(appid))
    }

    fn first(&mut self, matches: impl Fn(&Match) -> bool) -> Behaviour {
        let found = self.rules.iter_mut().find(|rule| rule.times != Some(0) && matches(&rule.when));
        let Some(rule) = found else { return Behaviour::default() };
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        rule.then.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::card::{Card, CardKind};

    fn of(number: &str) -> Lookup {
        Lookup {
            operation: Operation::Status,
            appid: "100001".to_owned(),
            transid: String::new(),
            card: Card { kind: CardKind::Msisdn, number: number.to_owned() },
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let mut script = Script::new(vec![
            Rule::card("1476").status("01"),
            Rule::prefix("14").status("02"),
            Rule::matching(|lookup| lookup.card.number.ends_with('9')).status("03"),
            Rule::any().status("04"),
        ]);
        for (number, status) in [("1476", "01"), ("1477", "02"), ("159", "03"), ("15", "04"), ("1", "04")] {
            assert_eq!(script.decide(&of(number)).answer, Answer::Status(status.to_owned()), "{number}");
        }
    }

    #[test]
    fn a_rule_used_up_makes_room_for_the_next() {
        let mut script = Script::new(vec![Rule::any().code("71").times(2), Rule::any().code("72").times(1)]);
        let answers: Vec<_> = (0..4).map(|_| script.decide(&of("1")).answer).collect();
        let code = |code: &str| Answer::Code(code.to_owned());
        assert_eq!(answers, [code("71"), code("71"), code("72"), Answer::Default]);
    }

    #[test]
    fn operation_and_account_narrow_a_rule() {
        let mut script = Script::new(vec![
            Rule::any().operation(Operation::Power).code("1"),
            Rule::any().appid("0NZ").code("2"),
        ]);
        assert_eq!(script.decide(&of("1")).answer, Answer::Default);
        let power = Lookup { operation: Operation::Power, ..of("1") };
        assert_eq!(script.decide(&power).answer, Answer::Code("1".to_owned()));
        let other = Lookup { appid: "0NZ".to_owned(), ..of("1") };
        assert_eq!(script.decide(&other).answer, Answer::Code("2".to_owned()));
    }

    #[test]
    fn a_rule_for_tokens_matches_no_lookup_and_other_rules_no_fetch() {
        let mut script = Script::new(vec![
            Rule::token().appid("other").code("12004"),
            Rule::token().code("12022").times(1),
            Rule::any().code("71"),
        ]);
        assert_eq!(script.decide(&of("1")).answer, Answer::Code("71".to_owned()));
        assert_eq!(script.decide_fetch("200001").answer, Answer::Code("12022".to_owned()));
        assert_eq!(script.decide_fetch("200001").answer, Answer::Default);
        assert_eq!(script.decide_fetch("other").answer, Answer::Code("12004".to_owned()));
    }

    #[test]
    fn iccids_match_in_either_case() {
        let mut script = Script::new(vec![Rule::prefix("898602c9").status("02")]);
        assert_eq!(script.decide(&of("898602C99816C0445401")).answer, Answer::Status("02".to_owned()));
    }
}
