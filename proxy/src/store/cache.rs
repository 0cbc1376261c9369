//! `cache.db`: the carrier's last answers, so that a restart begins warm. It may be deleted at will.
//!
//! Reads block and use a small pool of read-only connections; writes are queued to one writer thread, which
//! makes one transaction of all that has come. A read does not see what is still queued: the memory tier
//! above does. An older answer never replaces a newer one, whichever comes first. A file that is found
//! corrupt, at start or later, is moved to `cache.db.corrupt` and begun anew. Answers leave by age and number: see
//! [`Retention`].

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

use self::retention::Keeper;
pub use self::retention::Retention;
use self::writer::{Key, Write, Writer};
use super::queue::{PushError, Queue};
use super::schema::{self, Kind};
use super::{Failure, Fault, StoreError};
use crate::clock::{Clock, Time};

/// The file's name in the store's folder.
pub(super) const FILE: &str = "cache.db";

/// Connections kept for reading: as many as read at once on a small machine. More are opened when needed.
const READERS_KEPT: usize = 4;

/// Bytes of the bodies that may wait to be stored: large ones fill memory before their number fills the queue.
const MOST_WAITING: usize = 16 << 20;

/// One answer of the carrier, under its key (group, operation, card, parameters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRow {
    /// Who holds the accounts: no answer is shared between groups.
    pub group: Arc<str>,
    /// Which look-up.
    pub operation: Arc<str>,
    /// About which card.
    pub card: Card,
    /// The declared parameters beside the card; mostly empty.
    pub parameters: String,
    /// The code of the carrier's envelope, as text: it may have leading zeros.
    pub code: String,
    /// The STATUS of the card, where the operation has one.
    pub status: Option<String>,
    /// When the carrier answered.
    pub answered_at: Time,
    /// The carrier's bytes.
    pub body: Bytes,
    /// The charset of the body; none for UTF-8, empty where the carrier named none.
    pub charset: Option<String>,
    /// Purged softly: not fresh, whatever its age.
    pub stale: bool,
}

/// Which answers to remove or mark: those that meet every condition given. The default has none and means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// About this card.
    pub card: Option<Card>,
    /// Of this group.
    pub group: Option<Arc<str>>,
    /// Of this operation.
    pub operation: Option<Arc<str>>,
    /// With this STATUS.
    pub status: Option<String>,
    /// Answered before this moment.
    pub answered_before: Option<Time>,
    /// Answered after this moment.
    pub answered_after: Option<Time>,
}

impl Selection {
    /// Whether an answer is selected. The file's own way to say it stands in the writer.
    pub fn covers(
        &self,
        group: &str,
        operation: &str,
        card: &Card,
        status: Option<&str>,
        answered_at: Time,
    ) -> bool {
        self.may_cover(group, operation, card)
            && self.status.as_deref().is_none_or(|wanted| status == Some(wanted))
            && self.answered_before.is_none_or(|before| answered_at < before)
            && self.answered_after.is_none_or(|after| answered_at > after)
    }

    /// Whether an answer that is not known yet may be selected.
    pub fn may_cover(&self, group: &str, operation: &str, card: &Card) -> bool {
        self.card.as_ref().is_none_or(|wanted| wanted == card)
            && self.group.as_deref().is_none_or(|wanted| wanted == group)
            && self.operation.as_deref().is_none_or(|wanted| wanted == operation)
    }
}

/// How many answers of one kind are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheCount {
    /// Of which group.
    pub group: String,
    /// Of which operation.
    pub operation: String,
    /// With which code of the carrier's.
    pub code: String,
    /// With which STATUS, where there is one.
    pub status: Option<String>,
    /// How many.
    pub answers: u64,
}

/// What became of the rows handed to [`CacheStore::save`], since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheLosses {
    /// Dropped because the queue was full or closed.
    pub dropped: u64,
    /// Lost with a transaction that failed.
    pub failed: u64,
}

/// The cache's file: see the module's text.
pub struct CacheStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A write on its way; resolves when it is committed. Dropping it does not take the write back.
#[must_use = "dropping it does not cancel the write, but forgets whether it worked"]
pub struct Applied<T> {
    result: oneshot::Receiver<Result<T, StoreError>>,
    file: PathBuf,
}

