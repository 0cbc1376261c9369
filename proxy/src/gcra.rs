//! Generic cell rate algorithm (ITU-T I.371 Annex A): a rate limit whose state is one moment.
//!
//! Events that conform are one *emission interval* apart on average; a *burst* of them may come at once. The state is the
//! *theoretical arrival time*: the moment at which the next event would come if all came evenly. An event conforms
//! unless it is earlier than that by more than the *burst tolerance*. In any span of time `w` no more than
//! `burst + w / interval` events conform. Time is an argument, from a monotonic clock.

use std::time::Duration;

/// Emission interval and burst tolerance of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gcra {
    emission_interval: Duration,
    burst_tolerance: Duration,
}

/// Theoretical arrival time of the next event. It does not depend on the limit, which may change between two events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TheoreticalArrivalTime(Duration);

impl Gcra {
    /// A limit of one event per `emission_interval` and `burst` events at once, of which there is at least one.
    pub fn new(emission_interval: Duration, burst: u32) -> Self {
        let burst_tolerance = emission_interval.saturating_mul(burst.saturating_sub(1));
        Self { emission_interval, burst_tolerance }
    }

    /// The time between two events on average.
    pub fn emission_interval(&self) -> Duration {
        self.emission_interval
    }

    /// The time from `now` until an event conforms: zero if it does now.
    pub fn wait(&self, state: TheoreticalArrivalTime, now: Duration) -> Duration {
        state.0.saturating_sub(self.burst_tolerance).saturating_sub(now)
    }

    /// Counts an event that conforms.
    pub fn record(&self, state: &mut TheoreticalArrivalTime, now: Duration) {
        state.0 = state.0.max(now).saturating_add(self.emission_interval);
    }

    /// Counts an event if it conforms.
    ///
    /// # Errors
    /// The time until the event conforms; the state has not changed.
    pub fn acquire(&self, state: &mut TheoreticalArrivalTime, now: Duration) -> Result<(), Duration> {
        let wait = self.wait(*state, now);
        if wait.is_zero() {
            self.record(state, now);
            return Ok(());
        }
        Err(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_span_of_time_has_more_than_the_burst_and_one_event_per_interval(
            interval in 1_u64..500,
            burst in 1_u32..10,
            pauses in proptest::collection::vec(0_u64..1_000, 1..30),
        ) {
            let interval = Duration::from_millis(interval);
            let limit = Gcra::new(interval, burst);
            let (mut state, mut now) = (TheoreticalArrivalTime::default(), Duration::from_secs(3_600));
            let mut passed: Vec<Duration> = Vec::new();
            for pause in pauses {
                now += Duration::from_millis(pause);
                // As many as pass at once.
                while limit.acquire(&mut state, now).is_ok() {
                    passed.push(now);
                }
            }
            prop_assert!(passed.len() >= burst as usize, "the first burst passes whole");
            for (n, first) in passed.iter().enumerate() {
                for (last, at) in passed.iter().enumerate().skip(n) {
                    let most = u128::from(burst) + (*at - *first).as_nanos() / interval.as_nanos();
                    prop_assert!((last - n + 1) as u128 <= most, "{} events from {first:?} to {at:?}", last - n + 1);
                }
            }
        }

        #[test]
        fn an_event_conforms_after_the_wait_and_not_before(
            interval in 1_u64..500,
            burst in 1_u32..20,
            events in 0_usize..40,
        ) {
            let limit = Gcra::new(Duration::from_millis(interval), burst);
            let (mut state, now) = (TheoreticalArrivalTime::default(), Duration::from_secs(3_600));
            for _ in 0..events {
                let _ = limit.acquire(&mut state, now); // beyond the burst they do not conform
            }
            if let Err(wait) = limit.acquire(&mut state.clone(), now) {
                let (early, late) = (now + wait - Duration::from_nanos(1), now + wait);
                prop_assert!(limit.acquire(&mut state.clone(), early).is_err());
                prop_assert_eq!(limit.acquire(&mut state, late), Ok(()));
            }
        }

        #[test]
        fn a_source_that_keeps_to_the_interval_is_never_refused(
            interval in 1_u64..500,
            pauses in proptest::collection::vec(0_u64..1_000, 1..100),
        ) {
            let interval = Duration::from_millis(interval);
            let limit = Gcra::new(interval, 1);
            let (mut state, mut now) = (TheoreticalArrivalTime::default(), Duration::ZERO);
            for pause in pauses {
                prop_assert_eq!(limit.acquire(&mut state, now), Ok(()));
                now += interval + Duration::from_millis(pause);
            }
        }
    }
}
