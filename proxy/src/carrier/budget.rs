//! The budget of one account: how many calls it may make a second, at once, and a day.
//!
//! A call that may not be sent yet waits its turn in a bounded queue: misses before refreshes, then in order of
//! arrival, each for a limited time. The rate is a GCRA whose burst counts into the second: no second, wherever it
//! begins, sees more than `per_second` calls leave. The day's calls are leased in blocks (`budget/day.rs`).
//! Refreshing ahead of need never waits and has a share of the rate of its own.

mod day;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;
use tokio::sync::Notify;

use super::NotSent;
use crate::clock::Clock;
use crate::metrics::BudgetGauges;
use crate::store::state::StateStore;
use crate::urgency::{SharedUrgency, Urgency};
use day::DailyQuota;

/// What an account may spend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Calls that leave in any second; absent: no limit.
    pub per_second: Option<NonZeroU32>,
    /// Calls under way at once; absent: no limit.
    pub concurrent: Option<NonZeroU32>,
    /// Calls from midnight to midnight at UTC+8; absent: no limit.
    pub per_day: Option<u64>,
    /// Calls that wait for their turn; refreshes get half of the places.
    pub queue: usize,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// Percent of `per_second` that refreshing ahead may use.
    pub refresh_ahead_percent: u32,
}

/// The budget of one account.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    rate: Option<Gcra>,
    queue: Mutex<Queue>,
    day: Option<DailyQuota>,
    clock: Clock,
}

/// Leave to make one call, which is over when this is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
}

/// What is left of a budget, to choose among accounts: the greatest is the best choice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Headroom {
    /// Whether a call could leave at once.
    ready: bool,
    /// How few wait already.
    waiting: std::cmp::Reverse<usize>,
    /// Thousandths of the day's calls that are left.
    today: u64,
    /// How few are under way.
    in_flight: std::cmp::Reverse<u32>,
}

/// The GCRA's constants.
#[derive(Clone, Copy, Debug)]
struct Gcra {
    interval: Duration,
    tolerance: Duration,
    refresh_ahead: Option<Duration>,
}

/// Who waits, what is under way, and when the next call may leave.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<(Urgency, u64), Arc<Notify>>,
    arrivals: u64,
    under_way: u32,
    /// Theoretical arrival times of the GCRA, on the monotonic clock.
    next: Duration,
    next_ahead: Duration,
}

enum Admission {
    Now,
    /// Not before this long; `None`: not before somebody tells.
    Later(Option<Duration>),
}

impl Budget {
    /// The budget of `appid`, nothing spent but what `state` knows of today.
    pub fn new(limits: Limits, appid: AppId, state: Arc<StateStore>, clock: Clock) -> Arc<Self> {
        let pace = limits.per_second.map(|rate| Gcra::of(rate.get(), limits.refresh_ahead_percent));
        let day = limits.per_day.map(|limit| DailyQuota::new(limit, appid, state));
        Arc::new(Self { limits, rate: pace, queue: Mutex::default(), day, clock })
    }

    /// What may be spent.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits for a turn, moving up in the queue when the call becomes more urgent.
    ///
    /// # Errors
    /// [`NotSent::Budget`] when the queue is full, the wait too long or the day's calls are spent.
    pub async fn take(self: &Arc<Self>, pressure: &SharedUrgency) -> Result<Permit, NotSent> {
        if let Some(day) = &self.day {
            day.check(self.clock.believed())?;
        }
        let permit = self.wait_for_permit(pressure).await?;
        if let Some(day) = &self.day {
            day.take(self.clock.believed()).await?;
        }
        Ok(permit)
    }

    /// What is left now.
    pub fn headroom(&self) -> Headroom {
        let desk = self.lock_queue();
        let ready = matches!(self.admission(&desk, Urgency::Miss), Admission::Now);
        Headroom {
            ready,
            waiting: std::cmp::Reverse(desk.waiting.len()),
            today: self.day.as_ref().map_or(1_000, |day| day.thousandths_left(self.clock.believed())),
            in_flight: std::cmp::Reverse(desk.under_way),
        }
    }

    /// Its values at this moment, for metrics.
    pub fn gauges(&self) -> BudgetGauges {
        BudgetGauges {
            waiting: self.lock_queue().waiting.len(),
            remaining_today: self.day.as_ref().map(|day| day.left(self.clock.believed())),
        }
    }

    /// Whether refreshing ahead has a share of a rate, and some of it left now.
    pub fn can_refresh_ahead(&self) -> bool {
        let desk = self.lock_queue();
        self.rate.is_some_and(|pace| pace.refresh_ahead.is_some())
            && desk.waiting.is_empty()
            && matches!(self.admission(&desk, Urgency::Ahead), Admission::Now)
    }

