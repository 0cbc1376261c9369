//! Sums of the audit by hour, of the last thirty days: each row is read once, and its sums stay in memory.
//!
//! The first page that needs them begins: rows from the end of the audit on are summed when a page asks, those before it in
//! the background, newest first. The number of a row says whether it was summed, so that a clock that was stepped counts none
//! twice. A page waits at most [`WAIT`] for its sums, and says so if they are incomplete.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::sums::{HOUR, Hour, IsListed, Part, hour_of, merge};
use crate::clock::{Clock, Time};
use crate::store::StoreError;
use crate::store::audit::query::{self, Deadline, timed_out};

/// The longest time for which a page waits for sums.
const WAIT: Duration = Duration::from_secs(2);
/// Rows of one transaction: a reader that stays open keeps the WAL from being checkpointed.
const CHUNK: i64 = 20_000;
/// Hours that are kept, and those whose clients, refusals and minutes are kept too.
const HOURS: i64 = 31 * 24;
const DETAILED: i64 = 25;

/// The sums, and the rows that they cover.
pub(super) struct History {
    clock: Clock,
    stop: CancellationToken,
    sums: Arc<Mutex<Sums>>,
    /// Held while rows are read, by one task at a time.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// Whether a task reads the rows that no page has read.
    is_reading_rest: Arc<AtomicBool>,
}

/// The sums by the begin of their hour, in microseconds.
#[derive(Debug, Default)]
struct Sums {
    hours: BTreeMap<i64, Arc<Hour>>,
    covered: Option<Covered>,
}

/// The rows that are summed: `first` to `last`.
#[derive(Clone, Copy, Debug)]
struct Covered {
    first: i64,
    last: i64,
    /// The first row that is to be summed.
    until: i64,
    /// The oldest time among the rows that were summed, and the newest.
    oldest: Option<i64>,
    newest: Option<i64>,
}

/// The sums at a moment.
pub(super) struct Snapshot {
    /// By the begin of their hour, in microseconds.
    pub(super) hours: BTreeMap<i64, Arc<Hour>>,
    /// Hours from this one on are complete, up to `complete_until`.
    pub(super) complete_from: i64,
    /// While the last rows are not summed, the hour from which on they may be missing.
    pub(super) complete_until: i64,
    /// Whether the last rows could not be read in time, or at all.
    pub(super) is_behind: bool,
}

impl Snapshot {
    /// Whether all rows of a time are summed, times in microseconds.
    pub(super) fn is_complete(&self, time: Range<i64>) -> bool {
        time.start >= self.complete_from && time.end <= self.complete_until
    }

    /// Whether all rows since a time are summed.
    pub(super) fn is_complete_from(&self, since: Time) -> bool {
        !self.is_behind && since.as_micros() >= self.complete_from
    }
}

impl History {
    pub(super) fn new(clock: Clock, stop: CancellationToken) -> Self {
        Self { clock, stop, sums: Arc::default(), reading: Arc::default(), is_reading_rest: Arc::default() }
    }

    /// The sums up to now, from `since` on; hours before may be left out.
    pub(super) async fn read(&self, dir: &Path, since: Time, is_listed: &IsListed) -> Snapshot {
        let at = self.clock.monotonic().saturating_add(WAIT);
        let reader = self.reader(dir, is_listed);
        // Another page may be reading: then its sums count for this one too.
        let is_current = match crate::clock::timeout(WAIT, Arc::clone(&self.reading).lock_owned()).await {
            Ok(guard) => {
                let stop = self.stop.clone();
                let reading = tokio::task::spawn_blocking(move || {
                    let read = reader.advance(&Deadline { clock: reader.clock.clone(), at });
                    (reader, read, guard)
                });
                match reading.await {
                    Ok((reader, Ok(is_current), guard)) => {
                        if (reader.has_older() || !is_current)
                            && !self.is_reading_rest.swap(true, Ordering::AcqRel)
                        {
                            tokio::spawn(read_rest(reader, stop, guard));
                        }
                        is_current
                    }
                    Ok((_, Err(error), _)) => {
                        tracing::warn!(%error, "the operators' page cannot read the audit");
                        false
                    }
                    Err(_) => false,
                }
            }
            // The background reads older rows, and lets a page read those that came since.
            Err(_) => false,
        };
        self.snapshot(since, !is_current)
    }

    fn reader(&self, dir: &Path, is_listed: &IsListed) -> Reader {
        Reader {
            dir: dir.to_owned(),
            clock: self.clock.clone(),
            sums: Arc::clone(&self.sums),
            is_listed: Arc::clone(is_listed),
            is_reading_rest: Arc::clone(&self.is_reading_rest),
            chunk: CHUNK,
        }
    }

    fn snapshot(&self, since: Time, is_behind: bool) -> Snapshot {
        let sums = lock(&self.sums);
        let from = hour_of(since.as_micros());
        let complete_from = match sums.covered {
            Some(covered) if covered.first <= covered.until => i64::MIN,
            Some(Covered { oldest: Some(oldest), .. }) => hour_of(oldest) + HOUR,
            Some(_) | None => i64::MAX,
        };
        Snapshot {
            hours: sums.hours.range(from..).map(|(begin, hour)| (*begin, Arc::clone(hour))).collect(),
            complete_from,
            complete_until: match sums.covered {
                _ if !is_behind => i64::MAX,
                Some(Covered { newest: Some(newest), .. }) => hour_of(newest),
                Some(_) | None => i64::MIN,
            },
            is_behind,
        }
    }
}

