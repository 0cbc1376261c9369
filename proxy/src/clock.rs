//! The only module that reads the time: all others receive a [`Clock`], which a test can set.
//!
//! Wall time ([`Time`]) dates responses, transids and audit records and may be stepped by the operator or NTP.
//! Monotonic time ([`Clock::monotonic`]) measures durations and never steps back. Deadlines are tokio timers, not
//! readings of a clock: see [`timeout`].
//!
//! The wall clock may be wrong, and a correct one may be set wrongly. So there is a third time, which is *believed*
//! ([`Moment::believed`]). It is the wall time, except after a step forwards by more than `[gateway]` `clock_skew`
//! against the monotonic clock: then it continues from before the step, until a `Date` of the carrier confirms the wall
//! clock or ten minutes have passed without one. A `Date` never sets a clock. [`belief`] detects steps.
//!
//! | decision | time | because |
//! | --- | --- | --- |
//! | is a gateway's stamp inside the window | wall or believed | a gateway whose clock is right is served, whichever of the two is wrong |
//! | which used transids expire | believed | an hour ahead by mistake expires none |
//! | which month is written | believed | an hour ahead by mistake ends no month |
//! | the stamp of a carrier call, the carrier's day | believed | a stamp ahead raises the lease in `state.db` permanently |
//! | `at` of an audit record | wall | a record's `at` is never earlier than its transid's stamp less the window, so `horizon` covers every stamp |
//! | freshness | wall | an entry of the future is expired, so a wrong hour shortens a lifetime and never prolongs it |
//!
//! A step backwards moves all of them at once. Transids that expired under a later time are refused until they have been
//! read back from the audit (`admit::replay`).

pub mod belief;
mod timeout;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::language::Text;
use belief::{Belief, Drift, Limits, Tick};
pub use timeout::{Elapsed, grace, timeout, timeout_exact};

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

    /// Whole seconds since the Unix epoch; 0 for an earlier time.
    pub fn as_secs(self) -> u64 {
        u64::try_from(self.0.div_euclid(1_000_000)).unwrap_or(0)
    }

    /// This time plus `by`, saturating.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    /// This time minus `by`, saturating.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// The time from `earlier` to this one; zero if it is not later (the clock was stepped back).
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

/// One reading of both clocks, for all phases of a request that do not wait: a reading costs 30 ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The wall time.
    pub wall: Time,
    /// The wall time without a step forwards that nothing has confirmed. Never after the wall time.
    pub believed: Time,
    /// [`Clock::monotonic`].
    pub monotonic: Duration,
}

/// The clocks of the machine, or a manual clock in tests. Clones share the believed time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    belief: Arc<Belief>,
}

#[derive(Clone, Debug)]
enum Source {
    System {
        started: Instant,
    },
    Manual(Arc<ManualTime>),
    /// The machine's clocks, moved by these.
    #[cfg(feature = "demo")]
    Late {
        started: Instant,
        moved: Arc<ManualTime>,
    },
}

/// Readings of a manual clock, or differences to the machine's clocks, in microseconds.
#[derive(Debug)]
struct ManualTime {
    wall: AtomicI64,
    monotonic: AtomicI64,
    suspended: AtomicI64,
}

