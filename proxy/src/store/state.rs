//! `state.db`: sequences and daily budgets. Losing them could send one transid twice, or spend a day's calls again.
//!
//! Every commit waits for the disk (WAL, FULL), so values are leased in blocks and committed before use; see
//! [`crate::sequence`] for the rules of sequences. Losing the file is an error that names the remedy, never a silent
//! reset: a folder that has a `cache.db` or audit segments has been in use and must have its state.

mod fleet;
mod leased;
mod restored;
mod webhooks;
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

pub use fleet::Reserve;
pub use leased::Leased;
pub use webhooks::{DeadLetter, KEPT_DEAD_LETTERS, Progress, WebhookState, webhook_states};

/// The file's name in the store's folder.
pub(super) const FILE: &str = "state.db";

/// Policy for a folder that has been in use and has lost its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnStateLoss {
    /// An error that names the remedy.
    Refuse,
    /// Create a new state. Ignored when nothing is lost.
    StartOver {
        /// The lowest stamp for later use, in seconds since 1970. It must be above every stamp that was ever used.
        floor: u64,
    },
}

/// The position of the sequence of one (appid, node). [`crate::sequence`] has the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HighWaterMark {
    /// The lowest number of this lap that was never leased: 1 to 1,000,000; 1,000,000 when none is left.
    pub next: u32,
    /// Every stamp of this lap is at or above it, every stamp of the laps before is below it. Unix seconds.
    pub floor: u64,
    /// No stamp above it was ever used. Unix seconds, at or above `floor`.
    pub ceiling: u64,
}

/// A committed change of a [`HighWaterMark`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advance {
    pub before: HighWaterMark,
    pub after: HighWaterMark,
}

/// A lease of calls from the budget of a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Days since 1970 at UTC+8.
    pub day: u64,
    /// The number of calls; 0 when the day's budget is spent.
    pub granted: u64,
    /// The number of leased calls of that day, including this lease.
    pub leased: u64,
}

pub struct StateStore {
    database: Mutex<Database>,
    path: PathBuf,
    clock: Clock,
    failure: Failure,
}

struct Database {
    connection: Connection,
    /// After a failed sync, when the disk may lack frames of the WAL: nothing is committed until the WAL is settled.
    unsettled: Option<Unsettled>,
}

struct Unsettled {
    attempts: u32,
    /// By the monotonic clock.
    retry_at: Duration,
    error: StoreError,
}