/// Reads the rows after and before those that are summed, with pauses in which a page may read.
async fn read_rest(reader: Reader, stop: CancellationToken, guard: OwnedMutexGuard<()>) {
    let lock = Arc::clone(OwnedMutexGuard::mutex(&guard));
    drop(guard);
    let is_reading_rest = Arc::clone(&reader.is_reading_rest);
    let mut reader = Some(reader);
    // After an error, the next page begins again.
    while let Some(at_work) = reader.take() {
        let Some(guard) = stop.run_until_cancelled(Arc::clone(&lock).lock_owned()).await else { break };
        let reading = tokio::task::spawn_blocking(move || {
            let started = at_work.clock.monotonic();
            let has_more = at_work.read_chunk().unwrap_or(false);
            let took = at_work.clock.monotonic().saturating_sub(started);
            (at_work, has_more, took)
        });
        let Ok((at_work, has_more, took)) = reading.await else { break };
        drop(guard);
        // At most half of a processor's time.
        let pause = tokio::time::sleep(took.max(Duration::from_millis(1)));
        if has_more && stop.run_until_cancelled(pause).await.is_some() {
            reader = Some(at_work);
        }
    }
    is_reading_rest.store(false, Ordering::Release);
}

/// Reads rows of the audit into the sums.
struct Reader {
    is_reading_rest: Arc<AtomicBool>,
    /// Rows of one transaction.
    chunk: i64,
    dir: PathBuf,
    clock: Clock,
    sums: Arc<Mutex<Sums>>,
    is_listed: IsListed,
}

impl Reader {
    /// Sums the rows since the last call, and then older ones, until the deadline. Returns whether all new rows are summed.
    fn advance(&self, deadline: &Deadline) -> Result<bool, StoreError> {
        let oldest = hour_of(self.clock.now().as_micros()) - (HOURS - 1) * HOUR;
        {
            let mut sums = lock(&self.sums);
            sums.hours.retain(|begin, _| *begin >= oldest);
            let detailed = hour_of(self.clock.now().as_micros()) - (DETAILED - 1) * HOUR;
            for (_, hour) in sums.hours.range_mut(..detailed) {
                if hour.has_details() {
                    Arc::make_mut(hour).keep_totals();
                }
            }
        }
        let head = query::head(&self.dir)?;
        let covered = lock(&self.sums).covered;
        if covered.is_none() {
            let until = query::first_row_since(&self.dir, Time::from_micros(oldest))?.unwrap_or(head + 1);
            let covered = Covered { first: head + 1, last: head, until, oldest: None, newest: None };
            lock(&self.sums).covered = Some(covered);
        }
        let mut last = covered.map_or(head, |covered| covered.last);
        while last < head {
            let through = head.min(last + self.chunk);
            match self.sum(last + 1..=through, Some(deadline), false) {
                Ok(()) => last = through,
                Err(error) if timed_out(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        // A small audit is complete on the first page; the rest of a large one is read in the background.
        let until = deadline.at.saturating_sub(WAIT / 2);
        let is_alone = !self.is_reading_rest.load(Ordering::Acquire);
        while is_alone && self.clock.monotonic() < until && self.read_chunk_before()? {}
        Ok(true)
    }

    /// Sums some rows that are not summed, new ones first. Returns whether there are more.
    fn read_chunk(&self) -> Result<bool, StoreError> {
        let head = query::head(&self.dir)?;
        let last = lock(&self.sums).covered.map_or(head, |covered| covered.last);
        if last >= head {
            return self.read_chunk_before();
        }
        let through = head.min(last + self.chunk);
        self.sum(last + 1..=through, None, false)?;
        Ok(through < head || self.has_older())
    }

    /// Sums the rows before those that are summed. Returns whether there are more.
    fn read_chunk_before(&self) -> Result<bool, StoreError> {
        let Some(covered) = lock(&self.sums).covered else { return Ok(false) };
        if covered.first <= covered.until {
            return Ok(false);
        }
        let first = covered.until.max(covered.first - self.chunk);
        self.sum(first..=covered.first - 1, None, true)?;
        Ok(first > covered.until)
    }

    fn has_older(&self) -> bool {
        lock(&self.sums).covered.is_some_and(|covered| covered.first > covered.until)
    }

    /// Sums rows; after an error, no row of them is in the sums.
    fn sum(
        &self,
        ids: RangeInclusive<i64>,
        deadline: Option<&Deadline>,
        is_before: bool,
    ) -> Result<(), StoreError> {
        let now = hour_of(self.clock.now().as_micros());
        let mut part = Part::new(now - (DETAILED - 1) * HOUR, &self.is_listed);
        query::fold(&self.dir, &ids, deadline, &mut |row| part.count(row))?;
        let kept = now - (HOURS - 1) * HOUR;
        let mut sums = lock(&self.sums);
        for (begin, hour) in part.hours.into_iter().filter(|(begin, _)| *begin >= kept) {
            merge(Arc::make_mut(sums.hours.entry(begin).or_default()), hour);
        }
        if let Some(covered) = &mut sums.covered {
            if is_before {
                covered.first = *ids.start();
            } else {
                covered.last = *ids.end();
            }
            if let Some((oldest, newest)) = part.times {
                covered.oldest = Some(covered.oldest.map_or(oldest, |one| one.min(oldest)));
                covered.newest = Some(covered.newest.map_or(newest, |one| one.max(newest)));
            }
        }
        Ok(())
    }
}

fn lock(sums: &Mutex<Sums>) -> MutexGuard<'_, Sums> {
    // Nothing under this lock can panic in the middle of a change.
    sums.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The begin of the last 24 hours, of which the running one is the last.
pub(super) fn last_day(now: Time) -> Time {
    Time::from_micros(hour_of(now.as_micros()) - 23 * HOUR)
}

#[cfg(test)]
mod tests;
