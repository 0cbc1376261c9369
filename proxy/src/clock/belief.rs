//! Steps of the wall clock, and the time that is believed after one.
//!
//! The wall clock is compared with the monotonic clock, which cannot be set. The expected wall time is the monotonic time
//! plus an offset. The offset follows the wall clock slowly, so that slewing (NTP adjusts a clock by some percent at most)
//! is no step, and several small steps add up to one. While the wall clock is ahead of the expected time by more than a
//! step, the expected time is believed.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Moment, Time, micros};
use crate::language::{Text, text};

/// A step forwards is believed after this time in which no `Date` of the carrier has contradicted it.
const UNDISPUTED: Duration = Duration::from_secs(600);

/// The offset follows the wall clock by at most one part in this many of the time that passes.
const SLEW: u32 = 10;

/// 2000-01-01T00:00:00Z. A clock before this was never set, so there is no time to continue from.
const UNSET: Time = Time::from_secs(946_684_800);

/// A shorter suspension is noise of the two readings, in microseconds.
const SUSPENDED: i64 = 1_000_000;

/// An offset that falls by less was slewed, in microseconds.
const SET_BACK: i64 = 1_000_000;

/// Limits of steps and drift.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Greater differences are a step.
    pub step: Duration,
    /// A `Date` of the carrier within this confirms the wall clock; a greater difference raises an alarm.
    pub drift: Duration,
}

impl Default for Limits {
    /// The defaults of the configuration.
    fn default() -> Self {
        Self { step: Duration::from_secs(300), drift: Duration::from_secs(60) }
    }
}

/// Result of a check for steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tick {
    /// The step since the last tick.
    pub step: Option<Step>,
    /// Whether the wall clock was set back by more than a second since the last tick.
    pub set_back: bool,
    /// Time by which the wall clock is ahead of the believed time.
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

/// Difference between the carrier's clock and the wall clock.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Drift {
    /// Seconds by which the carrier's clock is ahead; 0 within the resolution of a `Date` and the duration of the call.
    pub seconds: f64,
    /// Whether the difference is greater than `drift_alarm`.
    pub alarm: bool,
}

/// The believed time, and the known errors of the wall clock.
#[derive(Debug)]
pub(super) struct Belief {
    /// The wall clock less the monotonic one, in microseconds.
    offset: AtomicI64,
    /// [`Limits::step`], in microseconds.
    step: AtomicI64,
    /// State that only ticks and comparisons use.
    observed: Mutex<Observed>,
}

#[derive(Debug)]
struct Observed {
    limits: Limits,
    /// The monotonic clock at the last observation.
    monotonic: Duration,
    /// The suspensions of the machine that the offset contains.
    suspended: i64,
    /// Observed, and not reported by a tick yet.
    step: Option<Step>,
    set_back: bool,
    /// The wall clock less the monotonic one at the last observation, believed or not.
    raw_offset: i64,
    /// The step forwards that is not confirmed.
    ahead: Option<Ahead>,
    /// The wall clock is behind this.
    behind: Option<Behind>,
    /// Seconds by which the carrier's clock was ahead in its last `Date`, where that is an alarm.
    drift: Option<f64>,
}

/// A step forwards.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// The time without the step, and with it.
    from: Time,
    to: Time,
    /// The start or the last contradiction of the step, by the monotonic clock.
    undisputed: Duration,
}

/// A later time that had been reached before.
#[derive(Clone, Copy, Debug)]
struct Behind {
    reached: Time,
    /// The wall clock when it was found to be behind.
    at: Time,
    /// Whether a record of an earlier process has that time.
    recorded: bool,
}

impl Belief {
    pub(super) fn new(wall: Time, monotonic: Duration, suspended: i64) -> Self {
        let limits = Limits::default();
        Self {
            offset: AtomicI64::new(offset(wall, monotonic)),
            step: AtomicI64::new(micros(limits.step)),
            observed: Mutex::new(Observed {
                limits,
                monotonic,
                suspended,
                step: None,
                set_back: false,
                raw_offset: offset(wall, monotonic),
                ahead: None,
                behind: None,
                drift: None,
            }),
        }
    }

