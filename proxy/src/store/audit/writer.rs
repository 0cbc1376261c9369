//! The writer thread: commits all rows that have arrived in one transaction of the current segment.
//!
//! Between batches it runs maintenance: a step of the index when idle; every second, the notes that commands left for it;
//! after the first batch of a start and every `anchor_every`, it signs the head and seals segments that have ended.

mod busy;
mod recovery;
mod removed;
mod seal;
mod segment;
pub(crate) mod shared;
pub(crate) mod waiters;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::removed::EndedSegments;
use self::seal::Sealer;
use self::segment::Segment;
use self::shared::{Awaited, Entry, Shared};
use super::evidence::anchor::AnchorSigner;
use super::evidence::lost::{self, Losses};
use super::log::columns::NoteRow;
use super::log::disk_space::DiskSpace;
use super::log::link::ClosedSegment;
use super::log::month::{self, Month};
use super::log::notes::{self, Notes};
use super::log::row::Row;
use super::{AuditUnavailable, Options};
use crate::alarms::Condition;
use crate::clock::{Clock, Time};
use crate::language::text;
use crate::store::queue::{Consumer, Received};
use crate::store::{StoreError, atomic_file};

/// The pause after a first failure; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts, and so the delay until a disk that works again is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The interval of checks: the disk's free space and the WAL's length while rows are written; the segment's path, without
/// rows too.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The interval of searches for notes that commands have left.
const NOTES_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    dir: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    clock: Clock,
    anchor_signer: AnchorSigner,
    sealer: Sealer,
    notes: Notes,
    /// The month of the current segment, and its end. It never goes back.
    month: Month,
    ends: Time,
    /// None after a failure, until the pause has ended; still open while its WAL cannot be settled.
    segment: Option<Segment>,
    /// The segment that was closed after a failure.
    closed: Option<ClosedSegment>,
    /// Rows without a waiter that could not be written yet.
    kept: Vec<Row>,
    /// While the WAL may show frames that the disk lacks: the number of failures to settle it.
    unsettled: Option<u32>,
    /// This process writes nothing more.
    ended: bool,
    backoff: Option<Backoff>,
    /// By the monotonic clock: the next maintenance, and the next checks of the disk, of the segment's path and of notes.
    maintenance_at: Duration,
    disk_check_at: Duration,
    path_check_at: Duration,
    notes_at: Duration,
    /// Rows that are missing, by the notes.
    losses: Losses,
    ended_segments: EndedSegments,
    /// Whether this start has committed a batch: then an anchor is due.
    has_committed: bool,
    /// The last row that an anchor covers.
    anchored: Option<i64>,
}

/// Rows without a waiter that are kept while nothing can be written.
const KEPT: usize = 8_192;

/// The backoff since the first failure after a success.
struct Backoff {
    pause: Duration,
    /// By the monotonic clock.
    retry_at: Duration,
}