impl Clock {
    /// The machine's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn system() -> Self {
        Self::new(Source::System { started: Instant::now() })
    }

    /// A clock that shows `start` until its [`ManualClock`] moves it.
    pub fn manual(start: Time) -> (Self, ManualClock) {
        let (wall, monotonic) = (start.as_micros(), start.as_micros().max(0));
        let time =
            Arc::new(ManualTime { wall: wall.into(), monotonic: monotonic.into(), suspended: 0.into() });
        (Self::new(Source::Manual(Arc::clone(&time))), ManualClock(time))
    }

    /// The machine's clocks, late by `by` until its [`ManualClock`] has advanced it by that: `demo --serve` writes a
    /// month of history with it.
    #[cfg(feature = "demo")]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn late(by: Duration) -> (Self, ManualClock) {
        let moved = Arc::new(ManualTime {
            wall: (-micros(by)).into(),
            monotonic: AtomicI64::default(),
            suspended: AtomicI64::default(),
        });
        let source = Source::Late { started: Instant::now(), moved: Arc::clone(&moved) };
        (Self::new(source), ManualClock(moved))
    }

    fn new(source: Source) -> Self {
        let belief = Arc::new(Belief::new(source.wall(), source.monotonic(), source.suspended()));
        Self { source, belief }
    }

    /// The wall time. It may be earlier than a previous reading: the operator can step the clock.
    pub fn now(&self) -> Time {
        self.source.wall()
    }

    /// [`Moment::believed`].
    pub fn believed(&self) -> Time {
        self.moment().believed
    }

    pub fn moment(&self) -> Moment {
        let (wall, monotonic) = (self.source.wall(), self.source.monotonic());
        Moment { wall, believed: self.belief.believed(wall, monotonic), monotonic }
    }

    /// Time since an arbitrary start, to measure durations. It stops while the machine is suspended.
    pub fn monotonic(&self) -> Duration {
        self.source.monotonic()
    }

    /// Sets the limits of steps and drift.
    pub fn set_limits(&self, limits: Limits) {
        self.belief.set_limits(limits);
    }

    /// Sets the time of the newest record of earlier processes: a wall clock behind it raises an alarm.
    pub fn newest_record(&self, at: Time) {
        self.belief.newest_record(self.now(), at);
    }

    /// Detects a step. Called once per second.
    pub fn tick(&self) -> Tick {
        self.belief.tick(self.moment(), self.source.suspended())
    }

    /// Compares the wall clock with the carrier's, which showed `carrier_time` at some moment between `sent` and now. May
    /// confirm the wall clock.
    pub fn compare(&self, sent: Moment, carrier_time: Time) -> Drift {
        self.belief.compare(sent, self.moment(), carrier_time)
    }

    /// The known errors of the wall clock, as the text of an alarm.
    pub fn alarm(&self) -> Option<Text> {
        self.belief.alarm()
    }
}

impl Source {
    fn wall(&self) -> Time {
        match self {
            Self::System { .. } => system_time(),
            Self::Manual(time) => Time(time.wall.load(Ordering::Acquire)),
            #[cfg(feature = "demo")]
            Self::Late { moved, .. } => {
                Time(system_time().0.saturating_add(moved.wall.load(Ordering::Acquire)))
            }
        }
    }

    fn monotonic(&self) -> Duration {
        match self {
            Self::System { started } => started.elapsed(),
            Self::Manual(time) => Time(time.monotonic.load(Ordering::Acquire)).since(Time::EPOCH),
            #[cfg(feature = "demo")]
            Self::Late { started, moved } => {
                started.elapsed() + Time(moved.monotonic.load(Ordering::Acquire)).since(Time::EPOCH)
            }
        }
    }

    /// Time in suspension since the start of the machine, in microseconds, which [`Source::monotonic`] does not count.
    fn suspended(&self) -> i64 {
        match self {
            Self::System { .. } => suspended_time(),
            Self::Manual(time) => time.suspended.load(Ordering::Acquire),
            #[cfg(feature = "demo")]
            Self::Late { .. } => suspended_time(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
fn system_time() -> Time {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Time(micros(since)),
        Err(before) => Time(-micros(before.duration())),
    }
}

/// Time in suspension since the start of the machine, in microseconds.
fn suspended_time() -> i64 {
    #[cfg(target_os = "linux")]
    {
        use rustix::time::{ClockId, clock_gettime};
        let read = |clock| {
            let at = clock_gettime(clock);
            at.tv_sec.saturating_mul(1_000_000).saturating_add(at.tv_nsec / 1_000)
        };
        // In this order, so that the difference is never too small by a pause between the two.
        let awake = read(ClockId::Monotonic);
        read(ClockId::Boottime).saturating_sub(awake)
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// The control of a manual clock, or of one that is late.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<ManualTime>);

impl ManualClock {
    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.0.monotonic.fetch_add(micros(by), Ordering::AcqRel);
        self.0.wall.fetch_add(micros(by), Ordering::AcqRel);
    }

    /// Sets the wall clock to any time, earlier ones included. The monotonic clock does not move. Not of a clock that is late.
    pub fn set(&self, to: Time) {
        self.0.wall.store(to.as_micros(), Ordering::Release);
    }

    /// Steps the wall clock by this many seconds. The monotonic clock does not move.
    pub fn step(&self, seconds: i64) {
        self.0.wall.fetch_add(seconds.saturating_mul(1_000_000), Ordering::AcqRel);
    }

    /// Suspends the machine: only the wall clock moves.
    pub fn suspend(&self, by: Duration) {
        self.0.suspended.fetch_add(micros(by), Ordering::AcqRel);
        self.0.wall.fetch_add(micros(by), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
