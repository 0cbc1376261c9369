//! An account's standing with the carrier: its budget, its health, and which of its passwords works.
//!
//! While the carrier changes a password the account has two. A refusal of one (codes 4-8) lets the other be tried
//! before any breaker opens; the one that was accepted last is used first.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::{Password, Sequence, Stamp, Token, Transid};

use super::budget::{Budget, Headroom, Limits, Permit};
use super::health::{Alarm, Health, Thresholds};
use super::verdict::{Class, Code};
use super::{CarrierResponse, Fault, NotSent};
use crate::clock::Clock;
use crate::config::{Account, Config};
use crate::metrics::AccountGauges;
use crate::operation::Operation;
use crate::store::state::StateStore;
use crate::urgency::SharedUrgency;

/// One account, as the carrier treats it.
#[derive(Debug)]
pub struct AccountState {
    /// Its credentials.
    pub account: Arc<Account>,
    budget: Arc<Budget>,
    health: Arc<Mutex<Health>>,
    passwords: Arc<Mutex<Passwords>>,
    clock: Clock,
}

/// Which password is used, and which were refused since the last that was accepted.
#[derive(Debug)]
struct Passwords {
    used: usize,
    refused: Vec<bool>,
}

/// Leave to send one call with one password. Its end must be told to [`AccountState::record`].
#[derive(Debug)]
pub struct CallPermit {
    /// Index into the account's passwords.
    pub password: usize,
    _permit: Permit,
}

/// What became of a call, as far as the next one is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing is to be done at once.
    Done,
    /// Another password is left to be tried.
    OtherPassword,
    /// A breaker opened that only the operator can mend.
    Alarm(Alarm),
}

impl AccountState {
    /// Nothing is known against the account but what was known `before`, and nothing is spent but what that and
    /// `state` say. Changed credentials are given a chance at once; a changed budget begins its second anew.
    pub fn new(
        account: &Arc<Account>,
        config: &Config,
        state: &Arc<StateStore>,
        clock: &Clock,
        before: Option<&Self>,
    ) -> Self {
        let limits = Limits {
            per_second: account.calls_per_second,
            concurrent: account.calls_at_once,
            per_day: account.calls_per_day.map(NonZeroU64::get),
            queue: config.carrier.queue,
            queue_timeout: config.carrier.queue_wait,
            refresh_ahead_percent: config.cache.refresh_ahead_percent,
        };
        let before = before.filter(|before| before.account.appid == account.appid);
        let budget = before.map(|before| &before.budget).filter(|budget| *budget.limits() == limits);
        let tolerances = Thresholds::from(&config.breaker);
        let same = before.filter(|before| {
            same_credentials(&before.account, account) && before.health().thresholds() == tolerances
        });
        Self {
            account: Arc::clone(account),
            budget: budget.map_or_else(
                || Budget::new(limits, account.appid, Arc::clone(state), clock.clone()),
                Arc::clone,
            ),
            health: same.map_or_else(
                || Arc::new(Mutex::new(Health::new(tolerances))),
                |same| Arc::clone(&same.health),
            ),
            passwords: same.map_or_else(
                || Arc::new(Mutex::new(Passwords::of(account))),
                |same| Arc::clone(&same.passwords),
            ),
            clock: clock.clone(),
        }
    }

    /// Whether a call for this operation could be sent now, the budget apart.
    ///
    /// # Errors
    /// [`NotSent`], with how long to wait.
    pub fn check(&self, operation: &Operation) -> Result<(), NotSent> {
        self.health().check(operation.name, self.clock.monotonic())
    }

    /// Waits for the budget, and passes the breakers.
    ///
    /// # Errors
    /// [`NotSent`]: nothing may be sent.
    pub async fn pass(&self, operation: &Operation, pressure: &SharedUrgency) -> Result<CallPermit, NotSent> {
        // A closed door is found before any budget is spent on it, and again after the wait.
        self.check(operation)?;
        let permit = self.budget.take(pressure).await?;
        self.health().start_call(operation.name, self.clock.monotonic())?;
        Ok(CallPermit { password: self.passwords().used, _permit: permit })
    }

