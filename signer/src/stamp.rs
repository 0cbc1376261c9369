//! The time in a transid: civil time at UTC+8, to the second, written `YYYYMMDDHHMMSS`.
//!
//! Carrier page, "transid". China has kept UTC+8 without daylight saving since 1992. The caller passes the time as
//! Unix seconds; this crate never reads a clock. The years are 2000 to 2099: every fourth of them is a leap year, 2000
//! included, so the calendar needs no century rule, and seconds since 2000 fit 32 bits, which avoids a 64-bit division
//! on a Cortex-M. A clock that was never set reads 1970, which is an error.

mod date;
mod limits;

use core::fmt;
use core::str::FromStr;

use crate::error::StampError;
pub use limits::{DateError, DateLimits};

/// A second between `20000101000000` and `20991231235959` at UTC+8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Seconds since 2000-01-01 00:00:00 at UTC+8.
    seconds: u32,
}

/// Unix time of 2000-01-01 00:00:00 at UTC+8.
const EPOCH: u32 = 946_656_000;
const DAY: u32 = 86_400;
/// Four years, one of them a leap year.
const CYCLE_DAYS: u32 = 4 * 365 + 1;
/// 25 cycles: up to, not including, 2100-01-01.
const END: u32 = 25 * CYCLE_DAYS * DAY;

impl Stamp {
    /// `20000101000000`
    pub const FIRST: Self = Self { seconds: 0 };
    /// `20991231235959`
    pub const LAST: Self = Self { seconds: END - 1 };
    /// Digits of a written stamp.
    pub const LEN: usize = 14;

    /// The stamp of a time in Unix seconds (UTC, since 1970).
    ///
    /// # Errors
    /// Before 2000 ([`StampError::Unset`]) and after 2099 ([`StampError::TooLate`]), by the calendar at UTC+8.
    pub const fn from_unix(seconds: u64) -> Result<Self, StampError> {
        // The whole range fits 32 bits: one check of the upper half avoids 64-bit arithmetic.
        if seconds > u32::MAX as u64 {
            return Err(StampError::TooLate);
        }
        let seconds = seconds as u32;
        if seconds < EPOCH {
            return Err(StampError::Unset);
        }
        if seconds - EPOCH >= END {
            return Err(StampError::TooLate);
        }
        Ok(Self { seconds: seconds - EPOCH })
    }

    /// The time in Unix seconds (UTC, since 1970).
    #[must_use]
    pub const fn to_unix(self) -> u64 {
        self.seconds as u64 + EPOCH as u64
    }

    /// Parses fourteen digits.
    ///
    /// # Errors
    /// [`StampError::Malformed`] when they are not fourteen digits, or not an existing date and time of the years 2000
    /// to 2099.
    pub const fn parse(text: &str) -> Result<Self, StampError> {
        Self::parse_bytes(text.as_bytes())
    }

    /// [`parse`](Self::parse) of bytes.
    pub(crate) const fn parse_bytes(text: &[u8]) -> Result<Self, StampError> {
        // A const pattern instead of a slice conversion: both are not allowed in a const fn.
        let [b'2', b'0', y, ear, mo, nth, d, ay, h, our, mi, n, s, ec] = *text else {
            return Err(StampError::Malformed);
        };
        let civil = [two(y, ear), two(mo, nth), two(d, ay), two(h, our), two(mi, n), two(s, ec)];
        match Self::from_civil(civil) {
            Some(stamp) => Ok(stamp),
            None => Err(StampError::Malformed),
        }
    }

    /// The stamp of years since 2000, month, day, hour, minute, second; `None` if that time does not exist.
    pub(crate) const fn from_civil([year, month, day, hour, minute, second]: [u32; 6]) -> Option<Self> {
        let leap = year % 4 == 0;
        if year > 99 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        if day < 1 || day > month_len(month, leap) {
            return None;
        }
        // One leap day per earlier year that is divisible by four, 2000 included.
        let mut days = year * 365 + year.div_ceil(4) + day - 1;
        let mut earlier = 1;
        while earlier < month {
            days += month_len(earlier, leap);
            earlier += 1;
        }
        Some(Self { seconds: days * DAY + hour * 3600 + minute * 60 + second })
    }

    /// Years since 2000, month, day, hour, minute, second.
    pub(crate) fn civil(self) -> [u32; 6] {
        let mut rest = self.seconds;
        let cycles = div_rem(&mut rest, CYCLE_DAYS * DAY);
        // The first year of a cycle is the leap year.
        let leap = rest < 366 * DAY;
        let mut year = 4 * cycles;
        if !leap {
            rest -= 366 * DAY;
            year += 1 + div_rem(&mut rest, 365 * DAY);
        }
        let mut month = 1;
        while month < 12 && rest >= month_len(month, leap) * DAY {
            rest -= month_len(month, leap) * DAY;
            month += 1;
        }
        let day = 1 + div_rem(&mut rest, DAY);
        let hour = div_rem(&mut rest, 3600);
        let minute = div_rem(&mut rest, 60);
        [year, month, day, hour, minute, rest]
    }

