//! The audit log: an append-only log of every request, with a two-level LSM index of cards (sorted runs; blocks of merged
//! runs are level 1), group commit, a hash chain and signed anchors.
//!
//! A request's row is committed before its response leaves. One writer thread owns the current segment
//! (`audit-YYYY-MM.db`, see [`month`]) and commits all rows that have arrived in one transaction; each waiter is notified
//! after the commit. A segment is only ever appended to. A row of a later month begins a new segment; after a clock is
//! stepped back, the writer continues in the newest one.
//!
//! When a batch fails, the writer refuses all its rows and those that arrive before the next attempt (a backoff from 0.1 s
//! to 5 s). It recovers by itself, also without traffic. It counts the requests that have no record meanwhile; the count is
//! the first row after the recovery.
//!
//! Imports point down this list:
//!
//! | module | contents |
//! | --- | --- |
//! | [`retention`] | prune, erase, back up |
//! | `writer`, `reader` | the writer thread, its segment and its waiters; the records that the proxy reads at its start |
//! | `copy` | rows for a central database |
//! | [`query`], `evidence` | queries of operators and auditors; [`anchor`]s, [`verify`], lost rows |
//! | `index` | the rows of a card |
//! | `log` | rows, columns, [`chain`], [`identity`], months, the transaction that appends |

pub(crate) mod copy;
mod evidence;
mod index;
mod log;
pub mod query;
mod reader;
pub mod retention;
mod writer;

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

pub use self::evidence::lost::{OpenLoss, acknowledge};
pub use self::evidence::{anchor, copied, verify};
pub use self::log::body::{Body, shown_hash};
pub use self::log::columns::{CallRow, LookupRow, NoteRow, RefusedRow};
pub use self::log::loss::Loss;
pub(super) use self::log::loss::{LOST, UNKNOWN};
pub(super) use self::log::notes::{is_name as is_note, leave as leave_note};
use self::log::row::Row;
pub use self::log::row::{ActRow, BegunRow, Withdrawn};
pub use self::log::{chain, identity, month};
pub use self::reader::{AuditReader, PastRequest, RecordedIntent};
use self::writer::Writer;
use self::writer::shared::{Awaited, Entry, Shared};
use self::writer::waiters::CommitResult;
use super::queue::PushError;
use super::schema::{self, Kind, Synchronous};
use super::{Failure, StoreError};
use crate::alarms::Alarms;
use crate::clock::{Clock, Time};
use crate::config;
pub use crate::config::{Bodies, Durability, Identifiers, OnFailure};

/// The last row of a month's segment and the head of its chain; none if the file has no segment yet.
pub(super) fn chain_head(dir: &Path, month: month::Month) -> Result<Option<(i64, chain::Hash)>, StoreError> {
    let path = month.path(dir);
    let connection = schema::open_read_only(&path, Kind::Audit)?;
    let head = log::link::head(&connection).map_err(StoreError::sqlite(&path))?;
    Ok(head.map(|head| (head.last, head.hash)))
}

/// Settings of the audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The failure that a committed row survives.
    pub durability: Durability,
    /// Rows that may wait for the disk; requests beyond them are refused.
    pub queue: usize,
    /// The response to a request whose row cannot be written.
    pub on_failure: OnFailure,
    /// Free bytes on the disk below which the writer stops.
    pub min_free: u64,
    /// The interval of anchors: a truncation of rows written since the last one cannot be detected.
    pub anchor_every: Duration,
    /// The form in which cards are written.
    pub identifiers: Identifiers,
    /// The part of the bodies of carrier replies that is kept.
    pub bodies: Bodies,
    /// The Unix group that may read the segments, by its number.
    pub group: Option<u32>,
    /// Rows that are sorted by card into a run. A larger run makes the scan of the tail longer, and the writer's pause; a
    /// smaller one makes more runs to search. `cargo xtask bench audit` measures all three.
    pub run: u32,
    /// Runs that are merged into a block. A larger block makes fewer blocks to search, and more runs outside of blocks.
    pub block: u32,
}

