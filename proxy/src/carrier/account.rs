//! The runtime state of one account: its budget, its breakers, and which of its passwords the carrier accepts.
//!
//! While the carrier changes a password the account has two. If one is refused, the other is tried before any breaker
//! opens; the one that was accepted last is used first.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::{Ebid, Password, Sequence, Stamp, Token, Transid};

use super::budget::{Budget, Headroom, Limits, Permit};
use super::episodes::Episodes;
use super::health::{Alarm, Health, Kind, OpenBreaker, OwnRest, SharedRest};
use super::token::Tokens;
use super::verdict::Class;
use super::{CarrierResponse, Fault, NotSent};
use crate::clock::Clock;
use crate::config::{Account, Api, Config};
use crate::fleet::budget::SharedBudget;
use crate::fleet::shares;
use crate::language::{Text, text};
use crate::metrics::AccountGauges;
use crate::operation::Operation;
use crate::store::fleet::rest::RestKey;
use crate::store::state::StateStore;
use crate::urgency::{SharedUrgency, Urgency};

/// The runtime state of one account.
#[derive(Debug)]
pub struct AccountState {
    pub account: Arc<Account>,
    budget: Arc<Budget>,
    health: Arc<Mutex<Health>>,
    passwords: Arc<Mutex<Passwords>>,
    tokens: Arc<Tokens>,
    episodes: Arc<Mutex<Episodes>>,
    clock: Clock,
    fleet: Option<AccountShare>,
}

/// The part of an account that the nodes of a fleet share.
#[derive(Debug)]
struct AccountShare {
    fleet: Arc<SharedBudget>,
    /// Names the credentials in shared tables.
    credentials: Vec<u8>,
}

/// Which password is used, and which ones were refused since the last that was accepted.
#[derive(Debug)]
struct Passwords {
    used: usize,
    refused: Vec<bool>,
}

/// Permission to send one call with one password. Either [`Self::record`] or [`Self::cancel`] must follow, since a
/// half-open breaker waits for the result.
#[derive(Debug)]
pub struct CallPermit {
    state: Arc<AccountState>,
    operation: &'static Operation,
    /// Index into the account's passwords.
    password: usize,
    budget: Permit,
}

/// Consequence of a call's result for the next one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing follows from it.
    Done,
    /// Another password has not been tried.
    OtherPassword,
    /// A breaker opened that only the operator can close.
    Alarm(Alarm),
}

impl AccountState {
    /// The state of a configured account. What is known from `before`, the state under an earlier configuration, is kept
    /// as far as it applies: changed credentials are tried at once, and a changed budget starts a new second.
    pub fn new(
        account: &Arc<Account>,
        config: &Config,
        state: &Arc<StateStore>,
        fleet: Option<&Arc<SharedBudget>>,
        clock: &Clock,
        before: Option<&Self>,
    ) -> Self {
        let share = |limit| fleet.map_or(limit, |fleet| shares::at_once(limit, fleet.nodes()));
        let limits = Limits {
            per_second: account.calls_per_second,
            concurrent: account.max_concurrent_calls.map(share),
            per_day: account.calls_per_day.map(NonZeroU64::get),
            queue: config.carrier.max_queued_calls,
            queue_timeout: config.carrier.queue_timeout,
            refresh_ahead_percent: config.cache.refresh_ahead_percent,
        };
        let before = before.filter(|before| before.account.appid == account.appid);
        let budget = before.map(|before| &before.budget).filter(|budget| *budget.limits() == limits);
        let thresholds = config.breaker;
        let same = before.filter(|before| {
            same_credentials(&before.account, account) && before.health().thresholds() == thresholds
        });
        let episodes = before.map_or_else(Arc::default, |before| Arc::clone(&before.episodes));
        let state = Self {
            account: Arc::clone(account),
            budget: budget.map_or_else(
                || Budget::new(limits, account.appid, Arc::clone(state), fleet, clock.clone()),
                Arc::clone,
            ),
            health: same.map_or_else(
                || Arc::new(Mutex::new(Health::new(&account.name, thresholds))),
                |same| Arc::clone(&same.health),
            ),
            passwords: same.map_or_else(
                || Arc::new(Mutex::new(Passwords::of(account))),
                |same| Arc::clone(&same.passwords),
            ),
            tokens: same.map_or_else(Arc::default, |same| Arc::clone(&same.tokens)),
            episodes,
            clock: clock.clone(),
            fleet: fleet.map(|fleet| AccountShare {
                fleet: Arc::clone(fleet),
                credentials: fleet.name_of(&credentials(account)),
            }),
        };
        // Breakers of changed credentials are closed.
        state.note_breakers(&state.health());
        state
    }

