//! A device's own part of the eight digits, so that thousands of gateways can share an appid and never collide.
//!
//! With `k` lane digits there are 10^k lanes of 10^(8-k) numbers each. What must not repeat is the pair of
//! second and number; inside a lane a number comes again after all others have. So a device that makes `r`
//! look-ups a second, and whose clock errs by less than 10^(8-k) / r seconds, never repeats a pair:
//!
//! | k | devices | numbers each | once a second | once a minute |
//! | --- | --- | --- | --- | --- |
//! | 2 | 100 | 1,000,000 | 11 days | 1.9 years |
//! | 3 | 1,000 | 100,000 | 27 hours | 69 days |
//! | 4 | 10,000 | 10,000 | 2.7 hours | 7 days |
//! | 5 | 100,000 | 1,000 | 16 minutes | 16 hours |
//!
//! All devices of an appid must use the same `k`.

use super::Sequence;
use crate::error::SequenceError;

/// The numbers that begin with a device's own digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    first: Sequence,
    /// How many numbers there are, at least 9.
    len: u32,
}

impl Lane {
    /// All numbers: one device an appid.
    pub const WHOLE: Self = Self { first: Sequence::FIRST, len: Sequence::LAST.0 };

    /// The lane whose numbers begin with `number`, written in `digits` digits (0 to 7).
    ///
    /// # Errors
    /// When there are more than 7 digits, or the number has more than that.
    pub const fn new(digits: u32, number: u32) -> Result<Self, SequenceError> {
        if digits > 7 || number >= 10u32.pow(digits) {
            return Err(SequenceError::OutOfRange);
        }
        let len = 10u32.pow(8 - digits);
        // 00000000 is no sequence: lane 0 is one number short.
        let (first, len) = if number == 0 { (1, len - 1) } else { (number * len, len) };
        Ok(Self { first: Sequence(first), len })
    }

    /// Its lowest number.
    #[must_use]
    pub const fn first(self) -> Sequence {
        self.first
    }

    /// How many numbers it has.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.len
    }

    /// Whether a number is one of its.
    #[must_use]
    pub const fn has(self, sequence: Sequence) -> bool {
        sequence.0.wrapping_sub(self.first.0) < self.len
    }

    /// The number after one of its; after the last comes the first.
    #[must_use]
    pub const fn after(self, sequence: Sequence) -> Sequence {
        let next = Sequence(sequence.0 + 1);
        if self.has(next) { next } else { self.first }
    }

    /// Its `nth` number, counted from 0 and round and round.
    #[cfg(any(feature = "flash", test))]
    pub(super) const fn nth(self, nth: u32) -> Sequence {
        // No lane is empty, so the default is never taken; it only spares a panic.
        match nth.checked_rem(self.len) {
            Some(nth) => Sequence(self.first.0 + nth),
            None => self.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_of_one_width_share_nothing_and_leave_nothing_out() {
        for digits in 1..=4 {
            let mut next = 1;
            for number in 0..10u32.pow(digits) {
                let lane = Lane::new(digits, number).unwrap();
                assert_eq!(lane.first().get(), next, "lane {number} of {digits} digits");
                next += lane.count();
            }
            assert_eq!(next, 100_000_000);
        }
    }

    #[test]
    fn a_lane_goes_round() {
        for (digits, number) in [(7, 0), (7, 1), (7, 9_999_999), (6, 0)] {
            let lane = Lane::new(digits, number).unwrap();
            let mut sequence = lane.first();
            for nth in 0..3 * lane.count() {
                assert!(lane.has(sequence) && Sequence::new(sequence.get()) == Ok(sequence));
                assert_eq!(lane.nth(nth), sequence);
                sequence = lane.after(sequence);
            }
            assert_eq!(sequence, lane.first());
        }
        assert_eq!(Lane::WHOLE.after(Sequence::LAST), Sequence::FIRST);
        assert_eq!(Lane::new(0, 0), Ok(Lane::WHOLE));
    }

    #[test]
    fn impossible_lanes_are_refused() {
        for (digits, number) in [(8, 1), (u32::MAX, 0), (2, 100), (0, 1), (7, 10_000_000)] {
            assert_eq!(Lane::new(digits, number), Err(SequenceError::OutOfRange));
        }
    }
}
