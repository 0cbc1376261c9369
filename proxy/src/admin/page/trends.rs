//! The charts of the overview: the last 24 hours by hour, the last 30 days by day.

use super::chart::{Chart, Sample, legend_of_lines};
use super::history::{self, Snapshot};
use super::moment;
use super::sums::{HOUR, Hour, hour_of};
use super::texts::Texts;
use super::view::encoded;
use super::words;
use crate::clock::Time;
use crate::language::{Language, text};
use crate::outcome::Outcome;

const DAY: i64 = 24 * HOUR;
/// Days begin at UTC+8.
const ZONE: i64 = 8 * HOUR;

/// A period of the charts.
struct Period {
    begin: i64,
    end: i64,
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

/// The charts, those of the last 24 hours first.
pub(super) fn charts(snapshot: &Snapshot, now: Time, language: Language) -> [Vec<Chart>; 2] {
    let now = now.as_micros();
    let this_hour = hour_of(now);
    let hours: Vec<_> = (0..24)
        .rev()
        .map(|back| {
            let begin = this_hour - back * HOUR;
            let mut sums = Hour::default();
            snapshot.hours.get(&begin).into_iter().for_each(|hour| sums.add(hour));
            let label = moment::hour(Time::from_micros(begin));
            let is_incomplete = !snapshot.is_complete(begin..begin + HOUR);
            Period {
                begin,
                end: begin + HOUR,
                label: if back % 3 == 0 { label } else { String::new() },
                sums,
                is_incomplete,
            }
        })
        .collect();
    let today = (now + ZONE).div_euclid(DAY) * DAY - ZONE;
    let days: Vec<_> = (0..30)
        .rev()
        .map(|back| {
            let begin = today - back * DAY;
            let mut sums = Hour::default();
            snapshot.hours.range(begin..begin + DAY).for_each(|(_, hour)| sums.add(hour));
            let label = moment::day(Time::from_micros(begin));
            let is_incomplete = !snapshot.is_complete(begin..begin + DAY);
            Period {
                begin,
                end: begin + DAY,
                label: if back % 5 == 0 { label } else { String::new() },
                sums,
                is_incomplete,
            }
        })
        .collect();
    [of_periods(&hours, language), of_periods(&days, language)]
}

fn of_periods(periods: &[Period], language: Language) -> Vec<Chart> {
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
        let percentiles = [50, 95, 99].map(|percent| {
            let micros = period.sums.latency.percentile(percent);
            (percent, micros.map(|micros| micros as f64 / 1_000.0))
        });
        let said =
            percentiles.iter().filter_map(|(percent, ms)| Some(format!("p{percent} {:.1} ms", (*ms)?)));
        let said = said.collect::<Vec<_>>().join(", ");
        period.sample(language, &said, "", Vec::new(), percentiles.iter().map(|(_, ms)| *ms).collect())
    });
    let names = ["p50", "p95", "p99"].map(str::to_owned);
    vec![
        Chart::new(t.chart_lookups.to_owned(), lookups.collect(), outcomes.into()),
        Chart::new(t.chart_calls.to_owned(), calls.collect(), Vec::new()),
        Chart::new(t.chart_hits.to_owned(), share.collect(), Vec::new()),
        Chart::new(t.chart_latency.to_owned(), latency.collect(), legend_of_lines(&names)),
    ]
}

impl Period {
    fn sample(
        &self,
        language: Language,
        values: &str,
        conditions: &str,
        bars: Vec<(&'static str, f64)>,
        points: Vec<Option<f64>>,
    ) -> Sample {
        let (since, until) = (Time::from_micros(self.begin), Time::from_micros(self.end));
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
