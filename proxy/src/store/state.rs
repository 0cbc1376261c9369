//! `state.db`: what must never be forgotten, since forgetting it could send one transid twice, or spend a day's calls
//! again.
//!
//! Every commit waits for the disk (WAL, FULL), so values are leased in blocks and committed before use; see
//! [`crate::sequence`] for the rules of sequences. Losing the file is an error that names the remedy, never a
//! silent reset: a folder that has a `cache.db` or audit segments has been in use and must have its state.

mod leased;
mod window;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, named_params};

use super::schema::{self, Kind, Synchronous};
use super::{Failure, Fault, StoreError, audit, cache, files, wal};
use crate::clock::Clock;

pub use leased::Leased;

/// The file's name in the store's folder.
const FILE: &str = "state.db";

/// What to do when the folder has been in use and its state is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnStateLoss {
    /// Do not open; the error names the remedy.
    Refuse,
    /// Begin anew. Ignored when nothing is lost.
    StartOver {
        /// Every stamp used from now on is at or above this, in seconds since 1970. It must be above every
        /// stamp that was ever used.
        floor: u64,
    },
}

/// How far the sequence of one (appid, node) has got. The rules stand in [`crate::sequence`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HighWaterMark {
    /// The lowest number of this lap that was never leased: 1 to 1,000,000; 1,000,000 when none is left.
    pub next: u32,
    /// Every stamp of this lap is at or above it, every stamp of the laps before is below it. Unix seconds.
    pub floor: u64,
    /// No stamp above it was ever used. Unix seconds, at or above `floor`.
    pub ceiling: u64,
}

/// Calls of a day that were leased.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Of which day: days since 1970 at UTC+8.
    pub day: u64,
    /// How many; none when the day's are spent.
    pub granted: u64,
    /// How many of that day are leased by now, these included.
    pub leased: u64,
}

/// The state's file: see the module's text.
pub struct StateStore {
    held: Mutex<Held>,
    path: PathBuf,
    clock: Clock,
    failure: Failure,
}

struct Held {
    connection: Connection,
    /// While the disk may not have what the WAL shows: nothing is committed before it is settled.
    unsettled: Option<Unsettled>,
}

struct Unsettled {
    attempts: u32,
    /// By the monotonic clock.
    retry_at: Duration,
    error: StoreError,
}

