//! The carrier's side: signs one call with an account's credentials, makes it, and says what came of it.
//!
//! [`Carrier::call`] asks for a group: it picks the account by what is left of its budget, waits for its turn, passes
//! the breakers, and asks once more where the carrier's codes say that this helps. One [`Attempt`] is one call with one
//! transid of its own. What the carrier said is a [`Verdict`]; what kept it from saying anything is a [`Fault`]; why it
//! was not asked at all is [`NotSent`]. Only this room knows the carrier's JSON and error codes.

pub mod account;
pub mod breaker;
pub mod budget;
pub mod charset;
pub mod client;
mod connect;
pub mod fault;
pub mod health;
pub mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use cmiot_signer::{Card, Password, SignedRequest, Signer, Transid};
use tokio_util::sync::CancellationToken;

use crate::alarms::Condition;
use crate::clock::belief::{Limits, Tick};
use crate::clock::{Clock, Time};
use crate::config::{Account, Carrier as Settings, Config};
use crate::inline_str::InlineStr;
use crate::metrics::{AccountGauges, Metrics};
use crate::operation::{Operation, Parameters};
use crate::sequence::TransidSource;
use crate::store::audit::{AuditStore, CallRow, OnFailure};
use crate::store::state::StateStore;
use crate::urgency::SharedUrgency;
use account::{AccountState, CallPermit, Next};
use charset::ContentType;
use client::Client;
use fault::Fault;
use health::Alarm;
use verdict::{Class, Code, Verdict};

/// One call to the carrier and its end.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The account that signed it.
    pub account: Arc<str>,
    /// Its own transaction number; absent when none could be had.
    pub transid: Option<Transid>,
    /// How long it took.
    pub latency: Duration,
    /// What the carrier said, or what kept it from saying anything.
    pub result: Result<CarrierResponse, Fault>,
}

impl Attempt {
    /// Whether the carrier refused the account and not the call: another account may be served.
    fn is_refused(&self) -> bool {
        let class = self.result.as_ref().ok().map(|answered| answered.verdict.class);
        matches!(class, Some(Class::Credentials | Class::Throttled))
    }
}

/// The carrier's answer, byte for byte, and what it means.
#[derive(Clone, Debug)]
pub struct CarrierResponse {
    /// The body as it came.
    pub body: Bytes,
    /// How it is encoded.
    pub content_type: ContentType,
    /// What it means.
    pub verdict: Verdict,
    /// When it came.
    pub at: Time,
}

/// Why the carrier was not asked, and how long to wait before it may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotSent {
    /// The accounts' budget is spent, or too many wait for it.
    Budget(Duration),
    /// The day's calls cannot be counted, since `state.db` takes no commit: none is made.
    Uncounted(Duration),
    /// The carrier throttled the account: it rests.
    CoolDown(Duration),
    /// The carrier failed too often in a row.
    Breaker(Duration),
    /// The carrier refuses the account's credentials, or its subscription, with this code.
    Credentials(Code, Duration),
    /// The audit takes no records, so the answer could not be given, or the call would have no row.
    Unrecorded,
    /// The proxy is shutting down.
    Shutdown,
}

impl NotSent {
    /// How long to wait before asking may help.
    pub fn wait(&self) -> Duration {
        match self {
            Self::Budget(wait)
            | Self::Uncounted(wait)
            | Self::CoolDown(wait)
            | Self::Breaker(wait)
            | Self::Credentials(_, wait) => *wait,
            Self::Unrecorded | Self::Shutdown => Duration::from_secs(5),
        }
    }
}

/// Makes the calls.
pub struct Carrier {
    client: Client,
    transids: Arc<TransidSource>,
    groups: ArcSwap<Groups>,
    state: Arc<StateStore>,
    audit: Arc<AuditStore>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Cancelled when calls under way are to end now.
    stopping: CancellationToken,
}