impl Writer {
    /// Opens the segment of this month, or the newest one if the clock is earlier.
    pub(super) fn open(
        dir: &Path,
        options: Options,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        atomic_file::sweep(dir, &["audit-", "note-"]);
        let this = Month::of(clock.now());
        let month = month::list(dir)?.first().map_or(this, |&newest| newest.max(this));
        // Before a missing segment is created again.
        let losses = lost::at_start(dir, clock.now())?;
        shared.set_lost(&losses);
        let segment = Some(Segment::open(dir, month, &options, None)?);
        let key_changed =
            |detail| notes::leave(dir, &NoteRow { at: clock.now(), what: "key-changed", detail });
        let anchor_signer = AnchorSigner::open(dir, options.mode(), key_changed)?;
        let (maintenance_at, disk_check_at, path_check_at) =
            (clock.monotonic(), Duration::ZERO, Duration::ZERO);
        let mut writer = Self {
            dir: dir.to_owned(),
            options,
            shared,
            clock,
            anchor_signer,
            sealer: Sealer::default(),
            notes: Notes::default(),
            month,
            ends: month.end(),
            segment,
            closed: None,
            kept: Vec::new(),
            unsettled: None,
            ended: false,
            backoff: None,
            maintenance_at,
            disk_check_at,
            path_check_at,
            notes_at: maintenance_at,
            losses,
            ended_segments: EndedSegments::default(),
            has_committed: false,
            anchored: None,
        };
        // Before the first request: without room for its record nothing is sent to the carrier.
        writer.attempt(|_| Ok(()));
        Ok(writer)
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // Dropped after the queue is closed, also in a panic.
        let _waiters = shared.waiters.close_on_drop();
        let _failure = shared.failure.thread_guard("audit-writer");
        let consumer = shared.queue.consumer();
        let mut batch = Vec::new();
        shared.busy.toggle();
        while !self.ended {
            self.check_path();
            self.run_maintenance();
            self.index_when_idle(&consumer);
            self.check_disk_when_idle(&consumer);
            let pause = self.backoff.as_ref().map(|backoff| backoff.pause);
            let timeout = pause.unwrap_or(CHECK_EVERY).min(self.options.anchor_every).min(NOTES_EVERY);
            shared.busy.toggle();
            let taken = consumer.take(&mut batch, Some(timeout));
            shared.busy.toggle();
            match taken {
                Received::Items => self.commit_batch(&mut batch),
                // While `/ready` says no, no traffic may come: recover without it.
                Received::TimedOut if self.backoff.is_some() => self.recover(),
                Received::TimedOut => {}
                Received::Closed => break,
            }
        }
        if self.ended {
            let missed = self.shared.take_gap().map(Row::Gap);
            if missed.is_some() || !self.kept.is_empty() {
                self.report_dropped(missed.as_ref(), self.kept.len());
            }
            // No checkpoint: the disk may lack frames that the WAL shows.
            return self.sealer.finish();
        }
        self.finish();
    }

    /// Commits a batch, in one transaction per segment, and notifies the waiters.
    fn commit_batch(&mut self, batch: &mut Vec<Entry>) {
        while let Some(first) = batch.first() {
            if let Some(at) = self.later_month(first.row.at()) {
                self.roll(at);
            }
            let rolls = |entry: &Entry| self.later_month(entry.row.at()).is_some();
            let count = batch.iter().position(rolls).unwrap_or(batch.len());
            // The count of requests without a record is the first row after them.
            let missed = self.shared.take_gap().map(Row::Gap);
            let kept = std::mem::take(&mut self.kept);
            let rows =
                || missed.iter().chain(kept.iter()).chain(batch[..count].iter().map(|entry| &entry.row));
            self.attempt(|segment| segment.commit(rows()));
            let result = if self.backoff.is_some() { Err(AuditUnavailable::Failed) } else { Ok(()) };
            if !self.has_committed && result.is_ok() {
                self.has_committed = true;
                self.maintenance_at = Duration::ZERO;
            }
            let last = self.segment.as_ref().map(|segment| segment.head().last);
            let numbers = last.map_or(0, |last| last - i64::try_from(count).unwrap_or(i64::MAX) + 1)..;
            if result.is_err() {
                self.kept = kept;
            }
            let (mut awaited, mut refused) = (0, 0);
            for (number, entry) in numbers.zip(batch.drain(..count)) {
                match entry.awaited {
                    Awaited::Not if result.is_err() => self.keep(entry.row),
                    Awaited::Not => {}
                    Awaited::Queued => {
                        awaited += 1;
                        refused += usize::from(entry.row.is_refusal());
                    }
                    // A caller that has gone away gets no number.
                    Awaited::Numbered(waiter) => drop(waiter.send(result.map(|()| number))),
                }
            }
            let waiting = self.shared.waiters.leave(awaited);
            if result.is_err() {
                if let Some(Row::Gap(gap)) = missed {
                    self.shared.add_gap(gap);
                }
                // With the waiters that timed out before: they have no record either.
                self.shared.missed(awaited, refused, self.clock.now());
            }
            self.shared.waiters.notify(waiting, result);
        }
    }

    /// Keeps a row without a waiter, to be written with the next batch.
    fn keep(&mut self, row: Row) {
        if self.kept.len() < KEPT {
            self.kept.push(row);
        } else if !self.shared.incomplete.swap(true, Ordering::AcqRel) {
            tracing::error!("rows of carrier calls are dropped: too many wait for the audit");
        }
    }

