//! The carrier's state, under one lock: accounts, script, limits and the log of calls.
//!
//! A call is checked in the carrier's order: path (10006) → public parameters there (10) → appid known (4) →
//! token (7) → ebid (absent 10, wrong 3) → exactly one card (10), well formed (38) → limits (71, 72, 75) → script.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use tokio::sync::watch;

use crate::account::Account;
use crate::behaviour::{Answer, Behaviour};
use crate::calls::{Call, CallLog, Counts, Outcome};
use crate::card::Card;
use crate::clock::Clock;
use crate::config::Config;
use crate::lookup::Lookup;
use crate::operation::Operation;
use crate::request::Request;
use crate::rule::Script;
use crate::throttle::{Throttle, Usage};

/// The longest transid, from the carrier's page.
const MAX_TRANSID: usize = 48;

/// The state that all connections and handles share.
pub(crate) struct Shared {
    state: Mutex<State>,
    counts: watch::Sender<Counts>,
    clock: Clock,
    started: Duration,
}

/// The state under the lock.
pub(crate) struct State {
    pub(crate) accounts: HashMap<String, Account>,
    pub(crate) script: Script,
    pub(crate) throttle: Throttle,
    pub(crate) latency: Duration,
    pub(crate) date_offset: i64,
    pub(crate) calls: CallLog,
    usage: Usage,
    prefix: String,
    strict_transid: bool,
    refuse_repeats: bool,
}

/// The decision on one call: its answer and the time of it.
pub(crate) struct Decision {
    /// The call's number in the log.
    pub(crate) number: u64,
    pub(crate) behaviour: Behaviour,
    /// The behaviour's latency, or the general one.
    pub(crate) latency: Duration,
    /// The sum of the general offset and the behaviour's.
    pub(crate) date_offset: i64,
    /// Operation and card of the result; `None` for refusals.
    pub(crate) lookup: Option<(Operation, Card)>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        let started = config.clock.now();
        let state = State {
            accounts: by_appid(config.accounts),
            script: Script::new(config.rules),
            throttle: config.throttle,
            latency: config.latency,
            date_offset: config.date_offset,
            calls: CallLog::new(config.keep_calls, config.keep_transids),
            usage: Usage::default(),
            prefix: config.prefix,
            strict_transid: config.strict_transid,
            refuse_repeats: config.refuse_repeats,
        };
        Self {
            state: Mutex::new(state),
            counts: watch::Sender::new(Counts::default()),
            clock: config.clock,
            started,
        }
    }

    /// Runs `act` on the state, and notifies waiters if the counters have changed.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        // The panic of a rule's predicate leaves the state consistent.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state);
        let now = state.calls.counts();
        self.counts.send_if_modified(|counts| std::mem::replace(counts, now) != now);
        result
    }

    /// Logs a call and decides its answer.
    pub(crate) fn receive(&self, request: &Request) -> Decision {
        let now = self.clock.now();
        self.with(|state| state.receive(request, now, now.saturating_sub(self.started)))
    }

    pub(crate) fn end(&self, number: u64, outcome: Outcome) {
        self.with(|state| state.calls.end(number, outcome));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Counts> {
        self.counts.subscribe()
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }
}

/// A call in flight. If it is dropped before its end, the outcome is [`Outcome::Abandoned`].
pub(crate) struct CallGuard {
    shared: Arc<Shared>,
    number: u64,
    open: bool,
}

impl CallGuard {
    pub(crate) fn new(shared: Arc<Shared>, number: u64) -> Self {
        Self { shared, number, open: true }
    }

    pub(crate) fn end(mut self, outcome: Outcome) {
        self.open = false;
        self.shared.end(self.number, outcome);
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if self.open {
            self.shared.end(self.number, Outcome::Abandoned);
        }
    }
}

impl State {
    fn receive(&mut self, request: &Request, now: Duration, at: Duration) -> Decision {
        let operation = Operation::at(&request.path, &self.prefix);
        let (behaviour, lookup) = match self.check(request, operation, now) {
            Ok(lookup) => (self.script.decide(&lookup), Some((lookup.operation, lookup.card))),
            Err(answer) => (Behaviour { answer, ..Behaviour::default() }, None),
        };
        let sent = |name| request.parameters.optional(name).ok().flatten().unwrap_or_default().to_owned();
        let number = self.calls.begin(Call {
            at,
            operation,
            path: request.path.clone(),
            appid: sent("appid"),
            transid: sent("transid"),
            card: request.parameters.card().ok(),
            code: behaviour.answer.code().map(str::to_owned),
            outcome: Outcome::InFlight,
        });
        let latency = behaviour.latency.unwrap_or(self.latency);
        let date_offset = self.date_offset.saturating_add(behaviour.date_offset);
        Decision { number, behaviour, latency, date_offset, lookup }
    }

    /// The carrier's checks, limits included: a lookup to be answered, or the refusal.
    fn check(
        &mut self,
        request: &Request,
        operation: Option<Operation>,
        now: Duration,
    ) -> Result<Lookup, Answer> {
        if request.method != Method::GET && request.method != Method::POST {
            return Err(Answer::html(405));
        }
        let refusal = |code: &str| Answer::Code(code.to_owned());
        let operation = operation.ok_or_else(|| refusal("10006"))?;
        let lookup = self.check_parameters(request, operation).map_err(refusal)?;
        self.usage.admit(self.throttle, &lookup.appid, now).map_err(refusal)?;
        Ok(lookup)
    }

    fn check_parameters(&mut self, request: &Request, operation: Operation) -> Result<Lookup, &'static str> {
        let sent = &request.parameters;
        let appid = sent.required("appid")?;
        let transid = sent.required("transid")?;
        let token = sent.required("token")?;
        if transid.len() > MAX_TRANSID || (self.strict_transid && !is_well_formed(transid, appid)) {
            return Err("10");
        }
        let account = self.accounts.get(appid).ok_or("4")?;
        let repeated = self.calls.record_transid(appid, transid);
        if !account.token_is(transid, token) || (repeated && self.refuse_repeats) {
            return Err("7");
        }
        if sent.required("ebid")? != account.ebid(operation) {
            return Err("3");
        }
        let card = sent.card()?;
        Ok(Lookup { operation, appid: appid.to_owned(), transid: transid.to_owned(), card })
    }
}

/// Accounts by appid; of two accounts with the same appid, the later one counts.
pub(crate) fn by_appid(accounts: Vec<Account>) -> HashMap<String, Account> {
    accounts.into_iter().map(|account| (account.appid().to_owned(), account)).collect()
}

/// Whether a transid is its appid, 14 digits of time and 8 of sequence.
fn is_well_formed(transid: &str, appid: &str) -> bool {
    let tail = transid.strip_prefix(appid).unwrap_or_default();
    tail.len() == 22 && tail.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_transid_is_appid_stamp_and_sequence() {
        assert!(is_well_formed("1000012014101615303080000001", "100001"));
        for wrong in ["2014101615303080000001", "10000120141016153030800000", "100001201410161530308000000x"]
        {
            assert!(!is_well_formed(wrong, "100001"), "{wrong}");
        }
    }
}
