//! The budget of one account: its calls per second, at once and per day.
//!
//! A call that may not be sent yet waits in a bounded queue: misses before refreshes, then in order of arrival, each for
//! a limited time. The rate is a [GCRA](crate::gcra) whose burst counts into the second: in no second, wherever it
//! begins, more than `per_second` calls leave. The calls of a day are leased in blocks (`budget/day.rs`). Refreshing
//! ahead never waits and has its own share of the rate.
//!
//! In a fleet the calls of a day come from its database (`budget/fleet_day.rs`), and so do the slots of the rate
//! (`budget/slots.rs`): refreshing ahead waits for one.

mod day;
mod fleet_day;
mod slots;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;
use tokio::sync::Notify;

use super::NotSent;
use crate::clock::Clock;
use crate::fleet::budget::SharedBudget;
use crate::gcra::{Gcra, TheoreticalArrivalTime};
use crate::metrics::BudgetGauges;
use crate::store::state::StateStore;
use crate::urgency::{SharedUrgency, Urgency};
use day::DailyQuota;
use fleet_day::FleetQuota;
use slots::{BookedSlots, SharedRate};

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
    day: Option<Day>,
    /// The rate of all nodes of a fleet; `rate` is then the share of this node while it is alone.
    shared: Option<SharedRate>,
    clock: Clock,
}