    async fn wait_for_permit(self: &Arc<Self>, pressure: &SharedUrgency) -> Result<Permit, NotSent> {
        let mut place = {
            let urgency = pressure.get();
            let mut desk = self.lock_queue();
            if desk.waiting.is_empty() && matches!(self.admission(&desk, urgency), Admission::Now) {
                return Ok(self.grant(&mut desk, urgency));
            }
            let places = match urgency {
                Urgency::Miss => self.limits.queue,
                Urgency::Refresh => self.limits.queue / 2,
                Urgency::Ahead => 0,
            };
            if desk.waiting.len() >= places {
                return Err(self.queue_full(&desk));
            }
            desk.arrivals += 1;
            let (key, turn) = ((urgency, desk.arrivals), Arc::new(Notify::new()));
            desk.waiting.insert(key, Arc::clone(&turn));
            QueueEntry { budget: Arc::clone(self), key, turn }
        };
        let patience = tokio::time::sleep(self.limits.queue_timeout);
        tokio::pin!(patience);
        loop {
            let wait = {
                let mut desk = self.lock_queue();
                match self.try_admit(&desk, place.key) {
                    Admission::Now => return Ok(self.grant(&mut desk, place.key.0)),
                    Admission::Later(wait) => wait,
                }
            };
            // A clock that a test sets may stand still: then this looks again and again, a millisecond apart.
            let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
            tokio::select! {
                () = place.turn.notified() => {}
                () = pressure.raised_above(place.key.0) => place.reprioritize(pressure.get()),
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = &mut patience => return Err(self.queue_full(&self.lock_queue())),
            }
        }
    }

    fn try_admit(&self, desk: &Queue, key: (Urgency, u64)) -> Admission {
        match desk.waiting.first_key_value() {
            Some((first, _)) if *first == key => self.admission(desk, key.0),
            _ => Admission::Later(None),
        }
    }

    fn admission(&self, desk: &Queue, urgency: Urgency) -> Admission {
        if self.limits.concurrent.is_some_and(|limit| desk.under_way >= limit.get()) {
            return Admission::Later(None);
        }
        let Some(pace) = self.rate else { return Admission::Now };
        let now = self.clock.monotonic();
        let mut wait = desk.next.saturating_sub(pace.tolerance).saturating_sub(now);
        if urgency == Urgency::Ahead {
            wait = wait.max(desk.next_ahead.saturating_sub(now));
        }
        if wait.is_zero() { Admission::Now } else { Admission::Later(Some(wait)) }
    }

    fn grant(self: &Arc<Self>, desk: &mut Queue, urgency: Urgency) -> Permit {
        desk.under_way += 1;
        if let Some(pace) = self.rate {
            let now = self.clock.monotonic();
            desk.next = desk.next.max(now) + pace.interval;
            if let (Urgency::Ahead, Some(ahead)) = (urgency, pace.refresh_ahead) {
                desk.next_ahead = desk.next_ahead.max(now) + ahead;
            }
        }
        Permit { budget: Arc::clone(self) }
    }

    /// What to say to one more: by when those who wait will be through.
    fn queue_full(&self, desk: &Queue) -> NotSent {
        let interval = self.rate.map_or(Duration::from_millis(10), |pace| pace.interval);
        let before = u32::try_from(desk.waiting.len()).unwrap_or(u32::MAX);
        NotSent::Budget(interval.saturating_mul(before).max(Duration::from_secs(1)))
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gcra {
    /// A tenth of the rate may leave together after a pause; the interval is such that these and what follows them
    /// within a second are `rate` calls: `burst + (rate - burst)`.
    fn of(rate: u32, ahead_percent: u32) -> Self {
        let burst = (rate / 10).max(1);
        let interval = Duration::from_secs(1) / (rate - burst + 1);
        let ahead = (ahead_percent > 0).then(|| interval * 100 / ahead_percent.min(100));
        Self { interval, tolerance: interval * (burst - 1), refresh_ahead: ahead }
    }
}

impl Queue {
    fn notify_next(&self) {
        if let Some((_, turn)) = self.waiting.first_key_value() {
            turn.notify_one();
        }
    }
}

/// A place in the queue: whoever leaves it, with a permit or without, tells the next.
struct QueueEntry {
    budget: Arc<Budget>,
    key: (Urgency, u64),
    turn: Arc<Notify>,
}

impl QueueEntry {
    /// Among those as urgent as this, by its own arrival.
    fn reprioritize(&mut self, urgency: Urgency) {
        let mut desk = self.budget.lock_queue();
        if let Some(turn) = desk.waiting.remove(&self.key) {
            self.key.0 = urgency;
            desk.waiting.insert(self.key, turn);
        }
        // Whoever was first may be second now, and whoever waited behind may be first.
        desk.notify_next();
    }
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        let mut desk = self.budget.lock_queue();
        desk.waiting.remove(&self.key);
        desk.notify_next();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut desk = self.budget.lock_queue();
        desk.under_way -= 1;
        desk.notify_next();
    }
}

#[cfg(test)]
mod tests;
