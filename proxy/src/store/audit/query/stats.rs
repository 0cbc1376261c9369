//! Statistics per hour or day at UTC+8: lookups, hits, carrier calls, codes, latency.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use super::range::row_numbers;
use super::{Filter, open};
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::log::month;

/// The length of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bucket {
    /// An hour.
    Hour,
    /// A day at UTC+8.
    Day,
}

/// The statistics of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketStats {
    /// The begin of the bucket.
    pub begin: Time,
    /// The statistics.
    pub stats: Stats,
}

/// Counts and latency of a period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests with a record.
    pub lookups: u64,
    /// By outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// By code in the response.
    pub codes: BTreeMap<String, u64>,
    /// Attempts at the carrier.
    pub calls: u64,
    /// Refusals that were only counted.
    pub counted: u64,
    /// The latency of lookups.
    pub latency: LatencyPercentiles,
}

/// Percentiles of latency, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyPercentiles {
    /// The median.
    pub p50: u32,
    /// The 95th percentile.
    pub p95: u32,
    /// The 99th percentile.
    pub p99: u32,
}

impl Stats {
    /// Carrier replies that cost no call: hits, stale ones, and those that shared one.
    pub fn saved(&self) -> u64 {
        self.outcome("hit") + self.outcome("stale") + self.outcome("collapsed")
    }

    /// The number of lookups with this outcome.
    pub fn outcome(&self, name: &str) -> u64 {
        self.outcomes.get(name).copied().unwrap_or(0)
    }

    /// The percentage of carrier replies that came from the cache, fresh.
    pub fn hit_percent(&self) -> f64 {
        let answered = self.saved() + self.outcome("miss");
        // Exact up to 2^53 lookups.
        if answered == 0 { 0.0 } else { 100.0 * self.outcome("hit") as f64 / answered as f64 }
    }
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

/// The statistics between the filter's times, by bucket. It ignores the rest of the filter. Blocks.
///
/// # Errors
/// When a segment cannot be read.
pub fn stats(dir: &Path, filter: &Filter, bucket: Bucket) -> Result<Vec<BucketStats>, StoreError> {
    let mut buckets: BTreeMap<i64, StatsBuilder> = BTreeMap::new();
    for month in month::list(dir)? {
        let connection = open(dir, month, None)?;
        let segment = SegmentStats::read(&connection, filter, bucket);
        let SegmentStats { buckets: more, names } = segment.map_err(StoreError::sqlite(&month.path(dir)))?;
        for (begin, part) in more {
            // Two segments may share an hour: a clock that was stepped dates rows into the neighbouring month.
            buckets.entry(begin).or_default().add(part, &names);
        }
    }
    let finish = |(begin, builder): (i64, StatsBuilder)| BucketStats {
        begin: Time::from_micros(begin),
        stats: builder.finish(),
    };
    Ok(buckets.into_iter().map(finish).collect())
}

/// A bucket while it fills.
#[derive(Default)]
struct StatsBuilder {
    stats: Stats,
    /// By the number of the outcome's name in its segment: few of them.
    outcomes: BTreeMap<i64, u64>,
    latencies: Vec<u32>,
}

impl StatsBuilder {
    /// Adds a bucket of a segment with these names.
    fn add(&mut self, part: Self, names: &BTreeMap<i64, String>) {
        let Self { stats, outcomes, latencies } = part;
        self.stats.lookups += stats.lookups;
        self.stats.calls += stats.calls;
        self.stats.counted += stats.counted;
        for (code, count) in stats.codes {
            *self.stats.codes.entry(code).or_default() += count;
        }
        for (number, count) in outcomes {
            let name = names.get(&number).cloned().unwrap_or_default();
            *self.stats.outcomes.entry(name).or_default() += count;
        }
        self.latencies.extend(latencies);
    }

    fn finish(mut self) -> Stats {
        let mut percentile = |percent| percentile(&mut self.latencies, percent);
        let latency = LatencyPercentiles { p50: percentile(50), p95: percentile(95), p99: percentile(99) };
        Stats { latency, ..self.stats }
    }
}

/// The buckets of one segment, and its names by number.
#[derive(Default)]
struct SegmentStats {
    buckets: BTreeMap<i64, StatsBuilder>,
    names: BTreeMap<i64, String>,
}

impl SegmentStats {
    fn read(connection: &Connection, filter: &Filter, bucket: Bucket) -> rusqlite::Result<Self> {
        let mut this = Self::default();
        let Some(ids) = row_numbers(connection, filter)? else { return Ok(this) };
        let since = filter.since.map_or(i64::MIN, Time::as_micros);
        let until = filter.until.map_or(i64::MAX, Time::as_micros);
        let span = (*ids.start(), *ids.end(), since, until);
        let buckets = &mut this.buckets;
        let mut records = connection.prepare(
            "SELECT at, outcome, code, latency FROM record WHERE id BETWEEN ?1 AND ?2 AND at >= ?3 AND at < ?4",
        )?;
        let mut rows = records.query(span)?;
        while let Some(row) = rows.next()? {
            let builder = buckets.entry(bucket.begin(row.get(0)?)).or_default();
            builder.stats.lookups += 1;
            *builder.outcomes.entry(row.get(1)?).or_default() += 1;
            let code = row.get_ref(2)?.as_str()?;
            match builder.stats.codes.get_mut(code) {
                Some(count) => *count += 1,
                None => {
                    builder.stats.codes.insert(code.to_owned(), 1);
                }
            }
            builder.latencies.push(u32::try_from(row.get::<_, i64>(3)?).unwrap_or(u32::MAX));
        }
        let mut calls =
            connection.prepare("SELECT at FROM call WHERE id BETWEEN ?1 AND ?2 AND at >= ?3 AND at < ?4")?;
        let mut rows = calls.query(span)?;
        while let Some(row) = rows.next()? {
            buckets.entry(bucket.begin(row.get(0)?)).or_default().stats.calls += 1;
        }
        let mut counted = connection.prepare(
            "SELECT first, count FROM refused WHERE id BETWEEN ?1 AND ?2 AND first >= ?3 AND first < ?4",
        )?;
        let mut rows = counted.query(span)?;
        while let Some(row) = rows.next()? {
            let count: i64 = row.get(1)?;
            buckets.entry(bucket.begin(row.get(0)?)).or_default().stats.counted += count.unsigned_abs();
        }
        let mut names = connection.prepare("SELECT id, text FROM name")?;
        this.names =
            names.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        Ok(this)
    }
}

fn percentile(sample: &mut [u32], percent: usize) -> u32 {
    if sample.is_empty() {
        return 0;
    }
    let rank = (sample.len() * percent).div_ceil(100).max(1) - 1;
    *sample.select_nth_unstable(rank).1
}
