//! Figures of a stretch of time, by hour or day at UTC+8: look-ups, hits, calls, codes, latency.

use std::collections::BTreeMap;
use std::path::Path;

use super::range::numbers;
use super::{Filter, open};
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::log::month;

/// What one row of figures covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bucket {
    /// An hour.
    Hour,
    /// A day at UTC+8.
    Day,
}

/// What happened in an hour or a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests with a record.
    pub look_ups: u64,
    /// By outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// By code answered.
    pub codes: BTreeMap<String, u64>,
    /// Attempts at the carrier.
    pub calls: u64,
    /// Refusals that were only counted.
    pub counted: u64,
    /// Microseconds of a look-up: the median, and what 95 and 99 of 100 stay within.
    pub latency: [u32; 3],
}

impl Stats {
    /// Answers of the carrier's that cost no call: hits, stale ones, and those that shared one.
    pub fn saved(&self) -> u64 {
        self.outcome("hit") + self.outcome("stale") + self.outcome("collapsed")
    }

    /// How many ended so.
    pub fn outcome(&self, name: &str) -> u64 {
        self.outcomes.get(name).copied().unwrap_or(0)
    }

    /// Of 100 answers of the carrier's, how many came from the cache, fresh.
    pub fn hit_percent(&self) -> f64 {
        let answered = self.saved() + self.outcome("miss");
        // Exact up to 2^53 look-ups.
        if answered == 0 { 0.0 } else { 100.0 * self.outcome("hit") as f64 / answered as f64 }
    }
}

/// A bucket while it fills.
#[derive(Default)]
struct StatsBuilder {
    figures: Stats,
    /// By the number of the name, and by code: few of each.
    outcomes: BTreeMap<i64, u64>,
    latencies: Vec<u32>,
}

const HOUR: i64 = 3_600_000_000;
const ZONE: i64 = 8 * HOUR;

impl Bucket {
    fn begin(self, at: i64) -> i64 {
        let length = match self {
            Self::Hour => HOUR,
            Self::Day => 24 * HOUR,
        };
        (at + ZONE).div_euclid(length) * length - ZONE
    }
}

/// The figures between `filter`'s times, bucket by bucket; the rest of the filter is not looked at. Blocks.
///
/// # Errors
/// When a segment cannot be read.
pub fn figures(dir: &Path, filter: &Filter, bucket: Bucket) -> Result<Vec<(Time, Stats)>, StoreError> {
    let mut all: BTreeMap<i64, Stats> = BTreeMap::new();
    let mut latencies: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for month in month::list(dir)? {
        let path = month.path(dir);
        let connection = open(dir, month, None)?;
        let mut filling: BTreeMap<i64, StatsBuilder> = BTreeMap::new();
        let mut read = || -> rusqlite::Result<BTreeMap<i64, String>> {
            let Some(ids) = numbers(&connection, filter)? else { return Ok(BTreeMap::new()) };
            let (since, until) = (
                filter.since.map_or(i64::MIN, Time::as_micros),
                filter.until.map_or(i64::MAX, Time::as_micros),
            );
            let span = (*ids.start(), *ids.end(), since, until);
            let mut records = connection.prepare(
                "SELECT at, outcome, code, latency FROM record WHERE id BETWEEN ?1 AND ?2 AND at >= ?3 AND at < ?4",
            )?;
            let mut rows = records.query(span)?;
            while let Some(row) = rows.next()? {
                let filling = filling.entry(bucket.begin(row.get(0)?)).or_default();
                filling.figures.look_ups += 1;
                *filling.outcomes.entry(row.get(1)?).or_default() += 1;
                let code = row.get_ref(2)?.as_str()?;
                match filling.figures.codes.get_mut(code) {
                    Some(count) => *count += 1,
                    None => {
                        filling.figures.codes.insert(code.to_owned(), 1);
                    }
                }
                filling.latencies.push(u32::try_from(row.get::<_, i64>(3)?).unwrap_or(u32::MAX));
            }
            let mut calls = connection
                .prepare("SELECT at FROM call WHERE id BETWEEN ?1 AND ?2 AND at >= ?3 AND at < ?4")?;
            let mut rows = calls.query(span)?;
            while let Some(row) = rows.next()? {
                filling.entry(bucket.begin(row.get(0)?)).or_default().figures.calls += 1;
            }
            let mut counted = connection.prepare(
                "SELECT first, count FROM refused WHERE id BETWEEN ?1 AND ?2 AND first >= ?3 AND first < ?4",
            )?;
            let mut rows = counted.query(span)?;
            while let Some(row) = rows.next()? {
                let count: i64 = row.get(1)?;
                filling.entry(bucket.begin(row.get(0)?)).or_default().figures.counted += count.unsigned_abs();
            }
            let mut names = connection.prepare("SELECT id, text FROM name")?;
            names.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let names = read().map_err(StoreError::sqlite(&path))?;
        for (begin, StatsBuilder { figures, outcomes, latencies: more }) in filling {
            // A month of another zone's clock may share an hour with its neighbour.
            let sum = all.entry(begin).or_default();
            sum.look_ups += figures.look_ups;
            sum.calls += figures.calls;
            sum.counted += figures.counted;
            figures.codes.into_iter().for_each(|(code, count)| *sum.codes.entry(code).or_default() += count);
            for (number, count) in outcomes {
                let name = names.get(&number).cloned().unwrap_or_default();
                *sum.outcomes.entry(name).or_default() += count;
            }
            latencies.entry(begin).or_default().extend(more);
        }
    }
    for (begin, mut sample) in latencies {
        if let Some(figures) = all.get_mut(&begin) {
            figures.latency = [50, 95, 99].map(|percent| percentile(&mut sample, percent));
        }
    }
    Ok(all.into_iter().map(|(begin, figures)| (Time::from_micros(begin), figures)).collect())
}

fn percentile(sample: &mut [u32], percent: usize) -> u32 {
    if sample.is_empty() {
        return 0;
    }
    let rank = (sample.len() * percent).div_ceil(100).max(1) - 1;
    *sample.select_nth_unstable(rank).1
}