    /// The wall time, or the expected time after a step forwards.
    pub(super) fn believed(&self, wall: Time, monotonic: Duration) -> Time {
        let expected = self.expected(monotonic);
        let ahead = wall.0.saturating_sub(expected.0) > self.step.load(Ordering::Relaxed);
        if ahead && expected >= UNSET { expected } else { wall }
    }

    /// The wall time if the clock has not been stepped.
    fn expected(&self, monotonic: Duration) -> Time {
        Time(self.offset.load(Ordering::Relaxed).saturating_add(micros(monotonic)))
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.observed().limits = limits;
        self.step.store(micros(limits.step), Ordering::Relaxed);
    }

    pub(super) fn newest_record(&self, wall: Time, at: Time) {
        let mut observed = self.observed();
        let behind = wall.plus(observed.limits.step) < at;
        observed.behind = behind.then_some(Behind { reached: at, at: wall, recorded: true });
    }

    pub(super) fn tick(&self, now: Moment, suspended: i64) -> Tick {
        let mut observed = self.observed();
        // During a suspension only the wall clock moves.
        let new = suspended.saturating_sub(observed.suspended);
        if new > SUSPENDED {
            self.offset.fetch_add(new, Ordering::Relaxed);
            observed.suspended = suspended;
        }
        self.observe(&mut observed, now);
        if let Some(ahead) = observed.ahead
            && now.monotonic.saturating_sub(ahead.undisputed) >= UNDISPUTED
        {
            tracing::warn!(
                at = %now.wall,
                "the wall clock is believed from now on: in ten minutes no Date of the carrier has contradicted its step"
            );
            self.accept(&mut observed, now);
        }
        let believed = self.believed(now.wall, now.monotonic);
        Tick {
            step: observed.step.take(),
            set_back: std::mem::take(&mut observed.set_back),
            unconfirmed: now.wall.since(believed),
        }
    }

    /// Compares the wall clock with the expected time.
    fn observe(&self, observed: &mut Observed, now: Moment) {
        let passed = now.monotonic.saturating_sub(observed.monotonic);
        observed.monotonic = now.monotonic;
        let raw = offset(now.wall, now.monotonic);
        observed.set_back |= raw < observed.raw_offset.saturating_sub(SET_BACK);
        observed.raw_offset = raw;
        let (expected, limit) = (self.expected(now.monotonic), observed.limits.step);
        let difference = now.wall.0.saturating_sub(expected.0);
        if difference > micros(limit) && expected < UNSET {
            tracing::info!(at = %now.wall, "the wall clock was set");
            self.accept(observed, now);
        } else if difference > micros(limit) {
            if observed.ahead.is_none() {
                tracing::error!(from = %expected, to = %now.wall, "the wall clock was set forwards");
                observed.step = Some(Step::Forwards);
                observed.drift = None;
                observed.ahead = Some(Ahead { from: expected, to: now.wall, undisputed: now.monotonic });
            }
        } else if difference < -micros(limit) {
            tracing::error!(from = %expected, to = %now.wall, "the wall clock was set back");
            observed.step = Some(Step::Backwards);
            observed.drift = None;
            observed.behind = Some(Behind { reached: expected, at: now.wall, recorded: false });
            self.accept(observed, now);
        } else {
            if observed.ahead.take().is_some() {
                tracing::info!(at = %now.wall, "the wall clock was set forwards, and has been set back again");
                observed.drift = None;
            }
            let most = micros(passed / SLEW);
            self.offset.fetch_add(difference.clamp(-most, most), Ordering::Relaxed);
        }
        observed.behind = observed.behind.filter(|behind| now.wall.plus(limit) < behind.reached);
    }