impl CacheStore {
    /// Opens `cache.db` in `dir`, with room for `queue` writes that wait. Nothing leaves it by itself.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn open(dir: &Path, queue: usize) -> Result<Self, StoreError> {
        Self::open_with(dir, queue, Retention::UNBOUNDED, Clock::system(), Failure::default())
    }

    /// The same, and answers leave as the retention says; a panic of the writer is told to `failure`.
    ///
    /// # Errors
    /// When the file is another program's, is newer than this proxy, or cannot be written.
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
            waiting: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            path,
        });
        let writer = Writer::new(Arc::clone(&shared), connection, Keeper::new(retention, clock));
        let writer = std::thread::Builder::new()
            .name("cache-writer".into())
            .spawn(move || {
                let _failure = failure.of_thread("cache-writer");
                writer.run();
            })
            .map_err(StoreError::io(&shared.path))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// The stored answer, if any. Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be read. A corrupt one is begun anew meanwhile, so a later call finds nothing.
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
                    r#"SELECT code, status, answered_at, body, charset, stale FROM answer
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

    /// Stores an answer unless a newer one is there; one that was answered after `latest` is of the future, and does not
    /// count. Never blocks: it is queued, and dropped and counted when the queue is full, in number or in bytes, since
    /// it is only a cache.
    pub fn save(&self, row: CacheRow, latest: Time) {
        let bytes = row.body.len();
        let waiting = self.shared.waiting.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if waiting > MOST_WAITING || self.shared.queue.push(Write::Save(Box::new(row), latest)).is_err() {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes the answers about one card, after all that was queued before. Resolves to the rows removed.
    pub fn remove(&self, group: &str, operation: &str, card: &Card) -> Applied<u64> {
        let key = Key { group: group.into(), operation: operation.into(), card: *card };
        self.send(|done| Write::Remove(key, done))
    }

    /// Removes every answer that meets the selection, after all that was queued before. Resolves to the
    /// rows removed.
    pub fn remove_where(&self, selection: Selection) -> Applied<u64> {
        self.send(|done| Write::RemoveWhere(selection, done))
    }

    /// Marks every answer that meets the selection as stale, after all that was queued before. Resolves to the rows
    /// marked.
    pub fn mark_stale_where(&self, selection: Selection) -> Applied<u64> {
        self.send(|done| Write::MarkWhere(selection, done))
    }

    /// Resolves when all that was queued before is committed.
    pub fn flush(&self) -> Applied<()> {
        self.send(Write::Flush)
    }

    /// How many answers are stored. Blocks, and reads every page of the table: some 0.1 s a million rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn count(&self) -> Result<u64, StoreError> {
        self.read(|connection, path| {
            let count: i64 = connection
                .query_row("SELECT count(*) FROM answer", [], |row| row.get(0))
                .map_err(StoreError::sqlite(path))?;
            u64::try_from(count).map_err(|_| StoreError::new(path, Fault::Malformed { what: "count" }))
        })
    }

    /// The same by group, operation, code and STATUS. Blocks as long.
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

    /// The rows that were handed to [`Self::save`] and never stored.
    pub fn losses(&self) -> CacheLosses {
        CacheLosses {
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    /// How many writes wait.
    pub fn queued(&self) -> usize {
        self.shared.queue.len()
    }

    /// Writes what is queued, checkpoints and ends the writer thread. Blocks until that is done.
    /// What is saved afterwards is dropped and counted.
    pub fn close(&self) {
        self.shared.queue.close();
        // The last connection removes the WAL, which one that may only read cannot.
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
        // A refusal drops `done`, which is how the receiver learns that the store is closed.
        let _: Result<(), PushError> = self.shared.queue.push_unbounded(write(done));
        Applied { result, file: self.shared.path.clone() }
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection, &Path) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (age, idle) = {
            let mut readers = self.shared.readers();
            (readers.age, readers.idle.pop())
        };
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_read_only(&self.shared.path, Kind::Cache)?,
        };
        let result = read(&connection, &self.shared.path);
        match &result {
            Err(error) if error.is_corrupt() => {
                // Closed already: nothing left to begin anew.
                let _: Result<(), PushError> =
                    self.shared.queue.push_unbounded(Write::BeginAnew(age, error.clone()));
            }
            _ => self.shared.readers().keep(connection, age),
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
    /// Blocks until the write is committed. Not for async code, which awaits instead.
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
            .map(|got| got.unwrap_or_else(|_| Err(StoreError::new(&self.file, Fault::Closed))))
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
            stale: row.get("stale")?,
        })
    }
}

/// Where a corrupt file is moved to.
fn quarantine_path(path: &Path) -> PathBuf {
    path.with_added_extension("corrupt")
}

struct Shared {
    queue: Queue<Write>,
    readers: Mutex<Readers>,
    /// Bytes of the bodies that wait to be stored.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    failed: AtomicU64,
    path: PathBuf,
}

impl Shared {
    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The idle read-only connections, all to the file of this age.
#[derive(Default)]
struct Readers {
    idle: Vec<Connection>,
    /// How often the file has been begun anew: a connection to an earlier one is not kept.
    age: u64,
}

impl Readers {
    fn keep(&mut self, connection: Connection, age: u64) {
        if age == self.age && self.idle.len() < READERS_KEPT {
            self.idle.push(connection);
        }
    }
}

#[cfg(test)]
mod tests;
