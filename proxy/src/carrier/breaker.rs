//! Circuit breaker: after enough failures in a row no call is sent for a while, then one call probes the carrier.
//!
//! A closed breaker lets all calls pass and counts failures in a row; the one that reaches the threshold opens it. An open
//! breaker lets no call pass until its time has passed. A half-open breaker lets one call pass: its success closes the
//! breaker, its failure opens it for twice as long as before, up to a maximum. Time is an argument (monotonic, never
//! read here), and so is every result: a breaker is a value, guarded by its owner.

use std::time::Duration;

use crate::config::BreakerConfig;
use crate::metrics::BreakerState;

#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// All calls pass; failures in a row so far.
    Closed { failures: u32 },
    /// No call passes until then; `times` counts how often it opened in a row.
    Open { until: Duration, times: u32 },
    /// One call passes, or is in flight (`probing`).
    HalfOpen { probing: bool, times: u32 },
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, state: State::Closed { failures: 0 } }
    }

    /// The time until a call may pass; `None` if one may now.
    pub fn blocked(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => until.checked_sub(now).filter(|wait| !wait.is_zero()),
            // The duration of the probe is not known: the first open time is an estimate.
            State::HalfOpen { probing: true, .. } => Some(self.config.open),
            _ => None,
        }
    }

    /// Starts a call that [`Self::blocked`] has just allowed. Its result must follow: [`Self::succeed`],
    /// [`Self::fail`] or [`Self::release`].
    pub fn start_call(&mut self) {
        self.state = match self.state {
            State::Open { times, .. } | State::HalfOpen { times, .. } => {
                State::HalfOpen { probing: true, times }
            }
            closed => closed,
        };
    }

    /// Records a success. A call that passed before the breaker opened does not close it.
    pub fn succeed(&mut self) {
        if !matches!(self.state, State::Open { .. }) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// Records a failure; returns whether it opened the breaker. A call that passed before it opened changes nothing.
    pub fn fail(&mut self, now: Duration) -> bool {
        let times = match self.state {
            State::Open { .. } => return false,
            State::Closed { failures } if failures + 1 < self.config.failures => {
                self.state = State::Closed { failures: failures + 1 };
                return false;
            }
            State::Closed { .. } => 0,
            State::HalfOpen { times, .. } => times,
        };
        // Doubled each time; beyond 2^20 the maximum has long been reached.
        let wait = self.config.open.saturating_mul(1 << times.min(20)).min(self.config.max_open);
        self.state = State::Open { until: now.saturating_add(wait), times: times.saturating_add(1) };
        true
    }

    /// Records a result that does not concern this breaker.
    pub fn release(&mut self) {
        if let State::HalfOpen { probing, .. } = &mut self.state {
            *probing = false;
        }
    }

    /// The state, for metrics.
    pub fn state(&self, now: Duration) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until, .. } if until > now => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// The end of its time while it is open, also after it has passed; none while it is half-open or closed.
    pub fn open_until(&self) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Ends the time of an open breaker: the next call is the probe.
    pub fn end_open_time(&mut self, now: Duration) {
        if let State::Open { until, .. } = &mut self.state {
            *until = now.min(*until);
        }
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: BreakerConfig =
        BreakerConfig { failures: 3, open: Duration::from_secs(10), max_open: Duration::from_secs(40) };

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(CONFIG);
        assert_eq!([breaker.fail(at(0)), breaker.fail(at(0)), breaker.fail(at(0))], [false, false, true]);
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut breaker = Breaker::new(CONFIG);
        breaker.fail(at(0));
        breaker.fail(at(0));
        breaker.succeed();
        breaker.fail(at(0));
        breaker.fail(at(0));
        assert_eq!(breaker.blocked(at(0)), None);
        assert!(breaker.fail(at(0)));
        assert_eq!(breaker.blocked(at(0)), Some(at(10)));
        assert_eq!(breaker.blocked(at(4)), Some(at(6)));
    }

    #[test]
    fn one_probe_passes_and_decides() {
        let mut breaker = opened();
        assert_eq!(breaker.blocked(at(10)), None);
        breaker.start_call();
        assert!(breaker.blocked(at(10)).is_some(), "no second call passes during the probe");
        breaker.succeed();
        assert!(breaker.is_closed());
        assert_eq!(breaker.blocked(at(10)), None);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_the_maximum() {
        let mut breaker = opened();
        let mut now = at(10);
        for wait in [20, 40, 40] {
            breaker.start_call();
            assert!(breaker.fail(now));
            assert_eq!(breaker.blocked(now), Some(at(wait)));
            now += at(wait);
        }
        breaker.start_call();
        breaker.succeed();
        for _ in 0..3 {
            breaker.fail(now);
        }
        assert_eq!(breaker.blocked(now), Some(at(10)), "a success resets the open time");
    }

    #[test]
    fn a_call_from_before_it_opened_changes_nothing() {
        let mut breaker = opened();
        breaker.succeed();
        assert!(!breaker.fail(at(5)));
        assert_eq!(breaker.blocked(at(5)), Some(at(5)));
    }

    #[test]
    fn a_probe_without_a_result_lets_the_next_one_pass() {
        let mut breaker = opened();
        breaker.start_call();
        breaker.release();
        assert_eq!(breaker.blocked(at(10)), None);
        assert!(!breaker.is_closed());
    }

    #[test]
    fn the_time_of_an_open_breaker_can_be_ended() {
        let mut breaker = opened();
        assert_eq!(breaker.open_until(), Some(at(10)));
        breaker.end_open_time(at(3));
        assert_eq!((breaker.blocked(at(3)), breaker.is_closed()), (None, false));
        breaker.start_call();
        assert_eq!(breaker.open_until(), None);
        assert!(breaker.fail(at(3)));
        assert_eq!(breaker.blocked(at(3)), Some(at(20)), "the next time is as long as after a failed probe");
    }

    proptest! {
        #[test]
        fn it_is_never_blocked_for_longer_than_the_maximum(steps in proptest::collection::vec((0_u8..4, 0_u64..30), 0..60)) {
            let mut breaker = Breaker::new(CONFIG);
            let mut now = Duration::ZERO;
            for (step, secs) in steps {
                now += at(secs);
                match step {
                    0 if breaker.blocked(now).is_none() => breaker.start_call(),
                    1 => breaker.succeed(),
                    2 => { breaker.fail(now); }
                    3 => breaker.release(),
                    _ => {}
                }
                prop_assert!(breaker.blocked(now).unwrap_or_default() <= CONFIG.max_open);
            }
        }
    }
}