    pub(super) fn compare(&self, sent: Moment, received: Moment, carrier_time: Time) -> Drift {
        let mut observed = self.observed();
        self.observe(&mut observed, received);
        // The wall clock may have been stepped during the call: only its end is read from it.
        let started = received.wall.minus(received.monotonic.saturating_sub(sent.monotonic));
        // A Date has whole seconds: a difference below one second is no drift.
        let ahead = carrier_time.since(received.wall);
        let behind = started.since(carrier_time).saturating_sub(Duration::from_secs(1));
        let seconds = if ahead > Duration::ZERO { ahead.as_secs_f64() } else { -behind.as_secs_f64() };
        let alarm = ahead.max(behind) > observed.limits.drift;
        if alarm {
            observed.drift = Some(seconds);
            if let Some(step) = &mut observed.ahead {
                step.undisputed = received.monotonic;
            }
        } else {
            observed.drift = None;
            observed.behind = None;
            if self.believed(received.wall, received.monotonic) < received.wall {
                tracing::info!(at = %received.wall, "a Date of the carrier has confirmed the wall clock after its step");
                self.accept(&mut observed, received);
            }
        }
        Drift { seconds, alarm }
    }

    pub(super) fn alarm(&self) -> Option<Text> {
        let observed = self.observed();
        let mut found = Vec::new();
        if let Some(Ahead { from, to, .. }) = observed.ahead {
            found.push(text!(
                "the wall clock was set forwards by {seconds} s, from {from} to {to}, and nothing has confirmed that: months, used \
                 transids and calls to the carrier keep to the time from before, until the carrier's Date agrees or ten \
                 minutes have passed without one",
                "系统时钟被向前拨了 {seconds} 秒，从 {from} 到 {to}，尚未得到证实：月份、用过的事务编码和对运营商的调用仍使用之前的\
                 时间，直到运营商的 Date 与之一致，或十分钟内没有收到 Date",
                seconds = to.since(from).as_secs()
            ));
        }
        if let Some(Behind { reached, at, recorded }) = observed.behind {
            let by = reached.since(at).as_secs();
            found.push(if recorded {
                text!(
                    "the wall clock was {by} s behind the newest audit record at the start: {at}, the record {reached}",
                    "启动时系统时钟比最新的审计记录晚 {by} 秒：时钟 {at}，记录 {reached}"
                )
            } else {
                text!(
                    "the wall clock was set back by {by} s, from {reached} to {at}",
                    "系统时钟被向后拨了 {by} 秒，从 {reached} 到 {at}"
                )
            });
        }
        if let Some(seconds) = observed.drift {
            let by = seconds.abs();
            found.push(if seconds > 0.0 {
                text!(
                    "this machine's clock differs from the carrier's Date: it is {by:.0} s behind it, and transids carry \
                     its time",
                    "本机时钟与运营商的 Date 不一致：慢 {by:.0} 秒，而事务编码使用本机时间"
                )
            } else {
                text!(
                    "this machine's clock differs from the carrier's Date: it is {by:.0} s ahead of it, and transids carry \
                     its time",
                    "本机时钟与运营商的 Date 不一致：快 {by:.0} 秒，而事务编码使用本机时间"
                )
            });
        }
        if !found.is_empty() {
            found.push(text!(
                "check the clock (`timedatectl`, `chronyc tracking`) and set it if it is wrong",
                "请检查时钟（`timedatectl`、`chronyc tracking`），如有错误则校正"
            ));
        }
        Text::join(&found)
    }

    /// Believes the wall clock from now on.
    fn accept(&self, observed: &mut Observed, now: Moment) {
        observed.ahead = None;
        self.offset.store(offset(now.wall, now.monotonic), Ordering::Relaxed);
    }

    fn observed(&self) -> MutexGuard<'_, Observed> {
        // Nothing under this lock can panic half-way through a change.
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offset(wall: Time, monotonic: Duration) -> i64 {
    wall.0.saturating_sub(micros(monotonic))
}
