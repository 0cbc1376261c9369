//! Calls to the carrier: account selection, budget, breakers, signature, retries, and the meaning of the reply.
//!
//! [`Carrier::call`] makes a call for a group of accounts. It selects the account with the most headroom, waits for its
//! budget, checks its breakers, and retries where that helps (`retry.rs`). One [`Attempt`] is one call with its own
//! transid. A reply has a [`Verdict`]; a call without a reply ends with a [`Fault`]; a call that is not sent has the reason
//! [`NotSent`]. Only [`dialect`] knows the carrier's codes and fields.

pub mod account;
mod attempt;
mod authorize;
pub mod breaker;
pub mod budget;
pub mod charset;
pub mod check;
pub mod client;
mod connect;
pub mod dialect;
mod episodes;
mod fallback;
pub mod fault;
mod fleet;
pub mod health;
mod retry;
pub mod status;
mod stop_reason;
mod token;
pub mod verdict;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use cmiot_signer::{Card, Transid};
use tokio_util::sync::CancellationToken;

use crate::alarms::{Condition, Severity};
use crate::clock::belief::{Limits, Tick};
use crate::clock::{Clock, Time};
use crate::config::{Account, Carrier as Settings, Config};
use crate::fleet::Fleet;
use crate::fleet::budget::SharedBudget;
use crate::language::{Text, text};
use crate::metrics::{AccountGauges, Metrics};
use crate::operation::{Operation, Parameters};
use crate::sequence::TransidSource;
use crate::store::audit::{AuditStore, OnFailure};
use crate::store::fleet::rest::RestKey;
use crate::store::state::StateStore;
use crate::urgency::SharedUrgency;
use account::{AccountState, CallPermit, Next};
use authorize::Authorized;
use charset::ContentType;
use client::Client;
use dialect::Dialect;
use fault::Fault;
use health::OpenBreaker;
use retry::Retries;
use verdict::{Class, Code, Translated, Verdict};

/// A call to make.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub operation: &'static Operation,
    pub card: &'a Card,
    pub parameters: &'a Parameters,
}

/// One call that was made, and its result.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The account that signed it.
    pub account: Arc<str>,
    /// Its transid; absent if none was available.
    pub transid: Option<Transid>,
    pub latency: Duration,
    pub result: Result<CarrierResponse, Fault>,
}

impl Attempt {
    /// Whether the carrier refused the token of the call.
    fn is_token_refused(&self) -> bool {
        self.result.as_ref().is_ok_and(|response| response.verdict.class == Class::TokenRefused)
    }

    /// Whether the carrier refused or throttled the account: another account may be served.
    fn is_account_refused(&self) -> bool {
        let class = self.result.as_ref().ok().map(|response| response.verdict.class);
        class.is_some_and(|class| class.refuses_account() || class == Class::Throttled)
    }
}

/// The carrier's reply in the form that gateways get, and its meaning.
#[derive(Clone, Debug)]
pub struct CarrierResponse {
    /// The body for gateways: as received, unless it is `translated`.
    pub body: Bytes,
    /// The carrier's code and card state, if the body was made from a reply in another dialect.
    pub translated: Option<Arc<Translated>>,
    pub content_type: ContentType,
    pub verdict: Verdict,
    /// When it was received.
    pub at: Time,
}

impl CarrierResponse {
    /// The code that the carrier wrote.
    pub fn carrier_code(&self) -> Code {
        self.translated.as_ref().map_or(self.verdict.code, |translated| translated.code)
    }
}

/// Reason for not sending a call, with the time after which one may be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotSent {
    /// The budget of the accounts is spent, or too many calls wait for it.
    Budget(Duration),
    /// The calls of the day cannot be counted, since `state.db` takes no commit: no call is made.
    Uncounted(Duration),
    /// The carrier throttled the account, which is in cool-down.
    CoolDown(Duration),
    /// The carrier failed too often in a row.
    Breaker(Duration),
    /// The account has no token, and the last request for one has failed.
    NoToken(Duration),
    /// The carrier refused the account's credentials, or its subscription, with this code.
    Credentials(Code, Duration),
    /// The audit takes no records, so the response could not be sent, or the call would have no row.
    Unrecorded,
    /// The proxy is shutting down.
    Shutdown,
}

