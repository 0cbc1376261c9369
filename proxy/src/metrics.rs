//! Metrics in the text format of Prometheus, or in that of OpenMetrics. No label holds a card number, a token or an appid.
//!
//! `declare!` below is the table of all metrics, with name, kind, unit, labels, known label values and help text of each.
//! The fields of [`Metrics`] and [`Gauges`] and the registration follow from it (`metrics/declare.rs`). A *recorded*
//! metric is changed by a method of [`Metrics`] where the event happens; a *sampled* one is read when `/metrics` is
//! requested, and the admin listener passes its value in [`Gauges`]. Known label values are exported as zero from the
//! start. A renamed metric is also exported under its old name until 0.3.0 (`metrics/aliases.rs`).

mod aliases;
mod declare;
mod gauges;
mod process;
mod reasons;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::alarms::Alarm;
use crate::clock::Time;
use crate::clock::belief::Tick;
use crate::config::certificates::Validity;
use crate::outcome::Outcome;
use declare::{ByLabels, FloatGauge, HistogramByOutcome, Kind, Lookups, Sample, Spec, clamp, declare};
pub use gauges::{AccountGauges, BreakerGauges, BreakerState, BudgetGauges};
use process::Process;

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
        token_requests: ByLabels<Counter, 2> = "token_requests",
            "Requests for a token of API v5 by account and result: issued, same (the one that was refused just before), \
             refused (a code of the carrier), failed (no reply)",
            labels ["account", "result"];
        tokens_ended_early: ByLabels<Counter, 1> = "tokens_ended_early",
            "Tokens of API v5 that the carrier refused before the end of their ttl, by account",
            labels ["account"];
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
        config_loaded: FloatGauge = "config_last_reload_success_timestamp",
            "When the configuration in use was loaded, at the start or by a reload, in Unix time",
            unit Seconds;
        config_is_current: Gauge = "config_last_reload_successful",
            "Whether the last load of the configuration was accepted: 1, or 0 while a changed one is refused";
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
        budget_limit: ByLabels<Gauge, 1> = "budget_limit_today",
            "Calls that an account may make from midnight to midnight at UTC+8, where there is a limit",
            labels ["account"];
        budget_rate: ByLabels<Gauge, 1> = "budget_limit_per_second",
            "Calls that an account may start in any second, where there is a limit",
            labels ["account"];
        budget_remaining: ByLabels<Gauge, 1> = "budget_remaining_today",
            "Calls that an account has left until midnight at UTC+8, where there is a limit",
            labels ["account"];
        fleet_database_failures: ByLabels<Counter, 1> = "fleet_database_failures",
            "Statements that the fleet's database did not answer in time or refused, and connections to it that failed",
            labels ["kind"], known [["timeout"], ["connect"], ["statement"]];
        fleet_granted: ByLabels<Counter, 1> = "fleet_granted_calls",
            "Calls that the fleet's database has granted: in a block of the day, for the reserve of a day, as a slot of the rate, or as a slot that came too late",
            labels ["kind"], known [["block"], ["reserve"], ["slot"], ["late"]];
        fleet_reserve: ByLabels<Gauge, 1> = "fleet_reserve_calls",
            "Calls of today that an account has left in reserve for the time when this node cannot reach the fleet's database",
            labels ["account"];
        fleet_alone: Gauge = "fleet_alone",
            "Whether this node acts without the other nodes of its fleet: 1, or 0 while it acts with them or has no fleet";
        fleet_heartbeat: FloatGauge = "fleet_last_heartbeat_timestamp",
            "When the last heartbeat was sent that the fleet's database stored, in Unix time",
            unit Seconds;
        fleet_clock_offset: FloatGauge = "fleet_clock_offset",
            "How far the clock of the fleet's database is ahead of this machine's",
            unit Seconds;
        fleet_audit_lag: FloatGauge = "fleet_audit_lag",
            "Age of the oldest rows of the audit that may not be copied to the fleet's database; 0 without such a copy",
            unit Seconds;
        fleet_audit_behind: Gauge = "fleet_audit_rows_behind",
            "Rows of the audit that the copy at the fleet's database has not reached";
        fleet_lookups: ByLabels<Counter, 1> = "fleet_lookups",
            "Misses that asked the fleet, by result: an answer of another node, the lead, the lead of a node that is gone \
             (takeover), another node's flight to follow, or no database (alone)",
            labels ["result"],
            known [["answer"], ["lead"], ["takeover"], ["follow"], ["alone"]];
        fleet_transids: ByLabels<Counter, 1> = "fleet_transids",
            "Transids that were checked against those of the fleet, by result: new, used (by another node), expired, alone \
             (no reply)",
            labels ["result"], known [["new"], ["used"], ["expired"], ["alone"]];
        fleet_accepted_twice: Counter = "fleet_accepted_twice",
            "Transids that this node accepted while it was alone, and that another node has accepted too";
        webhook_messages: ByLabels<Counter, 2> = "webhook_messages",
            "Messages of each webhook by result: delivered, failed (an attempt), dead (given up)",
            labels ["webhook", "result"];
        webhook_behind: ByLabels<Gauge, 1> = "webhook_behind",
            "Rows of the audit that a webhook has not read yet",
            labels ["webhook"];
    }
    sampled {
        alarms: usize => Gauge = "alarms",
            "Alarms that hold, each of which needs the operator: /ready lists them";
        alarm: Vec<Alarm> => ByLabels<Gauge, 1> = "alarm",
            "Each alarm: 0 if it does not hold, 1 for a warning, 2 for an error",
            labels ["alarm"];
        audit_last_anchor: Option<Time> => FloatGauge = "audit_last_anchor_timestamp",
            "When an anchor last covered all rows of the audit, in Unix time",
            unit Seconds;
        audit_min_free: u64 => Gauge = "audit_min_free",
            "Free space of the audit's disk below which no record is written",
            unit Bytes;
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
        store_free: u64 => Gauge = "store_free",
            "Free space of the disk that holds the databases",
            unit Bytes;
        used_transids: usize => Gauge = "used_transids",
            "Used transids in the replay table";
        used_transids_by_group: Vec<(Arc<str>, usize)> => ByLabels<Gauge, 1> = "used_transids_by_group",
            "Used transids in the replay table by the group of their clients",
            labels ["group"];
        max_transids: usize => Gauge = "max_transids",
            "Used transids that the replay table keeps at most";
        max_transids_per_group: usize => Gauge = "max_transids_per_group",
            "Used transids that the replay table keeps for one group at most";
    }
}

