//! The budget of one account: its calls per second, at once and per day.
//!
//! A call that may not be sent yet waits in a bounded queue: misses before refreshes, then in order of arrival, each for
//! a limited time. The rate is a [GCRA](crate::gcra) whose burst counts into the second: in no second, wherever it
//! begins, more than `per_second` calls leave. The calls of a day are leased in blocks (`budget/day.rs`). Refreshing
//! ahead never waits and has its own share of the rate.

mod day;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;
use tokio::sync::Notify;

use super::NotSent;
use crate::clock::Clock;
use crate::gcra::{Gcra, TheoreticalArrivalTime};
use crate::metrics::BudgetGauges;
use crate::store::state::StateStore;
use crate::urgency::{SharedUrgency, Urgency};
use day::DailyQuota;

/// Limits of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Calls that leave in any second; absent: no limit.
    pub per_second: Option<NonZeroU32>,
    /// Calls in flight; absent: no limit.
    pub concurrent: Option<NonZeroU32>,
    /// Calls from midnight to midnight at UTC+8; absent: no limit.
    pub per_day: Option<u64>,
    /// Calls in the queue; refreshes may take half of it.
    pub queue: usize,
    /// The longest time in the queue.
    pub queue_timeout: Duration,
    /// Percent of `per_second` that refreshing ahead may use.
    pub refresh_ahead_percent: u32,
}

/// The budget of one account.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    rate: Option<RateLimits>,
    queue: Mutex<Queue>,
    day: Option<DailyQuota>,
    clock: Clock,
}

/// Permission to make one call, which has ended when this is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
}

/// The rest of a budget, to choose among accounts: the greatest is the best choice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Headroom {
    /// Whether a call could leave at once.
    ready: bool,
    /// Calls in the queue, fewer first.
    waiting: Reverse<usize>,
    /// Thousandths of the day's calls that remain.
    today: u64,
    /// Calls in flight, fewer first.
    in_flight: Reverse<u32>,
}

/// The rate of all calls, and the share of it that refreshing ahead may use.
#[derive(Clone, Copy, Debug)]
struct RateLimits {
    calls: Gcra,
    refresh_ahead: Option<Gcra>,
}

/// Calls that wait, calls in flight, and the state of the rate limits.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<QueueKey, Arc<Notify>>,
    arrivals: u64,
    in_flight: u32,
    calls: TheoreticalArrivalTime,
    refresh_ahead: TheoreticalArrivalTime,
}

/// Position in the queue: the most urgent call first, then the earliest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct QueueKey {
    urgency: Urgency,
    arrival: u64,
}

enum Admission {
    Now,
    /// Wait this long, or (`None`) until notified.
    Later(Option<Duration>),
}

