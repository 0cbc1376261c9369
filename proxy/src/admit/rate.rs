//! A client's rate limit: lookups per second on average, and at once.
//!
//! Its state is one moment ([`gcra`](crate::gcra)), so a client costs 16 bytes and a reload may change its rate at any
//! time.

use std::time::Duration;

use crate::config::Rate;
use crate::gcra::{Gcra, TheoreticalArrivalTime};

/// State of a client's rate limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket(TheoreticalArrivalTime);

impl Bucket {
    /// Counts one lookup at the monotonic moment `now`; an error says how long to wait for it.
    pub(super) fn acquire(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        let limit = Gcra::new(Duration::from_secs(1) / rate.per_second.get(), rate.burst.get());
        limit.acquire(&mut self.0, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let some = |n| NonZeroU32::new(n).unwrap();
        Rate { per_second: some(per_second), burst: some(burst) }
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_average_holds() {
        let mut bucket = Bucket::default();
        let at = Duration::from_millis;
        let start = at(5_000);
        for _ in 0..3 {
            assert_eq!(bucket.acquire(rate(2, 3), start), Ok(()));
        }
        assert_eq!(bucket.acquire(rate(2, 3), start), Err(at(500)));
        assert_eq!(bucket.acquire(rate(2, 3), start), Err(at(500)), "a refusal costs nothing");
        assert_eq!(bucket.acquire(rate(2, 3), start + at(500)), Ok(()));
        assert_eq!(bucket.acquire(rate(2, 3), start + at(999)), Err(at(1)));
    }

    #[test]
    fn a_changed_rate_holds_at_once() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.acquire(rate(1, 1), Duration::ZERO), Ok(()));
        assert!(bucket.acquire(rate(1, 1), Duration::ZERO).is_err());
        assert_eq!(bucket.acquire(rate(1, 2), Duration::ZERO), Ok(()));
    }
}
