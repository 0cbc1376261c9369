//! The numbers that the proxy counts, in Prometheus form. No label holds a card, a token or an appid.
//!
//! What is counted where it happens stands here; what is only looked at when asked (entries, flights, queue) is handed
//! in by the admin listener as [`AccountGauges`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::clock::belief::{Step, Tick};
use crate::config::certificates::Validity;
use crate::outcome::Outcome;

type StaticLabels = Vec<(&'static str, &'static str)>;
type DynamicLabels = Vec<(&'static str, String)>;

/// Every counter, gauge and histogram.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    look_ups: Family<StaticLabels, Counter>,
    /// Those of `look_ups` that have no reason, by outcome: no answer has to look its labels up.
    answered: [Counter; Outcome::ANSWERED.len()],
    connections_ended: Family<StaticLabels, Counter>,
    reloads: Family<StaticLabels, Counter>,
    restart_needed: Family<StaticLabels, Gauge>,
    certificates: Family<StaticLabels, Gauge>,
    connections: Gauge,
    transids: Gauge,
    transids_by_group: Family<DynamicLabels, Gauge>,
    transids_group_share: Gauge,
    /// By outcome.
    latency: [Histogram; Outcome::ALL.len()],
    carrier_calls: Family<DynamicLabels, Counter>,
    carrier_latency: Histogram,
    clock_drift: Gauge<f64, AtomicU64>,
    clock_steps: Family<StaticLabels, Counter>,
    clock_unconfirmed: Gauge<f64, AtomicU64>,
    breakers: Family<DynamicLabels, Gauge>,
    budget_waiting: Family<DynamicLabels, Gauge>,
    budget_left: Family<DynamicLabels, Gauge>,
    alarms: Gauge,
    cache_entries: Gauge,
    flights: Gauge,
    waiters: Gauge,
    audit_queue: Gauge,
    audit_wal: Gauge,
    audit_missed: Gauge,
    log_dropped: Counter,
}

/// What is measured when somebody looks.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Entries in the memory tier.
    pub cache_entries: u64,
    /// Carrier calls under way.
    pub flights: usize,
    /// Look-ups that wait for one of them.
    pub waiters: usize,
    /// Connections of gateways.
    pub connections: usize,
    /// Transids remembered.
    pub transids: usize,
    /// Transids remembered of each group, and what one group may hold.
    pub transid_shares: (Vec<(Arc<str>, usize)>, usize),
    /// Audit records that wait for their commit.
    pub audit_queue: usize,
    /// Bytes in the audit's WAL when it was last looked at.
    pub audit_wal: u64,
    /// Requests that have no record, since the start.
    pub audit_missed: u64,
    /// Lines of the log that were dropped, since the start.
    pub log_dropped: u64,
    /// The accounts' budgets and breakers.
    pub accounts: Vec<AccountGauges>,
    /// What only the operator can mend.
    pub alarms: usize,
}

/// The values of one account.
#[derive(Clone, Debug)]
pub struct AccountGauges {
    /// The account's name.
    pub account: Arc<str>,
    /// Its budget.
    pub budget: BudgetGauges,
    /// Its breakers.
    pub breakers: BreakerGauges,
}

/// The values of an account's budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BudgetGauges {
    /// Calls that wait for the budget.
    pub waiting: usize,
    /// Calls left until midnight at UTC+8, where there is a limit.
    pub remaining_today: Option<u64>,
}

/// The state of each breaker of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BreakerGauges {
    /// Opened by failures and busy codes.
    pub transport: BreakerState,
    /// Opened by throttled codes.
    pub cool_down: BreakerState,
    /// Opened by refused credentials.
    pub credentials: BreakerState,
    /// Opened by a refused subscription: the worst state among the operations.
    pub subscription: BreakerState,
}

/// A breaker's state, the better before the worse; its number is the metric's value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum BreakerState {
    /// Calls pass.
    #[default]
    Closed = 0,
    /// One call passes, as a probe.
    HalfOpen = 1,
    /// No call passes.
    Open = 2,
}