    /// Makes a step of the index when idle. Otherwise the next commit makes it.
    fn index_when_idle(&mut self, consumer: &Consumer<'_, Entry>) {
        let is_pending = self.segment.as_ref().is_some_and(Segment::index_is_pending);
        if is_pending && self.backoff.is_none() && consumer.is_idle() {
            self.attempt(Segment::index);
        }
    }

    /// Checks the free space when idle, so that no lookup is sent that could not be recorded.
    fn check_disk_when_idle(&mut self, consumer: &Consumer<'_, Entry>) {
        if self.backoff.is_none() && self.clock.monotonic() >= self.disk_check_at && consumer.is_idle() {
            self.attempt(|_| Ok(()));
        }
    }

    /// Tries whether the disk works again; writes the rows and the count that are kept.
    fn recover(&mut self) {
        let missed = self.shared.take_gap().map(Row::Gap);
        let kept = std::mem::take(&mut self.kept);
        let rows = || missed.iter().chain(kept.iter());
        self.attempt(|segment| match rows().next() {
            Some(_) => segment.commit(rows()),
            None => segment.probe(),
        });
        if self.backoff.is_some() {
            if let Some(Row::Gap(gap)) = missed {
                self.shared.add_gap(gap);
            }
            self.kept = kept;
        }
    }

    /// The time that decides the month of a row of `at`, if that month is a later one. A clock that was set forward begins
    /// no month before it is trusted.
    fn later_month(&self, at: Time) -> Option<Time> {
        (at >= self.ends).then(|| at.min(self.clock.believed())).filter(|&at| at >= self.ends)
    }

    /// Leaves the segment; the next attempt opens that of a later month.
    fn roll(&mut self, at: Time) {
        if let Some(segment) = self.segment.take() {
            match segment.is_in_place().unwrap_or(true) {
                true => {
                    self.anchor(&segment);
                    self.closed = Some(self.close(segment));
                }
                false => self.leave_missing(segment),
            }
        }
        self.month = Month::of(at);
        self.ends = self.month.end();
        // The segment is sealed once its successor exists.
        self.maintenance_at = self.clock.monotonic();
    }

    /// Runs `act` on the segment, which it opens if necessary, unless it is too early after a failure. Retries
    /// once if a sync failed and the WAL could be settled at once.
    fn attempt(&mut self, act: impl Fn(&mut Segment) -> Result<(), StoreError>) {
        let now = self.clock.monotonic();
        if self.backoff.as_ref().is_some_and(|backoff| now < backoff.retry_at) {
            return;
        }
        let done = self.check_disk_space(now).and_then(|()| self.act(&act));
        match done {
            Ok(()) => {
                if self.backoff.take().is_some() {
                    tracing::info!("audit records are written again");
                    self.shared.alarms.clear(Condition::Audit);
                    self.shared.alarms.clear(Condition::AuditLocked);
                }
            }
            Err(error) => {
                self.shared.alarms.raise(
                    Condition::Audit,
                    text!(
                        "audit records cannot be written: {error}; the proxy tries again by itself and needs no restart; do not \
                         remove files of [store] dir",
                        "审计记录无法写入：{error}；请检查磁盘和挂载；代理会自动重试，无需重启；不要删除 [store] dir 中的文件"
                    ),
                );
                let pause = match &self.backoff {
                    // One attempt is left: it is made when the disk may work again.
                    _ if self.unsettled.is_some() => LONGEST_PAUSE,
                    None => FIRST_PAUSE,
                    Some(backoff) => (backoff.pause * 2).min(LONGEST_PAUSE),
                };
                self.backoff = Some(Backoff { pause, retry_at: now.saturating_add(pause) });
            }
        }
        self.shared.healthy.store(self.backoff.is_none(), Ordering::Release);
    }