/// The calls of a day.
#[derive(Debug)]
enum Day {
    /// The quota of this node alone.
    Own(DailyQuota),
    /// The quota that the nodes of a fleet share.
    Fleet(FleetQuota),
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
    booked: BookedSlots,
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
    /// The budget of `appid`; the calls of today that `state` has leased are spent. `fleet` shares it with other nodes.
    pub fn new(
        limits: Limits,
        appid: AppId,
        state: Arc<StateStore>,
        fleet: Option<&Arc<SharedBudget>>,
        clock: Clock,
    ) -> Arc<Self> {
        let shared = limits.per_second.zip(fleet).map(|(rate, fleet)| SharedRate::new(rate, appid, fleet));
        let own = limits.per_second.map(|rate| shared.as_ref().map_or(rate.get(), SharedRate::own));
        let rate = own.map(|own| RateLimits::new(own.max(1), limits.refresh_ahead_percent));
        let day = limits.per_day.map(|limit| match fleet {
            Some(fleet) => Day::Fleet(FleetQuota::new(limit, appid, state, Arc::clone(fleet))),
            None => Day::Own(DailyQuota::new(limit, appid, state)),
        });
        Arc::new(Self { limits, rate, queue: Mutex::default(), day, shared, clock })
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
            day.check(&self.clock)?;
            // The database of a fleet is asked before the wait for a slot, which is valid for a moment only.
            day.prepare().await?;
        }
        let permit = self.wait_for_permit(urgency).await?;
        if let Some(day) = &self.day {
            day.take(&self.clock).await?;
        }
        Ok(permit)
    }

    pub fn headroom(&self) -> Headroom {
        let queue = self.lock_queue();
        let ready = self.could_leave(&queue, Urgency::Miss);
        Headroom {
            ready,
            waiting: Reverse(queue.waiting.len()),
            today: self.day.as_ref().map_or(1_000, |day| day.remaining_permille(&self.clock)),
            in_flight: Reverse(queue.in_flight),
        }
    }

    /// Adds what is missing to the reserve of a fleet's day; called after each beat.
    pub async fn keep_reserve(&self) {
        if let Some(Day::Fleet(day)) = &self.day {
            day.keep_reserve().await;
        }
    }

    /// Whether the day's calls are known to be spent.
    pub fn is_day_spent(&self) -> bool {
        self.day.as_ref().is_some_and(|day| day.check(&self.clock).is_err())
    }

    /// Its values at this moment, for metrics.
    pub fn gauges(&self) -> BudgetGauges {
        BudgetGauges {
            waiting: self.lock_queue().waiting.len(),
            per_second: self.limits.per_second.map(NonZeroU32::get),
            per_day: self.limits.per_day,
            remaining_today: self.day.as_ref().map(|day| day.remaining(&self.clock)),
            attainable_today: match &self.day {
                Some(Day::Fleet(day)) => Some(day.attainable()),
                Some(Day::Own(_)) | None => self.limits.per_day,
            },
            reserve_today: match &self.day {
                Some(Day::Fleet(day)) => Some(day.reserve()),
                Some(Day::Own(_)) | None => None,
            },
        }
    }

    /// Whether refreshing ahead has a share of a rate, and some of it remains now.
    pub fn can_refresh_ahead(&self) -> bool {
        let queue = self.lock_queue();
        self.rate.is_some_and(|rate| rate.refresh_ahead.is_some())
            && queue.waiting.is_empty()
            && self.could_leave(&queue, Urgency::Ahead)
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
                    Admission::Later(wait) => {
                        self.book(&mut queue);
                        wait
                    }
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
            // A slot of a fleet is booked for a call that waits.
            Urgency::Ahead => usize::from(self.shared.is_some()),
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
        let mut wait = match &self.shared {
            Some(shared) => match shared.wait(&queue.booked, now) {
                slots::Wait::Slot(wait) => wait,
                slots::Wait::Own => rate.calls.wait(queue.calls, now),
                slots::Wait::Booking(again) => return Admission::Later(again),
            },
            None => rate.calls.wait(queue.calls, now),
        };
        if urgency == Urgency::Ahead {
            wait = wait.max(self.ahead_wait(queue));
        }
        if wait.is_zero() { Admission::Now } else { Admission::Later(Some(wait)) }
    }

    /// Whether a call could leave at once, or after a booking while no call waits.
    fn could_leave(&self, queue: &Queue, urgency: Urgency) -> bool {
        let is_full = self.limits.concurrent.is_some_and(|limit| queue.in_flight >= limit.get());
        match (self.admission(queue, urgency), &self.shared) {
            (Admission::Now, _) => true,
            (Admission::Later(_), Some(shared)) => {
                let ahead = if urgency == Urgency::Ahead { self.ahead_wait(queue) } else { Duration::ZERO };
                !is_full && ahead.is_zero() && shared.could_book(&queue.booked, self.clock.monotonic())
            }
            (Admission::Later(_), None) => false,
        }
    }

    /// The time until a refresh ahead of expiry is within its share of the rate.
    fn ahead_wait(&self, queue: &Queue) -> Duration {
        let ahead = self.rate.and_then(|rate| rate.refresh_ahead);
        ahead.map_or(Duration::ZERO, |ahead| ahead.wait(queue.refresh_ahead, self.clock.monotonic()))
    }

    /// Books slots of a fleet for the calls that wait, unless a booking is in progress or too many calls are in flight.
    fn book(self: &Arc<Self>, queue: &mut Queue) {
        let Some(shared) = &self.shared else { return };
        let free =
            self.limits.concurrent.map_or(u32::MAX, |limit| limit.get().saturating_sub(queue.in_flight));
        let wanted = queue.waiting.len().min(usize::try_from(free).unwrap_or(usize::MAX));
        if wanted == 0 || !shared.start_booking(&mut queue.booked, self.clock.monotonic()) {
            return;
        }
        let budget = Arc::clone(self);
        tokio::spawn(async move {
            let Some(shared) = &budget.shared else { return };
            let booked = shared.book(wanted).await;
            let mut queue = budget.lock_queue();
            queue.booked.end_booking(booked, budget.clock.monotonic());
            queue.notify_first();
        });
    }

    fn grant(self: &Arc<Self>, queue: &mut Queue, urgency: Urgency) -> Permit {
        queue.in_flight += 1;
        if let Some(rate) = self.rate {
            let now = self.clock.monotonic();
            if !queue.booked.take(now) {
                rate.calls.record(&mut queue.calls, now);
            }
            if let (Urgency::Ahead, Some(ahead)) = (urgency, rate.refresh_ahead) {
                ahead.record(&mut queue.refresh_ahead, now);
            }
        }
        Permit { budget: Arc::clone(self) }
    }

    /// The refusal of one more call, with the time after which those in the queue will have left.
    fn queue_full(&self, queue: &Queue) -> NotSent {
        let interval = match (&self.shared, self.rate) {
            (Some(shared), _) => shared.interval(),
            (None, Some(rate)) => rate.calls.emission_interval(),
            (None, None) => Duration::from_millis(10),
        };
        let before = u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX);
        NotSent::Budget(interval.saturating_mul(before).max(Duration::from_secs(1)))
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Day {
    fn check(&self, clock: &Clock) -> Result<(), NotSent> {
        match self {
            Self::Own(day) => day.check(clock.believed()),
            Self::Fleet(day) => day.check(),
        }
    }

    async fn prepare(&self) -> Result<(), NotSent> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Fleet(day) => day.prepare().await,
        }
    }

    async fn take(&self, clock: &Clock) -> Result<(), NotSent> {
        match self {
            Self::Own(day) => day.take(clock.believed()).await,
            Self::Fleet(day) => day.take().await,
        }
    }

    fn remaining(&self, clock: &Clock) -> u64 {
        match self {
            Self::Own(day) => day.remaining(clock.believed()),
            Self::Fleet(day) => day.remaining(),
        }
    }

    fn remaining_permille(&self, clock: &Clock) -> u64 {
        match self {
            Self::Own(day) => day.remaining_permille(clock.believed()),
            Self::Fleet(day) => day.remaining_permille(),
        }
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