    /// Whether a call for this operation could be sent now, except for the budget.
    ///
    /// # Errors
    /// [`NotSent`], with how long to wait.
    pub fn check(&self, operation: &Operation) -> Result<(), NotSent> {
        let now = self.clock.monotonic();
        self.health().check(operation.name, now)?;
        self.tokens.wait(now).map_or(Ok(()), |wait| Err(NotSent::NoToken(wait)))
    }

    /// Waits for the budget, and starts a call.
    ///
    /// # Errors
    /// [`NotSent`]: nothing may be sent.
    pub async fn acquire(
        self: &Arc<Self>,
        operation: &'static Operation,
        urgency: &SharedUrgency,
    ) -> Result<CallPermit, NotSent> {
        // The breakers are checked before any budget is spent, and again after the wait, in which one may have opened.
        self.check(operation)?;
        let budget = self.take_budget(urgency).await?;
        self.health().start_call(operation.name, self.clock.monotonic())?;
        let password = self.passwords().used;
        Ok(CallPermit { state: Arc::clone(self), operation, password, budget })
    }

    /// Waits for the budget alone: the breakers do not count the call. A refusal is a line of the log unless refreshing ahead
    /// was refused, which never waits.
    ///
    /// # Errors
    /// [`NotSent`]: the budget has no call.
    pub(super) async fn take_budget(&self, urgency: &SharedUrgency) -> Result<Permit, NotSent> {
        let taken = self.budget.take(urgency).await;
        if matches!(taken, Err(NotSent::Budget(_))) && urgency.get() != Urgency::Ahead {
            let (day_spent, now) = (self.budget.is_day_spent(), self.clock.moment());
            self.episodes().budget_refused(&self.account.name, day_spent, now);
        }
        taken
    }

    /// Logs the conditions of the budget that have ended; called on a ticker.
    pub fn report(&self) {
        let (day_spent, now) = (self.budget.is_day_spent(), self.clock.monotonic());
        self.episodes().report(&self.account.name, day_spent, now);
    }

    fn note_breakers(&self, health: &Health) {
        self.episodes().breakers(&self.account.name, health, self.clock.moment());
    }

    /// Records a result for the breakers, and logs those that open or close.
    fn record(&self, operation: &'static str, result: &Result<CarrierResponse, Fault>) -> Option<Alarm> {
        let mut health = self.health();
        let rested = self.fleet.is_some() && !health.own_rests().is_empty();
        let alarm = health.record(operation, result, self.clock.monotonic());
        if let Ok(response) = result {
            let code = response.carrier_code();
            health.note_path(operation, self.account.dialect().lacks_path(&code).then_some(code));
        }
        self.note_breakers(&health);
        if let Some(share) = &self.fleet
            && (rested || !health.own_rests().is_empty())
        {
            share.fleet.wake();
        }
        alarm
    }

    /// The name of a rest of this account in the database of the fleet.
    pub(super) fn rest_key(&self, kind: &Kind) -> Option<RestKey> {
        let share = self.fleet.as_ref()?;
        let credentials = kind.depends_on_credentials().then(|| share.credentials.clone());
        Some(RestKey {
            appid: self.account.appid.as_str().to_owned(),
            what: kind.to_string(),
            credentials: credentials.unwrap_or_default(),
        })
    }

    /// The rests that this node has met.
    pub(super) fn own_rests(&self) -> Vec<OwnRest> {
        self.health().own_rests()
    }

    /// Applies the rests that other nodes have met.
    pub(super) fn set_shared_rests(&self, rests: Vec<SharedRest>) {
        self.health().set_shared(rests);
    }