/// Attempts to settle the WAL: at once, and a second time after the delay.
const SETTLE_ATTEMPTS: u32 = 2;
const SETTLE_RETRY_DELAY: Duration = Duration::from_secs(5);

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens `state.db` in `dir`, and creates it in a folder that was never used.
    ///
    /// # Errors
    /// [`Fault::StateLost`] when it must exist and does not, or is unreadable, and `on_loss` is [`OnStateLoss::Refuse`];
    /// when another program or a newer proxy wrote it, or it cannot be written.
    pub fn open(dir: &Path, on_loss: OnStateLoss) -> Result<Self, StoreError> {
        Self::open_with(dir, on_loss, Clock::system(), Failure::default())
    }

    /// Opens it likewise; a permanent failure to write is reported to `failure`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        dir: &Path,
        on_loss: OnStateLoss,
        clock: Clock,
        failure: Failure,
    ) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let lost = !is_initialized(&path)? && has_other_databases(dir)?;
        let opened = if lost { Err(StoreError::new(&path, Fault::StateLost)) } else { initialize(&path, 0) };
        let connection = match (opened, on_loss) {
            (Err(error), OnStateLoss::StartOver { floor }) if is_loss(&error) => {
                files::move_aside(&path, &path.with_added_extension("lost"))?;
                tracing::warn!(file = %path.display(), floor, "the state is lost: creating a new one");
                initialize(&path, floor)?
            }
            (Err(error), OnStateLoss::Refuse) if error.is_corrupt() => {
                tracing::error!(%error, "the state is unreadable");
                return Err(StoreError::new(&path, Fault::StateLost));
            }
            (opened, _) => opened?,
        };
        Ok(Self { database: Mutex::new(Database { connection, unsettled: None }), path, clock, failure })
    }

    /// Advances one sequence: reads its position, calls `step` for the new one, and commits that. Blocks until it is on the
    /// disk. Calls `step` again if a sync failed and the WAL could be settled.
    ///
    /// # Errors
    /// When it was not committed; the new position must not be used then.
    pub fn advance(
        &self,
        appid: &AppId,
        node: u8,
        mut step: impl FnMut(HighWaterMark) -> HighWaterMark,
    ) -> Result<Advance, StoreError> {
        self.commit(|connection| self.advance_once(connection, appid, node, &mut step))
    }

    fn advance_once(
        &self,
        connection: &mut Connection,
        appid: &AppId,
        node: u8,
        step: &mut impl FnMut(HighWaterMark) -> HighWaterMark,
    ) -> Result<Advance, StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        let leasing = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let before = match self.read(&leasing, appid, node)? {
            Some(position) => position,
            None => self.initial_mark(&leasing)?,
        };
        let advance = Advance { before, after: step(before) };
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
                    ":next": advance.after.next,
                    ":floor": to_sql(advance.after.floor),
                    ":ceiling": to_sql(advance.after.ceiling),
                })
            })
            .map_err(sqlite)?;
        leased::insert(&leasing, appid, node, advance, self.clock.now().as_secs()).map_err(sqlite)?;
        leasing.commit().map_err(sqlite)?;
        Ok(advance)
    }

    /// Leases up to `block` of the `limit` calls of a day. Blocks until it is on the disk. A day before the latest leased
    /// one counts as that one: setting the clock back does not grant calls again.
    ///
    /// # Errors
    /// When it was not committed; the calls must not be used then.
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
        let (day, leased) = match self.spent(&leasing, appid)? {
            Some((known, leased)) if known >= day => (known, leased),
            _ => (day, 0),
        };
        let granted = block.min(limit.saturating_sub(leased));
        let leased = leased + granted;
        leasing
            .prepare_cached(
                "INSERT INTO spending (appid, day, leased) VALUES (:appid, :day, :leased)
                 ON CONFLICT DO UPDATE SET
                   shared = iif(day = excluded.day, shared, 0), day = excluded.day, leased = excluded.leased",
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

    /// The last lease of an account's calls, of which nothing is left to spend; none before the first. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn last_lease(&self, appid: &AppId) -> Result<Option<Lease>, StoreError> {
        let spent = self.spent(&self.lock().connection, appid)?;
        Ok(spent.map(|(day, leased)| Lease { day, granted: 0, leased }))
    }

    /// The latest day with leased calls, and their number.
    fn spent(&self, connection: &Connection, appid: &AppId) -> Result<Option<(u64, u64)>, StoreError> {
        let stored: Option<(i64, i64)> = connection
            .prepare_cached("SELECT day, leased FROM spending WHERE appid = ?1")
            .and_then(|mut statement| {
                statement.query_row([appid.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(StoreError::sqlite(&self.path))?;
        let number = |stored| {
            u64::try_from(stored)
                .map_err(|_| StoreError::new(&self.path, Fault::Malformed { value: "spending" }))
        };
        stored.map(|(day, leased)| Ok((number(day)?, number(leased)?))).transpose()
    }

    /// Tests whether a commit reaches the disk, with one that changes nothing. Blocks.
    ///
    /// # Errors
    /// When it does not reach the disk.
    pub fn probe(&self) -> Result<(), StoreError> {
        let sqlite = StoreError::sqlite(&self.path);
        self.commit(|connection| {
            let probe =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
            schema::touch(&probe).map_err(sqlite)?;
            probe.commit().map_err(sqlite)
        })
    }

    /// Checkpoints. The store stays usable.
    pub fn close(&self) {
        let database = self.lock();
        // The frames of an unsettled WAL may not be on the disk, so they are not moved.
        if database.unsettled.is_none() {
            wal::finish(&database.connection, &self.path);
        }
    }

    /// Runs a transaction, and a second time if a sync failed and the WAL could be settled. Nothing is committed while the
    /// WAL is unsettled.
    fn commit<T>(
        &self,
        mut transaction: impl FnMut(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut database = self.lock();
        if database.unsettled.is_some() {
            self.settle(&mut database)?;
        }
        let done = transaction(&mut database.connection);
        let Err(error) = done else { return done };
        if !error.is_unsynced() {
            return Err(error);
        }
        tracing::warn!(%error, "a sync of state.db failed: writing its WAL again before the next commit");
        database.unsettled = Some(Unsettled { attempts: 0, retry_at: Duration::ZERO, error });
        self.settle(&mut database)?;
        let done = transaction(&mut database.connection);
        if let Err(error) = &done
            && error.is_unsynced()
        {
            database.unsettled =
                Some(Unsettled { attempts: 0, retry_at: Duration::ZERO, error: error.clone() });
        }
        done
    }

    /// Settles the WAL, unless it is too early for a retry. After too many failures the store has failed permanently.
    fn settle(&self, database: &mut Database) -> Result<(), StoreError> {
        let Some(unsettled) = &mut database.unsettled else { return Ok(()) };
        let now = self.clock.monotonic();
        if now < unsettled.retry_at || self.failure.get().is_some() {
            return Err(unsettled.error.clone());
        }
        let done = wal::settle(&database.connection, &self.path);
        match &done {
            Ok(()) => database.unsettled = None,
            Err(error) => {
                unsettled.attempts += 1;
                unsettled.retry_at = now.saturating_add(SETTLE_RETRY_DELAY);
                unsettled.error = error.clone();
                if unsettled.attempts >= SETTLE_ATTEMPTS || error.is_wal_lost() {
                    self.failure.fail(format!(
                        "cannot write the state of the transids to the disk: {error}; check the disk, then restart the proxy"
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

    /// The position of a sequence without a lease: all numbers free, no stamp used.
    fn initial_mark(&self, connection: &Connection) -> Result<HighWaterMark, StoreError> {
        let floor = connection
            .query_row("SELECT floor FROM beginning", [], |row| row.get(0))
            .map_err(StoreError::sqlite(&self.path))?;
        let floor = self.seconds(floor)?;
        Ok(HighWaterMark { next: 1, floor, ceiling: floor })
    }

    fn seconds(&self, stored: i64) -> Result<u64, StoreError> {
        u64::try_from(stored).map_err(|_| StoreError::new(&self.path, Fault::Malformed { value: "stamp" }))
    }

    /// A poisoned lock is no error: the panic rolled back the open transaction, so the connection is usable.
    fn lock(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the file; a new one stores the floor of all sequences, which stays.
fn initialize(path: &Path, floor: u64) -> Result<Connection, StoreError> {
    let connection = schema::open(path, Kind::State, Synchronous::Full)?;
    // The check is fast, since the file has few pages: damage is found before a transid is leased from it.
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

/// Whether the file exists and was initialized completely: not a file that a crash left empty.
fn is_initialized(path: &Path) -> Result<bool, StoreError> {
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
        // Empty: no transaction was committed.
        Err(error) if matches!(error.fault(), Fault::Malformed { .. }) => Ok(false),
        // Opening it for writing finds any other fault again and handles it.
        Err(_) => Ok(true),
    }
}

/// Whether the folder has databases that only a proxy with a state can have written.
fn has_other_databases(dir: &Path) -> Result<bool, StoreError> {
    Ok(schema::exists(&dir.join(cache::FILE))? || !audit::month::list(dir)?.is_empty())
}

fn is_loss(error: &StoreError) -> bool {
    matches!(error.fault(), Fault::StateLost) || error.is_corrupt()
}

/// Stamps end in 2099; making a stamp of a later floor is an error.
fn to_sql(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