impl Carrier {
    /// A carrier for the accounts of a configuration, whose transids and spending `state` knows. Every attempt has its
    /// row in `audit`.
    ///
    /// # Errors
    /// When TLS towards the carrier cannot be set up.
    pub fn new(
        config: &Config,
        state: &Arc<StateStore>,
        audit: &Arc<AuditStore>,
        clock: &Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, rustls::Error> {
        clock.set_limits(limits(config));
        Ok(Self {
            client: Client::new(&config.carrier, clock)?,
            transids: Arc::new(TransidSource::new(Arc::clone(state), config.carrier.node, clock.clone())),
            groups: ArcSwap::from_pointee(accounts(config, state, clock, &Groups::new())),
            state: Arc::clone(state),
            audit: Arc::clone(audit),
            clock: clock.clone(),
            metrics,
            stopping: CancellationToken::new(),
        })
    }

    /// Ends the calls under way with [`Fault::Shutdown`], each with its row, and lets no further one begin.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Takes over the accounts and limits of a changed configuration, and `settings` for the calls that begin from now on.
    /// What is known of the accounts that stay is kept.
    ///
    /// # Errors
    /// When TLS towards the carrier cannot be set up; nothing has changed then.
    pub fn reload(&self, config: &Config, settings: Settings) -> Result<(), rustls::Error> {
        self.client.reload(settings)?;
        let groups = accounts(config, &self.state, &self.clock, &self.groups.load());
        self.groups.store(Arc::new(groups));
        self.clock.set_limits(limits(config));
        Ok(())
    }

    /// Asks for a group about one card, once more where that helps and was not counted: after a busy code, with
    /// another password, with another account of the group where one is throttled or refused, or when no answer had
    /// begun. Actions are sent once. Returns the last attempt.
    ///
    /// # Errors
    /// [`NotSent`] when no account of the group may send a call, or none may be sent at all.
    pub async fn call(
        &self,
        group: &str,
        operation: &'static Operation,
        card: &Card,
        parameters: &Parameters,
        pressure: &SharedUrgency,
    ) -> Result<Attempt, NotSent> {
        let (mut last, mut retries, mut passwords) =
            (None::<Attempt>, u32::from(operation.is_lookup()), operation.is_lookup());
        let (mut accounts, mut refused) = (operation.is_lookup(), None);
        loop {
            let previous = last.as_ref().and_then(|attempt| attempt.transid);
            let picked = match self.may_send(operation) {
                Ok(()) => self.select_account(group, operation, pressure, refused.as_ref()).await,
                Err(not_asked) => Err(not_asked),
            };
            let (account, pass) = match (picked, last) {
                (Ok(picked), _) => picked,
                // What was said before is better than why nothing more is.
                (Err(_), Some(attempt)) => return Ok(attempt),
                (Err(not_asked), None) => return Err(not_asked),
            };
            let password = account.password(pass.password);
            let attempt =
                self.attempt(&account.account, password, operation, card, parameters, previous).await;
            let settled = account.record(operation, &pass, &attempt.result);
            drop(pass);
            if let Next::Alarm(alarm) = &settled {
                tracing::error!(%alarm, "calls stop until the carrier accepts one");
            }
            match settled {
                Next::OtherPassword if passwords => passwords = false,
                _ if attempt.is_refused() && accounts => {
                    accounts = false;
                    refused = Some(Arc::clone(&attempt.account));
                }
                _ => match pause(&attempt) {
                    Some(pause) if retries > 0 => {
                        retries -= 1;
                        let _: Option<()> =
                            self.stopping.run_until_cancelled(tokio::time::sleep(pause)).await;
                    }
                    _ => return Ok(attempt),
                },
            }
            last = Some(attempt);
        }
    }

    /// Whether a call may be sent at all: nothing is paid for whose answer could not be given for want of a record, and no
    /// action is done without one.
    fn may_send(&self, operation: &Operation) -> Result<(), NotSent> {
        if self.stopping.is_cancelled() {
            return Err(NotSent::Shutdown);
        }
        let needs_record = self.audit.on_failure() == OnFailure::Refuse || !operation.is_lookup();
        if needs_record && !self.audit.can_record() { Err(NotSent::Unrecorded) } else { Ok(()) }
    }

    /// The account of the group with the most left, and leave to call with it. Not the one that was `refused` before.
    async fn select_account(
        &self,
        group: &str,
        operation: &'static Operation,
        pressure: &SharedUrgency,
        refused: Option<&Arc<str>>,
    ) -> Result<(Arc<AccountState>, CallPermit), NotSent> {
        let accounts = self.groups.load().get(group).cloned().unwrap_or_default();
        let may = |account: &Account| account.ebid_of(operation).is_some() && refused != Some(&account.name);
        let accounts: Vec<_> = accounts.iter().filter(|one| may(&one.account)).collect();
        let mut open: Vec<_> = accounts.iter().copied().filter(|one| one.check(operation).is_ok()).collect();
        open.sort_by_key(|one| std::cmp::Reverse(one.left()));
        // One whose budget is spent leaves it to the next; who waits, waits for the best.
        let mut soonest =
            accounts.iter().filter_map(|one| one.check(operation).err()).min_by_key(NotSent::wait);
        for account in open {
            let passed = self.stopping.run_until_cancelled(account.pass(operation, pressure)).await;
            match passed.unwrap_or(Err(NotSent::Shutdown)) {
                Ok(pass) => match self.may_send(operation) {
                    Ok(()) => return Ok((Arc::clone(account), pass)),
                    // The wait for the budget may have been long.
                    Err(not_asked) => {
                        account.give_back(operation);
                        return Err(not_asked);
                    }
                },
                Err(refused) => soonest = Some(refused),
            }
        }
        Err(soonest.unwrap_or(NotSent::Budget(Duration::from_secs(60))))
    }

    /// Whether a call could leave now to refresh something of this group that is still fresh.
    pub fn may_refresh_ahead(&self, group: &str, operation: &Operation) -> bool {
        let groups = self.groups.load();
        let mut accounts = groups.get(group).into_iter().flat_map(|of| of.iter());
        accounts.any(|one| one.check(operation).is_ok() && one.may_refresh_ahead())
    }

    /// What only the operator can mend.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.groups.load().values().flat_map(|of| of.iter()).flat_map(|account| account.alarms()).collect()
    }

