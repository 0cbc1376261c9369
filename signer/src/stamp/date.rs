//! Parser of an HTTP `Date` header into a [`Stamp`], so that a gateway without a clock can set its time.
//!
//! RFC 9110, section 5.6.7, IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`, 29 characters. Its two obsolete
//! forms are errors. So is a wrong weekday, which serves as a check digit on a serial line.

use super::{DAY, Stamp};
use crate::error::StampError;

/// China's offset from GMT, in seconds.
const OFFSET: u32 = 8 * 3600;

impl Stamp {
    /// Parses the value of a `Date` header.
    ///
    /// ```
    /// use cmiot_signer::Stamp;
    /// let stamp = Stamp::from_http_date(b"Thu, 16 Oct 2014 07:30:30 GMT")?;
    /// assert_eq!(stamp.to_unix(), 1_413_444_630);
    /// # Ok::<(), cmiot_signer::StampError>(())
    /// ```
    ///
    /// # Errors
    /// [`StampError::Malformed`] when it is not an IMF-fixdate of the years 2000 to 2099 (GMT), and
    /// [`StampError::TooLate`] for the last eight hours of 2099, which are in 2100 in China.
    pub fn from_http_date(value: &[u8]) -> Result<Self, StampError> {
        // "Www, dd Mmm 20yy hh:mm:ss GMT"
        #[rustfmt::skip]
        let [
            w, e, k, b',', b' ', d1, d2, b' ', m, o, n, b' ', b'2', b'0', y1, y2, b' ',
            h1, h2, b':', m1, m2, b':', s1, s2, b' ', b'G', b'M', b'T',
        ] = *value else {
            return Err(StampError::Malformed);
        };
        let week_day = position(b"SunMonTueWedThuFriSat", [w, e, k])?;
        let month = position(b"JanFebMarAprMayJunJulAugSepOctNovDec", [m, o, n])? + 1;
        let digits = [b'2', b'0', y1, y2, b'0' + (month / 10) as u8, b'0' + (month % 10) as u8, d1, d2];
        let mut written = [0; Self::LEN];
        for (slot, digit) in written.iter_mut().zip(digits.into_iter().chain([h1, h2, m1, m2, s1, s2])) {
            *slot = digit;
        }
        let at_gmt = Self::parse_bytes(&written)?;
        // 2000-01-01, day 0, was a Saturday.
        if (at_gmt.seconds / DAY + 6) % 7 != week_day {
            return Err(StampError::Malformed);
        }
        let seconds = at_gmt.seconds + OFFSET;
        if seconds > Self::LAST.seconds {
            return Err(StampError::TooLate);
        }
        Ok(Self { seconds })
    }
}

/// The index of a three-letter name in a list without separators.
fn position(names: &[u8], name: [u8; 3]) -> Result<u32, StampError> {
    let position = names.as_chunks::<3>().0.iter().position(|known| *known == name);
    position.map(|at| at as u32).ok_or(StampError::Malformed)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn known_dates() {
        // `date -u -d @N '+%a, %d %b %Y %T GMT'`
        for (date, stamp) in [
            ("Sat, 01 Jan 2000 00:00:00 GMT", "20000101080000"),
            ("Tue, 29 Feb 2000 15:59:59 GMT", "20000229235959"),
            ("Thu, 29 Feb 2024 16:00:00 GMT", "20240301000000"),
            ("Sun, 31 Dec 2023 16:00:00 GMT", "20240101000000"),
            ("Thu, 31 Dec 2099 15:59:59 GMT", "20991231235959"),
        ] {
            assert_eq!(
                Stamp::from_http_date(date.as_bytes()).map(|s| s.to_string()),
                Ok(stamp.into()),
                "{date}"
            );
        }
        let beyond = Stamp::from_http_date(b"Thu, 31 Dec 2099 16:00:00 GMT");
        assert_eq!(beyond, Err(StampError::TooLate));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Fri, 29 Feb 2024 16:00:00 GMT",
            "Thu, 30 Feb 2024 16:00:00 GMT",
            "Thu, 29 feb 2024 16:00:00 GMT",
            "Thu, 29 Feb 2024 24:00:00 GMT",
            "Thu, 29 Feb 2024 16:00:60 GMT",
            "Thu, 29 Feb 2024 16:00:00 UTC",
            "Thu, 29 Feb 2024 16:00:00 GMT ",
            "Thu, 9 Feb 2024 16:00:00 GMT",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "",
        ] {
            assert_eq!(Stamp::from_http_date(bad.as_bytes()), Err(StampError::Malformed), "{bad}");
        }
    }
}
