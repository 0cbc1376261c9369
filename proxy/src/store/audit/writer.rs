//! The one thread that writes the audit: everything that has come is one transaction of the current segment.
//!
//! Between batches it keeps house: a step of the index where there is one; every second, notes that commands left for it;
//! after the first batch of a start and every `anchor_every`, a signed head and the sealing of segments that are over.

mod busy;
mod recovery;
mod seal;
mod segment;
pub(crate) mod shared;
pub(crate) mod waiters;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::seal::Sealer;
use self::segment::Segment;
use self::shared::{Awaited, Entry, Shared};
use super::evidence::anchor::AnchorSigner;
use super::evidence::lost::{self, Standing};
use super::log::columns::NoteRow;
use super::log::disk_space;
use super::log::link::ClosedSegment;
use super::log::month::{self, Month};
use super::log::notes::{self, Notes};
use super::log::row::Row;
use super::{AuditUnavailable, Options};
use crate::alarms::Condition;
use crate::clock::{Clock, Time};
use crate::store::queue::{Consumer, Received};
use crate::store::{StoreError, atomic_file};

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts: how long a disk may be well again before it is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the disk is asked for its free space and the WAL for its length, while all is well and rows come; and how
/// often it is looked whether the segment is still at its path, without rows too.
const RESERVE_EVERY: Duration = Duration::from_secs(1);
/// How often the folder is searched for notes that commands have left.
const NOTES_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    dir: PathBuf,
    options: Options,
    shared: Arc<Shared>,
    clock: Clock,
    notary: AnchorSigner,
    sealer: Sealer,
    notes: Notes,
    /// The month written into, and where it ends. Never goes back.
    month: Month,
    ends: Time,
    /// None after a failure, until the pause is over; open still while its WAL cannot be settled.
    segment: Option<Segment>,
    /// Of the segment that was closed after a failure.
    known: Option<ClosedSegment>,
    /// Rows that nobody waits for and that could not be written yet.
    kept: Vec<Row>,
    /// While the disk may not have what the WAL shows: how often it could not be settled.
    unsettled: Option<u32>,
    /// Nothing more is written in this process.
    ended: bool,
    trouble: Option<Backoff>,
    /// By the monotonic clock: when the house is kept next, when the disk is asked, when the segment is looked for, and when
    /// notes are.
    house_at: Duration,
    reserve_at: Duration,
    look_at: Duration,
    notes_at: Duration,
    /// Rows that are missing, by the notes.
    standing: Standing,
    /// Whether a batch of this start is committed, and so an anchor due.
    begun: bool,
    /// The last row that an anchor covers.
    anchored: Option<i64>,
}

/// Rows of calls and counts that are kept while nothing can be written.
const KEPT: usize = 8_192;

/// Since the first failure after a success.
struct Backoff {
    pause: Duration,
    /// By the monotonic clock.
    retry_at: Duration,
}

