//! Metrics in the OpenMetrics text format. No label holds a card number, a token or an appid.
//!
//! `declare!` below is the table of all metrics, with name, kind, unit, labels, known label values and help text of each.
//! The fields of [`Metrics`] and [`Gauges`] and the registration follow from it (`metrics/declare.rs`). A *recorded*
//! metric is changed by a method of [`Metrics`] where the event happens; a *sampled* one is read when `/metrics` is
//! requested, and the admin listener passes its value in [`Gauges`]. Known label values are exported as zero from the
//! start. A renamed metric is also exported under its old name until 0.3.0 (`metrics/aliases.rs`).

mod aliases;
mod declare;
mod gauges;
mod reasons;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::clock::belief::Tick;
use crate::config::certificates::Validity;
use crate::outcome::Outcome;
use declare::{ByLabels, FloatGauge, HistogramByOutcome, Kind, Lookups, Sample, Spec, clamp, declare};
pub use gauges::{AccountGauges, BreakerGauges, BreakerState, BudgetGauges};

declare! {
    recorded {
        lookups: Lookups = "lookups",
            "Lookups by outcome and, where refused or failed, reason",
            labels ["outcome", "reason"];
        lookup_duration: HistogramByOutcome = "lookup_duration",
            "Time from the request to the committed response",
            unit Seconds, labels ["outcome"];
        carrier_calls: ByLabels<Counter, 2> = "carrier_calls",
            "Calls to the carrier by account and by the code, or the fault, that ended them",
            labels ["account", "code"];
        carrier_call_duration: Histogram = "carrier_call_duration",
            "Duration of calls to the carrier",
            unit Seconds;
        connections_ended: ByLabels<Counter, 1> = "connections_ended",
            "Connections that were refused, or ended by an error or a timeout, by reason",
            labels ["reason"],
            known [["broken"], ["full"], ["full-peer"], ["proxy-protocol"], ["timeout"], ["tls"], ["unparsed"]];
        config_reloads: ByLabels<Counter, 1> = "config_reloads",
            "Reloads of the configuration by result",
            labels ["result"], known [["accepted"], ["refused"]];
        restart_needed: ByLabels<Gauge, 1> = "restart_needed",
            "Configuration keys that were changed and take effect at the next start",
            labels ["key"];
        certificate_expiry: ByLabels<Gauge, 1> = "certificate_expiry_timestamp",
            "When the first certificate of a file expires, in Unix time, by the key that names the file",
            unit Seconds, labels ["key"];
        clock_drift: FloatGauge = "clock_drift",
            "How far the carrier's clock is ahead of this machine's",
            unit Seconds;
        clock_steps: ByLabels<Counter, 1> = "clock_steps",
            "Steps of the wall clock by more than clock_skew against the monotonic clock, by direction",
            labels ["direction"], known [["forwards"], ["backwards"]];
        clock_unconfirmed: FloatGauge = "clock_unconfirmed",
            "How far the wall clock is ahead of the time that is believed, after a step that nothing has confirmed",
            unit Seconds;
        breaker: ByLabels<Gauge, 2> = "breaker",
            "State of each breaker of an account: 0 closed, 1 half-open, 2 open",
            labels ["account", "breaker"];
        budget_waiting: ByLabels<Gauge, 1> = "budget_waiting",
            "Calls that wait for an account's budget",
            labels ["account"];
        budget_remaining: ByLabels<Gauge, 1> = "budget_remaining_today",
            "Calls that an account has left until midnight at UTC+8, where there is a limit",
            labels ["account"];
    }
    sampled {
        alarms: usize => Gauge = "alarms",
            "Alarms that hold, each of which needs the operator: /ready lists them";
        audit_queue: usize => Gauge = "audit_queue",
            "Audit records that wait for their commit";
        audit_wal: u64 => Gauge = "audit_wal",
            "Size of the audit's WAL, which grows while a reader keeps it from being checkpointed",
            unit Bytes;
        audit_unrecorded: u64 => Counter = "audit_unrecorded_requests",
            "Requests without an audit record; the audit's gap rows count them too";
        cache_entries: u64 => Gauge = "cache_entries",
            "Entries in the memory tier of the cache";
        connections: usize => Gauge = "connections",
            "Open connections of gateways";
        flights: usize => Gauge = "flights",
            "Calls to the carrier in flight";
        waiters: usize => Gauge = "waiters",
            "Lookups that wait for a call to the carrier";
        log_lines_dropped: u64 => Counter = "log_lines_dropped",
            "Log lines that were dropped since standard error could not be written, or not fast enough";
        used_transids: usize => Gauge = "used_transids",
            "Used transids in the replay table";
        used_transids_by_group: Vec<(Arc<str>, usize)> => ByLabels<Gauge, 1> = "used_transids_by_group",
            "Used transids in the replay table by the group of their clients",
            labels ["group"];
        max_transids_per_group: usize => Gauge = "max_transids_per_group",
            "Used transids that the replay table keeps for one group at most";
    }
}

