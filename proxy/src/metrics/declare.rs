//! Declaration of metrics: the macro that turns the table into fields and registration, and the kinds of metric.
//!
//! [`Kind`] registers a metric from its [`Spec`]; [`Sample`] sets it from a value that was read for a scrape. A family
//! ([`ByLabels`]) knows its label names from the table, so that a caller passes values only.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::reasons::{FAILED, REFUSED};
use super::seconds;
use crate::alarms::{Alarm, Condition};
use crate::clock::Time;
use crate::outcome::Outcome;

/// Declares `Metrics`, whose fields are the metrics, and `Gauges`, whose fields are the values of the sampled ones.
macro_rules! declare {
    (
        recorded { $(
            $recorded:ident: $recorded_kind:ty = $recorded_name:literal, $recorded_help:literal
                $(, unit $recorded_unit:ident)?
                $(, labels $recorded_labels:tt $(, known [$($recorded_known:tt),+])?)?;
        )+ }
        sampled { $(
            $sampled:ident: $value:ty => $sampled_kind:ty = $sampled_name:literal, $sampled_help:literal
                $(, unit $sampled_unit:ident)?
                $(, labels $sampled_labels:tt)?;
        )+ }
    ) => {
        /// All metrics of the process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            process: Process,
            $( $recorded: $recorded_kind, )+
            $( $sampled: $sampled_kind, )+
        }

        /// Values that are read when `/metrics` is requested.
        #[derive(Clone, Debug, Default)]
        pub struct Gauges {
            $( #[doc = $sampled_help] pub $sampled: $value, )+
        }

        impl Metrics {
            fn register(mut registry: Registry) -> Self {
                Self {
                    $( $recorded: Kind::register(
                        &mut registry,
                        &Spec::new($recorded_name, $recorded_help)
                            $(.unit(prometheus_client::registry::Unit::$recorded_unit))?
                            $(.labels(&$recorded_labels)$(.known(&[$(&$recorded_known),+]))?)?,
                    ), )+
                    $( $sampled: Kind::register(
                        &mut registry,
                        &Spec::new($sampled_name, $sampled_help)
                            $(.unit(prometheus_client::registry::Unit::$sampled_unit))?
                            $(.labels(&$sampled_labels))?,
                    ), )+
                    registry,
                    process: Process::new(),
                }
            }

            fn sample(&self, gauges: &Gauges) {
                $( Sample::sample(&self.$sampled, &gauges.$sampled); )+
            }
        }
    };
}
pub(super) use declare;

/// One entry of the table.
pub(super) struct Spec {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    labels: &'static [&'static str],
    known: &'static [&'static [&'static str]],
}

impl Spec {
    pub(super) fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, unit: None, labels: &[], known: &[] }
    }

    pub(super) fn unit(self, unit: Unit) -> Self {
        Self { unit: Some(unit), ..self }
    }

    /// The names of the labels.
    pub(super) fn labels(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }

    /// All values that the labels can have, which are then exported from the start.
    pub(super) fn known(self, known: &'static [&'static [&'static str]]) -> Self {
        Self { known, ..self }
    }

    fn export<M: Metric>(&self, registry: &mut Registry, metric: M) {
        match self.unit.clone() {
            Some(unit) => registry.register_with_unit(self.name, self.help, unit, metric),
            None => registry.register(self.name, self.help, metric),
        }
    }
}

/// A metric, or several of one name, that an entry of the table makes.
pub(super) trait Kind {
    fn register(registry: &mut Registry, spec: &Spec) -> Self;
}

/// A metric whose value is read when `/metrics` is requested.
pub(super) trait Sample<V> {
    fn sample(&self, value: &V);
}

