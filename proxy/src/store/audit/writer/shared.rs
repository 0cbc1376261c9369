//! State that the writer shares with the callers that append rows: the queue, the waiters, the state of writing.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::busy::Busy;
use super::waiters::Waiters;
use crate::alarms::{Alarms, Condition};
use crate::clock::{Clock, Time};
use crate::store::Failure;
use crate::store::audit::evidence::lost::{Losses, OpenLoss};
use crate::store::audit::log::columns::Gap;
use crate::store::audit::log::row::Row;
use crate::store::audit::{AuditUnavailable, Bodies, OnFailure, Options};
use crate::store::queue::Queue;

pub(crate) struct Shared {
    pub(crate) queue: Queue<Entry>,
    /// Rows that may wait in the queue.
    pub(crate) queue_limit: usize,
    /// [`Options::min_free`].
    pub(crate) min_free: u64,
    pub(crate) waiters: Waiters,
    pub(crate) healthy: AtomicBool,
    pub(crate) busy: Busy,
    /// Whether a row has waited for its commit, or the writer has spent on one piece of work, half the time that a waiter
    /// waits at most.
    pub(crate) stalled: AtomicBool,
    /// Whether a row without a waiter was dropped.
    pub(crate) incomplete: AtomicBool,
    pub(crate) on_failure: OnFailure,
    pub(crate) bodies: Bodies,
    /// The requests without a record since the last commit.
    pub(crate) gap: Mutex<Option<Gap>>,
    /// The number of requests without a record since the start.
    pub(crate) missed: AtomicU64,
    pub(crate) wal_bytes: AtomicU64,
    /// Free bytes of the disk at the last check.
    pub(crate) free_bytes: AtomicU64,
    /// When an anchor last covered all rows, in microseconds; `i64::MIN` before the first one.
    pub(crate) anchored_at: AtomicI64,
    pub(crate) alarms: Alarms,
    /// [`OpenLoss::through`] in microseconds; `i64::MIN` when nothing is lost.
    pub(crate) lost_through: AtomicI64,
    pub(crate) lost_while_running: AtomicBool,
    pub(crate) acknowledgements: AtomicU64,
    pub(crate) failure: Failure,
}

impl Shared {
    pub(crate) fn new(options: &Options, failure: Failure, clock: &Clock) -> Self {
        Self {
            queue: Queue::new(options.queue),
            queue_limit: options.queue,
            min_free: options.min_free,
            waiters: Waiters::default(),
            healthy: AtomicBool::new(true),
            busy: Busy::default(),
            stalled: AtomicBool::new(false),
            incomplete: AtomicBool::new(false),
            on_failure: options.on_failure,
            bodies: options.bodies,
            gap: Mutex::new(None),
            missed: AtomicU64::new(0),
            wal_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(0),
            anchored_at: AtomicI64::new(i64::MIN),
            alarms: Alarms::new(clock.clone()),
            lost_through: AtomicI64::new(i64::MIN),
            lost_while_running: AtomicBool::new(false),
            acknowledgements: AtomicU64::new(0),
            failure,
        }
    }

    /// Applies what the notes say about missing rows.
    pub(crate) fn set_lost(&self, losses: &Losses) {
        match losses.alarm() {
            Some(text) => self.alarms.raise(Condition::RowsLost, text),
            None => self.alarms.clear(Condition::RowsLost),
        }
        let through = losses.through().map_or(i64::MIN, Time::as_micros);
        self.lost_through.store(through, Ordering::Release);
        self.lost_while_running.store(losses.lost_while_running(), Ordering::Release);
    }

    /// Notes that an anchor covers all rows at this time.
    pub(crate) fn anchored(&self, at: Time) {
        self.anchored_at.store(at.as_micros(), Ordering::Relaxed);
    }

    pub(crate) fn lost(&self) -> Option<OpenLoss> {
        let through = self.lost_through.load(Ordering::Acquire);
        (through > i64::MIN).then(|| OpenLoss { through: Time::from_micros(through) })
    }

    /// Counts requests without a record, of which so many were refused for another reason.
    pub(crate) fn missed(&self, count: usize, refusals: usize, at: Time) {
        if count > 0 {
            let (count, refusals) = (count as u64, refusals as u64);
            self.missed.fetch_add(count, Ordering::Relaxed);
            let (answered, refused) = match self.on_failure {
                OnFailure::Answer => (count.saturating_sub(refusals), refusals),
                OnFailure::Refuse => (0, count),
            };
            self.add_gap(Gap { first: at, last: at, answered, refused });
        }
    }

    /// Adds to the requests without a record.
    pub(crate) fn add_gap(&self, more: Gap) {
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        *gap = Some(match *gap {
            None => more,
            Some(gap) => Gap {
                first: gap.first.min(more.first),
                last: gap.last.max(more.last),
                answered: gap.answered + more.answered,
                refused: gap.refused + more.refused,
            },
        });
    }

    pub(crate) fn take_gap(&self) -> Option<Gap> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A queued row.
pub(crate) struct Entry {
    pub(crate) row: Row,
    pub(crate) awaited: Awaited,
}

/// The receiver of a row's commit result.
pub(crate) enum Awaited {
    /// None.
    Not,
    /// A waiter in the queue of waiters.
    Queued,
    /// A caller that needs the row's number.
    Numbered(oneshot::Sender<Result<i64, AuditUnavailable>>),
}