/// How often it is tried to settle the WAL: at once, and once more after the pause.
const SETTLING: u32 = 2;
const PAUSE: Duration = Duration::from_secs(5);

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens `state.db` in `dir`, and creates it in a folder that was never used.
    ///
    /// # Errors
    /// [`Fault::StateLost`] when it must exist and does not, or is unreadable, and `lost` says to refuse;
    /// when it is another program's, newer than this proxy, or cannot be written.
    pub fn open(dir: &Path, lost: OnStateLoss) -> Result<Self, StoreError> {
        Self::open_with(dir, lost, Clock::system(), Failure::default())
    }

    /// The same; what ends the writing for good is told to `failure`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        dir: &Path,
        lost: OnStateLoss,
        clock: Clock,
        failure: Failure,
    ) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let gone = !is_begun(&path)? && was_used(dir)?;
        let opened = if gone { Err(StoreError::new(&path, Fault::StateLost)) } else { begin(&path, 0) };
        let connection = match (opened, lost) {
            (Err(error), OnStateLoss::StartOver { floor }) if is_loss(&error) => {
                files::move_aside(&path, &path.with_added_extension("lost"))?;
                tracing::warn!(file = %path.display(), floor, "the lost state is started over");
                begin(&path, floor)?
            }
            (Err(error), OnStateLoss::Refuse) if error.is_corrupt() => {
                tracing::error!(%error, "the state is unreadable");
                return Err(StoreError::new(&path, Fault::StateLost));
            }
            (opened, _) => opened?,
        };
        Ok(Self { held: Mutex::new(Held { connection, unsettled: None }), path, clock, failure })
    }

    /// Moves one sequence on: reads its position, asks `step` for the new one, and commits that. Blocks until
    /// it is on the disk. Returns what was read and what was written. `step` is asked again when a sync failed and all
    /// could be made good.
    ///
    /// # Errors
    /// When it was not committed; nothing of it may be used then.
    pub fn advance(
        &self,
        appid: &AppId,
        node: u8,
        mut step: impl FnMut(HighWaterMark) -> HighWaterMark,
    ) -> Result<(HighWaterMark, HighWaterMark), StoreError> {
        self.commit(|connection| self.advance_once(connection, appid, node, &mut step))
    }

    fn advance_once(
        &self,
        connection: &mut Connection,
        appid: &AppId,
        node: u8,
        step: &mut impl FnMut(HighWaterMark) -> HighWaterMark,
    ) -> Result<(HighWaterMark, HighWaterMark), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let leasing = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let read = match self.read(&leasing, appid, node)? {
            Some(position) => position,
            None => self.beginning(&leasing)?,
        };
        let written = step(read);
        leasing
            .prepare_cached(
                "INSERT INTO sequence (appid, node, next, floor, ceiling)
                 VALUES (:appid, :node, :next, :floor, :ceiling)
                 ON CONFLICT DO UPDATE SET next = excluded.next, floor = excluded.floor, ceiling = excluded.ceiling",
            )
            .and_then(|mut statement| {
                statement.execute(named_params! {
                    ":appid": appid.as_str(),
                    ":node": node,
                    ":next": written.next,
                    ":floor": to_sql(written.floor),
                    ":ceiling": to_sql(written.ceiling),
                })
            })
            .map_err(sqlite)?;
        leased::keep(&leasing, appid, node, (read, written), self.clock.now().as_secs()).map_err(sqlite)?;
        leasing.commit().map_err(sqlite)?;
        Ok((read, written))
    }

    /// Leases up to `block` of the `limit` calls of a day. Blocks until it is on the disk. A day that is earlier
    /// than one leased before is taken for that one: a clock set back gives nothing again.
    ///
    /// # Errors
    /// When it was not committed; nothing of it may be used then.
    pub fn lease_calls(&self, appid: &AppId, day: u64, block: u64, limit: u64) -> Result<Lease, StoreError> {
        self.commit(|connection| self.lease_calls_once(connection, appid, day, block, limit))
    }

    fn lease_calls_once(
        &self,
        connection: &mut Connection,
        appid: &AppId,
        day: u64,
        block: u64,
        limit: u64,
    ) -> Result<Lease, StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let leasing = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let spent: Option<(i64, i64)> = leasing
            .prepare_cached("SELECT day, leased FROM spending WHERE appid = ?1")
            .and_then(|mut statement| {
                statement.query_row([appid.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(sqlite)?;
        let number = |stored| {
            u64::try_from(stored)
                .map_err(|_| StoreError::new(&self.path, Fault::Malformed { what: "spending" }))
        };
        let (day, leased) = match spent {
            Some((known, leased)) if number(known)? >= day => (number(known)?, number(leased)?),
            _ => (day, 0),
        };
        let granted = block.min(limit.saturating_sub(leased));
        let leased = leased + granted;
        leasing
            .prepare_cached(
                "INSERT INTO spending (appid, day, leased) VALUES (:appid, :day, :leased)
                 ON CONFLICT DO UPDATE SET day = excluded.day, leased = excluded.leased",
            )
            .and_then(|mut statement| {
                statement.execute(named_params! {
                    ":appid": appid.as_str(), ":day": to_sql(day), ":leased": to_sql(leased),
                })
            })
            .map_err(sqlite)?;
        leasing.commit().map_err(sqlite)?;
        Ok(Lease { day, granted, leased })
    }

    /// Whether a commit reaches the disk: makes one that changes nothing. Blocks.
    ///
    /// # Errors
    /// When it does not.
    pub fn probe(&self) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        self.commit(|connection| {
            let probe =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            schema::touch(&probe).map_err(sqlite)?;
            probe.commit().map_err(sqlite)
        })
    }

    /// Checkpoints. The store can be used on.
    pub fn close(&self) {
        let held = self.lock();
        // Nothing is moved out of a WAL that the disk may not have.
        if held.unsettled.is_none() {
            wal::finish(&held.connection, &self.path);
        }
    }

    /// Makes a commit; once more if a sync failed and the WAL could be settled, without which nothing is committed.
    fn commit<T>(
        &self,
        mut act: impl FnMut(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut held = self.lock();
        if held.unsettled.is_some() {
            self.settle(&mut held)?;
        }
        let done = act(&mut held.connection);
        let Err(error) = done else { return done };
        if !error.is_unsynced() {
            return Err(error);
        }
        tracing::warn!(%error, "a sync of the state failed: its WAL is written again before anything is committed");
        held.unsettled = Some(Unsettled { attempts: 0, retry_at: Duration::ZERO, error });
        self.settle(&mut held)?;
        let done = act(&mut held.connection);
        if let Err(error) = &done
            && error.is_unsynced()
        {
            held.unsettled = Some(Unsettled { attempts: 0, retry_at: Duration::ZERO, error: error.clone() });
        }
        done
    }

    /// Makes durable what the WAL holds, unless it is too early to try again. Too many failures are one for good.
    fn settle(&self, held: &mut Held) -> Result<(), StoreError> {
        let Some(unsettled) = &mut held.unsettled else { return Ok(()) };
        let now = self.clock.monotonic();
        if now < unsettled.retry_at || self.failure.get().is_some() {
            return Err(unsettled.error.clone());
        }
        let done = wal::settle(&held.connection, &self.path);
        match &done {
            Ok(()) => held.unsettled = None,
            Err(error) => {
                unsettled.attempts += 1;
                unsettled.retry_at = now.saturating_add(PAUSE);
                unsettled.error = error.clone();
                if unsettled.attempts >= SETTLING || error.is_wal_lost() {
                    self.failure.fail(format!(
                        "the disk does not take the state of the transids: {error}; check the disk, then start the proxy again"
                    ));
                }
            }
        }
        done
    }

    fn read(
        &self,
        connection: &Connection,
        appid: &AppId,
        node: u8,
    ) -> Result<Option<HighWaterMark>, StoreError> {
        let row = connection
            .prepare_cached("SELECT next, floor, ceiling FROM sequence WHERE appid = :appid AND node = :node")
            .and_then(|mut statement| {
                statement
                    .query_row(named_params! { ":appid": appid.as_str(), ":node": node }, |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                    })
                    .optional()
            })
            .map_err(StoreError::sqlite(&self.path))?;
        let Some((next, floor, ceiling)) = row else { return Ok(None) };
        Ok(Some(HighWaterMark { next, floor: self.seconds(floor)?, ceiling: self.seconds(ceiling)? }))
    }

    /// Where a sequence without a lease starts: all numbers left, nothing used.
    fn beginning(&self, connection: &Connection) -> Result<HighWaterMark, StoreError> {
        let floor = connection
            .query_row("SELECT floor FROM beginning", [], |row| row.get(0))
            .map_err(StoreError::sqlite(&self.path))?;
        let floor = self.seconds(floor)?;
        Ok(HighWaterMark { next: 1, floor, ceiling: floor })
    }

    fn seconds(&self, stored: i64) -> Result<u64, StoreError> {
        u64::try_from(stored).map_err(|_| StoreError::new(&self.path, Fault::Malformed { what: "stamp" }))
    }

    /// A panic elsewhere leaves the connection usable: its open transaction was rolled back on the way.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the file and settles, once and for all, what unknown sequences start above.
fn begin(path: &Path, floor: u64) -> Result<Connection, StoreError> {
    let connection = schema::open(path, Kind::State, Synchronous::Full)?;
    // The file is a few pages: a damaged one is found before a transid is taken from it.
    let sound: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(StoreError::sqlite(path))?;
    if sound != "ok" {
        let text = format!("database disk image is malformed: {sound}");
        return Err(StoreError::new(path, Fault::Sqlite { code: Some(ErrorCode::DatabaseCorrupt), text }));
    }
    connection
        .execute("INSERT INTO beginning (one, floor) VALUES (1, ?1) ON CONFLICT DO NOTHING", [to_sql(floor)])
        .map_err(StoreError::sqlite(path))?;
    Ok(connection)
}

/// Whether the file is there and was ever opened to the end: a file that a crash left empty was not.
fn is_begun(path: &Path) -> Result<bool, StoreError> {
    if !schema::exists(path)? {
        return Ok(false);
    }
    match schema::open_read_only(path, Kind::State) {
        Ok(connection) => {
            match connection.query_row("SELECT count(*) FROM beginning", [], |row| row.get::<_, i64>(0)) {
                Ok(count) => Ok(count > 0),
                Err(error) => Some(StoreError::sqlite(path)(error))
                    .filter(|error| !error.is_corrupt())
                    .map_or(Ok(true), Err),
            }
        }
        // Empty: nothing was ever committed.
        Err(error) if matches!(error.fault(), Fault::Malformed { .. }) => Ok(false),
        // Whatever else is wrong is found again, and judged, by whoever opens it for writing.
        Err(_) => Ok(true),
    }
}

/// Whether the folder holds what only a proxy that had its state can have written.
fn was_used(dir: &Path) -> Result<bool, StoreError> {
    Ok(schema::exists(&dir.join(cache::FILE))? || !audit::month::list(dir)?.is_empty())
}

fn is_loss(error: &StoreError) -> bool {
    matches!(error.fault(), Fault::StateLost) || error.is_corrupt()
}

/// Stamps end in 2099; a floor beyond is refused when a stamp is made of it.
fn to_sql(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