impl From<&config::AuditConfig> for Options {
    fn from(config: &config::AuditConfig) -> Self {
        Self {
            durability: config.durability,
            on_failure: config.on_failure,
            min_free: config.min_free,
            anchor_every: config.anchor_every,
            identifiers: config.identifiers,
            bodies: config.bodies,
            group: config.group,
            ..Self::default()
        }
    }
}

impl Options {
    /// The mode of the files that auditors read.
    fn mode(&self) -> u32 {
        if self.group.is_some() { 0o640 } else { 0o600 }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Power,
            queue: 4_096,
            on_failure: OnFailure::Refuse,
            min_free: 64 << 20,
            anchor_every: Duration::from_secs(300),
            identifiers: Identifiers::Plain,
            bodies: Bodies::default(),
            group: None,
            run: 256,
            block: 512,
        }
    }
}

impl Durability {
    fn synchronous(self) -> Synchronous {
        match self {
            Self::Power => Synchronous::Full,
            Self::Process => Synchronous::Normal,
        }
    }
}

/// The reason for a row that is not committed. After `Failed` it is unknown whether the row reached the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditUnavailable {
    /// Too many rows wait for the disk.
    Full,
    /// The disk or the file failed; the log has the error.
    Failed,
    /// The proxy is shutting down.
    Closed,
}

/// The writer thread, and the queue of rows for it.
pub struct AuditStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// A queued row; resolves when it is committed or refused. Dropping it does not remove the row.
#[must_use = "a response may leave only after its row is committed"]
#[derive(Debug)]
pub struct Appended(Progress);

/// A queued note; resolves to its row's number when it is committed. Dropping it does not remove the row.
#[must_use = "the action of a note may begin only after its row is committed"]
#[derive(Debug)]
pub struct Noted(Result<oneshot::Receiver<Result<i64, AuditUnavailable>>, AuditUnavailable>);

#[derive(Debug)]
enum Progress {
    Refused(AuditUnavailable),
    Waiting(oneshot::Receiver<CommitResult>),
}

impl AuditStore {
    /// Opens the newest segment in `dir`, or creates that of this month.
    ///
    /// # Errors
    /// When the segment belongs to another program, is newer than this proxy, or cannot be written.
    pub fn open(dir: &Path, options: Options, clock: Clock) -> Result<Self, StoreError> {
        Self::open_with(dir, options, clock, Failure::default())
    }