    /// A rest of this node was ended elsewhere.
    pub(super) fn end_open_time(&self, kind: &Kind) {
        self.health().end_open_time(kind, self.clock.monotonic());
    }

    /// Adds what is missing to the reserve of the day.
    pub(super) async fn keep_reserve(&self) {
        self.budget.keep_reserve().await;
    }

    /// Whether the carrier accepted a password other than the first, which is used now.
    pub fn uses_other_password(&self) -> bool {
        self.passwords().is_other_accepted()
    }

    pub fn headroom(&self) -> Headroom {
        self.budget.headroom()
    }

    /// Whether refreshing ahead has a share of a rate here, and some of it remains now.
    pub fn may_refresh_ahead(&self) -> bool {
        self.budget.can_refresh_ahead()
    }

    /// Refusals, and paths that the carrier does not have: only the operator can end them.
    pub fn alarms(&self) -> Vec<Text> {
        let (health, account) = (self.health(), &self.account.name);
        let no_path = |(operation, code)| {
            text!(
                "the carrier answers account {account} for {operation} with code {code}: it has no such path; correct base_url \
                 of the account, or of [carrier]",
                "运营商对账号 {account} 的能力 {operation} 返回 {code}：没有该接口路径；请更正该账号或 [carrier] 的 base_url"
            )
        };
        let refusals = health.alarms().map(|alarm| alarm.text());
        refusals.chain(health.wrong_paths().map(no_path)).collect()
    }

    /// Its values at this moment, for metrics.
    pub fn gauges(&self) -> AccountGauges {
        AccountGauges {
            account: Arc::clone(&self.account.name),
            budget: self.budget.gauges(),
            breakers: self.health().gauges(self.clock.monotonic()),
        }
    }

    /// Its breakers that are open or half-open.
    pub fn open_breakers(&self) -> Vec<OpenBreaker> {
        self.health().open_breakers().collect()
    }

    /// Its breakers that are open or half-open, each with the time until a call may pass; none if one may now.
    pub(super) fn waits(&self) -> Vec<(OpenBreaker, Option<Duration>)> {
        let now = self.clock.monotonic();
        self.health().waits(now).collect()
    }

    /// The number of the password in use, from 1.
    pub(super) fn password_in_use(&self) -> usize {
        self.passwords().used + 1
    }

    /// The tokens that the carrier has issued to it.
    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The carrier accepted the password of this index.
    pub(super) fn accept_password(&self, index: usize) {
        self.passwords().accept(index);
    }