impl Metrics {
    /// All metrics at zero; the drift of the clock is unknown until a `Date` of the carrier has been compared.
    pub fn new() -> Arc<Self> {
        let metrics = Self::register(Registry::with_prefix("cmiot"));
        metrics.clock_drift.set(f64::NAN);
        Arc::new(metrics)
    }

    /// Counts a lookup that was answered; `reason` is empty unless it was refused or failed.
    pub fn lookup(&self, outcome: Outcome, reason: &'static str, latency: Duration) {
        self.lookups.inc(outcome, reason);
        self.lookup_duration.observe(outcome, latency);
    }

    /// Counts a connection that was refused, or ended by an error or a timeout.
    pub fn connection_ended(&self, reason: &'static str) {
        self.connections_ended.get([reason.into()]).inc();
    }

    /// Counts a configuration that was reloaded and is in use.
    pub fn reload_accepted(&self) {
        self.config_reloads.get(["accepted".into()]).inc();
    }

    /// Counts a configuration that was refused: the earlier one stays in use.
    pub fn reload_refused(&self) {
        self.config_reloads.get(["refused".into()]).inc();
    }

    /// Replaces the changed configuration keys that take effect at the next start.
    pub fn restart_needed(&self, keys: &[&'static str]) {
        self.restart_needed.replace(keys.iter().map(|key| ([(*key).into()], 1)));
    }

    /// Replaces the dates until which the certificates of the configuration are valid.
    pub fn certificates(&self, all: &[Validity]) {
        self.certificate_expiry.replace(all.iter().map(|one| ([one.key.into()], clamp(one.until.as_secs()))));
    }

    /// Counts a call to the carrier.
    pub fn carrier_call(&self, account: &str, code: &str, latency: Duration) {
        self.carrier_calls.get([account.to_owned().into(), code.to_owned().into()]).inc();
        self.carrier_call_duration.observe(latency.as_secs_f64());
    }

    /// Sets how far the carrier's clock is ahead of ours, in seconds.
    pub fn clock_drift(&self, seconds: f64) {
        self.clock_drift.set(seconds);
    }

    /// Counts the step that a check of the clock has found, and sets what is unconfirmed.
    pub fn clock(&self, tick: &Tick) {
        if let Some(step) = tick.step {
            self.clock_steps.get([step.name().into()]).inc();
        }
        self.clock_unconfirmed.set(tick.unconfirmed.as_secs_f64());
    }

    /// The OpenMetrics text of all metrics, the sampled ones with these values.
    pub fn render(&self, gauges: &Gauges, accounts: &[AccountGauges]) -> String {
        self.sample(gauges);
        self.sample_accounts(accounts);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        aliases::append(&mut text);
        text
    }

    fn sample_accounts(&self, accounts: &[AccountGauges]) {
        let name = |one: &AccountGauges| Cow::Owned(one.account.to_string());
        self.budget_waiting
            .replace(accounts.iter().map(|one| ([name(one)], clamp(one.budget.waiting as u64))));
        let limited = accounts.iter().filter_map(|one| Some((one, one.budget.remaining_today?)));
        self.budget_remaining.replace(limited.map(|(one, remaining)| ([name(one)], clamp(remaining))));
        let breakers = accounts.iter().flat_map(|one| {
            let breakers = one.breakers.by_name().into_iter();
            breakers.map(move |(breaker, state)| ([name(one), breaker.into()], state as i64))
        });
        self.breaker.replace(breakers);
    }
}

#[cfg(test)]
mod tests;
