//! A series of events that counts as one condition: it begins with the first event and ends when none has followed for a
//! while. The log then has two lines, for its begin and for its end, and none per event.

use std::time::Duration;

use crate::clock::{Moment, Time};

/// A condition that holds, or has just ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Episode {
    began: Moment,
    /// The last event, by the monotonic clock.
    last: Duration,
    events: u64,
}

impl Episode {
    /// Begins with one event at this moment.
    pub fn begin(at: Moment) -> Self {
        Self { began: at, last: at.monotonic, events: 1 }
    }

    /// Counts a further event. `now` is the monotonic time.
    pub fn repeat(&mut self, now: Duration) {
        self.last = self.last.max(now);
        self.events = self.events.saturating_add(1);
    }

    /// Counts an event in `current`; returns whether it began the episode.
    pub fn record(current: &mut Option<Self>, at: Moment) -> bool {
        match current {
            Some(episode) => {
                episode.repeat(at.monotonic);
                false
            }
            None => {
                *current = Some(Self::begin(at));
                true
            }
        }
    }

    /// Whether no event has followed for `quiet`. `now` is the monotonic time.
    pub fn has_ended(&self, now: Duration, quiet: Duration) -> bool {
        now.saturating_sub(self.last) >= quiet
    }

    /// The wall time of its first event.
    pub fn since(&self) -> Time {
        self.began.wall
    }

    /// The time from its first event to `now`, a monotonic time, in whole milliseconds.
    pub fn lasted(&self, now: Duration) -> Duration {
        whole_millis(now.saturating_sub(self.began.monotonic))
    }

    /// The time from its first to its last event, in whole milliseconds.
    pub fn length(&self) -> Duration {
        self.lasted(self.last)
    }

    /// Its number of events.
    pub fn events(&self) -> u64 {
        self.events
    }
}

/// A duration for a log line, without the digits below a millisecond.
pub fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn it_begins_once_and_ends_after_a_quiet_time() {
        let (clock, hand) = Clock::manual(Time::from_secs(1_768_449_600));
        let quiet = Duration::from_secs(60);
        let mut current = None;
        assert!(Episode::record(&mut current, clock.moment()));
        hand.advance(Duration::from_secs(50));
        assert!(!Episode::record(&mut current, clock.moment()));
        hand.advance(Duration::from_secs(59));
        let episode = current.unwrap();
        assert!(!episode.has_ended(clock.monotonic(), quiet), "the second event counts");
        hand.advance(Duration::from_secs(1));
        assert!(episode.has_ended(clock.monotonic(), quiet));
        assert_eq!((episode.events(), episode.length()), (2, Duration::from_secs(50)));
        assert_eq!(episode.since(), Time::from_secs(1_768_449_600));
    }
}
