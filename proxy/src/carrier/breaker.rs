//! A breaker: after enough failures in a row nothing is sent for a while, then one call finds out.
//!
//! Closed lets everything through and counts failures in a row; the one that reaches the threshold opens it. Open lets
//! nothing through until its time is over. Half-open lets one call through: its success closes the breaker, its failure
//! opens it for twice as long as before, up to a longest time. Time is an argument (monotonic, never read here), and
//! so is every outcome: a breaker is a value, guarded by whoever owns it.

use std::time::Duration;

use crate::metrics::BreakerState;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerConfig {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open the first time.
    pub open: Duration,
    /// How long it stays open at most.
    pub max_open: Duration,
}

/// One breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Everything passes; so many failures in a row.
    Closed { failures: u32 },
    /// Nothing passes until then; opened so many times in a row.
    Open { until: Duration, times: u32 },
    /// One call passes, or is under way.
    HalfOpen { probing: bool, times: u32 },
}

impl Breaker {
    /// A closed one.
    pub fn new(tolerance: BreakerConfig) -> Self {
        Self { config: tolerance, state: State::Closed { failures: 0 } }
    }

    /// How long to wait before a call may pass; `None` when one may now.
    pub fn blocked(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => until.checked_sub(now).filter(|wait| !wait.is_zero()),
            // How long the probe takes is not known: about as long as the breaker was open at first.
            State::HalfOpen { probing: true, .. } => Some(self.config.open),
            _ => None,
        }
    }

    /// A call passes, which [`Self::blocked`] has just allowed. Its outcome must be told: [`Self::succeed`],
    /// [`Self::fail`] or [`Self::release`].
    pub fn start_call(&mut self) {
        self.state = match self.state {
            State::Open { times, .. } | State::HalfOpen { times, .. } => {
                State::HalfOpen { probing: true, times }
            }
            closed => closed,
        };
    }

    /// A call succeeded. One that passed before the breaker opened does not close it.
    pub fn succeed(&mut self) {
        if !matches!(self.state, State::Open { .. }) {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// A call failed; says whether that opened the breaker. One that passed before it opened changes nothing.
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
        // Doubled each time; beyond 2^20 the longest has long been reached.
        let wait = self.config.open.saturating_mul(1 << times.min(20)).min(self.config.max_open);
        self.state = State::Open { until: now.saturating_add(wait), times: times.saturating_add(1) };
        true
    }

    /// A call ended without saying anything about what this breaker watches.
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

    /// Whether everything passes.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOLERANCE: BreakerConfig =
        BreakerConfig { failures: 3, open: Duration::from_secs(10), max_open: Duration::from_secs(40) };

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(TOLERANCE);
        assert_eq!([breaker.fail(at(0)), breaker.fail(at(0)), breaker.fail(at(0))], [false, false, true]);
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let mut breaker = Breaker::new(TOLERANCE);
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
        assert!(breaker.blocked(at(10)).is_some(), "a second call does not pass beside the probe");
        breaker.succeed();
        assert!(breaker.is_closed());
        assert_eq!(breaker.blocked(at(10)), None);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_the_longest() {
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
        assert_eq!(breaker.blocked(now), Some(at(10)), "a success forgets how often it opened");
    }

    #[test]
    fn what_passed_before_it_opened_changes_nothing() {
        let mut breaker = opened();
        breaker.succeed();
        assert!(!breaker.fail(at(5)));
        assert_eq!(breaker.blocked(at(5)), Some(at(5)));
    }

    #[test]
    fn a_probe_that_says_nothing_lets_the_next_one_pass() {
        let mut breaker = opened();
        breaker.start_call();
        breaker.release();
        assert_eq!(breaker.blocked(at(10)), None);
        assert!(!breaker.is_closed());
    }

    proptest! {
        #[test]
        fn it_is_never_blocked_for_longer_than_the_longest(steps in proptest::collection::vec((0_u8..4, 0_u64..30), 0..60)) {
            let mut breaker = Breaker::new(TOLERANCE);
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
                prop_assert!(breaker.blocked(now).unwrap_or_default() <= TOLERANCE.max_open);
            }
        }
    }
}
