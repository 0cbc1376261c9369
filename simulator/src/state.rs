//! The carrier's state, under one lock: accounts, script, limits and the log of calls.
//!
//! A call of API v2 is checked in the carrier's order: path (10006) → public parameters there (10) → appid known (4) →
//! token (7) → ebid (absent 10, wrong 3) → exactly one card (10), well formed (38) → limits (71, 72, 75) → script. The
//! checks of API v5 are in `v5`.

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
use crate::request::{Parameters, Request};
use crate::rule::Script;
use crate::throttle::{Throttle, Usage};
use crate::{transid, v5};

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
    pub(crate) v5: v5::State,
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
    pub(crate) reply: Reply,
}

/// The result of an envelope.
pub(crate) enum Reply {
    /// Operation and card of the result; `None` for refusals.
    V2(Option<(Operation, Card)>),
    V5(v5::Reply),
}

/// A call's answer, and the parameters that the log has of it.
struct Answered {
    behaviour: Behaviour,
    reply: Reply,
    appid: String,
    transid: String,
    card: Option<Card>,
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
            v5: v5::State::new(config.v5_accounts),
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
        let answered = match operation {
            Some(Operation::V5(operation)) => self.receive_v5(request, operation, now),
            _ => self.receive_v2(request, operation, now),
        };
        let Answered { behaviour, reply, appid, transid, card } = answered;
        let number = self.calls.begin(Call {
            at,
            operation,
            path: request.path.clone(),
            appid,
            transid,
            card,
            code: behaviour.answer.code().map(str::to_owned),
            outcome: Outcome::InFlight,
        });
        let latency = behaviour.latency.unwrap_or(self.latency);
        let date_offset = self.date_offset.saturating_add(behaviour.date_offset);
        Decision { number, behaviour, latency, date_offset, reply }
    }

    fn receive_v2(&mut self, request: &Request, operation: Option<Operation>, now: Duration) -> Answered {
        let (behaviour, lookup) = match self.check(request, operation, now) {
            Ok(lookup) => (self.script.decide(&lookup), Some((lookup.operation, lookup.card))),
            Err(answer) => (Behaviour { answer, ..Behaviour::default() }, None),
        };
        Answered {
            behaviour,
            reply: Reply::V2(lookup),
            appid: request.parameters.sent("appid"),
            transid: request.parameters.sent("transid"),
            card: request.parameters.card().ok(),
        }
    }

    fn receive_v5(&mut self, request: &Request, operation: v5::Operation, now: Duration) -> Answered {
        let (parameters, secret_in_url) = v5::parameters(request);
        self.v5.count(operation, secret_in_url);
        let checked = self.check_v5(request, operation, parameters.as_ref(), now);
        let parameters = parameters.unwrap_or_default();
        let appid = self.v5.caller(&parameters);
        let (behaviour, reply) = match checked {
            Ok(v5::Checked::Query(lookup)) => {
                (self.script.decide(&lookup), v5::Reply::Query(operation, lookup.card))
            }
            Ok(v5::Checked::Fetch { appid, renew }) => {
                let behaviour = self.script.decide_fetch(&appid);
                let reply = self.v5.answer_fetch(&appid, renew, &behaviour.answer, now);
                (behaviour, reply)
            }
            Err(answer) => {
                let reply = self.v5.refusal(&appid, answer.code().unwrap_or_default());
                (Behaviour { answer, ..Behaviour::default() }, reply)
            }
        };
        self.v5.count_code(operation, behaviour.answer.code());
        let (transid, card) = (parameters.sent("transid"), parameters.card().ok());
        Answered { behaviour, reply: Reply::V5(reply), appid, transid, card }
    }

    /// The checks of API v5, limits included: a call to be answered, or the refusal.
    fn check_v5(
        &mut self,
        request: &Request,
        operation: v5::Operation,
        parameters: Option<&Parameters>,
        now: Duration,
    ) -> Result<v5::Checked, Answer> {
        if request.method != Method::GET && request.method != Method::POST {
            return Err(Answer::html(405));
        }
        let refusal = |code: &str| Answer::Code(code.to_owned());
        let parameters = parameters.ok_or_else(|| refusal("11000"))?;
        let checked = self.v5.check(operation, parameters, &mut self.calls, self.refuse_repeats, now);
        let checked = checked.map_err(refusal)?;
        self.usage.admit(self.throttle, checked.appid(), now).map_err(|_| refusal("13000"))?;
        Ok(checked)
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
        if transid.len() > MAX_TRANSID || (self.strict_transid && !transid::is_well_formed(transid, appid)) {
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
