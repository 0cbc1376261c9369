//! The only reader of the time: everything else is handed a [`Clock`], so that a test can set it.
//!
//! Wall time ([`Time`]) dates answers, transids and audit records and may be stepped by the operator or NTP.
//! Monotonic time ([`Clock::monotonic`]) measures how long something took and never steps back.
//! Deadlines are tokio timers, not readings of a clock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment of wall time: microseconds since the Unix epoch (UTC), as stored in every database of the proxy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Time(i64);

impl Time {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From whole seconds since the Unix epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch; 0 for a clock set before it.
    pub fn as_secs(self) -> u64 {
        u64::try_from(self.0.div_euclid(1_000_000)).unwrap_or(0)
    }

    /// This moment moved later by `by`, saturating.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// This moment moved earlier by `by`, saturating.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// How long after `earlier` this moment is; zero when it is not after it (a clock stepped back).
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Time {
    /// RFC 3339 at UTC+8, the carrier's zone, to the millisecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{:.3}", at.display_with_offset(jiff::tz::offset(8))),
            Err(_) => write!(f, "{} µs", self.0),
        }
    }
}

fn micros(by: Duration) -> i64 {
    i64::try_from(by.as_micros()).unwrap_or(i64::MAX)
}

/// One look at both clocks, for all that happens to a request without waiting: each look costs it 30 ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The wall time.
    pub wall: Time,
    /// [`Clock::monotonic`].
    pub ticks: Duration,
}

/// Where the time comes from: the system, or a hand-set value in tests.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `start` until its [`Hand`] moves it.
    pub fn manual(start: Time) -> (Self, Hand) {
        let now = Arc::new(AtomicI64::new(start.as_micros()));
        (Self(Source::Manual(Arc::clone(&now))), Hand(now))
    }

    /// The wall time. May be earlier than a previous reading: the operator can step the clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn now(&self) -> Time {
        match &self.0 {
            Source::System { .. } => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => Time(micros(since)),
                Err(before) => Time(-micros(before.duration())),
            },
            Source::Manual(now) => Time(now.load(Ordering::Acquire)),
        }
    }

    /// Both times.
    pub fn moment(&self) -> Moment {
        Moment { wall: self.now(), ticks: self.monotonic() }
    }

    /// Time since an arbitrary start, for measuring how long something took.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Manual(now) => Time(now.load(Ordering::Acquire)).since(Time::EPOCH),
        }
    }
}

/// The hand that moves a manual clock.
#[derive(Clone, Debug)]
pub struct Hand(Arc<AtomicI64>);

impl Hand {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(micros(by), Ordering::AcqRel);
    }

    /// Puts the clock anywhere, back included.
    pub fn set(&self, to: Time) {
        self.0.store(to.as_micros(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_stepped_back_gives_zero_not_a_panic() {
        let (clock, hand) = Clock::manual(Time::from_secs(1_000));
        let then = clock.now();
        hand.set(Time::from_secs(900));
        assert_eq!(clock.now().since(then), Duration::ZERO);
        hand.advance(Duration::from_secs(150));
        assert_eq!(clock.now().since(then), Duration::from_secs(50));
    }

    #[test]
    fn times_are_shown_in_the_carriers_zone() {
        assert_eq!(Time::from_micros(1_413_444_630_000_000).to_string(), "2014-10-16T15:30:30.000+08:00");
    }
}
