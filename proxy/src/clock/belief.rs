//! Steps of the wall clock, and what is believed after one.
//!
//! The wall clock is compared with the monotonic one, which nobody sets. Their difference is followed slowly, so that
//! slewing (NTP adjusts a clock by some percent at most) is no step and several small steps are one. While the wall clock
//! is ahead of what the difference says by more than a step, what the difference says is believed.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Moment, Time, micros};

/// A step forwards is believed when so long no `Date` of the carrier has contradicted it.
const UNDISPUTED: Duration = Duration::from_secs(600);

/// The difference follows the wall clock by this part of the time that passes.
const SLEW: u32 = 10;

/// 2000-01-01T00:00:00Z. A clock before this was never set: there is nothing to continue.
const UNSET: Time = Time::from_secs(946_684_800);

/// A suspension that is shorter is noise of the two readings.
const SUSPENDED: i64 = 1_000_000;

/// A difference that falls by less was slewed.
const SET_BACK: i64 = 1_000_000;

/// What counts as a step, and as drift.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Differences up to this are no step.
    pub step: Duration,
    /// A `Date` of the carrier that is as near confirms the wall clock; one that is farther is an alarm.
    pub drift: Duration,
}

impl Default for Limits {
    /// Those of the configuration's defaults.
    fn default() -> Self {
        Self { step: Duration::from_secs(300), drift: Duration::from_secs(60) }
    }
}

/// What a look for steps has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tick {
    /// The step since the last tick.
    pub step: Option<Step>,
    /// Whether the wall clock was set back since the last tick, by more than a second.
    pub set_back: bool,
    /// How far the wall clock is ahead of the time that is believed.
    pub unconfirmed: Duration,
}

/// A step of the wall clock against the monotonic one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// To a later time.
    Forwards,
    /// To an earlier time.
    Backwards,
}

impl Step {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forwards => "forwards",
            Self::Backwards => "backwards",
        }
    }
}

/// How far the carrier's clock is ahead of the wall clock, in seconds; negative when it is behind.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Drift {
    /// Seconds; 0 within what the exactness of a `Date` and the duration of the call leave open.
    pub seconds: f64,
    /// Whether it is more than `drift_alarm`.
    pub alarm: bool,
}

/// What is believed of the wall clock.
#[derive(Debug)]
pub(super) struct Belief {
    /// The wall clock less the monotonic one, in microseconds.
    offset: AtomicI64,
    /// [`Limits::step`], in microseconds.
    step: AtomicI64,
    /// What only ticks and comparisons need.
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    limits: Limits,
    /// The monotonic clock at the last look.
    ticks: Duration,
    /// For how long the machine was suspended, as far as that has been counted.
    slept: i64,
    /// Found by looks, and not reported by a tick yet.
    step: Option<Step>,
    set_back: bool,
    /// The wall clock less the monotonic one at the last look, believed or not.
    raw: i64,
    /// The step forwards that is not confirmed.
    ahead: Option<Ahead>,
    /// The wall clock is behind this.
    behind: Option<Behind>,
    /// The last `Date` of the carrier that was too far from the wall clock.
    differs: Option<f64>,
}

/// A step forwards.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// The time without it, and with it.
    from: Time,
    to: Time,
    /// By the monotonic clock: since then nothing has contradicted it.
    undisputed: Duration,
}

/// A time that had been reached before.
#[derive(Clone, Copy, Debug)]
struct Behind {
    /// That time.
    reached: Time,
    /// The wall clock when it was found to be behind.
    at: Time,
    /// Whether a record of an earlier process says so.
    recorded: bool,
}

impl Belief {
    pub(super) fn new(wall: Time, ticks: Duration, slept: i64) -> Self {
        let limits = Limits::default();
        Self {
            offset: AtomicI64::new(offset(wall, ticks)),
            step: AtomicI64::new(micros(limits.step)),
            watched: Mutex::new(Watched {
                limits,
                ticks,
                slept,
                step: None,
                set_back: false,
                raw: offset(wall, ticks),
                ahead: None,
                behind: None,
                differs: None,
            }),
        }
    }

    /// The wall time, or what it would be without a step forwards.
    pub(super) fn believed(&self, wall: Time, ticks: Duration) -> Time {
        let expected = self.expected(ticks);
        let ahead = wall.0.saturating_sub(expected.0) > self.step.load(Ordering::Relaxed);
        if ahead && expected >= UNSET { expected } else { wall }
    }

    /// The wall time if it has not been stepped.
    fn expected(&self, ticks: Duration) -> Time {
        Time(self.offset.load(Ordering::Relaxed).saturating_add(micros(ticks)))
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.watched().limits = limits;
        self.step.store(micros(limits.step), Ordering::Relaxed);
    }

    pub(super) fn newest_record(&self, wall: Time, at: Time) {
        let mut watched = self.watched();
        let behind = wall.plus(watched.limits.step) < at;
        watched.behind = behind.then_some(Behind { reached: at, at: wall, recorded: true });
    }