impl Budget {
    /// The budget of `appid`; the calls of today that `state` has leased are spent.
    pub fn new(limits: Limits, appid: AppId, state: Arc<StateStore>, clock: Clock) -> Arc<Self> {
        let rate = limits.per_second.map(|rate| RateLimits::new(rate.get(), limits.refresh_ahead_percent));
        let day = limits.per_day.map(|limit| DailyQuota::new(limit, appid, state));
        Arc::new(Self { limits, rate, queue: Mutex::default(), day, clock })
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits for a permit; a call that becomes more urgent meanwhile moves up in the queue.
    ///
    /// # Errors
    /// [`NotSent::Budget`] when the queue is full, the wait too long or the day's calls are spent.
    pub async fn take(self: &Arc<Self>, urgency: &SharedUrgency) -> Result<Permit, NotSent> {
        if let Some(day) = &self.day {
            day.check(self.clock.believed())?;
        }
        let permit = self.wait_for_permit(urgency).await?;
        if let Some(day) = &self.day {
            day.take(self.clock.believed()).await?;
        }
        Ok(permit)
    }

    pub fn headroom(&self) -> Headroom {
        let queue = self.lock_queue();
        let ready = matches!(self.admission(&queue, Urgency::Miss), Admission::Now);
        Headroom {
            ready,
            waiting: Reverse(queue.waiting.len()),
            today: self.day.as_ref().map_or(1_000, |day| day.remaining_permille(self.clock.believed())),
            in_flight: Reverse(queue.in_flight),
        }
    }

    /// Whether the day's calls are known to be spent.
    pub fn is_day_spent(&self) -> bool {
        self.day.as_ref().is_some_and(|day| day.check(self.clock.believed()).is_err())
    }

    /// Its values at this moment, for metrics.
    pub fn gauges(&self) -> BudgetGauges {
        BudgetGauges {
            waiting: self.lock_queue().waiting.len(),
            per_second: self.limits.per_second.map(NonZeroU32::get),
            per_day: self.limits.per_day,
            remaining_today: self.day.as_ref().map(|day| day.remaining(self.clock.believed())),
        }
    }

    /// Whether refreshing ahead has a share of a rate, and some of it remains now.
    pub fn can_refresh_ahead(&self) -> bool {
        let queue = self.lock_queue();
        self.rate.is_some_and(|rate| rate.refresh_ahead.is_some())
            && queue.waiting.is_empty()
            && matches!(self.admission(&queue, Urgency::Ahead), Admission::Now)
    }

    async fn wait_for_permit(self: &Arc<Self>, urgency: &SharedUrgency) -> Result<Permit, NotSent> {
        let mut entry = {
            let urgency = urgency.get();
            let mut queue = self.lock_queue();
            if queue.waiting.is_empty() && matches!(self.admission(&queue, urgency), Admission::Now) {
                return Ok(self.grant(&mut queue, urgency));
            }
            self.enqueue(&mut queue, urgency)?
        };
        let timeout = tokio::time::sleep(self.limits.queue_timeout);
        tokio::pin!(timeout);
        loop {
            let wait = {
                let mut queue = self.lock_queue();
                match self.admission_of(&queue, entry.key) {
                    Admission::Now => return Ok(self.grant(&mut queue, entry.key.urgency)),
                    Admission::Later(wait) => wait,
                }
            };
            // A manual clock may not move: then this checks again every millisecond.
            let wait = wait.map(|wait| wait.max(Duration::from_millis(1)));
            tokio::select! {
                () = entry.notify.notified() => {}
                () = urgency.raised_above(entry.key.urgency) => entry.reprioritize(urgency.get()),
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = &mut timeout => return Err(self.queue_full(&self.lock_queue())),
            }
        }
    }

    fn enqueue(self: &Arc<Self>, queue: &mut Queue, urgency: Urgency) -> Result<QueueEntry, NotSent> {
        let limit = match urgency {
            Urgency::Miss => self.limits.queue,
            Urgency::Refresh => self.limits.queue / 2,
            Urgency::Ahead => 0,
        };
        if queue.waiting.len() >= limit {
            return Err(self.queue_full(queue));
        }
        queue.arrivals += 1;
        let (key, notify) = (QueueKey { urgency, arrival: queue.arrivals }, Arc::new(Notify::new()));
        queue.waiting.insert(key, Arc::clone(&notify));
        Ok(QueueEntry { budget: Arc::clone(self), key, notify })
    }

    /// Whether the call of this queue entry may leave: only the first one may.
    fn admission_of(&self, queue: &Queue, key: QueueKey) -> Admission {
        match queue.waiting.first_key_value() {
            Some((first, _)) if *first == key => self.admission(queue, key.urgency),
            _ => Admission::Later(None),
        }
    }

    fn admission(&self, queue: &Queue, urgency: Urgency) -> Admission {
        if self.limits.concurrent.is_some_and(|limit| queue.in_flight >= limit.get()) {
            return Admission::Later(None);
        }
        let Some(rate) = self.rate else { return Admission::Now };
        let now = self.clock.monotonic();
        let mut wait = rate.calls.wait(queue.calls, now);
        if let (Urgency::Ahead, Some(ahead)) = (urgency, rate.refresh_ahead) {
            wait = wait.max(ahead.wait(queue.refresh_ahead, now));
        }
        if wait.is_zero() { Admission::Now } else { Admission::Later(Some(wait)) }
    }

    fn grant(self: &Arc<Self>, queue: &mut Queue, urgency: Urgency) -> Permit {
        queue.in_flight += 1;
        if let Some(rate) = self.rate {
            let now = self.clock.monotonic();
            rate.calls.record(&mut queue.calls, now);
            if let (Urgency::Ahead, Some(ahead)) = (urgency, rate.refresh_ahead) {
                ahead.record(&mut queue.refresh_ahead, now);
            }
        }
        Permit { budget: Arc::clone(self) }
    }

    /// The refusal of one more call, with the time after which those in the queue will have left.
    fn queue_full(&self, queue: &Queue) -> NotSent {
        let interval = self.rate.map_or(Duration::from_millis(10), |rate| rate.calls.emission_interval());
        let before = u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX);
        NotSent::Budget(interval.saturating_mul(before).max(Duration::from_secs(1)))
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateLimits {
    /// A tenth of the rate may leave at once after a pause; the interval is such that these and the calls that follow
    /// them within a second are `rate` calls: `burst + (rate - burst)`.
    fn new(rate: u32, refresh_ahead_percent: u32) -> Self {
        let burst = (rate / 10).max(1);
        let interval = Duration::from_secs(1) / (rate - burst + 1);
        let refresh_ahead = (refresh_ahead_percent > 0)
            .then(|| Gcra::new(interval * 100 / refresh_ahead_percent.min(100), 1));
        Self { calls: Gcra::new(interval, burst), refresh_ahead }
    }
}

impl Queue {
    fn notify_first(&self) {
        if let Some((_, notify)) = self.waiting.first_key_value() {
            notify.notify_one();
        }
    }
}

/// A call in the queue. When it leaves, with a permit or without, the next one is notified.
struct QueueEntry {
    budget: Arc<Budget>,
    key: QueueKey,
    notify: Arc<Notify>,
}

impl QueueEntry {
    /// Moves among the calls of this urgency, where its arrival decides.
    fn reprioritize(&mut self, urgency: Urgency) {
        let mut queue = self.budget.lock_queue();
        if let Some(notify) = queue.waiting.remove(&self.key) {
            self.key.urgency = urgency;
            queue.waiting.insert(self.key, notify);
        }
        // The first one may be second now, and another one the first.
        queue.notify_first();
    }
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        let mut queue = self.budget.lock_queue();
        queue.waiting.remove(&self.key);
        queue.notify_first();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut queue = self.budget.lock_queue();
        queue.in_flight -= 1;
        queue.notify_first();
    }
}

#[cfg(test)]
mod tests;
