//! `cache.db`: the latest carrier responses, so that the cache is warm after a restart. The file may be deleted at any time.
//!
//! Reads block and use a small pool of read-only connections; writes are queued to one writer thread, which commits all
//! queued writes as one transaction. A read does not see queued writes, but the memory tier above does. An older response
//! never replaces a newer one, whatever the order of the writes. A file that is found corrupt, at start or later, is moved
//! to `cache.db.corrupt` and created again. Responses are removed by age and number: see [`Retention`].

mod purged;
mod retention;
mod writer;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use bytes::Bytes;
use cmiot_signer::Card;
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use tokio::sync::oneshot;

use self::retention::Pruner;
pub use self::retention::Retention;
use self::writer::{Key, Write, Writer};
use super::queue::{PushError, Queue};
use super::schema::{self, Kind};
use super::{Failure, Fault, StoreError};
use crate::clock::{Clock, Time};

/// The file's name in the store's folder.
pub(super) const FILE: &str = "cache.db";

/// Idle connections for reading: as many as a small machine reads with at once. More are opened when needed.
const MAX_IDLE_READERS: usize = 4;

/// Limit on the bytes of the queued bodies: large bodies fill memory before their number fills the queue.
const MAX_QUEUED_BYTES: usize = 16 << 20;

/// One carrier response with its key (group, operation, card, parameters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRow {
    /// The group of accounts: groups do not share responses.
    pub group: Arc<str>,
    pub operation: Arc<str>,
    pub card: Card,
    /// The declared parameters in addition to the card; mostly empty.
    pub parameters: String,
    /// The code in the carrier's envelope, as text: it may have leading zeros.
    pub code: String,
    /// The STATUS of the card, where the operation has one.
    pub status: Option<String>,
    /// The time of the carrier's response.
    pub answered_at: Time,
    /// The body that gateways get: the carrier's bytes, unless `carrier` says otherwise.
    pub body: Bytes,
    /// The charset of the body; none for UTF-8, empty if the carrier declared none.
    pub charset: Option<String>,
    /// The carrier's code and what is said of it, if the body is not the carrier's own.
    pub carrier: Option<String>,
    /// Soft purge: not fresh at any age.
    pub stale: bool,
}

/// Selects the responses that meet every given condition. The default has no condition and selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub card: Option<Card>,
    pub group: Option<Arc<str>>,
    pub operation: Option<Arc<str>>,
    pub status: Option<String>,
    pub answered_before: Option<Time>,
    pub answered_after: Option<Time>,
}

impl Selection {
    /// Whether a response is selected. The writer has the same conditions as SQL.
    pub fn covers(
        &self,
        group: &str,
        operation: &str,
        card: &Card,
        status: Option<&str>,
        answered_at: Time,
    ) -> bool {
        self.may_cover(group, operation, card)
            && self.status.as_deref().is_none_or(|selected| status == Some(selected))
            && self.answered_before.is_none_or(|before| answered_at < before)
            && self.answered_after.is_none_or(|after| answered_at > after)
    }

    /// Whether a response that has not arrived yet may be selected.
    pub fn may_cover(&self, group: &str, operation: &str, card: &Card) -> bool {
        self.card.as_ref().is_none_or(|selected| selected == card)
            && self.group.as_deref().is_none_or(|selected| selected == group)
            && self.operation.as_deref().is_none_or(|selected| selected == operation)
    }
}

/// A purge of a fleet that the file has applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PurgeMark {
    /// Identity of the fleet.
    pub fleet: String,
    /// Number of the purge.
    pub generation: i64,
}

/// The number of stored responses with one group, operation, code and STATUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheCount {
    pub group: String,
    pub operation: String,
    pub code: String,
    pub status: Option<String>,
    pub answers: u64,
}

/// The rows passed to [`CacheStore::save`] since the start that were not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheLosses {
    /// Dropped because the queue was full or closed.
    pub dropped: u64,
    /// Lost with a transaction that failed.
    pub failed: u64,
}

pub struct CacheStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A queued write; resolves when it is committed. Dropping it does not cancel the write.
#[must_use = "dropping it does not cancel the write, but discards its result"]
pub struct Applied<T> {
    result: oneshot::Receiver<Result<T, StoreError>>,
    file: PathBuf,
}

