//! `[cache]`, checked.

use std::time::Duration;

use super::error;
use super::file;
use super::reader::SourceFiles;

/// The sizes of both tiers, and the settings of freshness that do not depend on a STATUS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cache {
    /// Entries in memory.
    pub memory_entries: u64,
    /// Responses in cache.db.
    pub file_entries: u64,
    /// An older response is removed from cache.db.
    pub file_age: Duration,
    /// The most by which a lifetime is shortened or prolonged.
    pub ttl_jitter_percent: u32,
    /// Percent of an account's rate that may refresh entries which are still fresh.
    pub refresh_ahead_percent: u32,
    /// Hits after which an entry is refreshed ahead.
    pub refresh_ahead_hits: u32,
}

pub(super) fn check(raw: &file::Cache, reader: &mut SourceFiles<'_>) -> Option<Cache> {
    let before = reader.problems.len();
    if raw.ttl_jitter_percent > 50 {
        reader.problem("[cache] ttl_jitter_percent", error::at_most(50));
    }
    if raw.refresh_ahead_percent > 100 {
        reader.problem("[cache] refresh_ahead_percent", error::at_most(100));
    }
    if raw.file_age.0.is_zero() {
        reader.problem("[cache] file_age", error::more_than_zero("\"720h\""));
    }
    if raw.file_entries == 0 {
        reader.problem("[cache] file_entries", error::more_than_zero("2_000_000"));
    }
    (reader.problems.len() == before).then_some(Cache {
        memory_entries: raw.memory_entries,
        file_entries: raw.file_entries,
        file_age: raw.file_age.0,
        ttl_jitter_percent: raw.ttl_jitter_percent,
        refresh_ahead_percent: raw.refresh_ahead_percent,
        refresh_ahead_hits: raw.refresh_ahead_hits,
    })
}