    /// What became of a call that passed.
    pub fn record(
        &self,
        operation: &Operation,
        pass: &CallPermit,
        end: &Result<CarrierResponse, Fault>,
    ) -> Next {
        if let Ok(CarrierResponse { verdict, .. }) = end {
            if is_of_password(verdict.class, &verdict.code) {
                let another = self.passwords().refuse(pass.password);
                if another {
                    self.health().release(operation.name);
                    return Next::OtherPassword;
                }
            } else if !matches!(verdict.class, Class::Throttled | Class::Busy) {
                // Throttled and busy answers may come before any credentials are looked at.
                self.passwords().accept(pass.password);
            }
        }
        match self.health().record(operation.name, end, self.clock.monotonic()) {
            Some((operation, code)) => {
                Next::Alarm(Alarm { account: self.account.name.to_string(), operation, code })
            }
            None => Next::Done,
        }
    }

    /// Nothing was sent with a pass: who comes next may try what it was let through for.
    pub fn give_back(&self, operation: &Operation) {
        self.health().release(operation.name);
    }

    /// The password of this index.
    pub fn password(&self, index: usize) -> &Password {
        &self.account.passwords[index]
    }

    /// What is left of its budget.
    pub fn left(&self) -> Headroom {
        self.budget.headroom()
    }

    /// Whether refreshing ahead has a share of a rate here, and some of it left now.
    pub fn may_refresh_ahead(&self) -> bool {
        self.budget.can_refresh_ahead()
    }

    /// What only the operator can mend.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.health().alarms(&self.account.name).collect()
    }

    /// Its values at this moment, for metrics.
    pub fn gauges(&self) -> AccountGauges {
        AccountGauges {
            account: Arc::clone(&self.account.name),
            budget: self.budget.gauges(),
            breakers: self.health().gauges(self.clock.monotonic()),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passwords(&self) -> MutexGuard<'_, Passwords> {
        self.passwords.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Codes 4-8 may be about a password that has been changed; 3 is about a subscription.
fn is_of_password(class: Class, code: &Code) -> bool {
    class == Class::Credentials && code.as_str() != "3"
}

impl Passwords {
    fn of(account: &Account) -> Self {
        Self { used: 0, refused: vec![false; account.passwords.len()] }
    }

    /// Says whether there is another one to try, which is then used.
    fn refuse(&mut self, index: usize) -> bool {
        self.refused[index] = true;
        match self.refused.iter().position(|refused| !refused) {
            Some(other) => {
                self.used = other;
                true
            }
            None => {
                // All of them were: begin again with the first when the breaker lets a call through.
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
}

/// Whether two accounts sign alike. Passwords are compared by what they sign.
fn same_credentials(one: &Account, other: &Account) -> bool {
    let any = Transid::new(&one.appid, Stamp::FIRST, Sequence::FIRST);
    let signed = |account: &Account| -> Vec<_> {
        account
            .passwords
            .iter()
            .map(|password| *Token::sign(&account.appid, password, &any).as_bytes())
            .collect()
    };
    one.appid == other.appid
        && one.ebid == other.ebid
        && one.ebids == other.ebids
        && signed(one) == signed(other)
}

/// How long to wait at most before a busy carrier is asked again, spread by the call's own number.
pub(super) fn jitter(number: u32) -> Duration {
    // Knuth's multiplicative hash: neighbours in the sequence land far apart.
    let spread = number.wrapping_mul(2_654_435_761) >> 22;
    Duration::from_millis(100 + u64::from(spread) % 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_password_is_tried_once_before_they_are_given_up() {
        let mut passwords = Passwords { used: 0, refused: vec![false; 2] };
        assert!(passwords.refuse(0));
        assert_eq!(passwords.used, 1);
        assert!(!passwords.refuse(1));
        assert_eq!(passwords.used, 0);
        assert!(passwords.refuse(0));
        passwords.accept(1);
        assert_eq!(passwords.used, 1);
        assert!(passwords.refuse(1), "accepted since: the old one is tried again");
        let mut only = Passwords { used: 0, refused: vec![false] };
        assert!(!only.refuse(0));
    }

    #[test]
    fn pauses_of_neighbours_differ() {
        let pauses: std::collections::HashSet<_> = (1..=50).map(jitter).collect();
        assert!(pauses.len() > 25, "{}", pauses.len());
        assert!(pauses.iter().all(|pause| (100..500).contains(&pause.as_millis())));
    }
}
