//! What leaves `cache.db`: answers of a certain age, and the oldest of too many. A pass at the start, then one a minute.
//!
//! A pass is made of steps of a bounded number of rows, one between two batches of the writer, so that nobody waits for it.
//! What is deleted is overwritten (`secure_delete`), and the WAL is cut off behind a pass that deleted something, so that
//! neither file holds a card that has left; a reader that is at work puts the latter off to the next pass. Free pages are
//! used again, not given back: the file stays as large as it was at its largest, which `rows` bounds. (Pages would be given
//! back by `incremental_vacuum`, which moves others about for it and needs the whole file rewritten once.)

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, TransactionBehavior};

use super::super::{StoreError, atomic_file, files, wal};
use crate::clock::{Clock, Time};
use crate::config;

/// From the end of a pass to the next.
const EVERY: Duration = Duration::from_secs(60);

/// Rows that a step deletes at most: a few milliseconds.
const STEP: i64 = 500;

/// Rows that a step counts at most: as long.
const COUNTED: i64 = 20_000;

/// What stays in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// An answer older than this leaves.
    pub age: Duration,
    /// Beyond this number the oldest answers leave.
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
    /// Nothing leaves by itself.
    pub const UNBOUNDED: Self = Self { age: Duration::MAX, rows: u64::MAX };
}

/// Makes the passes.
pub(super) struct Keeper {
    retention: Retention,
    clock: Clock,
    phase: Phase,
    /// By the monotonic clock.
    next_at: Duration,
    /// Rows that left in this pass.
    gone: u64,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Deletes what is too old.
    Expired,
    /// Counts what stays: so many up to and with this moment.
    Counting { upto: i64, count: u64 },
    /// Deletes the oldest: so many.
    Excess(u64),
}

impl Keeper {
    pub(super) fn new(retention: Retention, clock: Clock) -> Self {
        let next_at = clock.monotonic();
        Self { retention, clock, phase: Phase::Expired, next_at, gone: 0 }
    }

    /// How long there is nothing to be done.
    pub(super) fn pause(&self) -> Duration {
        self.next_at.saturating_sub(self.clock.monotonic())
    }

    /// Makes a step, if it is time. After a failure the pass is to be ended by [`Keeper::rest`].
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

    /// The next phase, or none at the end of the pass.
    fn advance(&mut self, connection: &mut Connection) -> rusqlite::Result<Option<Phase>> {
        match self.phase {
            Phase::Expired => {
                let oldest = self.clock.believed().minus(self.retention.age);
                let deleted = delete(connection, oldest, STEP)?;
                self.gone += deleted;
                Ok(Some(match deleted < STEP.unsigned_abs() {
                    true => Phase::Counting { upto: i64::MIN, count: 0 },
                    false => Phase::Expired,
                }))
            }
            Phase::Counting { upto, count } => {
                // Rows of one microsecond on both sides of a step's end are not all counted: few, and the bound is round.
                let (found, last): (i64, Option<i64>) = connection
                    .prepare_cached(
                        "SELECT count(*), max(answered_at) FROM
                             (SELECT answered_at FROM answer WHERE answered_at > ?1 ORDER BY answered_at LIMIT ?2)",
                    )?
                    .query_row([upto, COUNTED], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let count = count + found.unsigned_abs();
                Ok(match last {
                    Some(upto) if found == COUNTED => Some(Phase::Counting { upto, count }),
                    _ => {
                        count.checked_sub(self.retention.rows).filter(|&excess| excess > 0).map(Phase::Excess)
                    }
                })
            }
            Phase::Excess(excess) => {
                let step = i64::try_from(excess).unwrap_or(STEP).min(STEP);
                let deleted = delete(connection, Time::from_micros(i64::MAX), step)?;
                self.gone += deleted;
                let left = excess.saturating_sub(deleted);
                Ok((deleted > 0 && left > 0).then_some(Phase::Excess(left)))
            }
        }
    }

    fn finish(&mut self, connection: &Connection, path: &Path) {
        if self.gone > 0 {
            tracing::info!(file = %path.display(), answers = self.gone, "answers that may not be kept any longer have left");
            cut_off(connection, path);
        }
        self.remove_old_corrupt(path);
        self.rest();
    }

    /// Ends the pass; the next one begins anew.
    pub(super) fn rest(&mut self) {
        self.phase = Phase::Expired;
        self.gone = 0;
        self.next_at = self.clock.monotonic().saturating_add(EVERY);
    }

    /// A file that was moved aside holds cards too.
    fn remove_old_corrupt(&self, path: &Path) {
        let oldest = self.clock.believed().minus(self.retention.age);
        for file in files::database_files(&super::quarantine_path(path)) {
            let written = fs::metadata(&file).and_then(|found| found.modified()).ok();
            let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            if written.is_some_and(|at| Time::EPOCH.plus(at) < oldest)
                && let Err(error) = atomic_file::remove(&file)
            {
                tracing::warn!(file = %file.display(), %error, "a corrupt file that was moved aside stays: remove it");
            }
        }
    }
}

/// Moves the whole WAL into the file and cuts it off. A reader that is at work is not waited for.
fn cut_off(connection: &Connection, path: &Path) {
    let sqlite = StoreError::sqlite(path);
    let moved = connection.busy_timeout(Duration::ZERO).map_err(sqlite);
    let moved = moved.and_then(|()| wal::checkpoint(connection, path));
    if let Err(error) = connection.busy_timeout(files::BUSY_TIMEOUT).map_err(sqlite).and(moved) {
        tracing::warn!(%error, "the WAL is not cut off: it still holds answers that have left");
    }
}

/// Deletes so many of the oldest answers that came before a moment; returns how many.
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

