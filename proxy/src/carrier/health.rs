//! The breakers of one account, fed by the results of its calls.
//!
//! | breaker | opened by | closed by |
//! | --- | --- | --- |
//! | transport | failures and busy codes in a row | any reply that is not busy |
//! | cool-down | one throttled code; grows | any reply that is neither throttled nor busy |
//! | credentials | refused credentials, once all passwords were tried | any reply that accepts them |
//! | subscription, one per operation | a refused subscription | any reply that accepts it, of that operation |
//!
//! An open credentials or subscription breaker is an alarm: only the operator can end the refusal.
//!
//! In a fleet the other nodes' cool-downs and refusals prevent calls too (`health/shared.rs`).

mod shared;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::Breaker;
use super::verdict::{Class, Code};
use super::{CarrierResponse, Fault, NotSent};
use crate::config::{BreakerConfig, Thresholds};
use crate::language::{Text, text};
use crate::metrics::BreakerGauges;
pub use shared::{Kind, OwnRest, SharedRest};

/// The breakers of one account.
#[derive(Debug)]
pub struct Health {
    account: Arc<str>,
    transport: TrackedBreaker,
    cool_down: TrackedBreaker,
    credentials: TrackedBreaker,
    subscriptions: HashMap<&'static str, TrackedBreaker>,
    thresholds: Thresholds,
    /// The operations whose last reply was that the carrier has no such path, each with its code.
    wrong_paths: BTreeMap<&'static str, Code>,
    /// Met by other nodes of a fleet.
    shared: Vec<SharedRest>,
}

/// A breaker and the last failure that it counted.
#[derive(Debug)]
struct TrackedBreaker {
    breaker: Breaker,
    last: Option<FailedCall>,
}

/// A failed call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FailedCall {
    /// Its operation.
    pub operation: &'static str,
    /// The carrier's code; none without a reply.
    pub code: Option<Code>,
    /// The name of the fault, if there was no reply.
    pub fault: Option<&'static str>,
}

/// A breaker that is not closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpenBreaker {
    /// Its name, as in the metrics.
    pub breaker: &'static str,
    /// The operation, if it concerns only that one.
    pub operation: Option<&'static str>,
    /// The last failure that it counted.
    pub failure: Option<FailedCall>,
}

/// A refusal of the account that only the operator can end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    pub account: Arc<str>,
    /// The operation, if only its subscription is refused.
    pub operation: Option<&'static str>,
    pub code: Code,
}

impl Health {
    /// All breakers are closed.
    pub fn new(account: &Arc<str>, thresholds: Thresholds) -> Self {
        Self {
            account: Arc::clone(account),
            transport: TrackedBreaker::new(thresholds.transport),
            cool_down: TrackedBreaker::new(thresholds.cool_down),
            credentials: TrackedBreaker::new(thresholds.credentials),
            subscriptions: HashMap::new(),
            thresholds,
            wrong_paths: BTreeMap::new(),
            shared: Vec::new(),
        }
    }

    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// Whether a call for this operation may be sent now.
    ///
    /// # Errors
    /// [`NotSent`], with how long to wait.
    pub fn check(&self, operation: &'static str, now: Duration) -> Result<(), NotSent> {
        for refusable in [Some(&self.credentials), self.subscriptions.get(operation)].into_iter().flatten() {
            if let (Some(wait), Some(code)) = (refusable.breaker.blocked(now), refusable.code()) {
                return Err(NotSent::Credentials(code, wait));
            }
        }
        if let Some(wait) = self.cool_down.breaker.blocked(now) {
            return Err(NotSent::CoolDown(wait));
        }
        self.check_shared(operation, now)?;
        self.transport.breaker.blocked(now).map_or(Ok(()), |wait| Err(NotSent::Breaker(wait)))
    }

    /// [`Self::check`], after which the call is sent: [`Self::record`] or [`Self::release`] must follow.
    ///
    /// # Errors
    /// [`NotSent`]; then neither may follow.
    pub fn start_call(&mut self, operation: &'static str, now: Duration) -> Result<(), NotSent> {
        self.check(operation, now)?;
        self.all(operation).for_each(Breaker::start_call);
        Ok(())
    }

