//! What the carrier's answers say about one account: four breakers, and which of its passwords works.
//!
//! | breaker | opened by | closed by |
//! | --- | --- | --- |
//! | transport | failures and busy codes in a row | any answer that is not busy |
//! | cool-down | one throttled code; grows | any answer that is neither throttled nor busy |
//! | credentials | codes 4-8, once all passwords were tried | any answer that accepts them |
//! | subscription, one an operation | code 3 | the same, of that operation |
//!
//! An open credentials or subscription breaker is an alarm: only the operator can mend it.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::breaker::{Breaker, BreakerConfig};
use super::verdict::{Class, Code};
use super::{CarrierResponse, Fault, NotSent};
use crate::config;
use crate::metrics::BreakerGauges;
use crate::units::HumanDuration;

/// How much of what an account bears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Of failures and busy codes.
    pub transport: BreakerConfig,
    /// Of throttled codes.
    pub cool_down: BreakerConfig,
    /// Of refused credentials and subscriptions.
    pub credentials: BreakerConfig,
}

impl From<&config::Breaker> for Thresholds {
    fn from(written: &config::Breaker) -> Self {
        let tolerance = |failures, first: HumanDuration, longest: HumanDuration| BreakerConfig {
            failures,
            open: first.0,
            max_open: longest.0,
        };
        Self {
            transport: tolerance(written.failures, written.open, written.open_longest),
            cool_down: tolerance(1, written.cool_down, written.cool_down_longest),
            credentials: tolerance(1, written.credentials, written.credentials_longest),
        }
    }
}

/// The state of one account.
#[derive(Debug)]
pub struct Health {
    transport: Breaker,
    cool_down: Breaker,
    credentials: CodeBreaker,
    subscriptions: HashMap<&'static str, CodeBreaker>,
    thresholds: Thresholds,
}

/// A breaker and the code that opened it.
#[derive(Debug)]
struct CodeBreaker {
    breaker: Breaker,
    code: Option<Code>,
}

/// Something that only the operator can mend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// The account's name.
    pub account: String,
    /// The operation, when it is refused alone.
    pub operation: Option<&'static str>,
    /// What the carrier said.
    pub code: Code,
}

impl Health {
    /// Nothing is known against the account.
    pub fn new(tolerances: Thresholds) -> Self {
        Self {
            transport: Breaker::new(tolerances.transport),
            cool_down: Breaker::new(tolerances.cool_down),
            credentials: CodeBreaker::new(tolerances.credentials),
            subscriptions: HashMap::new(),
            thresholds: tolerances,
        }
    }

    /// How much of what it bears.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// Whether a call for this operation may be sent now.
    ///
    /// # Errors
    /// [`NotSent`], with how long to wait.
    pub fn check(&self, operation: &'static str, now: Duration) -> Result<(), NotSent> {
        for watched in [Some(&self.credentials), self.subscriptions.get(operation)].into_iter().flatten() {
            if let (Some(wait), Some(code)) = (watched.breaker.blocked(now), watched.code) {
                return Err(NotSent::Credentials(code, wait));
            }
        }
        if let Some(wait) = self.cool_down.blocked(now) {
            return Err(NotSent::CoolDown(wait));
        }
        self.transport.blocked(now).map_or(Ok(()), |wait| Err(NotSent::Breaker(wait)))
    }

    /// [`Self::check`], and the call is sent: its end must be told to [`Self::record`].
    ///
    /// # Errors
    /// [`NotSent`]; nothing is to be told then.
    pub fn start_call(&mut self, operation: &'static str, now: Duration) -> Result<(), NotSent> {
        self.check(operation, now)?;
        self.all(operation).for_each(Breaker::start_call);
        Ok(())
    }

    /// What became of a call that passed. Returns the alarm that it raised, if it raised one.
    pub fn record(
        &mut self,
        operation: &'static str,
        end: &Result<CarrierResponse, Fault>,
        now: Duration,
    ) -> Option<(Option<&'static str>, Code)> {
        match end {
            // Our own doing: nothing was sent.
            Err(fault) if fault.is_ours() => self.release(operation),
            Err(_) => {
                self.transport.fail(now);
                self.release(operation);
            }
            Ok(CarrierResponse { verdict, .. }) => match verdict.class {
                Class::Busy => {
                    self.transport.fail(now);
                    self.release(operation);
                }
                Class::Throttled => {
                    self.transport.succeed();
                    self.cool_down.fail(now);
                    self.release(operation);
                }
                Class::Credentials => return self.refused(operation, verdict.code, now),
                _ => self.all(operation).for_each(Breaker::succeed),
            },
        }
        None
    }

    /// A call that passed ended without saying anything.
    pub fn release(&mut self, operation: &'static str) {
        self.all(operation).for_each(Breaker::release);
    }

    fn refused(
        &mut self,
        operation: &'static str,
        code: Code,
        now: Duration,
    ) -> Option<(Option<&'static str>, Code)> {
        self.transport.succeed();
        self.cool_down.succeed();
        // Code 3 is about one API's subscription; 4-8 are about the account, its address or its password.
        let (watched, of) = if code.as_str() == "3" {
            self.credentials.breaker.succeed();
            let tolerance = self.thresholds.credentials;
            (
                self.subscriptions.entry(operation).or_insert_with(|| CodeBreaker::new(tolerance)),
                Some(operation),
            )
        } else {
            if let Some(subscription) = self.subscriptions.get_mut(operation) {
                subscription.breaker.release();
            }
            (&mut self.credentials, None)
        };
        watched.code = Some(code);
        watched.breaker.fail(now).then_some((of, code))
    }