    pub(super) fn tick(&self, now: Moment, slept: i64) -> Tick {
        let mut watched = self.watched();
        // A suspended machine's wall clock went on.
        let suspended = slept.saturating_sub(watched.slept);
        if suspended > SUSPENDED {
            self.offset.fetch_add(suspended, Ordering::Relaxed);
            watched.slept = slept;
        }
        self.look(&mut watched, now);
        if let Some(ahead) = watched.ahead
            && now.monotonic.saturating_sub(ahead.undisputed) >= UNDISPUTED
        {
            tracing::warn!(
                at = %now.wall,
                "the wall clock is believed from now on: in ten minutes no Date of the carrier has contradicted its step"
            );
            self.adopt(&mut watched, now);
        }
        let believed = self.believed(now.wall, now.monotonic);
        Tick {
            step: watched.step.take(),
            set_back: std::mem::take(&mut watched.set_back),
            unconfirmed: now.wall.since(believed),
        }
    }

    /// Compares the clocks.
    fn look(&self, watched: &mut Watched, now: Moment) {
        let passed = now.monotonic.saturating_sub(watched.ticks);
        watched.ticks = now.monotonic;
        let raw = offset(now.wall, now.monotonic);
        watched.set_back |= raw < watched.raw.saturating_sub(SET_BACK);
        watched.raw = raw;
        let (expected, limit) = (self.expected(now.monotonic), watched.limits.step);
        let difference = now.wall.0.saturating_sub(expected.0);
        if difference > micros(limit) && expected < UNSET {
            tracing::info!(at = %now.wall, "the wall clock was set");
            self.adopt(watched, now);
        } else if difference > micros(limit) {
            if watched.ahead.is_none() {
                tracing::error!(from = %expected, to = %now.wall, "the wall clock was set forwards");
                watched.step = Some(Step::Forwards);
                watched.differs = None;
                watched.ahead = Some(Ahead { from: expected, to: now.wall, undisputed: now.monotonic });
            }
        } else if difference < -micros(limit) {
            tracing::error!(from = %expected, to = %now.wall, "the wall clock was set back");
            watched.step = Some(Step::Backwards);
            watched.differs = None;
            watched.behind = Some(Behind { reached: expected, at: now.wall, recorded: false });
            self.adopt(watched, now);
        } else {
            if watched.ahead.take().is_some() {
                tracing::info!(at = %now.wall, "the wall clock was set forwards, and is back where it was");
                watched.differs = None;
            }
            let most = micros(passed / SLEW);
            self.offset.fetch_add(difference.clamp(-most, most), Ordering::Relaxed);
        }
        watched.behind = watched.behind.filter(|behind| now.wall.plus(limit) < behind.reached);
    }

    pub(super) fn compare(&self, sent: Moment, received: Moment, theirs: Time) -> Drift {
        let mut watched = self.watched();
        self.look(&mut watched, received);
        // The wall clock may have been stepped meanwhile: only the end is read from it.
        let began = received.wall.minus(received.monotonic.saturating_sub(sent.monotonic));
        // A Date has whole seconds: less than one apart is no drift.
        let ahead = theirs.since(received.wall);
        let behind = began.since(theirs).saturating_sub(Duration::from_secs(1));
        let seconds = if ahead > Duration::ZERO { ahead.as_secs_f64() } else { -behind.as_secs_f64() };
        let alarm = ahead.max(behind) > watched.limits.drift;
        if alarm {
            watched.differs = Some(seconds);
            if let Some(step) = &mut watched.ahead {
                step.undisputed = received.monotonic;
            }
        } else {
            watched.differs = None;
            watched.behind = None;
            if self.believed(received.wall, received.monotonic) < received.wall {
                tracing::info!(at = %received.wall, "a Date of the carrier has confirmed the wall clock after its step");
                self.adopt(&mut watched, received);
            }
        }
        Drift { seconds, alarm }
    }

    pub(super) fn alarm(&self) -> Option<String> {
        let watched = self.watched();
        let mut found = Vec::new();
        if let Some(Ahead { from, to, .. }) = watched.ahead {
            found.push(format!(
                "the wall clock was set forwards by {} s, from {from} to {to}, and nothing has confirmed that: months, used \
                 transids and calls to the carrier keep to the time from before, until the carrier's Date agrees or ten \
                 minutes have passed without one",
                to.since(from).as_secs()
            ));
        }
        if let Some(Behind { reached, at, recorded }) = watched.behind {
            let by = reached.since(at).as_secs();
            found.push(if recorded {
                format!("the wall clock was {by} s behind the newest audit record at the start: {at}, the record {reached}")
            } else {
                format!("the wall clock was set back by {by} s, from {reached} to {at}")
            });
        }
        if let Some(seconds) = watched.differs {
            let (by, direction) = (seconds.abs(), if seconds > 0.0 { "behind" } else { "ahead of" });
            found.push(format!(
                "this machine's clock differs from the carrier's Date: it is {by:.0} s {direction} it, and transids carry \
                 its time"
            ));
        }
        if found.is_empty() {
            return None;
        }
        Some(format!(
            "{}; check the clock (`timedatectl`, `chronyc tracking`) and set it if it is wrong",
            found.join("; ")
        ))
    }

    /// Believes the wall clock.
    fn adopt(&self, watched: &mut Watched, now: Moment) {
        watched.ahead = None;
        self.offset.store(offset(now.wall, now.monotonic), Ordering::Relaxed);
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        // Whole at every step.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offset(wall: Time, ticks: Duration) -> i64 {
    wall.0.saturating_sub(micros(ticks))
}