impl CacheStore {
    /// Opens `cache.db` in `dir` without retention, with a queue of `queue` writes.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn open(dir: &Path, queue: usize) -> Result<Self, StoreError> {
        Self::open_with(dir, queue, Retention::UNBOUNDED, Clock::system(), Failure::default())
    }

    /// Opens it with these limits on stored responses; a panic of the writer thread is reported to `failure`.
    ///
    /// # Errors
    /// When another program or a newer proxy wrote the file, or it cannot be written.
    pub fn open_with(
        dir: &Path,
        queue: usize,
        retention: Retention,
        clock: Clock,
        failure: Failure,
    ) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let connection = writer::open(&path)?;
        let shared = Arc::new(Shared {
            queue: Queue::new(queue),
            readers: Mutex::new(Readers::default()),
            queued_bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            path,
        });
        let writer = Writer::new(Arc::clone(&shared), connection, Pruner::new(retention, clock));
        let writer = std::thread::Builder::new()
            .name("cache-writer".into())
            .spawn(move || {
                let _failure = failure.thread_guard("cache-writer");
                writer.run();
            })
            .map_err(StoreError::io(&shared.path))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// The stored response, if any. Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be read. The writer replaces a corrupt file, so a later call returns none.
    pub fn load(
        &self,
        group: &str,
        operation: &str,
        card: &Card,
        parameters: &str,
    ) -> Result<Option<CacheRow>, StoreError> {
        self.read(|connection, path| {
            let sqlite = StoreError::sqlite(path);
            let mut statement = connection
                .prepare_cached(
                    r#"SELECT code, status, answered_at, body, charset, carrier, stale FROM answer
                       WHERE "group" = :group AND operation = :operation AND kind = :kind AND card = :card
                         AND parameters = :parameters"#,
                )
                .map_err(sqlite)?;
            let key = named_params! {
                ":group": group, ":operation": operation, ":kind": card.kind().as_str(), ":card": card.as_str(),
                ":parameters": parameters,
            };
            let read = |row: &Row<'_>| CacheRow::read(row, group, operation, *card, parameters);
            statement.query_row(key, read).optional().map_err(sqlite)
        })
    }

    /// Stores a response unless a newer one is stored; a stored time after `latest` is in the future and does not count as
    /// newer. Never blocks: the row is queued, or dropped and counted when the queue is full, in number or in bytes. Losing
    /// it is acceptable for a cache.
    pub fn save(&self, row: CacheRow, latest: Time) {
        let bytes = row.body.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if queued > MAX_QUEUED_BYTES || self.shared.queue.push(Write::Save(Box::new(row), latest)).is_err() {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes the responses for one card, after the writes queued before. Resolves to the number of rows removed.
    pub fn remove(&self, group: &str, operation: &str, card: &Card) -> Applied<u64> {
        let key = Key { group: group.into(), operation: operation.into(), card: *card };
        self.send(|done| Write::Remove(key, done))
    }

    /// Removes every selected response, after the writes queued before. Resolves to the number of rows removed.
    pub fn remove_where(&self, selection: Selection) -> Applied<u64> {
        self.send(|done| Write::RemoveWhere(selection, done))
    }

    /// Marks every selected response as stale, after the writes queued before. Resolves to the number of rows marked.
    pub fn mark_stale_where(&self, selection: Selection) -> Applied<u64> {
        self.send(|done| Write::MarkWhere(selection, done))
    }

    /// Resolves when the writes queued before are committed.
    pub fn flush(&self) -> Applied<()> {
        self.send(Write::Flush)
    }

    /// The number of stored responses. Blocks, and reads every page of the table: about 0.1 s per million rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.read(|connection, path| {
            let count: i64 = connection
                .query_row("SELECT count(*) FROM answer", [], |row| row.get(0))
                .map_err(StoreError::sqlite(path))?;
            u64::try_from(count).map_err(|_| StoreError::new(path, Fault::Malformed { value: "count" }))
        })
    }

    /// The number of stored responses by group, operation, code and STATUS. Blocks as long as [`Self::count`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn counts(&self) -> Result<Vec<CacheCount>, StoreError> {
        self.read(|connection, path| {
            let sqlite = StoreError::sqlite(path);
            let mut statement = connection
                .prepare(
                    r#"SELECT "group", operation, code, status, count(*) AS answers FROM answer
                       GROUP BY "group", operation, code, status ORDER BY answers DESC"#,
                )
                .map_err(sqlite)?;
            let rows = statement.query_map([], |row| {
                Ok(CacheCount {
                    group: row.get("group")?,
                    operation: row.get("operation")?,
                    code: row.get("code")?,
                    status: row.get("status")?,
                    answers: row.get::<_, i64>("answers")?.unsigned_abs(),
                })
            });
            rows.and_then(Iterator::collect).map_err(sqlite)
        })
    }

    /// The number of selected responses in the file. Blocks as long as [`Self::count`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn count_where(&self, selection: &Selection) -> Result<u64, StoreError> {
        self.read(|connection, path| selection.count(connection).map_err(StoreError::sqlite(path)))
    }

    pub fn losses(&self) -> CacheLosses {
        CacheLosses {
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    pub fn queued(&self) -> usize {
        self.shared.queue.len()
    }

    /// Commits the queued writes, checkpoints and ends the writer thread. Blocks until that is done. Rows that are saved
    /// afterwards are dropped and counted.
    pub fn close(&self) {
        self.shared.queue.close();
        // The last connection removes the WAL, which a read-only one cannot.
        self.shared.readers().idle.clear();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!(file = %self.shared.path.display(), "the cache's writer thread panicked");
        }
        self.shared.readers().idle.clear();
    }

    fn send<T>(&self, write: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Write) -> Applied<T> {
        let (done, result) = oneshot::channel();
        // A closed queue drops `done`, which shows the receiver that the store is closed.
        let _: Result<(), PushError> = self.shared.queue.push_unbounded(write(done));
        Applied { result, file: self.shared.path.clone() }
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection, &Path) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (generation, idle) = {
            let mut readers = self.shared.readers();
            (readers.generation, readers.idle.pop())
        };
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_read_only(&self.shared.path, Kind::Cache)?,
        };
        let result = read(&connection, &self.shared.path);
        match &result {
            Err(error) if error.is_corrupt() => {
                let recreate = Write::Recreate { generation, error: error.clone() };
                // A closed store does not replace its file.
                let _: Result<(), PushError> = self.shared.queue.push_unbounded(recreate);
            }
            _ => self.shared.readers().release(connection, generation),
        }
        result
    }
}

