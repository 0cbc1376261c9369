//! The only reader of the time: everything else is handed a [`Clock`], so that a test can set it.
//!
//! Wall time ([`Time`]) dates responses, transids and audit records and may be stepped by the operator or NTP.
//! Monotonic time ([`Clock::monotonic`]) measures how long something took and never steps back.
//! Deadlines are tokio timers, not readings of a clock: see [`timeout`].
//!
//! The wall clock may be wrong, and a correct one may be corrected wrongly. So there is a third time, which is *believed*
//! ([`Moment::believed`]). It is the wall time, except after a step forwards by more than `[gateway]` `clock_skew`
//! against the monotonic clock: then it continues from before the step, until a `Date` of the carrier confirms the wall
//! clock or ten minutes have passed without one. A `Date` never sets anything. [`belief`] detects steps.
//!
//! | decision | time | because |
//! | --- | --- | --- |
//! | is a gateway's stamp inside the window | wall or believed | the gateway whose clock is right is answered, whichever of the two is wrong |
//! | which used transids are forgotten | believed | a wrong hour forgets nothing |
//! | which month is written | believed | a wrong hour ends no month |
//! | the stamp of a carrier call, the carrier's day | believed | a stamp ahead raises the lease in `state.db` for good |
//! | `at` of an audit record | wall | a record's `at` is never earlier than its transid's stamp less the window, so `horizon` finds every stamp |
//! | freshness | wall | an entry of the future is expired, so that a wrong hour shortens a lifetime and never prolongs it |
//!
//! A step backwards moves all of them at once. What has been forgotten under a later time stays refused until it is read
//! back from the audit (`admit::replay`).

pub mod belief;
mod timeout;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use belief::{Belief, Drift, Limits, Tick};
pub use timeout::{Elapsed, grace, timeout};

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
    /// The wall time, or what it would be without a step forwards that nothing has confirmed. Never after the wall time.
    pub believed: Time,
    /// [`Clock::monotonic`].
    pub monotonic: Duration,
}

/// Where the time comes from: the system, or a hand-set value in tests. Clones share what is believed.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    belief: Arc<Belief>,
}

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Manual(Arc<Hands>),
}

/// What a manual clock shows.
#[derive(Debug)]
struct Hands {
    wall: AtomicI64,
    ticks: AtomicI64,
    slept: AtomicI64,
}

impl Clock {
    /// The machine's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn system() -> Self {
        Self::new(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `start` until its [`ManualClock`] moves it.
    pub fn manual(start: Time) -> (Self, ManualClock) {
        let (wall, ticks) = (start.as_micros(), start.as_micros().max(0));
        let hands = Arc::new(Hands { wall: wall.into(), ticks: ticks.into(), slept: 0.into() });
        (Self::new(Source::Manual(Arc::clone(&hands))), ManualClock(hands))
    }

    fn new(source: Source) -> Self {
        let belief = Arc::new(Belief::new(source.wall(), source.ticks(), source.slept()));
        Self { source, belief }
    }

    /// The wall time. May be earlier than a previous reading: the operator can step the clock.
    pub fn now(&self) -> Time {
        self.source.wall()
    }

    /// The time that is believed.
    pub fn believed(&self) -> Time {
        self.moment().believed
    }

    /// All times.
    pub fn moment(&self) -> Moment {
        let (wall, ticks) = (self.source.wall(), self.source.ticks());
        Moment { wall, believed: self.belief.believed(wall, ticks), monotonic: ticks }
    }

    /// Time since an arbitrary start, for measuring how long something took. A suspended machine's does not go on.
    pub fn monotonic(&self) -> Duration {
        self.source.ticks()
    }

    /// Sets what counts as a step and as drift.
    pub fn set_limits(&self, limits: Limits) {
        self.belief.set_limits(limits);
    }

    /// Tells the time of the newest record that earlier processes left: a wall clock behind it is an alarm.
    pub fn newest_record(&self, at: Time) {
        self.belief.newest_record(self.now(), at);
    }

    /// Looks for a step. To be called once a second.
    pub fn tick(&self) -> Tick {
        self.belief.tick(self.moment(), self.source.slept())
    }

    /// Compares the wall clock with the carrier's, which showed `theirs` at some moment between `sent` and now. May
    /// confirm the wall clock.
    pub fn compare(&self, sent: Moment, theirs: Time) -> Drift {
        self.belief.compare(sent, self.moment(), theirs)
    }

    /// What is wrong with the wall clock, as far as is known.
    pub fn alarm(&self) -> Option<String> {
        self.belief.alarm()
    }
}

impl Source {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    fn wall(&self) -> Time {
        match self {
            Self::System { .. } => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => Time(micros(since)),
                Err(before) => Time(-micros(before.duration())),
            },
            Self::Manual(hands) => Time(hands.wall.load(Ordering::Acquire)),
        }
    }

    fn ticks(&self) -> Duration {
        match self {
            Self::System { started } => started.elapsed(),
            Self::Manual(hands) => Time(hands.ticks.load(Ordering::Acquire)).since(Time::EPOCH),
        }
    }

    /// How long the machine was suspended since its start, in microseconds: [`Source::monotonic`] leaves that out.
    fn slept(&self) -> i64 {
        match self {
            Self::System { .. } => {
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
            Self::Manual(hands) => hands.slept.load(Ordering::Acquire),
        }
    }
}

/// The hand that moves a manual clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

impl ManualClock {
    /// Lets time pass: both clocks move forward.
    pub fn advance(&self, by: Duration) {
        self.0.ticks.fetch_add(micros(by), Ordering::AcqRel);
        self.0.wall.fetch_add(micros(by), Ordering::AcqRel);
    }

    /// Steps the wall clock anywhere, back included. The monotonic one stands.
    pub fn set(&self, to: Time) {
        self.0.wall.store(to.as_micros(), Ordering::Release);
    }

    /// Steps the wall clock by so many seconds. The monotonic one stands.
    pub fn step(&self, seconds: i64) {
        self.0.wall.fetch_add(seconds.saturating_mul(1_000_000), Ordering::AcqRel);
    }

    /// Suspends the machine: the wall clock goes on, the monotonic one stands.
    pub fn suspend(&self, by: Duration) {
        self.0.slept.fetch_add(micros(by), Ordering::AcqRel);
        self.0.wall.fetch_add(micros(by), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