    /// The stamp as written in a transid.
    #[must_use]
    pub fn digits(self) -> [u8; Self::LEN] {
        let [year, month, day, hour, minute, second] = self.civil();
        let mut digits = [0; Self::LEN];
        write_two_digits_each(&[20, year, month, day, hour, minute, second], &mut digits);
        digits
    }
}

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(core::str::from_utf8(&self.digits()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp({self})")
    }
}

/// Divides `rest` by `unit`: returns the quotient, 127 at most, and leaves the remainder in `rest`.
///
/// This is long division, bit by bit: a Cortex-M0 has no division instruction, and the library's division takes more
/// flash than all of this file. `unit` is at most four years, in seconds.
pub(crate) fn div_rem(rest: &mut u32, unit: u32) -> u32 {
    // Only 64 cycles exceed 32 bits, and what then remains still exceeds every stamp.
    const { assert!((CYCLE_DAYS * DAY).wrapping_mul(64) > END) };
    let (mut times, mut left) = (0, *rest);
    let mut place = 64;
    while place > 0 {
        let product = unit.wrapping_mul(place);
        if left >= product {
            left -= product;
            times |= place;
        }
        place >>= 1;
    }
    *rest = left;
    times
}

/// Writes numbers below 100 in two digits each, as many as fit.
#[inline(always)]
pub(crate) fn write_two_digits_each(numbers: &[u32], out: &mut [u8]) {
    for (number, digits) in numbers.iter().zip(out.as_chunks_mut().0) {
        // A division by ten that is correct below 179 and needs no division instruction.
        let tens = (number * 103) >> 10;
        *digits = [b'0' + tens as u8, b'0' + (number - 10 * tens) as u8];
    }
}

/// Days of a month (1 to 12).
const fn month_len(month: u32, leap: bool) -> u32 {
    if month == 2 {
        return 28 + leap as u32;
    }
    // Long and short months alternate, with a second long one in a row at August.
    30 + ((month + (month >> 3)) & 1)
}

/// The value of two digits; `u32::MAX`, which is out of every range, for other characters.
const fn two(tens: u8, ones: u8) -> u32 {
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return u32::MAX;
    }
    (tens - b'0') as u32 * 10 + (ones - b'0') as u32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    fn text(unix: u64) -> std::string::String {
        Stamp::from_unix(unix).unwrap().to_string()
    }

    #[test]
    fn known_moments() {
        // `TZ=Asia/Shanghai date -d @N +%Y%m%d%H%M%S`
        assert_eq!(text(946_656_000), "20000101000000");
        assert_eq!(text(951_753_599), "20000228235959");
        assert_eq!(text(951_753_600), "20000229000000");
        assert_eq!(text(1_413_444_630), "20141016153030");
        assert_eq!(text(1_709_136_000), "20240229000000");
        assert_eq!(text(4_102_415_999), "20991231235959");
    }

    #[test]
    fn an_unset_clock_is_refused() {
        for unset in [0, 1, 946_655_999] {
            assert_eq!(Stamp::from_unix(unset), Err(StampError::Unset));
        }
        for late in [4_102_416_000, 1_413_444_630_000, u64::MAX] {
            assert_eq!(Stamp::from_unix(late), Err(StampError::TooLate));
        }
    }

    #[test]
    fn every_day_has_one_name_and_comes_back() {
        let mut previous = std::string::String::new();
        for day in 0..END / DAY {
            let stamp = Stamp { seconds: day * DAY + 86_399 };
            let name = stamp.to_string();
            assert!(name > previous, "{name} after {previous}");
            assert_eq!(Stamp::parse(&name), Ok(stamp));
            previous = name;
        }
        assert_eq!(previous, "20991231235959");
    }

    #[test]
    fn every_second_of_a_day_comes_back() {
        for second in 0..DAY {
            let stamp = Stamp { seconds: 8825 * DAY + second };
            assert_eq!(Stamp::parse(&stamp.to_string()), Ok(stamp));
        }
    }

    #[test]
    fn what_the_calendar_lacks_is_refused() {
        for bad in [
            "20230229000000",
            "21000229000000",
            "20240230000000",
            "20240431000000",
            "20241301000000",
            "20240001000000",
            "20240100000000",
            "20240101240000",
            "20240101006000",
            "20240101000060",
            "19991231235959",
            "21000101000000",
            "2024010100000",
            "202401010000000",
            "2024010100000a",
            "20240101 00000",
            "+2240101000000",
            "",
        ] {
            assert_eq!(Stamp::parse(bad), Err(StampError::Malformed), "{bad}");
        }
    }
}