    /// Looks for a step of the wall clock, and keeps the alarm about the clock up to date; called on a ticker.
    pub fn watch_clock(&self) -> Tick {
        let tick = self.clock.tick();
        self.metrics.clock(&tick);
        self.publish_clock();
        tick
    }

    fn publish_clock(&self) {
        match self.clock.alarm() {
            Some(text) => self.audit.alarms().raise(Condition::Clock, text),
            None => self.audit.alarms().clear(Condition::Clock),
        }
    }

    /// The values of each account at this moment, for metrics.
    pub fn gauges(&self) -> Vec<AccountGauges> {
        self.groups.load().values().flat_map(|of| of.iter()).map(|account| account.gauges()).collect()
    }

    /// One attempt with one password, budget and breakers apart: transid → sign → send → read. Takes as long as the
    /// client's timeout at most. `previous` is the transid of the attempt that it follows, for the audit.
    pub async fn attempt(
        &self,
        account: &Account,
        password: &Password,
        operation: &Operation,
        card: &Card,
        parameters: &Parameters,
        previous: Option<Transid>,
    ) -> Attempt {
        let at = self.clock.now();
        let started = self.clock.monotonic();
        let mut attempt = Attempt {
            account: Arc::clone(&account.name),
            transid: None,
            latency: Duration::ZERO,
            result: Err(Fault::Sequence),
        };
        match self.transid(account).await {
            Ok(transid) => {
                attempt.transid = Some(transid);
                attempt.result = match account.ebid_of(operation) {
                    Some(ebid) => {
                        let signed = Signer::new(&account.appid, ebid, password).sign_transid(transid, card);
                        self.send(operation, &signed, parameters).await
                    }
                    None => Err(Fault::NoEbid),
                };
            }
            Err(fault) => attempt.result = Err(fault),
        }
        attempt.latency = self.clock.monotonic().saturating_sub(started);
        self.audit.append_call(call_row(operation, card, at, previous, &attempt));
        self.report(operation, card, &attempt);
        attempt
    }

    async fn transid(&self, account: &Account) -> Result<Transid, Fault> {
        if let Some(transid) = self.transids.try_next(&account.appid) {
            return Ok(transid);
        }
        let transids = Arc::clone(&self.transids);
        let appid = account.appid;
        // Leasing the next block of numbers waits for the disk: not on an async worker.
        match tokio::task::spawn_blocking(move || transids.next(&appid)).await {
            Ok(Ok(transid)) => Ok(transid),
            Ok(Err(error)) => {
                tracing::error!(account = %account.name, %error, "no transid for a carrier call");
                Err(Fault::Sequence)
            }
            Err(_) => Err(Fault::Sequence),
        }
    }