impl NotSent {
    /// The time after which a retry may help.
    pub fn wait(&self) -> Duration {
        match self {
            Self::Budget(wait)
            | Self::Uncounted(wait)
            | Self::CoolDown(wait)
            | Self::Breaker(wait)
            | Self::NoToken(wait)
            | Self::Credentials(_, wait) => *wait,
            Self::Unrecorded | Self::Shutdown => Duration::from_secs(5),
        }
    }
}

/// The client of the carrier's API.
pub struct Carrier {
    client: Client,
    transids: Arc<TransidSource>,
    groups: ArcSwap<Groups>,
    /// The budgets that it shares with other nodes.
    fleet: Option<Arc<SharedBudget>>,
    /// Rests that an operator's check has found to be over, until the database knows.
    rests_to_end: Mutex<Vec<RestKey>>,
    /// Codes that no table has, and that were logged.
    unknown_codes: Mutex<HashSet<Code>>,
    state: Arc<StateStore>,
    audit: Arc<AuditStore>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Cancelled when the calls in flight are to end now.
    stopping: CancellationToken,
}

impl Carrier {
    /// The client for the accounts of a configuration. `state` has their transids and spent budgets; every attempt
    /// has its row in `audit`. Budgets are shared with `fleet`, if there is one.
    ///
    /// # Errors
    /// When TLS towards the carrier cannot be set up.
    pub fn new(
        config: &Config,
        state: &Arc<StateStore>,
        audit: &Arc<AuditStore>,
        clock: &Clock,
        metrics: Arc<Metrics>,
        fleet: Option<Arc<Fleet>>,
    ) -> Result<Self, rustls::Error> {
        clock.set_limits(limits(config));
        let fleet = fleet.map(|fleet| Arc::new(SharedBudget::new(fleet, clock)));
        Ok(Self {
            client: Client::new(&config.carrier, clock)?,
            transids: Arc::new(TransidSource::new(Arc::clone(state), config.carrier.node, clock.clone())),
            groups: ArcSwap::from_pointee(accounts(config, state, fleet.as_ref(), clock, &Groups::new())),
            fleet,
            rests_to_end: Mutex::default(),
            unknown_codes: Mutex::default(),
            state: Arc::clone(state),
            audit: Arc::clone(audit),
            clock: clock.clone(),
            metrics,
            stopping: CancellationToken::new(),
        })
    }

    fn rests_to_end(&self) -> MutexGuard<'_, Vec<RestKey>> {
        // No code under this lock can panic in the middle of a change.
        self.rests_to_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown_codes(&self) -> MutexGuard<'_, HashSet<Code>> {
        // No code under this lock can panic in the middle of a change.
        self.unknown_codes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the calls in flight with [`Fault::Shutdown`] and records each; no further call is sent.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Applies the accounts and limits of a changed configuration, and `settings` to the calls that start from now on.
    /// The state of accounts that remain is kept.
    ///
    /// # Errors
    /// When TLS towards the carrier cannot be set up; nothing has changed then.
    pub fn reload(&self, config: &Config, settings: Settings) -> Result<(), rustls::Error> {
        self.client.reload(settings)?;
        let groups = accounts(config, &self.state, self.fleet.as_ref(), &self.clock, &self.groups.load());
        self.groups.store(Arc::new(groups));
        self.clock.set_limits(limits(config));
        Ok(())
    }

