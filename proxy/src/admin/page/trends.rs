//! The charts of the overview: the last 24 hours by hour, the last 30 days by day.

use std::ops::Range;

use axum::body::Body;
use hyper::Response;

use super::chart::{Chart, Sample, legend_of_lines};
use super::csv;
use super::history::{self, Snapshot};
use super::moment;
use super::sums::{HOUR, Hour, hour_of};
use super::texts::Texts;
use super::view::encoded;
use super::words;
use crate::clock::Time;
use crate::language::{Language, text};
use crate::outcome::Outcome;
use crate::store::audit::query::Field;

const DAY: i64 = 24 * HOUR;
/// Days begin at UTC+8.
const ZONE: i64 = 8 * HOUR;
/// The percentiles of latency that charts and files have.
const PERCENTILES: [u64; 3] = [50, 95, 99];

/// A period of the charts.
pub(super) struct Period {
    /// In microseconds.
    time: Range<i64>,
    label: String,
    sums: Hour,
    is_incomplete: bool,
}

/// The sums of the last 24 hours, the running one included.
pub(super) fn last_day(snapshot: &Snapshot, now: Time) -> Hour {
    let mut sums = Hour::default();
    snapshot.hours.range(history::last_day(now).as_micros()..).for_each(|(_, hour)| sums.add(hour));
    sums
}

/// The last 24 hours.
pub(super) fn hours(snapshot: &Snapshot, now: Time) -> Vec<Period> {
    let this_hour = hour_of(now.as_micros());
    let hour = |back: i64| {
        let begin = this_hour - back * HOUR;
        let label = moment::hour(Time::from_micros(begin));
        Period::new(snapshot, begin..begin + HOUR, if back % 3 == 0 { label } else { String::new() })
    };
    (0..24).rev().map(hour).collect()
}

/// The last 30 days.
pub(super) fn days(snapshot: &Snapshot, now: Time) -> Vec<Period> {
    let today = (now.as_micros() + ZONE).div_euclid(DAY) * DAY - ZONE;
    let day = |back: i64| {
        let begin = today - back * DAY;
        let label = moment::day(Time::from_micros(begin));
        Period::new(snapshot, begin..begin + DAY, if back % 5 == 0 { label } else { String::new() })
    };
    (0..30).rev().map(day).collect()
}

/// Periods as a file.
pub(super) fn file(name: &str, periods: &[Period]) -> Response<Body> {
    let outcomes = Outcome::ALL.map(Outcome::name);
    let more =
        ["counted_refusals", "carrier_calls", "hit_percent", "p50_ms", "p95_ms", "p99_ms", "is_complete"];
    let head: Vec<_> = ["begin"].into_iter().chain(outcomes).chain(more).collect();
    let int = |count: u64| Field::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let real = |value: Option<f64>| value.map_or(Field::Null, Field::Real);
    let lines = periods.iter().map(|period| {
        let sums = &period.sums;
        let mut line = vec![Field::Text(Time::from_micros(period.time.start).to_string())];
        line.extend(Outcome::ALL.map(|outcome| int(sums.outcome(outcome))));
        line.extend([int(sums.counted), int(sums.all_calls()), real(sums.hit_percent())]);
        line.extend(PERCENTILES.map(|percent| real(sums.latency_ms(percent))));
        line.push(Field::Int(i64::from(!period.is_incomplete)));
        line
    });
    csv::file(name, &head, lines)
}