/// A gauge of seconds.
pub(super) type FloatGauge = Gauge<f64, AtomicU64>;

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// Metrics of one name, by the values of `N` labels.
#[derive(Debug)]
pub(super) struct ByLabels<M, const N: usize> {
    labels: [&'static str; N],
    known: &'static [&'static [&'static str]],
    family: Family<Labels<N>, M>,
    /// The labels that [`Self::replace`] has set.
    replaced: Mutex<HashSet<Labels<N>>>,
}

impl<M: Clone + Default, const N: usize> ByLabels<M, N> {
    /// The metric with these label values, in the order of the declaration.
    pub(super) fn get(&self, values: [Cow<'static, str>; N]) -> M {
        let is_known = |known: &&[&str]| known.iter().zip(&values).all(|(known, value)| known == value);
        debug_assert!(self.known.is_empty() || self.known.iter().any(is_known), "{values:?} is not declared");
        self.family.get_or_create_owned(&label(self.labels, values))
    }
}

impl<const N: usize> ByLabels<Gauge, N> {
    /// Sets the gauges to these values, and removes those of an earlier call that are no longer among them: an account
    /// that a reload removed must not keep its last value.
    pub(super) fn replace(&self, values: impl IntoIterator<Item = ([Cow<'static, str>; N], i64)>) {
        // Held until all is set, so that two scrapes at once do not remove each other's series. A panic leaves series at
        // most, which the next call removes.
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashSet::new();
        for (values, value) in values {
            let labels = label(self.labels, values);
            self.family.get_or_create_owned(&labels).set(value);
            now.insert(labels);
        }
        for gone in replaced.difference(&now) {
            self.family.remove(gone);
        }
        *replaced = now;
    }
}

fn label<const N: usize>(labels: [&'static str; N], values: [Cow<'static, str>; N]) -> Labels<N> {
    let mut labels = labels.into_iter();
    values.map(|value| (labels.next().unwrap_or_default(), value))
}

impl<M, const N: usize> Kind for ByLabels<M, N>
where
    M: Clone + Default,
    Family<Labels<N>, M>: Metric,
{
    fn register(registry: &mut Registry, spec: &Spec) -> Self {
        let labels = spec.labels.try_into().expect("the table names as many labels as the kind has");
        let all = Self { labels, known: spec.known, family: Family::default(), replaced: Mutex::default() };
        for known in spec.known {
            let values: [&'static str; N] =
                (*known).try_into().expect("the table lists as many values as labels");
            drop(all.get(values.map(Cow::Borrowed)));
        }
        spec.export(registry, all.family.clone());
        all
    }
}

/// The counter of lookups. That of each successful outcome is resolved once, so that no hit looks its labels up.
#[derive(Debug)]
pub(super) struct Lookups {
    all: ByLabels<Counter, 2>,
    /// By outcome, without a reason.
    answered: [Counter; Outcome::ANSWERED.len()],
}

impl Lookups {
    /// `reason` is empty unless the lookup was refused or failed.
    pub(super) fn inc(&self, outcome: Outcome, reason: &'static str) {
        match self.answered.get(outcome as usize) {
            Some(answered) if reason.is_empty() => answered.inc(),
            _ => {
                debug_assert!(reasons(outcome).contains(&reason), "{reason} is not in metrics/reasons.rs");
                self.all.get([outcome.name().into(), reason.into()]).inc()
            }
        };
    }
}

impl Kind for Lookups {
    fn register(registry: &mut Registry, spec: &Spec) -> Self {
        let all = ByLabels::register(registry, spec);
        for outcome in [Outcome::Refused, Outcome::Failed] {
            for reason in reasons(outcome) {
                drop(all.get([outcome.name().into(), (*reason).into()]));
            }
        }
        let answered = Outcome::ANSWERED.map(|outcome| all.get([outcome.name().into(), "".into()]));
        Self { all, answered }
    }
}

/// All reasons of an outcome.
fn reasons(outcome: Outcome) -> &'static [&'static str] {
    match outcome {
        Outcome::Refused => &REFUSED,
        Outcome::Failed => &FAILED,
        _ => &[""],
    }
}

/// Durations by outcome.
#[derive(Debug)]
pub(super) struct HistogramByOutcome([Histogram; Outcome::ALL.len()]);

impl HistogramByOutcome {
    pub(super) fn observe(&self, outcome: Outcome, duration: Duration) {
        self.0[outcome as usize].observe(duration.as_secs_f64());
    }
}

impl Kind for HistogramByOutcome {
    fn register(registry: &mut Registry, spec: &Spec) -> Self {
        let family: Family<Labels<1>, Histogram> =
            Family::new_with_constructor(from_100_us as fn() -> Histogram);
        let labels = spec.labels.try_into().expect("the table names one label");
        spec.export(registry, family.clone());
        Self(Outcome::ALL.map(|outcome| family.get_or_create_owned(&label(labels, [outcome.name().into()]))))
    }
}

impl Kind for Counter {
    fn register(registry: &mut Registry, spec: &Spec) -> Self {
        let counter = Self::default();
        spec.export(registry, counter.clone());
        counter
    }
}

impl Kind for Gauge {
    fn register(registry: &mut Registry, spec: &Spec) -> Self {
        let gauge = Self::default();
        spec.export(registry, gauge.clone());
        gauge
    }
}

impl Kind for FloatGauge {
    fn register(registry: &mut Registry, spec: &Spec) -> Self {
        let gauge = Self::default();
        spec.export(registry, gauge.clone());
        gauge
    }
}

impl Kind for Histogram {
    fn register(registry: &mut Registry, spec: &Spec) -> Self {
        let histogram = from_100_us();
        spec.export(registry, histogram.clone());
        histogram
    }
}

impl Sample<u64> for Gauge {
    fn sample(&self, value: &u64) {
        self.set(clamp(*value));
    }
}

impl Sample<Option<Time>> for FloatGauge {
    /// Without a time the value is unknown.
    fn sample(&self, value: &Option<Time>) {
        self.set(value.map_or(f64::NAN, seconds));
    }
}

impl Sample<Vec<Alarm>> for ByLabels<Gauge, 1> {
    fn sample(&self, holding: &Vec<Alarm>) {
        for condition in Condition::ALL {
            let severity =
                holding.iter().find(|alarm| alarm.condition == condition).map(|alarm| alarm.severity);
            self.get([condition.name().into()]).set(severity.map_or(0, |severity| severity as i64));
        }
    }
}

impl Sample<usize> for Gauge {
    fn sample(&self, value: &usize) {
        self.set(clamp(*value as u64));
    }
}

impl Sample<u64> for Counter {
    /// Two scrapes at once may read in one order and set in the other: the counter never falls.
    fn sample(&self, value: &u64) {
        self.inner().fetch_max(*value, Ordering::Relaxed);
    }
}

impl Sample<Vec<(Arc<str>, usize)>> for ByLabels<Gauge, 1> {
    fn sample(&self, values: &Vec<(Arc<str>, usize)>) {
        self.replace(values.iter().map(|(label, value)| ([label.to_string().into()], clamp(*value as u64))));
    }
}

/// As a gauge's value.
pub(super) fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// From a hit in memory to a flight's timeout, in seconds: round numbers, which a query can name.
const BOUNDS: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 25.0, 60.0,
];

fn from_100_us() -> Histogram {
    Histogram::new(BOUNDS)
}