/// A text format of the exposition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Version 0.0.4 of Prometheus, which every tool reads.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format for an `Accept` header: OpenMetrics if it names that, as Prometheus does.
    pub fn accepted(accept: &str) -> Self {
        if accept.to_ascii_lowercase().contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Seconds of Unix time, as a metric has them.
fn seconds(at: Time) -> f64 {
    at.as_micros() as f64 / 1e6
}

impl Metrics {
    /// All metrics at zero; the drift of the clock is unknown until a `Date` of the carrier has been compared.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("cmiot");
        process::register_build(&mut registry);
        let metrics = Self::register(registry);
        metrics.clock_drift.set(f64::NAN);
        metrics.config_loaded.set(f64::NAN);
        metrics.fleet_heartbeat.set(f64::NAN);
        metrics.fleet_clock_offset.set(f64::NAN);
        Arc::new(metrics)
    }

    /// The process has started at this time, with a configuration that is in use.
    pub fn started(&self, at: Time) {
        self.process.started(seconds(at));
        self.config_loaded(at);
    }

    fn config_loaded(&self, at: Time) {
        self.config_loaded.set(seconds(at));
        self.config_is_current.set(1);
    }

    /// Counts a transid that was checked against those of the fleet.
    pub fn fleet_transid(&self, result: &'static str) {
        self.fleet_transids.get([result.into()]).inc();
    }

    /// Counts transids that another node has accepted too.
    pub fn fleet_accepted_twice(&self, count: usize) {
        self.fleet_accepted_twice.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
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

    /// Counts a configuration that was reloaded at this time and is in use.
    pub fn reload_accepted(&self, at: Time) {
        self.config_loaded(at);
        self.config_reloads.get(["accepted".into()]).inc();
    }

    /// Counts a configuration that was refused: the earlier one stays in use.
    pub fn reload_refused(&self) {
        self.config_is_current.set(0);
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

    /// Counts a request for a token, by its result.
    pub fn token_requested(&self, account: &str, result: &'static str) {
        self.token_requests.get([account.to_owned().into(), result.into()]).inc();
    }

    /// Counts a token that the carrier refused before the end of its ttl.
    pub fn token_ended_early(&self, account: &str) {
        self.tokens_ended_early.get([account.to_owned().into()]).inc();
    }

    /// Counts a miss that asked the fleet, by its result.
    pub fn fleet_lookup(&self, result: &'static str) {
        self.fleet_lookups.get([result.into()]).inc();
    }

    /// Counts a message of a webhook: `delivered`, a `failed` attempt, or `dead`.
    pub fn webhook_message(&self, webhook: &str, result: &'static str) {
        self.webhook_messages.get([webhook.to_owned().into(), result.into()]).inc();
    }

    /// Exports the counts of a webhook from zero on, so that the first message is an increase.
    pub fn webhook_configured(&self, webhook: &str) {
        for result in ["delivered", "failed", "dead"] {
            drop(self.webhook_messages.get([webhook.to_owned().into(), result.into()]));
        }
    }

    /// Replaces the numbers of rows of the audit that webhooks have not read yet.
    pub fn webhooks_behind<'a>(&self, all: impl IntoIterator<Item = (&'a str, u64)>) {
        let all = all.into_iter().map(|(webhook, rows)| ([webhook.to_owned().into()], clamp(rows)));
        self.webhook_behind.replace(all);
    }

    /// Sets whether this node acts without its fleet.
    pub fn fleet_alone(&self, alone: bool) {
        self.fleet_alone.set(alone.into());
    }

    /// Sets the age of the oldest rows of the audit that may not be copied to the fleet's database.
    pub fn fleet_audit_lag(&self, lag: Duration) {
        self.fleet_audit_lag.set(lag.as_secs_f64());
    }

    /// Sets the number of rows of the audit that the copy has not reached.
    pub fn fleet_audit_rows_behind(&self, rows: u64) {
        self.fleet_audit_behind.set(clamp(rows));
    }

    /// A heartbeat that was sent at this time is stored.
    pub fn fleet_beat(&self, at: Time) {
        self.fleet_heartbeat.set(seconds(at));
    }

    /// Sets how far the clock of the fleet's database is ahead of ours, in seconds.
    pub fn fleet_clock_offset(&self, seconds: f64) {
        self.fleet_clock_offset.set(seconds);
    }

    /// Counts calls that the fleet's database has granted: `block`, `reserve`, `slot` or `late`.
    pub fn fleet_granted(&self, kind: &'static str, calls: u64) {
        self.fleet_granted.get([kind.into()]).inc_by(calls);
    }

    /// Counts a failure of the fleet's database: `timeout`, `connect` or `statement`.
    pub fn fleet_database_failure(&self, kind: &'static str) {
        self.fleet_database_failures.get([kind.into()]).inc();
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

    /// The text of all metrics, the sampled ones with these values.
    pub fn render(&self, format: Format, gauges: &Gauges, accounts: &[AccountGauges]) -> String {
        self.sample(gauges);
        self.sample_accounts(accounts);
        self.process.sample();
        let mut out = String::new();
        let written =
            [&self.registry, &self.process.registry].into_iter().try_for_each(|registry| match format {
                Format::Prometheus => prometheus_text::encode(&mut out, registry),
                Format::OpenMetrics => text::encode_registry(&mut out, registry),
            });
        written.expect("writing to a String cannot fail");
        aliases::append(&mut out);
        if format == Format::OpenMetrics {
            text::encode_eof(&mut out).expect("writing to a String cannot fail");
        }
        out
    }

    fn sample_accounts(&self, accounts: &[AccountGauges]) {
        let name = |one: &AccountGauges| Cow::Owned(one.account.to_string());
        self.budget_waiting
            .replace(accounts.iter().map(|one| ([name(one)], clamp(one.budget.waiting as u64))));
        let rates = accounts.iter().filter_map(|one| Some((one, one.budget.per_second?)));
        self.budget_rate.replace(rates.map(|(one, rate)| ([name(one)], rate.into())));
        let days = accounts.iter().filter_map(|one| Some((one, one.budget.per_day?)));
        self.budget_limit.replace(days.map(|(one, limit)| ([name(one)], clamp(limit))));
        let limited = accounts.iter().filter_map(|one| Some((one, one.budget.remaining_today?)));
        self.budget_remaining.replace(limited.map(|(one, remaining)| ([name(one)], clamp(remaining))));
        let reserved = accounts.iter().filter_map(|one| Some((one, one.budget.reserve_today?)));
        self.fleet_reserve.replace(reserved.map(|(one, reserve)| ([name(one)], clamp(reserve))));
        let breakers = accounts.iter().flat_map(|one| {
            let breakers = one.breakers.by_name().into_iter();
            breakers.map(move |(breaker, state)| ([name(one), breaker.into()], state as i64))
        });
        self.breaker.replace(breakers);
    }
}

#[cfg(test)]
mod tests;