impl Drop for CacheStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Applied<T> {
    /// Blocks until the write is committed. Async code awaits the value instead.
    ///
    /// # Errors
    /// When it failed or the store was closed.
    ///
    /// # Panics
    /// When called from async code.
    pub fn wait(self) -> Result<T, StoreError> {
        self.result.blocking_recv().unwrap_or_else(|_| Err(StoreError::new(&self.file, Fault::Closed)))
    }
}

impl<T> Future for Applied<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result)
            .poll(cx)
            .map(|result| result.unwrap_or_else(|_| Err(StoreError::new(&self.file, Fault::Closed))))
    }
}

impl CacheRow {
    fn read(
        row: &Row<'_>,
        group: &str,
        operation: &str,
        card: Card,
        parameters: &str,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            group: group.into(),
            operation: operation.into(),
            card,
            parameters: parameters.to_owned(),
            code: row.get("code")?,
            status: row.get("status")?,
            answered_at: Time::from_micros(row.get("answered_at")?),
            body: Bytes::from(row.get::<_, Vec<u8>>("body")?),
            charset: row.get("charset")?,
            carrier: row.get("carrier")?,
            stale: row.get("stale")?,
        })
    }
}

/// The path to which a corrupt file is moved.
fn quarantine_path(path: &Path) -> PathBuf {
    path.with_added_extension("corrupt")
}

struct Shared {
    queue: Queue<Write>,
    readers: Mutex<Readers>,
    /// Bytes of the bodies in the queue.
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
    failed: AtomicU64,
    path: PathBuf,
}

impl Shared {
    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The idle read-only connections, all to the file of this generation.
#[derive(Default)]
struct Readers {
    idle: Vec<Connection>,
    /// The number of times that the file was replaced: connections to earlier files are closed.
    generation: u64,
}

impl Readers {
    fn release(&mut self, connection: Connection, generation: u64) {
        if generation == self.generation && self.idle.len() < MAX_IDLE_READERS {
            self.idle.push(connection);
        }
    }
}

#[cfg(test)]
mod tests;