    /// Stops while the disk still has room: a full disk harms everything else on it too.
    fn check_disk_space(&mut self, now: Duration) -> Result<(), StoreError> {
        if now < self.disk_check_at && self.backoff.is_none() {
            return Ok(());
        }
        self.disk_check_at = now.saturating_add(CHECK_EVERY);
        if let Some(segment) = &self.segment {
            self.shared.wal_bytes.store(segment.wal_bytes(), Ordering::Relaxed);
        }
        let disk = DiskSpace::of(&self.dir, self.options.min_free)?;
        self.shared.free_bytes.store(disk.free, Ordering::Relaxed);
        disk.report(&self.dir, &self.shared.alarms);
        disk.check(&self.dir)
    }

    /// Periodic maintenance. It must never delay a lookup; failures are logged.
    fn run_maintenance(&mut self) {
        let now = self.clock.monotonic();
        if now >= self.notes_at && self.backoff.is_none() {
            self.notes_at = now.saturating_add(NOTES_EVERY);
            self.take_notes();
        }
        if now < self.maintenance_at || self.backoff.is_some() {
            return;
        }
        self.maintenance_at = now.saturating_add(self.options.anchor_every);
        if let Some(segment) = self.segment.take() {
            self.anchor(&segment);
            self.segment = Some(segment);
        }
        self.sealer.start(&self.dir, self.month, self.options);
    }

    /// Writes rows for the notes of commands: only this process writes the chain.
    fn take_notes(&mut self) {
        let notes: Vec<_> = self.notes.pending(&self.dir);
        if notes.is_empty() {
            return;
        }
        let rows: Vec<Row> = notes.iter().map(|(_, note)| Row::Note(note.clone())).collect();
        self.attempt(|segment| segment.commit(rows.iter()));
        if self.backoff.is_none() {
            notes.iter().for_each(|(_, note)| self.ended_segments.take_note(note));
            notes.iter().for_each(|(path, _)| notes::done(path));
            let (any, acknowledged) = self.losses.take_rows(notes.iter().map(|(_, note)| note));
            if any {
                self.shared.set_lost(&self.losses);
                self.shared.acknowledgements.fetch_add(acknowledged, Ordering::AcqRel);
            }
        }
    }

    fn anchor(&mut self, segment: &Segment) {
        let head = segment.head();
        if self.anchored == Some(head.last) {
            self.shared.anchored(self.clock.now());
            return;
        }
        if let Err(error) = segment.sync() {
            tracing::error!(%error, "the audit's head is not signed: the disk may lack it");
            self.unsettled.get_or_insert(0);
            return;
        }
        let month = segment.month.to_string();
        match self.anchor_signer.anchor(self.clock.now(), month, head.last, head.hash) {
            Ok(()) => {
                self.anchored = Some(head.last);
                self.shared.anchored(self.clock.now());
            }
            Err(error) => tracing::error!(%error, "cannot write anchors.log: this anchor is only in the log"),
        }
    }

    /// At the end: writes the rows and the count that are kept, and anchors the head.
    fn finish(mut self) {
        let missed = self.shared.take_gap().map(Row::Gap);
        let kept = std::mem::take(&mut self.kept);
        let rows = || missed.iter().chain(kept.iter());
        if rows().next().is_some() {
            if let Some(backoff) = &mut self.backoff {
                // There is no later attempt.
                backoff.retry_at = Duration::ZERO;
            }
            self.attempt(|segment| segment.commit(rows()));
            if self.backoff.is_some() {
                self.report_dropped(missed.as_ref(), kept.len());
            }
        }
        if let Some(segment) = self.segment.take() {
            self.anchor(&segment);
            if self.unsettled.is_none() {
                segment.close_for_readers();
            }
        }
        self.sealer.finish();
    }

    /// Logs the counts of what the audit lacks after a stop.
    fn report_dropped(&self, missed: Option<&Row>, kept: usize) {
        let (answered, refused) = match missed {
            Some(Row::Gap(gap)) => (gap.answered, gap.refused),
            _ => (0, 0),
        };
        tracing::error!(
            answered,
            refused,
            rows = kept,
            "the audit is closed without these rows of carrier calls and without the count of requests that have no record"
        );
    }
}

#[cfg(test)]
mod tests;