impl Writer {
    /// Opens the segment of this month, or the newest if the clock is behind it.
    pub(super) fn open(
        dir: &Path,
        options: Options,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        atomic_file::sweep(dir, &["audit-", "note-"]);
        let this = Month::of(clock.now());
        let month = month::list(dir)?.first().map_or(this, |&newest| newest.max(this));
        // Before a segment that is gone is begun anew.
        let standing = lost::at_start(dir, clock.now())?;
        shared.set_lost(&standing);
        let segment = Some(Segment::open(dir, month, &options, None)?);
        let key_changed =
            |detail| notes::leave(dir, &NoteRow { at: clock.now(), what: "key-changed", detail });
        let notary = AnchorSigner::open(dir, options.mode(), key_changed)?;
        let (house_at, reserve_at, look_at) = (clock.monotonic(), Duration::ZERO, Duration::ZERO);
        Ok(Self {
            dir: dir.to_owned(),
            options,
            shared,
            clock,
            notary,
            sealer: Sealer::default(),
            notes: Notes::default(),
            month,
            ends: month.end(),
            segment,
            known: None,
            kept: Vec::new(),
            unsettled: None,
            ended: false,
            trouble: None,
            house_at,
            reserve_at,
            look_at,
            notes_at: house_at,
            standing,
            begun: false,
            anchored: None,
        })
    }

    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // Dropped after the queue was closed, by a panic too.
        let _waiters = shared.waiters.close_on_drop();
        let _failure = shared.failure.thread_guard("audit-writer");
        let taker = shared.queue.consumer();
        let mut batch = Vec::new();
        shared.busy.turn();
        while !self.ended {
            self.look();
            self.keep_house();
            self.use_leisure(&taker);
            let pause = self.trouble.as_ref().map(|trouble| trouble.pause);
            let patience = pause.unwrap_or(RESERVE_EVERY).min(self.options.anchor_every).min(NOTES_EVERY);
            shared.busy.turn();
            let taken = taker.take(&mut batch, Some(patience));
            shared.busy.turn();
            match taken {
                Received::Items => self.settle(&mut batch),
                // No traffic may come while `/ready` says no: recover without it.
                Received::TimedOut if self.trouble.is_some() => self.recover(),
                Received::TimedOut => {}
                Received::Closed => break,
            }
        }
        if self.ended {
            // Nothing is moved out of a WAL that the disk may not have.
            return self.sealer.finish();
        }
        self.finish();
    }

    /// Commits a batch, in as many transactions as it has segments, and tells who waits.
    fn settle(&mut self, batch: &mut Vec<Entry>) {
        while let Some(first) = batch.first() {
            if let Some(at) = self.later_month(first.row.at()) {
                self.roll(at);
            }
            let rolls = |entry: &Entry| self.later_month(entry.row.at()).is_some();
            let count = batch.iter().position(rolls).unwrap_or(batch.len());
            // What was missed is the first row written after it.
            let missed = self.shared.take_gap().map(Row::Gap);
            let kept = std::mem::take(&mut self.kept);
            let rows =
                || missed.iter().chain(kept.iter()).chain(batch[..count].iter().map(|entry| &entry.row));
            self.attempt(|segment| segment.commit(rows()));
            let result = if self.trouble.is_some() { Err(AuditUnavailable::Failed) } else { Ok(()) };
            if !self.begun && result.is_ok() {
                self.begun = true;
                self.house_at = Duration::ZERO;
            }
            let last = self.segment.as_ref().map(|segment| segment.head().last);
            let numbers = last.map_or(0, |last| last - i64::try_from(count).unwrap_or(i64::MAX) + 1)..;
            if result.is_err() {
                self.kept = kept;
            }
            let mut awaited = 0;
            for (number, entry) in numbers.zip(batch.drain(..count)) {
                match entry.awaited {
                    Awaited::Not if result.is_err() => self.keep(entry.row),
                    Awaited::Not => {}
                    Awaited::InLine => awaited += 1,
                    // One who has gone away is not told.
                    Awaited::Numbered(waiter) => drop(waiter.send(result.map(|()| number))),
                }
            }
            let waiting = self.shared.waiters.leave(awaited);
            if result.is_err() {
                if let Some(Row::Gap(gap)) = missed {
                    self.shared.miss(gap);
                }
                // Those too who were told before that it takes too long: they have no record either.
                self.shared.missed(awaited, self.clock.now());
            }
            self.shared.waiters.notify(waiting, result);
        }
    }

    /// Keeps a row that nobody waits for, to be written with what comes next.
    fn keep(&mut self, row: Row) {
        if self.kept.len() < KEPT {
            self.kept.push(row);
        } else if !self.shared.incomplete.swap(true, Ordering::AcqRel) {
            tracing::error!("rows of carrier calls are given up, since too many wait for the audit");
        }
    }

    /// A step of the index while nobody waits. Whoever comes meanwhile takes it along.
    fn use_leisure(&mut self, taker: &Consumer<'_, Entry>) {
        let behind = self.segment.as_ref().is_some_and(Segment::index_is_behind);
        if behind && self.trouble.is_none() && taker.is_idle() {
            self.attempt(Segment::index);
        }
    }

    /// Tries whether the disk is well again; what was missed meanwhile is written down at once.
    fn recover(&mut self) {
        let missed = self.shared.take_gap().map(Row::Gap);
        let kept = std::mem::take(&mut self.kept);
        let rows = || missed.iter().chain(kept.iter());
        self.attempt(|segment| match rows().next() {
            Some(_) => segment.commit(rows()),
            None => segment.probe(),
        });
        if self.trouble.is_some() {
            if let Some(Row::Gap(gap)) = missed {
                self.shared.miss(gap);
            }
            self.kept = kept;
        }
    }

    /// The time whose month a row of `at` is to be written into, if that is a later one. A clock that was set forwards
    /// begins no month before it is believed.
    fn later_month(&self, at: Time) -> Option<Time> {
        (at >= self.ends).then(|| at.min(self.clock.believed())).filter(|&at| at >= self.ends)
    }

    /// Leaves the segment for that of a later month.
    fn roll(&mut self, at: Time) {
        if let Some(segment) = self.segment.take() {
            self.anchor(&segment);
            self.close(segment);
        }
        self.month = Month::of(at);
        self.ends = self.month.end();
        // The segment left is sealed once its successor stands.
        self.house_at = self.clock.monotonic();
    }

    /// Does something with the segment, opened if need be, unless it is too early after a failure. It is done once more
    /// when a sync failed and the WAL could be settled at once.
    fn attempt(&mut self, act: impl Fn(&mut Segment) -> Result<(), StoreError>) {
        let now = self.clock.monotonic();
        if self.trouble.as_ref().is_some_and(|trouble| now < trouble.retry_at) {
            return;
        }
        let done = self.check_reserve(now).and_then(|()| self.act(&act));
        match done {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::info!("audit records are written again");
                    self.shared.alarms.clear(Condition::AuditLocked);
                }
            }
            Err(error) => {
                if self.trouble.is_none() {
                    tracing::error!(%error, "audit records cannot be written");
                }
                let pause = match &self.trouble {
                    // There is one more attempt: it is made when the disk may be well again.
                    _ if self.unsettled.is_some() => LONGEST_PAUSE,
                    None => FIRST_PAUSE,
                    Some(trouble) => (trouble.pause * 2).min(LONGEST_PAUSE),
                };
                self.trouble = Some(Backoff { pause, retry_at: now.saturating_add(pause) });
            }
        }
        self.shared.healthy.store(self.trouble.is_none(), Ordering::Release);
    }

    /// Stops before SQLite has to: a full disk hurts whatever else lives on it too.
    fn check_reserve(&mut self, now: Duration) -> Result<(), StoreError> {
        if now < self.reserve_at && self.trouble.is_none() {
            return Ok(());
        }
        self.reserve_at = now.saturating_add(RESERVE_EVERY);
        if let Some(segment) = &self.segment {
            self.shared.wal_bytes.store(segment.wal_bytes(), Ordering::Relaxed);
        }
        disk_space::check(&self.dir, self.options.min_free)
    }

    /// What is done now and then. None of it may keep a look-up from being answered: failures are logged.
    fn keep_house(&mut self) {
        let now = self.clock.monotonic();
        if now >= self.notes_at && self.trouble.is_none() {
            self.notes_at = now.saturating_add(NOTES_EVERY);
            self.take_notes();
        }
        if now < self.house_at || self.trouble.is_some() {
            return;
        }
        self.house_at = now.saturating_add(self.options.anchor_every);
        if let Some(segment) = self.segment.take() {
            self.anchor(&segment);
            self.segment = Some(segment);
        }
        self.sealer.begin(&self.dir, self.month, self.options);
    }

    /// Writes down what commands did to the audit while it was not theirs to write.
    fn take_notes(&mut self) {
        let notes: Vec<_> = self.notes.pending(&self.dir);
        if notes.is_empty() {
            return;
        }
        let rows: Vec<Row> = notes.iter().map(|(_, note)| Row::Note(note.clone())).collect();
        self.attempt(|segment| segment.commit(rows.iter()));
        if self.trouble.is_none() {
            notes.iter().for_each(|(path, _)| notes::done(path));
            let (any, acknowledged) = self.standing.take_rows(notes.iter().map(|(_, note)| note));
            if any {
                self.shared.set_lost(&self.standing);
                self.shared.acknowledgements.fetch_add(acknowledged, Ordering::AcqRel);
            }
        }
    }

    fn anchor(&mut self, segment: &Segment) {
        let head = segment.head();
        if self.anchored == Some(head.last) {
            return;
        }
        if let Err(error) = segment.sync() {
            tracing::error!(%error, "the audit's head is not signed: the disk does not have it");
            self.unsettled.get_or_insert(0);
            return;
        }
        let month = segment.month.to_string();
        match self.notary.anchor(self.clock.now(), month, head.last, head.hash) {
            Ok(()) => self.anchored = Some(head.last),
            Err(error) => tracing::error!(%error, "the audit's head is signed, but only in the log"),
        }
    }

    /// The last words: what was missed, and the head.
    fn finish(mut self) {
        let missed = self.shared.take_gap().map(Row::Gap);
        let kept = std::mem::take(&mut self.kept);
        let rows = || missed.iter().chain(kept.iter());
        if rows().next().is_some() {
            self.attempt(|segment| segment.commit(rows()));
        }
        if let Some(segment) = self.segment.take() {
            self.anchor(&segment);
            if self.unsettled.is_none() {
                segment.close_for_readers();
            }
        }
        self.sealer.finish();
    }
}

#[cfg(test)]
mod tests;