    /// Steps until the pass is over; how many there were.
    fn pass(keeper: &mut Keeper, path: &Path) -> u32 {
        let mut connection = super::super::writer::open(path).unwrap();
        let mut steps = 0;
        while keeper.pause().is_zero() {
            keeper.step(&mut connection, path).unwrap();
            steps += 1;
        }
        steps
    }

    #[test]
    fn what_is_too_old_leaves_in_steps_and_leaves_nothing_in_the_file() {
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
        let mut keeper = Keeper::new(Retention::default(), clock);
        assert_eq!(pass(&mut keeper, &path), 4, "three steps of deletions and one that counts");
        assert_eq!(keeper.pause(), EVERY);
        for number in 0..1_200 {
            assert!(!is_in(&path, row(number, old).card.as_str()), "{number}");
        }
        // A minute and two days later the other one goes too.
        hand.advance(Duration::from_secs(2 * 86_400));
        assert!(pass(&mut keeper, &path) > 0);
        let store = CacheStore::open(dir.path(), 10).unwrap();
        assert_eq!((store.count(), load(&store, 5_000)), (Ok(0), None));
        assert!(!is_in(&path, young.card.as_str()));
    }

    #[test]
    fn of_too_many_the_oldest_leave() {
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
        pass(&mut Keeper::new(retention, Clock::manual(NOON).0), &path);
        let store = CacheStore::open(dir.path(), 10).unwrap();
        assert_eq!(store.count(), Ok(100));
        assert!(load(&store, 99).is_some() && load(&store, 100).is_none());
    }

    #[test]
    fn the_writer_makes_its_first_pass_at_once() {
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
        // Two steps end the pass, and one is made behind each batch at the latest.
        for _ in 0..3 {
            store.flush().wait().unwrap();
        }
        assert!(load(&store, 1).is_none() && load(&store, 2).is_some());
    }

    #[test]
    fn a_corrupt_file_that_was_moved_aside_leaves_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        drop(super::super::writer::open(&path).unwrap());
        let aside = super::super::quarantine_path(&path);
        fs::write(&aside, "14765004176").unwrap();
        let written = fs::metadata(&aside).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
        let (clock, hand) = Clock::manual(Time::EPOCH.plus(written));
        let mut keeper = Keeper::new(Retention::default(), clock);
        pass(&mut keeper, &path);
        assert!(aside.exists());
        hand.advance(Duration::from_secs(31 * 86_400));
        pass(&mut keeper, &path);
        assert!(!aside.exists());
    }
}