    /// Records the result of a call. Returns the alarm if it raised one.
    pub fn record(
        &mut self,
        operation: &'static str,
        result: &Result<CarrierResponse, Fault>,
        now: Duration,
    ) -> Option<Alarm> {
        let code = result.as_ref().ok().map(CarrierResponse::carrier_code);
        match (result.as_ref().map(|response| response.verdict.class), code) {
            // A local fault: nothing was sent.
            (Err(fault), _) if fault.is_ours() => self.release(operation),
            (Err(fault), _) => {
                self.transport.fail(FailedCall { operation, code: None, fault: Some(fault.name()) }, now);
                self.release(operation);
            }
            // A token that the carrier has issued and refuses is a failure of the carrier.
            (Ok(Class::Busy | Class::TokenRefused), Some(code)) => {
                self.transport.fail(FailedCall::with_code(operation, code), now);
                self.release(operation);
            }
            (Ok(Class::Throttled), Some(code)) => {
                self.transport.breaker.succeed();
                self.cool_down.fail(FailedCall::with_code(operation, code), now);
                self.release(operation);
            }
            (Ok(Class::Credentials), Some(code)) => return self.refuse_credentials(operation, code, now),
            (Ok(Class::Subscription), Some(code)) => return self.refuse_subscription(operation, code, now),
            (Ok(_), _) => self.all(operation).for_each(Breaker::succeed),
        }
        None
    }

    /// Notes the last reply for an operation: the code if it says that the carrier has no such path.
    pub fn note_path(&mut self, operation: &'static str, lacking: Option<Code>) {
        match lacking {
            Some(code) => self.wrong_paths.insert(operation, code),
            None => self.wrong_paths.remove(operation),
        };
    }

    /// The operations that the carrier has no path for, each with its code: only the operator can correct the base URL.
    pub fn wrong_paths(&self) -> impl Iterator<Item = (&'static str, Code)> {
        self.wrong_paths.iter().map(|(operation, code)| (*operation, *code))
    }

    /// A call ended without a result that concerns the breakers.
    pub fn release(&mut self, operation: &'static str) {
        self.all(operation).for_each(Breaker::release);
    }

    /// A refusal of the account, its address or its password concerns all operations.
    fn refuse_credentials(&mut self, operation: &'static str, code: Code, now: Duration) -> Option<Alarm> {
        self.transport.breaker.succeed();
        self.cool_down.breaker.succeed();
        if let Some(subscription) = self.subscriptions.get_mut(operation) {
            subscription.breaker.release();
        }
        let opened = self.credentials.fail(FailedCall::with_code(operation, code), now);
        opened.then(|| self.alarm(None, code))
    }

    /// A refusal of a subscription concerns one operation, and accepts the credentials.
    fn refuse_subscription(&mut self, operation: &'static str, code: Code, now: Duration) -> Option<Alarm> {
        self.transport.breaker.succeed();
        self.cool_down.breaker.succeed();
        self.credentials.breaker.succeed();
        let config = self.thresholds.credentials;
        let subscription = self.subscriptions.entry(operation).or_insert_with(|| TrackedBreaker::new(config));
        let opened = subscription.fail(FailedCall::with_code(operation, code), now);
        opened.then(|| self.alarm(Some(operation), code))
    }

    fn alarm(&self, operation: Option<&'static str>, code: Code) -> Alarm {
        Alarm { account: Arc::clone(&self.account), operation, code }
    }

    /// Refusals that only the operator can end.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        let subscriptions = self.subscriptions.iter().map(|(operation, breaker)| (Some(*operation), breaker));
        [(None, &self.credentials)].into_iter().chain(subscriptions).filter_map(|(operation, refusable)| {
            let code = refusable.code().filter(|_| !refusable.breaker.is_closed())?;
            Some(self.alarm(operation, code))
        })
    }

    /// The breakers that are open or half-open.
    pub fn open_breakers(&self) -> impl Iterator<Item = OpenBreaker> {
        self.not_closed().map(|(breaker, _)| breaker)
    }

    /// The breakers that are open or half-open, each with the time until a call may pass; none if one may now.
    pub fn waits(&self, now: Duration) -> impl Iterator<Item = (OpenBreaker, Option<Duration>)> {
        self.not_closed().map(move |(breaker, state)| (breaker, state.blocked(now)))
    }

    fn not_closed(&self) -> impl Iterator<Item = (OpenBreaker, &Breaker)> {
        let own = [
            ("transport", &self.transport),
            ("cool-down", &self.cool_down),
            ("credentials", &self.credentials),
        ];
        let own = own.into_iter().map(|(breaker, state)| (breaker, None, state));
        let subscriptions = self
            .subscriptions
            .iter()
            .map(|(operation, subscription)| ("subscription", Some(*operation), subscription));
        own.chain(subscriptions).filter(|(_, _, tracked)| !tracked.breaker.is_closed()).map(
            |(breaker, operation, tracked)| {
                (OpenBreaker { breaker, operation, failure: tracked.last }, &tracked.breaker)
            },
        )
    }

    /// The state of each breaker, for metrics; for the subscriptions, the worst one.
    pub fn gauges(&self, now: Duration) -> BreakerGauges {
        let subscriptions = self.subscriptions.values().map(|one| one.breaker.state(now));
        BreakerGauges {
            transport: self.transport.breaker.state(now),
            cool_down: self.cool_down.breaker.state(now),
            credentials: self.credentials.breaker.state(now),
            subscription: subscriptions.max().unwrap_or_default(),
        }
    }

    fn all(&mut self, operation: &'static str) -> impl Iterator<Item = &mut Breaker> {
        let subscription = self.subscriptions.get_mut(operation).map(|one| &mut one.breaker);
        [&mut self.transport, &mut self.cool_down, &mut self.credentials]
            .into_iter()
            .map(|tracked| &mut tracked.breaker)
            .chain(subscription)
    }
}