    /// The same; a fatal failure of the writer is reported to `failure`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        dir: &Path,
        options: Options,
        clock: Clock,
        failure: Failure,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::new(&options, failure, &clock));
        let writer = Writer::open(dir, options, Arc::clone(&shared), clock)?;
        let writer = std::thread::Builder::new()
            .name("audit-writer".into())
            .spawn(move || writer.run())
            .map_err(StoreError::io(dir))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Queues a lookup's row without waiting; the caller awaits the result. Refuses at once when the queue is full.
    pub fn append(&self, row: LookupRow) -> Appended {
        let (at, refusals) = (row.at, usize::from(row.is_refusal()));
        let push = || self.shared.queue.push(Entry { row: Row::Lookup(row), awaited: Awaited::Queued });
        Appended(match self.shared.waiters.join(push) {
            Ok(result) => Progress::Waiting(result),
            Err(why) => {
                self.shared.missed(1, refusals, at);
                Progress::Refused(why.into())
            }
        })
    }

    /// Queues the note that an action is about to be sent. It resolves to the row's number when it is committed.
    pub fn append_begun(&self, row: BegunRow) -> Noted {
        self.append_numbered(Row::Begun(row))
    }

    /// Queues a note. It resolves to the row's number when it is committed.
    pub fn append_note(&self, row: NoteRow) -> Noted {
        self.append_numbered(Row::Note(row))
    }

    /// Queues the note about an act of an operator. It resolves to the row's number when it is committed.
    pub fn append_act(&self, row: ActRow) -> Noted {
        self.append_numbered(Row::Act(row))
    }

    fn append_numbered(&self, row: Row) -> Noted {
        let (sender, number) = oneshot::channel();
        Noted(match self.shared.queue.push(Entry { row, awaited: Awaited::Numbered(sender) }) {
            Ok(()) => Ok(number),
            Err(why) => Err(why.into()),
        })
    }

    /// The part of a carrier reply that a call's row keeps.
    pub fn body(&self, body: &[u8]) -> Option<Body> {
        Body::of(body, self.shared.bodies)
    }

    /// Queues the note about an act of an operator, without a waiter: it is written when the disk works.
    pub fn append_act_later(&self, row: ActRow) {
        self.append_unbounded(Row::Act(row));
    }

    /// Queues a carrier call's row, without a waiter: it is committed no later than rows appended after it.
    pub fn append_call(&self, row: CallRow) {
        self.append_unbounded(Row::Call(row));
    }

    /// Queues a count of refusals.
    pub fn append_refused(&self, row: RefusedRow) {
        self.append_unbounded(Row::Refused(row));
    }

    /// These rows are few, and bounded by the calls and refusals that they record, so the queue's limit does not apply.
    fn append_unbounded(&self, row: Row) {
        if self.shared.queue.push_unbounded(Entry { row, awaited: Awaited::Not }).is_err() {
            self.shared.incomplete.store(true, Ordering::Release);
            tracing::warn!("an audit row came after the audit was closed");
        }
    }

    /// Counts a tick: lookups that have waited for their commit for more than `most` ticks time out. If no response may
    /// leave without its record, only those time out whose rows still wait for the writer, and these rows are changed to
    /// say that the lookup was refused; a lookup whose row is being committed waits on.
    pub fn expire(&self, most: u64) {
        let refuses = self.shared.on_failure == OnFailure::Refuse;
        let waited = self.shared.waiters.expire(most, |mut overdue| {
            if !refuses {
                for index in 0..overdue.queued() {
                    overdue.expire_waiter(index);
                }
                return;
            }
            // Waiters and rows have the same order, and both are locked: the last waiters belong to the queued rows.
            self.shared.queue.waiting(|entries| {
                let awaited = |entry: &&mut Entry| matches!(entry.awaited, Awaited::Queued);
                let queued = entries.iter_mut().filter(awaited).count();
                let first = overdue.queued().saturating_sub(queued);
                for (index, entry) in (first..).zip(entries.iter_mut().filter(awaited)) {
                    if overdue.expire_waiter(index)
                        && let Row::Lookup(row) = &mut entry.row
                    {
                        row.withdraw();
                    }
                }
            });
        });
        // A sync may hang while only rows without a waiter are written: the next request would wait for it.
        let waited = waited.max(self.shared.busy.tick());
        self.shared.stalled.store(waited.saturating_mul(2) > most, Ordering::Release);
    }

    /// Delivers commit results from inside the caller's runtime until it is dropped: the writer then wakes one task per batch
    /// instead of all. One at a time; without one the writer delivers.
    pub async fn notifier(&self) {
        self.shared.waiters.notifier().run().await;
    }

    /// Whether the last attempt to commit worked.
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Acquire)
    }

    /// Whether every row of a call was committed, or still may be.
    pub fn is_complete(&self) -> bool {
        self.healthy() && !self.shared.incomplete.load(Ordering::Acquire)
    }

    /// Whether a row would be accepted now, and its commit is to be expected.
    pub fn can_record(&self) -> bool {
        self.healthy() && !self.shared.stalled.load(Ordering::Acquire) && self.shared.queue.has_room()
    }

    /// The response to a request whose row cannot be written.
    pub fn on_failure(&self) -> OnFailure {
        self.shared.on_failure
    }

    /// The number of requests without a record since the start.
    pub fn missed(&self) -> u64 {
        self.shared.missed.load(Ordering::Relaxed)
    }

    /// The length of the WAL at the last check, in bytes. A reader that prevents checkpoints makes it grow.
    pub fn wal_bytes(&self) -> u64 {
        self.shared.wal_bytes.load(Ordering::Relaxed)
    }

    /// Free bytes of the audit's disk at the last check; 0 before the first one.
    pub fn free_bytes(&self) -> u64 {
        self.shared.free_bytes.load(Ordering::Relaxed)
    }

    /// Free bytes of the disk below which no row is written.
    pub fn min_free(&self) -> u64 {
        self.shared.min_free
    }

    /// When an anchor last covered all rows; none before the first one of this process.
    pub fn anchored_at(&self) -> Option<Time> {
        let at = self.shared.anchored_at.load(Ordering::Relaxed);
        (at > i64::MIN).then(|| Time::from_micros(at))
    }

    /// Whether rows wait long for their commit: for half as long as a request waits at most, or in more than half of the
    /// queue.
    pub fn is_behind(&self) -> bool {
        let stalled = self.shared.stalled.load(Ordering::Acquire);
        self.healthy() && (stalled || self.queued() > self.shared.queue_limit / 2)
    }

    /// Rows that an anchor knows and that are missing, until `audit acknowledge`.
    pub fn lost(&self) -> Option<OpenLoss> {
        self.shared.lost()
    }

    /// Whether rows were lost since this process started, and that is not acknowledged: it knows which transids they used.
    pub fn lost_while_running(&self) -> bool {
        self.shared.lost_while_running.load(Ordering::Acquire)
    }

    /// The number of acknowledgements of losses since the start.
    pub fn acknowledgements(&self) -> u64 {
        self.shared.acknowledgements.load(Ordering::Acquire)
    }

    /// The alarms that the audit raises.
    pub fn alarms(&self) -> &Alarms {
        &self.shared.alarms
    }

    /// The number of queued rows.
    pub fn queued(&self) -> usize {
        self.shared.queue.len()
    }

    /// Commits the queued rows, checkpoints, and ends the writer thread. Blocks until that is done.
    pub fn close(&self) {
        self.shared.queue.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the audit's writer thread panicked");
        }
    }
}

