//! Replays: a transid is answered once within the window.
//!
//! Entries are held by their stamp and leave with the window. What has left stays refused: the floor below which a
//! stamp is too old only rises, even when the machine's clock is stepped back.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::{AppId, Sequence, Transid};

use crate::clock::Time;

/// The transids that were answered, and the window around the clock in which one may be.
#[derive(Debug)]
pub struct Replay {
    skew: Duration,
    burnt: Mutex<Burnt>,
}

#[derive(Debug, Default)]
struct Burnt {
    /// By stamp, in Unix seconds.
    by_stamp: BTreeMap<u64, HashSet<(AppId, Sequence)>>,
    floor: u64,
}

/// What is wrong with a transid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// Its stamp is too far from the clock, or so old that it may have been forgotten.
    Stale,
    /// It was used before.
    Reused,
}

impl Replay {
    /// A table that allows stamps up to `skew` from the clock, either way.
    pub fn new(skew: Duration) -> Self {
        Self { skew, burnt: Mutex::default() }
    }

    /// Whether the stamp is inside the window.
    ///
    /// # Errors
    /// [`Unusable::Stale`].
    pub fn check_window(&self, transid: &Transid, now: Time) -> Result<(), Unusable> {
        let stamp = transid.stamp().to_unix();
        let (now, skew) = (now.as_secs(), self.skew.as_secs());
        let inside = now.saturating_sub(skew)..=now.saturating_add(skew);
        if inside.contains(&stamp) && stamp >= self.lock().floor { Ok(()) } else { Err(Unusable::Stale) }
    }

    /// Whether the transid was burnt: a look that changes nothing.
    ///
    /// # Errors
    /// [`Unusable::Reused`].
    pub fn check_unused(&self, transid: &Transid) -> Result<(), Unusable> {
        let burnt = self.lock();
        let used = burnt
            .by_stamp
            .get(&transid.stamp().to_unix())
            .is_some_and(|at| at.contains(&(transid.appid(), transid.sequence())));
        if used { Err(Unusable::Reused) } else { Ok(()) }
    }

    /// Burns the transid. Of two that try at once, one succeeds.
    ///
    /// # Errors
    /// [`Unusable::Reused`], or [`Unusable::Stale`] when the window moved past it meanwhile.
    pub fn burn(&self, transid: &Transid, now: Time) -> Result<(), Unusable> {
        let stamp = transid.stamp().to_unix();
        let mut burnt = self.lock();
        burnt.forget_before(now.as_secs().saturating_sub(self.skew.as_secs()));
        if stamp < burnt.floor {
            return Err(Unusable::Stale);
        }
        let fresh = burnt.by_stamp.entry(stamp).or_default().insert((transid.appid(), transid.sequence()));
        if fresh { Ok(()) } else { Err(Unusable::Reused) }
    }

    /// Notes a transid that was answered before a restart.
    pub fn remember(&self, transid: &Transid, now: Time) {
        // Burnt already, or out of the window: either way it stays refused.
        let _ = self.burn(transid, now);
    }

    fn lock(&self) -> MutexGuard<'_, Burnt> {
        // A panic under this lock could only come from an allocation; the table is whole at every step.
        self.burnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Burnt {
    fn forget_before(&mut self, oldest: u64) {
        if oldest > self.floor {
            self.by_stamp = self.by_stamp.split_off(&oldest);
            self.floor = oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn transid(stamp: u64, sequence: u32) -> Transid {
        let stamp = cmiot_signer::Stamp::from_unix(stamp).unwrap();
        Transid::new(&AppId::parse("A1").unwrap(), stamp, Sequence::new(sequence).unwrap())
    }

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn the_window_is_open_on_both_sides_of_the_clock() {
        let replay = Replay::new(Duration::from_secs(300));
        let now = Time::from_secs(1_700_000_000);
        for (stamp, expected) in [
            (NOW - 301, Err(Unusable::Stale)),
            (NOW - 300, Ok(())),
            (NOW + 300, Ok(())),
            (NOW + 301, Err(Unusable::Stale)),
        ] {
            assert_eq!(replay.check_window(&transid(stamp, 1), now), expected);
        }
    }

    #[test]
    fn a_clock_stepped_back_brings_no_transid_back() {
        let replay = Replay::new(Duration::from_secs(300));
        let at = |secs: u64| Time::from_secs(i64::try_from(secs).unwrap());
        assert_eq!(replay.burn(&transid(NOW, 1), at(NOW)), Ok(()));
        assert_eq!(replay.burn(&transid(NOW + 400, 1), at(NOW + 400)), Ok(()));
        assert_eq!(replay.check_window(&transid(NOW, 1), at(NOW)), Err(Unusable::Stale));
        assert_eq!(replay.burn(&transid(NOW, 1), at(NOW)), Err(Unusable::Stale));
    }

    proptest! {
        /// Whatever the clock does, a transid is burnt once.
        #[test]
        fn no_transid_is_burnt_twice(steps in proptest::collection::vec((0_u64..2_000, 0_u64..2_000, 1_u32..4), 1..60)) {
            let replay = Replay::new(Duration::from_secs(300));
            let mut burnt = HashSet::new();
            for (clock, stamp, sequence) in steps {
                let transid = transid(NOW + stamp, sequence);
                let now = Time::from_secs(i64::try_from(NOW + clock).unwrap());
                if replay.check_window(&transid, now).is_ok() && replay.burn(&transid, now).is_ok() {
                    prop_assert!(burnt.insert(transid));
                }
            }
        }
    }
}