    /// Makes a call with the accounts of a group, or with those of one API. A lookup is retried if that helps and the carrier
    /// did not count the attempt: after a busy code, with another token or password, with another account of the group if one
    /// is throttled or refused, or if no response had started. Returns the last attempt.
    ///
    /// # Errors
    /// [`NotSent`] when no account of the group may send a call, or no call may be sent at all.
    async fn call_accounts(
        &self,
        group: &str,
        call: Call<'_>,
        urgency: &SharedUrgency,
        dialect: Option<Dialect>,
        previous: Option<Transid>,
    ) -> Result<Attempt, NotSent> {
        let mut retries = Retries::of(call.operation);
        let mut last: Option<Attempt> = None;
        let mut kept: Option<CallPermit> = None;
        let mut no_call: Option<NotSent> = None;
        loop {
            let permit = match kept.take() {
                Some(permit) => Ok(permit),
                None => {
                    let wanted = Wanted { dialect, refused: retries.refused_account() };
                    self.select_account(group, call.operation, urgency, wanted).await
                }
            };
            let permit = match permit {
                Ok(permit) => permit,
                // The reply to the last attempt says more than the reason for not sending another one.
                Err(not_sent) => return last.ok_or(no_call.unwrap_or(not_sent)),
            };
            let previous = last.as_ref().map_or(previous, |attempt| attempt.transid);
            let (permit, attempt) = match self.authorize(permit, urgency).await {
                Authorized::Call(permit, token) => {
                    // The wait for a token may have been long.
                    if let Err(not_sent) = self.may_send(call.operation) {
                        permit.cancel();
                        return last.ok_or(not_sent);
                    }
                    let attempt = self.attempt(&permit, token.as_deref(), call, previous).await;
                    (permit, attempt)
                }
                Authorized::Refused(permit, attempt) => (permit, *attempt),
                // Another account may have calls left.
                Authorized::NotSent(account, reason) if retries.take_account(&account) => {
                    no_call = Some(reason);
                    continue;
                }
                Authorized::NotSent(_, reason) => return last.ok_or(reason),
            };
            if let Some(pause) = retries.take_same(&attempt) {
                // One call counts once, by its last result: connections of a pool may end together, and a carrier that is
                // busy for a moment answers the retry. The breakers let it pass.
                let renewing = permit.renew(&attempt.result, pause, urgency);
                match self.stopping.run_until_cancelled(renewing).await.flatten() {
                    Some(permit) if self.may_send(call.operation).is_ok() => {
                        (kept, last) = (Some(permit), Some(attempt));
                        continue;
                    }
                    Some(permit) => permit.cancel(),
                    None => {}
                }
                return Ok(attempt);
            }
            let next = permit.record(&attempt.result);
            if matches!(next, Next::Alarm(_)) {
                self.report_accounts();
            }
            if !retries.take_other(&attempt, &next) {
                return Ok(attempt);
            }
            last = Some(attempt);
        }
    }

    /// Whether a call may be sent at all. A lookup without a record must not be paid for if its response could not be
    /// sent, and an action must not happen without a record.
    fn may_send(&self, operation: &Operation) -> Result<(), NotSent> {
        if self.stopping.is_cancelled() {
            return Err(NotSent::Shutdown);
        }
        let needs_record = self.audit.on_failure() == OnFailure::Refuse || !operation.is_lookup();
        if needs_record && !self.audit.can_record() { Err(NotSent::Unrecorded) } else { Ok(()) }
    }

    /// A permit of the account of the group that has the most headroom, of those that are `wanted`.
    async fn select_account(
        &self,
        group: &str,
        operation: &'static Operation,
        urgency: &SharedUrgency,
        wanted: Wanted<'_>,
    ) -> Result<CallPermit, NotSent> {
        self.may_send(operation)?;
        let accounts = self.groups.load().get(group).cloned().unwrap_or_default();
        let may = |account: &Account| account.serves(operation) && wanted.has(account);
        let accounts: Vec<_> = accounts.iter().filter(|one| may(&one.account)).collect();
        let mut open: Vec<_> = accounts.iter().copied().filter(|one| one.check(operation).is_ok()).collect();
        open.sort_by_key(|one| std::cmp::Reverse(one.headroom()));
        let mut reason =
            accounts.iter().filter_map(|one| one.check(operation).err()).min_by_key(NotSent::wait);
        // If the budget of one is spent, the next one is tried; a call that must wait waits for the best one.
        for account in open {
            let acquiring = account.acquire(operation, urgency);
            match self.stopping.run_until_cancelled(acquiring).await.unwrap_or(Err(NotSent::Shutdown)) {
                Ok(permit) => {
                    // The wait for the budget may have been long.
                    return match self.may_send(operation) {
                        Ok(()) => Ok(permit),
                        Err(not_sent) => {
                            permit.cancel();
                            Err(not_sent)
                        }
                    };
                }
                Err(not_sent) => reason = Some(not_sent),
            }
        }
        Err(reason.unwrap_or(NotSent::Budget(Duration::from_secs(60))))
    }

