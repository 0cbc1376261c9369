//! Retention in `cache.db`: removes responses over an age, and the oldest ones over a number. One pass at the start, then
//! one per minute.
//!
//! A pass consists of steps of a bounded number of rows, one between two batches of the writer, so that no write waits long.
//! SQLite overwrites deleted rows (`secure_delete`), and a pass that deleted rows truncates the WAL, so that neither file
//! has a removed card; an active reader defers the truncation to the next pass. SQLite reuses free pages and does not return
//! them to the file system: the file keeps its largest size, which `rows` bounds. (`incremental_vacuum` would return pages,
//! but it moves other pages for that and requires rewriting the whole file once.)

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, TransactionBehavior};

use super::super::{StoreError, atomic_file, files, wal};
use crate::clock::{Clock, Time};
use crate::config;

/// Time from the end of a pass to the next one.
const PASS_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum of rows that a step deletes: a few milliseconds.
const DELETE_STEP: i64 = 500;

/// Maximum of rows that a step counts: as long.
const COUNT_STEP: i64 = 20_000;

/// Limits on the stored responses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Older responses are removed.
    pub age: Duration,
    /// Over this number the oldest responses are removed.
    pub rows: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(30 * 86_400), rows: 2_000_000 }
    }
}

impl From<&config::Cache> for Retention {
    fn from(cache: &config::Cache) -> Self {
        Self { age: cache.file_age, rows: cache.file_entries }
    }
}

impl Retention {
    /// Retention removes nothing.
    pub const UNBOUNDED: Self = Self { age: Duration::MAX, rows: u64::MAX };
}

/// Runs the passes.
pub(super) struct Pruner {
    retention: Retention,
    clock: Clock,
    phase: Phase,
    /// By the monotonic clock.
    next_at: Duration,
    /// Rows deleted in this pass.
    deleted: u64,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Deletes responses over the maximum age.
    Expired,
    /// Counts the remaining rows: `count` with times up to and including `upto`.
    Counting { upto: i64, count: u64 },
    /// Deletes this number of the oldest rows.
    Excess(u64),
}

impl Pruner {
    pub(super) fn new(retention: Retention, clock: Clock) -> Self {
        let next_at = clock.monotonic();
        Self { retention, clock, phase: Phase::Expired, next_at, deleted: 0 }
    }

    /// Time until the next step is due.
    pub(super) fn pause(&self) -> Duration {
        self.next_at.saturating_sub(self.clock.monotonic())
    }

    /// Runs a step if it is due. After a failure the caller ends the pass with [`Pruner::end_pass`].
    pub(super) fn step(&mut self, connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
        if !self.pause().is_zero() {
            return Ok(());
        }
        match self.advance(connection).map_err(StoreError::sqlite(path))? {
            Some(next) => self.phase = next,
            None => self.finish(connection, path),
        }
        Ok(())
    }