    /// What only the operator can mend.
    pub fn alarms<'a>(&'a self, account: &'a str) -> impl Iterator<Item = Alarm> + 'a {
        let subscriptions = self.subscriptions.iter().map(|(operation, watched)| (Some(*operation), watched));
        [(None, &self.credentials)].into_iter().chain(subscriptions).filter_map(|(operation, watched)| {
            let code = watched.code.filter(|_| !watched.breaker.is_closed())?;
            Some(Alarm { account: account.to_owned(), operation, code })
        })
    }

    /// The state of each breaker, for metrics; the worst state stands for all subscriptions.
    pub fn gauges(&self, now: Duration) -> BreakerGauges {
        let subscriptions = self.subscriptions.values().map(|watched| watched.breaker.state(now));
        BreakerGauges {
            transport: self.transport.state(now),
            cool_down: self.cool_down.state(now),
            credentials: self.credentials.breaker.state(now),
            subscription: subscriptions.max().unwrap_or_default(),
        }
    }

    fn all(&mut self, operation: &'static str) -> impl Iterator<Item = &mut Breaker> {
        let subscription = self.subscriptions.get_mut(operation).map(|watched| &mut watched.breaker);
        [&mut self.transport, &mut self.cool_down, &mut self.credentials.breaker]
            .into_iter()
            .chain(subscription)
    }
}

impl CodeBreaker {
    fn new(tolerance: BreakerConfig) -> Self {
        Self { breaker: Breaker::new(tolerance), code: None }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, operation, code } = self;
        write!(f, "the carrier refuses account {account}")?;
        if let Some(operation) = operation {
            write!(f, " for {operation}")?;
        }
        write!(f, " with code {code}: run `cmiot-proxy check --live`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::verdict::Verdict;
    use crate::clock::Time;

    const STATUS: &str = "userstatusrealsingle";
    const SESSION: &str = "gprsrealsingle";

    fn health() -> Health {
        let tolerance = |failures, first| BreakerConfig {
            failures,
            open: Duration::from_secs(first),
            max_open: Duration::from_secs(300),
        };
        Health::new(Thresholds {
            transport: tolerance(2, 1),
            cool_down: tolerance(1, 5),
            credentials: tolerance(1, 60),
        })
    }

    fn said(code: &str) -> Result<CarrierResponse, Fault> {
        let verdict = Verdict::stored(Code::parse(code).unwrap(), None);
        Ok(CarrierResponse {
            body: bytes::Bytes::new(),
            content_type: crate::carrier::charset::ContentType::UTF_8,
            verdict,
            at: Time::EPOCH,
        })
    }

    fn after(health: &mut Health, secs: u64, end: &Result<CarrierResponse, Fault>) -> Result<(), NotSent> {
        let now = Duration::from_secs(secs);
        health.start_call(STATUS, now).unwrap();
        health.record(STATUS, end, now);
        health.check(STATUS, now)
    }

    #[test]
    fn code_3_stops_one_operation_and_4_to_8_the_account() {
        let mut one = health();
        let sixty = Duration::from_secs(60);
        let three = Code::parse("3").unwrap();
        assert_eq!(after(&mut one, 0, &said("3")), Err(NotSent::Credentials(three, sixty)));
        assert_eq!(one.check(SESSION, Duration::ZERO), Ok(()));
        let alarms: Vec<_> = one.alarms("fleet").map(|alarm| alarm.to_string()).collect();
        assert_eq!(
            alarms,
            [format!(
                "the carrier refuses account fleet for {STATUS} with code 3: run `cmiot-proxy check --live`"
            )]
        );
        for code in ["4", "5", "6", "7", "8"] {
            let mut all = health();
            let refused = NotSent::Credentials(Code::parse(code).unwrap(), sixty);
            assert_eq!(after(&mut all, 0, &said(code)), Err(refused.clone()), "{code}");
            assert_eq!(all.check(SESSION, Duration::ZERO), Err(refused));
            assert_eq!(all.alarms("fleet").count(), 1);
            // The probe succeeds: the alarm is over.
            assert_eq!(after(&mut all, 60, &said("0")), Ok(()));
            assert_eq!(all.alarms("fleet").count(), 0);
        }
    }

    #[test]
    fn throttled_codes_open_a_growing_cool_down() {
        let mut health = health();
        let wait = |secs| Err(NotSent::CoolDown(Duration::from_secs(secs)));
        assert_eq!(after(&mut health, 0, &said("72")), wait(5));
        assert_eq!(after(&mut health, 5, &said("71")), wait(10));
        assert_eq!(after(&mut health, 15, &said("75")), wait(20));
        assert_eq!(after(&mut health, 35, &said("12")), Ok(()));
        assert_eq!(after(&mut health, 35, &said("72")), wait(5));
    }

    #[test]
    fn failures_and_busy_codes_count_and_a_refused_card_does_not() {
        let mut health = health();
        assert_eq!(after(&mut health, 0, &Err(Fault::Timeout)), Ok(()));
        assert_eq!(after(&mut health, 0, &said("12")), Ok(()));
        assert_eq!(after(&mut health, 0, &said("99")), Ok(()));
        assert_eq!(
            after(&mut health, 0, &Err(Fault::Timeout)),
            Err(NotSent::Breaker(Duration::from_secs(1)))
        );
        assert_eq!(health.alarms("fleet").count(), 0);
    }

    #[test]
    fn a_transid_that_cannot_be_had_says_nothing_about_the_carrier() {
        let mut health = health();
        for _ in 0..5 {
            assert_eq!(after(&mut health, 0, &Err(Fault::Sequence)), Ok(()));
        }
    }
}