    async fn send(
        &self,
        operation: &Operation,
        signed: &SignedRequest<'_>,
        parameters: &Parameters,
    ) -> Result<CarrierResponse, Fault> {
        let sent = self.clock.moment();
        // As soon as the head has come, whatever its status.
        let dated = |theirs: Time| {
            let drift = self.clock.compare(sent, theirs);
            self.metrics.clock_drift(drift.seconds);
            self.publish_clock();
        };
        let got = self.client.get(operation.path, signed, parameters, dated);
        let response = self.stopping.run_until_cancelled(got).await.unwrap_or(Err(Fault::Shutdown))?;
        let at = self.clock.now();
        match Verdict::read(&response.body, operation.verdict) {
            Ok(verdict) => {
                Ok(CarrierResponse { body: response.body, content_type: response.content_type, verdict, at })
            }
            Err(why) => Err(Fault::not_an_envelope(why, &response.body)),
        }
    }

    /// Where every attempt ends, whatever became of it.
    fn report(&self, operation: &Operation, card: &Card, attempt: &Attempt) {
        let code = match &attempt.result {
            Ok(answered) => answered.verdict.code.label(),
            Err(fault) => fault.name(),
        };
        self.metrics.carrier_call(&attempt.account, code, attempt.latency);
        match &attempt.result {
            Ok(CarrierResponse { verdict, .. }) if verdict.class == Class::Credentials => {
                tracing::error!(
                    account = %attempt.account, operation = operation.name, code = %verdict.code,
                    "the carrier refuses the account's credentials: run `cmiot-proxy check --live`"
                );
            }
            Ok(_) => {}
            Err(fault) => {
                tracing::warn!(account = %attempt.account, operation = operation.name, card = %card.masked(), %fault, "carrier call failed");
            }
        }
    }
}

/// What the audit keeps of an attempt.
fn call_row(
    operation: &Operation,
    card: &Card,
    at: Time,
    previous: Option<Transid>,
    attempt: &Attempt,
) -> CallRow {
    let transid = |transid: Transid| InlineStr::new(transid.as_str());
    let answered = attempt.result.as_ref().ok();
    CallRow {
        at,
        transid: attempt.transid.map(transid),
        previous: previous.map(transid),
        card: *card,
        account: Arc::clone(&attempt.account),
        operation: operation.name,
        code: answered.map(|answered| InlineStr::new(answered.verdict.code.as_str())),
        fault: attempt.result.as_ref().err().map(Fault::name),
        status: answered
            .and_then(|answered| answered.verdict.status.as_ref())
            .map(|status| InlineStr::new(status.code())),
        latency: attempt.latency,
        bytes: answered.map(|answered| answered.body.len()),
    }
}

/// How each account stands, by group. A group's list is shared with the calls that choose from it.
type Groups = HashMap<Arc<str>, Arc<[Arc<AccountState>]>>;

/// The accounts of a configuration, with what `known` knows of those that have not changed.
fn accounts(config: &Config, state: &Arc<StateStore>, clock: &Clock, known: &Groups) -> Groups {
    let account = |account: &Arc<Account>| {
        let before = known.values().flat_map(|of| of.iter()).find(|one| one.account.name == account.name);
        Arc::new(AccountState::new(account, config, state, clock, before.map(|before| &**before)))
    };
    let of_group = |accounts: &Vec<Arc<Account>>| accounts.iter().map(account).collect();
    config.groups.iter().map(|(name, accounts)| (Arc::clone(name), of_group(accounts))).collect()
}

/// How long to wait before the same is asked once more; `None` where that does not help or may be counted twice.
fn pause(attempt: &Attempt) -> Option<Duration> {
    let number = attempt.transid.map_or(0, |transid| transid.sequence().get());
    match &attempt.result {
        Ok(answered) if answered.verdict.class == Class::Busy => Some(account::jitter(number)),
        Err(fault) if fault.may_retry() => Some(Duration::ZERO),
        _ => None,
    }
}

/// What counts as a step of the clock and as drift.
fn limits(config: &Config) -> Limits {
    // Two readings of two clocks are never equal.
    const LEAST: Duration = Duration::from_secs(1);
    let step = config.gateway.clock_skew.limit().unwrap_or(Limits::default().step);
    Limits { step: step.max(LEAST), drift: config.carrier.drift_alarm }
}