impl TrackedBreaker {
    fn new(config: BreakerConfig) -> Self {
        Self { breaker: Breaker::new(config), last: None }
    }

    /// Returns whether this opened the breaker.
    fn fail(&mut self, failed: FailedCall, now: Duration) -> bool {
        self.last = Some(failed);
        self.breaker.fail(now)
    }

    /// The code of the last failure.
    fn code(&self) -> Option<Code> {
        self.last.and_then(|failure| failure.code)
    }
}

impl FailedCall {
    fn with_code(operation: &'static str, code: Code) -> Self {
        Self { operation, code: Some(code), fault: None }
    }
}

impl Alarm {
    /// The problem and its remedy.
    pub fn text(&self) -> Text {
        let Self { account, operation, code } = self;
        match operation {
            Some(operation) => text!(
                "the carrier refuses account {account} for {operation} with code {code}: run `cmiot-proxy check --live`",
                "运营商以返回码 {code} 拒绝账号 {account} 的能力 {operation}：请运行 `cmiot-proxy check --live`"
            ),
            None => text!(
                "the carrier refuses account {account} with code {code}: run `cmiot-proxy check --live`",
                "运营商以返回码 {code} 拒绝账号 {account}：请运行 `cmiot-proxy check --live`"
            ),
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::dialect::stored_verdict;
    use crate::clock::Time;

    const STATUS: &str = "userstatusrealsingle";
    const SESSION: &str = "gprsrealsingle";

    fn health() -> Health {
        let breaker = |failures, open| BreakerConfig {
            failures,
            open: Duration::from_secs(open),
            max_open: Duration::from_secs(300),
        };
        let thresholds =
            Thresholds { transport: breaker(2, 1), cool_down: breaker(1, 5), credentials: breaker(1, 60) };
        Health::new(&"fleet".into(), thresholds)
    }

    fn reply(code: &str) -> Result<CarrierResponse, Fault> {
        let verdict = stored_verdict(Code::parse(code).unwrap(), None);
        Ok(CarrierResponse {
            body: bytes::Bytes::new(),
            translated: None,
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
        assert_eq!(after(&mut one, 0, &reply("3")), Err(NotSent::Credentials(three, sixty)));
        assert_eq!(one.check(SESSION, Duration::ZERO), Ok(()));
        let alarms: Vec<_> = one.alarms().map(|alarm| alarm.to_string()).collect();
        assert_eq!(
            alarms,
            [format!(
                "the carrier refuses account fleet for {STATUS} with code 3: run `cmiot-proxy check --live`"
            )]
        );
        for code in ["4", "5", "6", "7", "8"] {
            let mut all = health();
            let refused = NotSent::Credentials(Code::parse(code).unwrap(), sixty);
            assert_eq!(after(&mut all, 0, &reply(code)), Err(refused.clone()), "{code}");
            assert_eq!(all.check(SESSION, Duration::ZERO), Err(refused));
            assert_eq!(all.alarms().count(), 1);
            // The probe succeeds: the alarm ends.
            assert_eq!(after(&mut all, 60, &reply("0")), Ok(()));
            assert_eq!(all.alarms().count(), 0);
        }
    }

    #[test]
    fn throttled_codes_open_a_growing_cool_down() {
        let mut health = health();
        let wait = |secs| Err(NotSent::CoolDown(Duration::from_secs(secs)));
        assert_eq!(after(&mut health, 0, &reply("72")), wait(5));
        assert_eq!(after(&mut health, 5, &reply("71")), wait(10));
        assert_eq!(after(&mut health, 15, &reply("75")), wait(20));
        assert_eq!(after(&mut health, 35, &reply("12")), Ok(()));
        assert_eq!(after(&mut health, 35, &reply("72")), wait(5));
    }

    #[test]
    fn failures_and_busy_codes_count_and_a_refused_card_does_not() {
        let mut health = health();
        assert_eq!(after(&mut health, 0, &Err(Fault::Timeout)), Ok(()));
        assert_eq!(after(&mut health, 0, &reply("12")), Ok(()));
        assert_eq!(after(&mut health, 0, &reply("99")), Ok(()));
        assert_eq!(
            after(&mut health, 0, &Err(Fault::Timeout)),
            Err(NotSent::Breaker(Duration::from_secs(1)))
        );
        assert_eq!(health.alarms().count(), 0);
    }

    #[test]
    fn an_open_breaker_names_the_last_failure() {
        let last = |results: &[Result<CarrierResponse, Fault>]| {
            let mut health = health();
            let _ = results.iter().map(|result| after(&mut health, 0, result)).last();
            let open: Vec<_> = health.open_breakers().collect();
            assert_eq!(open.len(), 1, "{open:?}");
            let failure = open[0].failure.unwrap();
            assert_eq!(failure.operation, STATUS);
            let code = failure.code.map(|code| code.as_str().to_owned());
            (open[0].breaker, open[0].operation, code, failure.fault)
        };
        let code = |code: &str| Some(code.to_owned());
        assert_eq!(
            last(&[reply("99"), Err(Fault::Timeout)]),
            ("transport", None, None, Some("timeout")),
            "the last one, without a reply"
        );
        assert_eq!(last(&[Err(Fault::Timeout), reply("99")]), ("transport", None, code("99"), None));
        assert_eq!(last(&[reply("72")]), ("cool-down", None, code("72"), None));
        assert_eq!(last(&[reply("8")]), ("credentials", None, code("8"), None));
        assert_eq!(last(&[reply("3")]), ("subscription", Some(STATUS), code("3"), None));
    }

    #[test]
    fn rests_of_other_nodes_prevent_calls_until_they_end() {
        let mut health = health();
        let until = Duration::from_secs(10);
        let three = Code::parse("3");
        let subscription = Kind::Subscription(STATUS.to_owned());
        health.set_shared(vec![SharedRest { kind: subscription, until, code: three }]);
        assert!(matches!(health.check(STATUS, Duration::from_secs(9)), Err(NotSent::Credentials(..))));
        assert_eq!(health.check(STATUS, until), Ok(()));
        assert_eq!(health.check(SESSION, Duration::ZERO), Ok(()));
        health.set_shared(vec![SharedRest { kind: Kind::CoolDown, until, code: None }]);
        assert_eq!(health.check(SESSION, Duration::ZERO), Err(NotSent::CoolDown(until)));
        assert_eq!(health.own_rests(), [], "they are not this node's");
        health.set_shared(Vec::new());
        assert_eq!(health.check(SESSION, Duration::ZERO), Ok(()));
    }

    #[test]
    fn a_rest_of_this_node_that_ends_elsewhere_is_probed_at_once() {
        let mut health = health();
        assert!(after(&mut health, 0, &reply("4")).is_err());
        let own = health.own_rests();
        assert_eq!((own.len(), own[0].until), (1, Some(Duration::from_secs(60))));
        health.end_open_time(&own[0].kind, Duration::from_secs(5));
        assert_eq!(after(&mut health, 5, &reply("0")), Ok(()));
        assert_eq!(health.own_rests(), []);
    }

    #[test]
    fn the_names_of_shared_breakers_are_read_back() {
        for kind in [Kind::CoolDown, Kind::Credentials, Kind::Subscription(STATUS.to_owned())] {
            assert_eq!(Kind::parse(&kind.to_string()), Some(kind));
        }
        assert_eq!(Kind::parse("transport"), None);
    }

    #[test]
    fn a_missing_transid_opens_no_breaker() {
        let mut health = health();
        for _ in 0..5 {
            assert_eq!(after(&mut health, 0, &Err(Fault::Sequence)), Ok(()));
        }
    }
}