impl BreakerGauges {
    /// Each state with the value of the label `breaker`.
    fn by_name(self) -> [(&'static str, BreakerState); 4] {
        let Self { transport, cool_down, credentials, subscription } = self;
        [
            ("transport", transport),
            ("cool-down", cool_down),
            ("credentials", credentials),
            ("subscription", subscription),
        ]
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("cmiot");
        let look_ups: Family<StaticLabels, Counter> = Family::default();
        registry.register(
            "look_ups",
            "Look-ups by outcome and, where refused or failed, reason",
            look_ups.clone(),
        );
        let connections_ended = Family::default();
        registry.register(
            "connections_ended",
            "Connections that were turned away or ended out of turn, by reason",
            connections_ended.clone(),
        );
        let reloads = Family::default();
        registry.register("reloads", "Configurations that were read anew, by result", reloads.clone());
        let restart_needed = Family::default();
        registry.register(
            "restart_needed",
            "Keys of the configuration that were changed and take effect at the next start",
            restart_needed.clone(),
        );
        let certificates = Family::default();
        registry.register_with_unit(
            "certificate_expires",
            "When the first certificate of a file expires, in Unix time, by the key that names the file",
            Unit::Seconds,
            certificates.clone(),
        );
        let connections = Gauge::default();
        registry.register("connections", "Connections of gateways", connections.clone());
        let transids = Gauge::default();
        registry.register("transids", "Transids that are remembered", transids.clone());
        let transids_by_group = Family::default();
        registry.register(
            "transids_by_group",
            "Transids that are remembered, by the group of their clients",
            transids_by_group.clone(),
        );
        let transids_group_share = Gauge::default();
        registry.register(
            "transids_group_share",
            "Transids that may be remembered of one group",
            transids_group_share.clone(),
        );
        let latency: Family<StaticLabels, Histogram> =
            Family::new_with_constructor(from_100_us as fn() -> Histogram);
        registry.register_with_unit(
            "look_up",
            "From request to committed answer",
            Unit::Seconds,
            latency.clone(),
        );
        let carrier_calls = Family::default();
        registry.register(
            "carrier_calls",
            "Calls to the carrier by account and by the code, or the fault, that ended them",
            carrier_calls.clone(),
        );
        let carrier_latency = from_100_us();
        registry.register_with_unit(
            "carrier_call",
            "Of one carrier call",
            Unit::Seconds,
            carrier_latency.clone(),
        );
        let clock_drift: Gauge<f64, AtomicU64> = Gauge::default();
        // Unknown until a Date of the carrier has been compared.
        clock_drift.set(f64::NAN);
        registry.register_with_unit(
            "clock_drift",
            "How far the carrier's clock is ahead of this machine's",
            Unit::Seconds,
            clock_drift.clone(),
        );
        let clock_steps: Family<StaticLabels, Counter> = Family::default();
        for direction in [Step::Forwards, Step::Backwards] {
            drop(clock_steps.get_or_create(&vec![("direction", direction.name())]));
        }
        registry.register(
            "clock_steps",
            "Steps of the wall clock by more than clock_skew against the monotonic clock, by direction",
            clock_steps.clone(),
        );
        let clock_unconfirmed = Gauge::default();
        registry.register_with_unit(
            "clock_unconfirmed",
            "How far the wall clock is ahead of the time that is believed, after a step that nothing has confirmed",
            Unit::Seconds,
            clock_unconfirmed.clone(),
        );
        let breakers = Family::default();
        registry.register(
            "breaker",
            "Of each account, what stops its calls: 0 closed, 1 half-open, 2 open",
            breakers.clone(),
        );
        let budget_waiting = Family::default();
        registry.register(
            "budget_waiting",
            "Calls that wait for an account's budget",
            budget_waiting.clone(),
        );
        let budget_left = Family::default();
        registry.register(
            "budget_left_today",
            "Calls left to an account until midnight at UTC+8, where there is a limit",
            budget_left.clone(),
        );
        let alarms = Gauge::default();
        registry.register("alarms", "What only the operator can mend: /ready says what", alarms.clone());
        let cache_entries = Gauge::default();
        registry.register("cache_entries", "Entries in the memory tier", cache_entries.clone());
        let flights = Gauge::default();
        registry.register("flights", "Carrier calls under way", flights.clone());
        let waiters = Gauge::default();
        registry.register("waiters", "Look-ups that wait for a carrier call", waiters.clone());
        let audit_queue = Gauge::default();
        registry.register("audit_queue", "Audit records that wait for their commit", audit_queue.clone());
        let audit_wal = Gauge::default();
        registry.register_with_unit(
            "audit_wal",
            "The audit's WAL: a reader that holds it back makes it grow",
            Unit::Bytes,
            audit_wal.clone(),
        );
        let audit_missed = Gauge::default();
        registry.register(
            "audit_missed",
            "Requests without an audit record since the start; the audit's gap rows count them",
            audit_missed.clone(),
        );
        let log_dropped = Counter::default();
        registry.register(
            "log_dropped",
            "Lines of the log that were dropped: standard error could not be written, or not fast enough",
            log_dropped.clone(),
        );
        let answered = Outcome::ANSWERED
            .map(|outcome| look_ups.get_or_create_owned(&vec![("outcome", outcome.name()), ("reason", "")]));
        let latency =
            Outcome::ALL.map(|outcome| latency.get_or_create_owned(&vec![("outcome", outcome.name())]));
        Arc::new(Self {
            registry,
            look_ups,
            answered,
            connections_ended,
            reloads,
            restart_needed,
            certificates,
            connections,
            transids,
            transids_by_group,
            transids_group_share,
            latency,
            carrier_calls,
            carrier_latency,
            clock_drift,
            clock_steps,
            clock_unconfirmed,
            breakers,
            budget_waiting,
            budget_left,
            alarms,
            cache_entries,
            flights,
            waiters,
            audit_queue,
            audit_wal,
            audit_missed,
            log_dropped,
        })
    }

    /// Counts a look-up that was answered; `reason` is empty unless it was refused or failed.
    pub fn look_up(&self, outcome: Outcome, reason: &'static str, latency: Duration) {
        match self.answered.get(outcome as usize) {
            Some(answered) if reason.is_empty() => answered.inc(),
            _ => self.look_ups.get_or_create(&vec![("outcome", outcome.name()), ("reason", reason)]).inc(),
        };
        self.latency[outcome as usize].observe(latency.as_secs_f64());
    }

    /// Counts a connection that was turned away, or ended out of turn, for this reason.
    pub fn connection_ended(&self, reason: &'static str) {
        self.connections_ended.get_or_create(&vec![("reason", reason)]).inc();
    }

    /// Counts a configuration that was read anew: taken over, or refused.
    pub fn reloaded(&self, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.reloads.get_or_create(&vec![("result", result)]).inc();
    }

    /// Shows the changed keys of the configuration that take effect at the next start.
    pub fn restart_needed(&self, keys: &[&'static str]) {
        self.restart_needed.clear();
        for key in keys {
            self.restart_needed.get_or_create(&vec![("key", *key)]).set(1);
        }
    }

    /// Shows until when the certificates of a configuration are valid.
    pub fn certificates(&self, all: &[Validity]) {
        self.certificates.clear();
        for one in all {
            self.certificates.get_or_create(&vec![("key", one.key)]).set(gauge(one.until.as_secs()));
        }
    }

    /// Counts a call to the carrier.
    pub fn carrier_call(&self, account: &str, code: &str, latency: Duration) {
        self.carrier_calls
            .get_or_create(&vec![("account", account.to_owned()), ("code", code.to_owned())])
            .inc();
        self.carrier_latency.observe(latency.as_secs_f64());
    }

    /// Notes how far the carrier's clock is ahead of ours, in seconds.
    pub fn clock_drift(&self, seconds: f64) {
        self.clock_drift.set(seconds);
    }

    /// Notes what a look at the clock has found.
    pub fn clock(&self, tick: &Tick) {
        if let Some(step) = tick.step {
            self.clock_steps.get_or_create(&vec![("direction", step.name())]).inc();
        }
        self.clock_unconfirmed.set(tick.unconfirmed.as_secs_f64());
    }

    /// Everything in the OpenMetrics text format.
    pub fn render(&self, levels: &Gauges) -> String {
        self.cache_entries.set(gauge(levels.cache_entries));
        self.flights.set(gauge(levels.flights as u64));
        self.waiters.set(gauge(levels.waiters as u64));
        self.connections.set(gauge(levels.connections as u64));
        self.transids.set(gauge(levels.transids as u64));
        let (groups, share) = &levels.transid_shares;
        self.transids_group_share.set(gauge(*share as u64));
        for (group, held) in groups {
            let group = vec![("group", group.to_string())];
            self.transids_by_group.get_or_create(&group).set(gauge(*held as u64));
        }
        self.audit_queue.set(gauge(levels.audit_queue as u64));
        self.audit_wal.set(gauge(levels.audit_wal));
        self.audit_missed.set(gauge(levels.audit_missed));
        self.log_dropped.inner().fetch_max(levels.log_dropped, Ordering::Relaxed);
        self.alarms.set(gauge(levels.alarms as u64));
        for one in &levels.accounts {
            let account = || ("account", one.account.to_string());
            self.budget_waiting.get_or_create(&vec![account()]).set(gauge(one.budget.waiting as u64));
            if let Some(left) = one.budget.remaining_today {
                self.budget_left.get_or_create(&vec![account()]).set(gauge(left));
            }
            for (breaker, state) in one.breakers.by_name() {
                self.breakers
                    .get_or_create(&vec![account(), ("breaker", breaker.to_owned())])
                    .set(state as i64);
            }
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// From a hit in memory to a flight's timeout.
fn from_100_us() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.5, 15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown_with_its_unit() {
        let metrics = Metrics::new();
        metrics.look_up(Outcome::Hit, "", Duration::from_millis(1));
        metrics.carrier_call("fleet", "71", Duration::from_millis(30));
        metrics.clock_drift(-2.5);
        let text = metrics.render(&Gauges { cache_entries: 3, flights: 1, ..Gauges::default() });
        for line in [
            "cmiot_look_ups_total{outcome=\"hit\",reason=\"\"} 1",
            "cmiot_carrier_calls_total{account=\"fleet\",code=\"71\"} 1",
            "cmiot_carrier_call_seconds_count 1",
            "cmiot_clock_drift_seconds -2.5",
            "cmiot_cache_entries 3",
        ] {
            assert!(text.contains(line), "{line} not in:\n{text}");
        }
    }
}