impl Drop for AuditStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Appended {
    /// Blocks until the row is committed or refused. Not for async code, which awaits instead.
    ///
    /// # Errors
    /// When it is not in the audit.
    ///
    /// # Panics
    /// When called from async code.
    pub fn wait(self) -> Result<(), AuditUnavailable> {
        match self.0 {
            Progress::Refused(why) => Err(why),
            Progress::Waiting(result) => result.blocking_recv().unwrap_or(Err(AuditUnavailable::Failed)),
        }
    }
}

impl Future for Appended {
    type Output = Result<(), AuditUnavailable>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Progress::Refused(why) => Poll::Ready(Err(*why)),
            // A writer that panicked has dropped the sender.
            Progress::Waiting(result) => {
                Pin::new(result).poll(cx).map(|got| got.unwrap_or(Err(AuditUnavailable::Failed)))
            }
        }
    }
}

impl Noted {
    /// Blocks until the row is committed or refused. Not for async code, which awaits instead.
    ///
    /// # Errors
    /// When it is not in the audit.
    ///
    /// # Panics
    /// When called from async code.
    pub fn wait(self) -> Result<i64, AuditUnavailable> {
        self.0?.blocking_recv().unwrap_or(Err(AuditUnavailable::Failed))
    }
}

impl Future for Noted {
    type Output = Result<i64, AuditUnavailable>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Err(why) => Poll::Ready(Err(*why)),
            // A writer that panicked has dropped the sender.
            Ok(number) => Pin::new(number).poll(cx).map(|got| got.unwrap_or(Err(AuditUnavailable::Failed))),
        }
    }
}

impl From<PushError> for AuditUnavailable {
    fn from(why: PushError) -> Self {
        match why {
            PushError::Full => Self::Full,
            PushError::Closed => Self::Closed,
        }
    }
}

impl fmt::Display for AuditUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many audit records wait for the disk; ask again, or give it a faster one",
            Self::Failed => "the audit record could not be written; the log says why",
            Self::Closed => "the audit is closed: the proxy is shutting down",
        })
    }
}

impl std::error::Error for AuditUnavailable {}

#[cfg(test)]
pub(super) mod tests;