    /// Whether a call of this group may be sent now to refresh an entry that is still fresh.
    pub fn may_refresh_ahead(&self, group: &str, operation: &Operation) -> bool {
        let groups = self.groups.load();
        let mut accounts = groups.get(group).into_iter().flat_map(|of| of.iter());
        accounts.any(|one| one.check(operation).is_ok() && one.may_refresh_ahead())
    }

    /// Keeps the alarms about accounts up to date: those that the carrier refuses, and those that use another password.
    /// Logs conditions of budgets that have ended. Called on a ticker, and before alarms are listed.
    pub fn report_accounts(&self) {
        let groups = self.groups.load();
        let accounts: Vec<_> = groups.values().flat_map(|of| of.iter()).collect();
        let refused: Vec<_> = accounts.iter().flat_map(|account| account.alarms()).collect();
        self.audit.alarms().set_if(Condition::Account, Severity::Error, Text::join(&refused));
        let other = accounts.iter().filter(|account| account.uses_other_password()).map(|account| {
            text!(
                "the carrier accepts the next password of account {name}: once it stays so, write it into password_file and \
                 remove next_password_file; keep both until then",
                "运营商接受的是账号 {name} 的第二个密码：确定不再变化之后，把它写入 password_file 并删除 next_password_file；\
                 在此之前两个都保留",
                name = account.account.name
            )
        });
        self.audit.alarms().set_if(
            Condition::Password,
            Severity::Warning,
            Text::join(&other.collect::<Vec<_>>()),
        );
        accounts.iter().for_each(|account| account.report());
        self.report_tokens();
    }

    /// Detects steps of the wall clock, and keeps the alarm about the clock up to date; called on a ticker.
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

    /// The breakers that are open or half-open, each with its account.
    pub fn open_breakers(&self) -> Vec<(Arc<Account>, OpenBreaker)> {
        let groups = self.groups.load();
        let of = |one: &Arc<AccountState>| {
            let account = Arc::clone(&one.account);
            one.open_breakers().into_iter().map(move |breaker| (Arc::clone(&account), breaker))
        };
        groups.values().flat_map(|of| of.iter()).flat_map(of).collect()
    }
}

/// The accounts that may be selected.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// Those of this API; none means any.
    dialect: Option<Dialect>,
    /// All but this one, which the carrier refused before.
    refused: Option<&'a Arc<str>>,
}

impl Wanted<'_> {
    fn has(&self, account: &Account) -> bool {
        self.dialect.is_none_or(|dialect| dialect == account.dialect()) && self.refused != Some(&account.name)
    }
}

/// The accounts' states, by group. The list of a group is shared with the calls that select from it.
type Groups = HashMap<Arc<str>, Arc<[Arc<AccountState>]>>;

/// The accounts of a configuration, with the state in `known` of those that have not changed.
fn accounts(
    config: &Config,
    state: &Arc<StateStore>,
    fleet: Option<&Arc<SharedBudget>>,
    clock: &Clock,
    known: &Groups,
) -> Groups {
    let account = |account: &Arc<Account>| {
        let before = known.values().flat_map(|of| of.iter()).find(|one| one.account.name == account.name);
        Arc::new(AccountState::new(account, config, state, fleet, clock, before.map(|before| &**before)))
    };
    let of_group = |accounts: &Vec<Arc<Account>>| accounts.iter().map(account).collect();
    config.groups.iter().map(|(name, accounts)| (Arc::clone(name), of_group(accounts))).collect()
}

/// The differences above which the clock was stepped, or drifts.
fn limits(config: &Config) -> Limits {
    // Two readings of two clocks are never equal.
    const LEAST: Duration = Duration::from_secs(1);
    let step = config.gateway.clock_skew.limit().unwrap_or(Limits::default().step);
    Limits { step: step.max(LEAST), drift: config.carrier.drift_alarm }
}