/// The charts of periods.
pub(super) fn charts(periods: &[Period], language: Language) -> Vec<Chart> {
    let t = Texts::of(language);
    let outcomes = Outcome::ALL
        .map(|outcome| (outcome.name(), words::of_outcome(outcome.name()).of(language).to_owned()));
    let lookups = periods.iter().map(|period| {
        let parts = Outcome::ALL.map(|outcome| (outcome.name(), period.sums.outcome(outcome)));
        let said = parts.iter().zip(&outcomes).filter(|((_, count), _)| *count > 0);
        let said: Vec<_> = said.map(|((_, count), (_, name))| format!("{name} {count}")).collect();
        let bars = parts.iter().map(|(class, count)| (*class, *count as f64)).collect();
        period.sample(language, &said.join(", "), "", bars, Vec::new())
    });
    let calls = periods.iter().map(|period| {
        let count = period.sums.all_calls();
        period.sample(language, &count.to_string(), "&kind=calls", vec![("calls", count as f64)], Vec::new())
    });
    let share = periods.iter().map(|period| {
        let percent = period.sums.hit_percent();
        let said = percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1} %"));
        period.sample(language, &said, "&outcome=hit", Vec::new(), vec![percent])
    });
    let latency = periods.iter().map(|period| {
        let percentiles = PERCENTILES.map(|percent| (percent, period.sums.latency_ms(percent)));
        let said =
            percentiles.iter().filter_map(|(percent, ms)| Some(format!("p{percent} {:.1} ms", (*ms)?)));
        let said = said.collect::<Vec<_>>().join(", ");
        period.sample(language, &said, "", Vec::new(), percentiles.iter().map(|(_, ms)| *ms).collect())
    });
    let names = PERCENTILES.map(|percent| format!("p{percent}"));
    vec![
        Chart::new(t.chart_lookups.to_owned(), lookups.collect(), outcomes.into()),
        Chart::new(t.chart_calls.to_owned(), calls.collect(), Vec::new()),
        Chart::new(t.chart_hits.to_owned(), share.collect(), Vec::new()),
        Chart::new(t.chart_latency.to_owned(), latency.collect(), legend_of_lines(&names)),
    ]
}

impl Period {
    fn new(snapshot: &Snapshot, time: Range<i64>, label: String) -> Self {
        let mut sums = Hour::default();
        snapshot.hours.range(time.clone()).for_each(|(_, hour)| sums.add(hour));
        Self { is_incomplete: !snapshot.is_complete(time.clone()), time, label, sums }
    }

    fn sample(
        &self,
        language: Language,
        values: &str,
        conditions: &str,
        bars: Vec<(&'static str, f64)>,
        points: Vec<Option<f64>>,
    ) -> Sample {
        let (since, until) = (Time::from_micros(self.time.start), Time::from_micros(self.time.end));
        let from = moment::shown(since);
        let title = match self.is_incomplete {
            true => text!("{from}: {values} (incomplete)", "{from}：{values}（不完整）"),
            false => text!("{from}: {values}", "{from}：{values}"),
        };
        let (since, until) = (encoded(&moment::local(since)), encoded(&moment::local(until)));
        Sample {
            label: self.label.clone(),
            title: title.of(language).to_owned(),
            link: format!("/page/audit?since={since}&until={until}{conditions}"),
            is_incomplete: self.is_incomplete,
            bars,
            points,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use askama::Template;

    use super::super::view::View;
    use super::*;

    #[derive(Template)]
    #[template(source = "{% for chart in charts %}{% include \"chart.html\" %}{% endfor %}", ext = "html")]
    struct Charts {
        view: View,
        charts: Vec<Chart>,
    }

    #[test]
    fn an_hour_whose_rows_are_not_all_summed_is_shown_as_incomplete() {
        let now = Time::from_secs(1_768_449_600 + 600);
        let this_hour = hour_of(now.as_micros());
        let snapshot = |complete_until| Snapshot {
            hours: BTreeMap::new(),
            complete_from: i64::MIN,
            complete_until,
            is_behind: complete_until < i64::MAX,
        };
        let render = |snapshot: &Snapshot, language| {
            let charts = charts(&hours(snapshot, now), language);
            Charts { view: View::of_auditor(language), charts }.render().unwrap()
        };
        // The charts of lookups, calls, hit share and latency.
        let late = render(&snapshot(this_hour), Language::English);
        assert_eq!(late.matches("class=\"incomplete\"").count(), 4, "{late}");
        assert_eq!(late.matches("class=\"column\"").count(), 4 * 23, "{late}");
        assert_eq!(late.matches("2026-01-15 12:00:00: 0 (incomplete)</title>").count(), 1, "{late}");
        assert!(!late.contains("11:00:00: 0 (incomplete)"), "{late}");
        let chinese = render(&snapshot(this_hour), Language::Chinese);
        assert!(chinese.contains("2026-01-15 12:00:00：0（不完整）</title>"), "{chinese}");
        let complete = render(&snapshot(i64::MAX), Language::English);
        assert!(!complete.contains("incomplete"), "{complete}");
    }
}
