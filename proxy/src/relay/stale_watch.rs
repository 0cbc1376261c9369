//! The alarm that most lookups are refused since their stamps are outside the window.
//!
//! Whole minutes are compared, since one gateway with a wrong clock is no reason for an alarm, and neither is one replayed
//! request in a quiet minute.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::alarms::{Alarms, Condition};
use crate::language::text;
use crate::refusal::Refusal;

/// The period over which lookups are counted.
const PERIOD: Duration = Duration::from_secs(60);

/// Stale lookups per period below which there is no alarm.
const FEWEST: u64 = 20;

/// Counts the lookups of a period.
#[derive(Debug, Default)]
pub struct StaleWatch {
    all: AtomicU64,
    stale: AtomicU64,
    /// The end of the period, by the monotonic clock.
    ends: Mutex<Option<Duration>>,
}

impl StaleWatch {
    /// Counts a lookup that ended with this reason.
    pub(super) fn count(&self, reason: &str) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if reason == Refusal::STALE_TRANSID {
            self.stale.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// At the end of a period raises the alarm, or ends it; called on a ticker. `now` is the monotonic time.
    pub(super) fn report(&self, now: Duration, alarms: &Alarms) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = *ends.get_or_insert_with(|| now.saturating_add(PERIOD));
        if now < end {
            return;
        }
        *ends = Some(now.saturating_add(PERIOD));
        let (all, stale) = (self.all.swap(0, Ordering::Relaxed), self.stale.swap(0, Ordering::Relaxed));
        if stale < FEWEST || stale.saturating_mul(2) <= all {
            alarms.clear(Condition::StaleTransids);
            return;
        }
        alarms.raise(
            Condition::StaleTransids,
            text!(
                "{stale} of {all} lookups in a minute were refused with 7, since their transids are outside [gateway] \
                 clock_skew: compare this machine's clock (`chronyc tracking`), then the gateways' clocks; the audit has \
                 each transid's time. Do not widen clock_skew for it: a captured request is then accepted for longer",
                "一分钟内 {all} 次查询中有 {stale} 次以返回码 7 被拒绝，因为事务编码的时间超出 [gateway] clock_skew：先检查本机时钟\
                 （`chronyc tracking`），再检查网关的时钟；审计中有每个事务编码的时间。不要为此调大 clock_skew：那样截获的请求在\
                 更长时间内会被接受"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Time};

    #[test]
    fn a_minute_with_a_majority_of_stale_lookups_raises_the_alarm() {
        let alarms = Alarms::new(Clock::manual(Time::EPOCH).0);
        let watch = StaleWatch::default();
        let mut now = Duration::from_secs(1_000);
        watch.report(now, &alarms);
        let mut minute = |stale: u64, other: u64| {
            (0..stale).for_each(|_| watch.count(Refusal::STALE_TRANSID));
            (0..other).for_each(|_| watch.count(""));
            now += PERIOD;
            watch.report(now, &alarms);
            alarms.holds(Condition::StaleTransids)
        };
        assert!(!minute(FEWEST, FEWEST), "half of them are no majority");
        assert!(!minute(FEWEST - 1, 0), "too few to tell");
        assert!(minute(FEWEST, FEWEST - 1));
        assert!(!minute(0, 0));
    }
}