    /// Returns the next phase; `None` at the end of the pass.
    fn advance(&mut self, connection: &mut Connection) -> rusqlite::Result<Option<Phase>> {
        match self.phase {
            Phase::Expired => {
                let oldest = self.clock.believed().minus(self.retention.age);
                let deleted = delete(connection, oldest, DELETE_STEP)?;
                self.deleted += deleted;
                let expired_is_done = deleted < DELETE_STEP.unsigned_abs();
                let counting = Phase::Counting { upto: i64::MIN, count: 0 };
                Ok(Some(if expired_is_done { counting } else { Phase::Expired }))
            }
            Phase::Counting { upto, count } => {
                // At a step's end some rows of the same microsecond are not counted: few, and the limit is not exact.
                let (found, last): (i64, Option<i64>) = connection
                    .prepare_cached(
                        "SELECT count(*), max(answered_at) FROM
                             (SELECT answered_at FROM answer WHERE answered_at > ?1 ORDER BY answered_at LIMIT ?2)",
                    )?
                    .query_row([upto, COUNT_STEP], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let count = count + found.unsigned_abs();
                Ok(match last {
                    Some(upto) if found == COUNT_STEP => Some(Phase::Counting { upto, count }),
                    _ => {
                        count.checked_sub(self.retention.rows).filter(|&excess| excess > 0).map(Phase::Excess)
                    }
                })
            }
            Phase::Excess(excess) => {
                let step = i64::try_from(excess).unwrap_or(DELETE_STEP).min(DELETE_STEP);
                let deleted = delete(connection, Time::from_micros(i64::MAX), step)?;
                self.deleted += deleted;
                let remaining = excess.saturating_sub(deleted);
                Ok((deleted > 0 && remaining > 0).then_some(Phase::Excess(remaining)))
            }
        }
    }

    fn finish(&mut self, connection: &Connection, path: &Path) {
        if self.deleted > 0 {
            tracing::info!(file = %path.display(), responses = self.deleted, "removed responses past their limit");
            truncate_wal(connection, path);
        }
        self.remove_old_corrupt(path);
        self.end_pass();
    }

    /// Ends the pass; the next one starts with its first phase.
    pub(super) fn end_pass(&mut self) {
        self.phase = Phase::Expired;
        self.deleted = 0;
        self.next_at = self.clock.monotonic().saturating_add(PASS_INTERVAL);
    }

    /// Removes a corrupt file that was moved aside once it is over the maximum age, since it contains cards too.
    fn remove_old_corrupt(&self, path: &Path) {
        let oldest = self.clock.believed().minus(self.retention.age);
        for file in files::database_files(&super::quarantine_path(path)) {
            let written = fs::metadata(&file).and_then(|found| found.modified()).ok();
            let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            if written.is_some_and(|at| Time::EPOCH.plus(at) < oldest)
                && let Err(error) = atomic_file::remove(&file)
            {
                tracing::warn!(file = %file.display(), %error, "cannot remove an old corrupt file: remove it");
            }
        }
    }
}

/// Moves the whole WAL into the file and truncates it. Does not wait for readers.
fn truncate_wal(connection: &Connection, path: &Path) {
    let sqlite = StoreError::sqlite(path);
    let moved = connection.busy_timeout(Duration::ZERO).map_err(sqlite);
    let moved = moved.and_then(|()| wal::checkpoint(connection, path));
    if let Err(error) = connection.busy_timeout(files::BUSY_TIMEOUT).map_err(sqlite).and(moved) {
        tracing::warn!(%error, "cannot truncate the WAL: it still has removed responses");
    }
}

/// Deletes up to `most` of the oldest responses before a moment; returns the number of deleted rows.
fn delete(connection: &mut Connection, before: Time, most: i64) -> rusqlite::Result<u64> {
    let step = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let deleted = step
        .prepare_cached(
            r#"DELETE FROM answer WHERE ("group", operation, kind, card, parameters) IN
                   (SELECT "group", operation, kind, card, parameters FROM answer
                    WHERE answered_at < ?1 ORDER BY answered_at LIMIT ?2)"#,
        )?
        .execute([before.as_micros(), most])?;
    step.commit()?;
    Ok(deleted as u64)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{load, row};
    use super::super::{CacheStore, FILE, Failure};
    use super::*;

    /// 2026-01-15T12:00:00+08:00
    const NOON: Time = Time::from_secs(1_768_449_600);
    const LATEST: Time = Time::from_micros(i64::MAX);

    fn is_in(path: &Path, text: &str) -> bool {
        files::database_files(path).iter().any(|file| {
            fs::read(file)
                .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        })
    }

    /// Runs a whole pass; returns the number of its steps.
    fn pass(pruner: &mut Pruner, path: &Path) -> u32 {
        let mut connection = super::super::writer::open(path).unwrap();
        let mut steps = 0;
        while pruner.pause().is_zero() {
            pruner.step(&mut connection, path).unwrap();
            steps += 1;
        }
        steps
    }

    #[test]
    fn old_responses_are_removed_in_steps_and_overwritten_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let store = CacheStore::open(dir.path(), 10_000).unwrap();
        let old = i64::try_from(NOON.as_secs()).unwrap() - 31 * 86_400;
        for number in 0..1_200 {
            store.save(row(number, old), LATEST);
        }
        let young = row(5_000, old + 2 * 86_400);
        store.save(young.clone(), LATEST);
        store.flush().wait().unwrap();
        store.close();
        assert!(is_in(&path, row(7, old).card.as_str()));
        let (clock, hand) = Clock::manual(NOON);
        let mut pruner = Pruner::new(Retention::default(), clock);
        assert_eq!(pass(&mut pruner, &path), 4, "three steps of deletions and one that counts");
        assert_eq!(pruner.pause(), PASS_INTERVAL);
        for number in 0..1_200 {
            assert!(!is_in(&path, row(number, old).card.as_str()), "{number}");
        }
        // Two days later the other one is too old as well.
        hand.advance(Duration::from_secs(2 * 86_400));
        assert!(pass(&mut pruner, &path) > 0);
        let store = CacheStore::open(dir.path(), 10).unwrap();
        assert_eq!((store.count(), load(&store, 5_000)), (Ok(0), None));
        assert!(!is_in(&path, young.card.as_str()));
    }

    #[test]
    fn over_the_number_the_oldest_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let now = i64::try_from(NOON.as_secs()).unwrap();
        let store = CacheStore::open(dir.path(), 10_000).unwrap();
        for number in 0..1_500 {
            store.save(row(number, now - i64::from(number)), LATEST);
        }
        store.flush().wait().unwrap();
        store.close();
        let retention = Retention { rows: 100, ..Retention::default() };
        pass(&mut Pruner::new(retention, Clock::manual(NOON).0), &path);
        let store = CacheStore::open(dir.path(), 10).unwrap();
        assert_eq!(store.count(), Ok(100));
        assert!(load(&store, 99).is_some() && load(&store, 100).is_none());
    }

    #[test]
    fn the_writer_runs_its_first_pass_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let now = i64::try_from(NOON.as_secs()).unwrap();
        let store = CacheStore::open(dir.path(), 10).unwrap();
        store.save(row(1, now - 40 * 86_400), LATEST);
        store.save(row(2, now), LATEST);
        store.close();
        let store = CacheStore::open_with(
            dir.path(),
            10,
            Retention::default(),
            Clock::manual(NOON).0,
            Failure::default(),
        )
        .unwrap();
        // Two steps end the pass, and at least one step runs after each batch.
        for _ in 0..3 {
            store.flush().wait().unwrap();
        }
        assert!(load(&store, 1).is_none() && load(&store, 2).is_some());
    }

    #[test]
    fn a_corrupt_file_that_was_moved_aside_is_removed_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        drop(super::super::writer::open(&path).unwrap());
        let aside = super::super::quarantine_path(&path);
        fs::write(&aside, "14765004176").unwrap();
        let written = fs::metadata(&aside).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let (clock, hand) = Clock::manual(Time::EPOCH.plus(written));
        let mut pruner = Pruner::new(Retention::default(), clock);
        pass(&mut pruner, &path);
        assert!(aside.exists());
        hand.advance(Duration::from_secs(31 * 86_400));
        pass(&mut pruner, &path);
        assert!(!aside.exists());
    }
}
