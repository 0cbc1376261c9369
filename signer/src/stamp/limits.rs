//! The limits within which the `Date` of a response may set a clock.
//!
//! Plain HTTP protects no header: an attacker on the path can send any `Date`. A clock that follows it makes the device sign
//! lookups of that time, which can be recorded and sent when that time has come. These limits bound the damage; only
//! TLS, or a line without other users, prevents it.

use core::error::Error;
use core::fmt;

use super::{DAY, Stamp};

/// The limits of a device: the time when its firmware was built, and the largest step of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateLimits {
    built: Stamp,
    /// Seconds.
    step: u32,
}

/// The reason why a `Date` does not set the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DateError {
    /// It is earlier than the firmware's build.
    BeforeBuild,
    /// It is more than [`DateLimits::YEARS`] years later than the firmware's build.
    TooLate,
    /// It differs from the clock by more than the largest step.
    StepTooLarge,
}

impl DateLimits {
    /// Years after its build in which a firmware is used.
    pub const YEARS: u32 = 20;
    /// The default of the largest step, in seconds: a day, which is more than a wrong time zone.
    pub const STEP: u32 = DAY;

    /// The limits of a firmware that was built at this time.
    #[must_use]
    pub const fn new(built: Stamp) -> Self {
        Self { built, step: Self::STEP }
    }

    /// Sets the largest step, in seconds. It does not apply to a clock that cannot be right.
    #[must_use]
    pub const fn step(self, seconds: u32) -> Self {
        Self { step: seconds, ..self }
    }

    /// Checks whether `date` may set a clock that reads `clock` (Unix seconds; 0 if it was never set). A clock outside
    /// the time in which the firmware is used counts as never set.
    ///
    /// # Errors
    /// The limit that `date` exceeds: leave the clock as it is.
    pub fn check(&self, clock: u64, date: Stamp) -> Result<(), DateError> {
        if date < self.built {
            return Err(DateError::BeforeBuild);
        }
        if date > self.latest() {
            return Err(DateError::TooLate);
        }
        match Stamp::from_unix(clock) {
            Ok(clock)
                if (self.built..=self.latest()).contains(&clock)
                    && date.seconds.abs_diff(clock.seconds) > self.step =>
            {
                Err(DateError::StepTooLarge)
            }
            _ => Ok(()),
        }
    }

    fn latest(&self) -> Stamp {
        // Leap days do not matter here.
        Stamp { seconds: self.built.seconds.saturating_add(Self::YEARS * 365 * DAY) }
    }
}

impl fmt::Display for DateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeBuild => {
                "the response's Date is earlier than the firmware: check the proxy's clock, or who answers in its place"
            }
            Self::TooLate => {
                "the response's Date is decades later than the firmware: check the proxy's clock, or who answers in its \
                 place"
            }
            Self::StepTooLarge => {
                "the response's Date is too far from the clock: check both clocks, then set this one by hand"
            }
        })
    }
}

impl Error for DateError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Stamp {
        Stamp::parse(text).unwrap()
    }

    #[test]
    fn a_set_clock_takes_small_steps_either_way() {
        let limits = DateLimits::new(at("20260101000000"));
        let check = |clock: &str, date: &str| limits.check(at(clock).to_unix(), at(date));
        assert_eq!(check("20261129180000", "20261130180000"), Ok(()));
        assert_eq!(check("20261129180000", "20261128180000"), Ok(()));
        assert_eq!(check("20261129180000", "20261130180001"), Err(DateError::StepTooLarge));
        assert_eq!(check("20261129180000", "20310101080000"), Err(DateError::StepTooLarge));
        assert_eq!(check("20261129180000", "20260203040506"), Err(DateError::StepTooLarge));
        let hour = limits.step(3600);
        assert_eq!(
            hour.check(at("20261129180000").to_unix(), at("20261129190001")),
            Err(DateError::StepTooLarge)
        );
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_set_to_any_time_of_use() {
        let limits = DateLimits::new(at("20260101000000"));
        let unset =
            [0, 1_413_444_630, at("20251231235959").to_unix(), at("20500101000000").to_unix(), u64::MAX];
        for clock in unset {
            assert_eq!(limits.check(clock, at("20310101080000")), Ok(()), "{clock}");
            assert_eq!(limits.check(clock, at("20251231235959")), Err(DateError::BeforeBuild), "{clock}");
            assert_eq!(limits.check(clock, at("20460101000000")), Err(DateError::TooLate), "{clock}");
        }
    }
}