    /// The carrier refused the password of this index. Returns whether another one has not been tried, which is used next.
    pub(super) fn refuse_password(&self, index: usize) -> bool {
        self.passwords().refuse(index)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn episodes(&self) -> MutexGuard<'_, Episodes> {
        self.episodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passwords(&self) -> MutexGuard<'_, Passwords> {
        self.passwords.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallPermit {
    pub fn account(&self) -> &Arc<Account> {
        &self.state.account
    }

    pub(super) fn state(&self) -> &Arc<AccountState> {
        &self.state
    }

    pub fn password(&self) -> &Password {
        &self.state.account.passwords[self.password]
    }

    /// The index of the password.
    pub(super) fn password_index(&self) -> usize {
        self.password
    }

    /// Exchanges the permit, whose call of the budget is used up, for that of another call. The breakers go on waiting for
    /// one result.
    ///
    /// # Errors
    /// [`NotSent`]: the budget has no call.
    pub(super) async fn next_call(self, urgency: &SharedUrgency) -> Result<Self, NotSent> {
        let Self { state, operation, password, budget } = self;
        // It may be the only one.
        drop(budget);
        match state.take_budget(urgency).await {
            Ok(budget) => Ok(Self { state, operation, password, budget }),
            Err(not_sent) => {
                state.health().release(operation.name);
                Err(not_sent)
            }
        }
    }

    /// Records the result of the call.
    pub fn record(self, result: &Result<CarrierResponse, Fault>) -> Next {
        let (state, operation) = (&self.state, self.operation.name);
        match result.as_ref().map(|response| response.verdict.class) {
            Ok(Class::Credentials) => {
                if state.refuse_password(self.password) {
                    state.health().release(operation);
                    return Next::OtherPassword;
                }
            }
            // A throttled or busy carrier may not have checked the credentials.
            Ok(Class::Throttled | Class::Busy) | Err(_) => {}
            // A token was requested with the password; the call itself has none.
            Ok(_) if state.account.dialect().needs_token() => {}
            Ok(_) => state.passwords().accept(self.password),
        }
        let alarm = state.record(operation, result);
        alarm.map_or(Next::Done, Next::Alarm)
    }

    /// Exchanges the permit for that of a retry with the same account and password: another call of the budget, while the
    /// breakers go on waiting for one result. If the budget has no call left, the result of the first attempt is recorded.
    /// Waits for `pause` first, without a call of the budget.
    pub async fn renew(
        self,
        result: &Result<CarrierResponse, Fault>,
        pause: Duration,
        urgency: &SharedUrgency,
    ) -> Option<Self> {
        let Self { state, operation, password, budget } = self;
        // It may be the only one.
        drop(budget);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        match state.take_budget(urgency).await {
            Ok(budget) => Some(Self { state, operation, password, budget }),
            Err(_) => {
                // Neither the fault of a connection nor a busy code raises an alarm.
                let _ = state.record(operation.name, result);
                None
            }
        }
    }

    /// Ends the permit of a call that was not sent: another call may be the probe of a half-open breaker.
    pub fn cancel(self) {
        self.state.health().release(self.operation.name);
    }
}

impl Passwords {
    fn of(account: &Account) -> Self {
        Self { used: 0, refused: vec![false; account.passwords.len()] }
    }

    /// Returns whether another password has not been tried, which is then used.
    fn refuse(&mut self, index: usize) -> bool {
        self.refused[index] = true;
        match self.refused.iter().position(|refused| !refused) {
            Some(other) => {
                self.used = other;
                true
            }
            None => {
                // All were refused: when the breaker lets a call pass, the first one is tried again.
                self.refused.fill(false);
                self.used = 0;
                false
            }
        }
    }

    fn accept(&mut self, index: usize) {
        self.refused.fill(false);
        self.used = index;
    }

    /// Whether the one in use is not the first, and was accepted: until its first call has a result, the one before it is
    /// still marked as refused.
    fn is_other_accepted(&self) -> bool {
        self.used > 0 && !self.refused.contains(&true)
    }
}

/// Whether two accounts sign alike.
fn same_credentials(one: &Account, other: &Account) -> bool {
    credentials(one) == credentials(other)
}

/// The fields of a call by which the carrier checks the account, with signatures in the place of passwords.
fn credentials(account: &Account) -> Vec<Vec<u8>> {
    let any = Transid::new(&account.appid, Stamp::FIRST, Sequence::FIRST);
    let signed =
        account.passwords.iter().map(|one| Token::sign(&account.appid, one, &any).as_bytes().to_vec());
    let mut own = vec![account.appid.as_bytes().to_vec()];
    match &account.api {
        Api::V2(ebids) => {
            own.push(ebids.status.as_bytes().to_vec());
            let named = |(name, ebid): (&&str, &Ebid)| format!("{name}={}", ebid.as_str()).into_bytes();
            let mut others: Vec<_> = ebids.others.iter().map(named).collect();
            others.sort();
            own.extend(others);
        }
        Api::V5(access) => {
            let base_url = access.base_url.as_ref().map(ToString::to_string).unwrap_or_default();
            own.extend([b"v5".to_vec(), base_url.into_bytes()]);
        }
    }
    own.into_iter().chain(signed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_password_is_tried_once_before_they_are_given_up() {
        let mut passwords = Passwords { used: 0, refused: vec![false; 2] };
        assert!(passwords.refuse(0));
        assert_eq!(passwords.used, 1);
        assert!(!passwords.is_other_accepted(), "it is still to be tried");
        assert!(!passwords.refuse(1));
        assert_eq!(passwords.used, 0);
        assert!(passwords.refuse(0));
        passwords.accept(1);
        assert_eq!(passwords.used, 1);
        assert!(passwords.is_other_accepted());
        assert!(passwords.refuse(1), "accepted meanwhile: the old one is tried again");
        let mut only = Passwords { used: 0, refused: vec![false] };
        assert!(!only.refuse(0));
    }
}
