//! The identifier of one lookup: appid, stamp and sequence, concatenated to 23 to 48 characters.
//!
//! Carrier page, "transid": appid + `YYYYMMDDHHMISS` + 8 digits, at most 48 characters. Split from the
//! end, it is unambiguous.
//!
//! The parser is strict because the token is a plain SHA-256 over appid, password and transid, in this order. From one
//! valid pair an attacker can compute the token of `transid ‖ padding ‖ anything` without the password (length
//! extension). The padding contains a byte 0x80, which a transid may not contain; and a [`Token`] is only made from a
//! [`Transid`], so such a request is refused before it is hashed.
//!
//! [`Token`]: crate::Token

use core::fmt;

use crate::credentials::{AppId, plain_text};
use crate::error::TransidError;
use crate::sequence::Sequence;
use crate::stamp::{Stamp, write_two_digits_each};
use crate::text::{Alphabet, Case, Text};

/// A well-formed transid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transid(Text<{ Transid::MAX_LEN }>);

/// Characters after the appid.
pub(crate) const TAIL_LEN: usize = Stamp::LEN + Sequence::LEN;

impl Transid {
    /// The longest transid, in characters.
    pub const MAX_LEN: usize = 48;

    /// The transid of a lookup.
    #[must_use]
    pub fn new(appid: &AppId, stamp: Stamp, sequence: Sequence) -> Self {
        const { assert!(AppId::MAX_LEN + TAIL_LEN == Self::MAX_LEN, "so that the pushes below fit") };
        let mut text = Text::EMPTY;
        text.push(appid.as_bytes());
        let mut tail = [0; TAIL_LEN];
        write_tail(stamp, sequence, &mut tail);
        text.push(&tail);
        Self(text)
    }

    /// Checks an existing transid.
    ///
    /// # Errors
    /// The first rule that it breaks: length, alphabet, stamp or sequence, in this order.
    pub fn parse(text: &str) -> Result<Self, TransidError> {
        Self::parse_bytes(text.as_bytes())
    }

    /// [`parse`](Self::parse) of bytes that need not be UTF-8.
    ///
    /// # Errors
    /// As [`parse`](Self::parse) does.
    pub fn parse_bytes(text: &[u8]) -> Result<Self, TransidError> {
        if text.len() > Self::MAX_LEN {
            return Err(TransidError::TooLong);
        }
        let Some((appid, stamp, sequence)) = split(text) else { return Err(TransidError::TooShort) };
        if appid.is_empty() {
            return Err(TransidError::TooShort);
        }
        let text = Text::checked(text, Alphabet::Alphanumeric, Case::Kept)
            .map_err(|_| TransidError::BadCharacter)?;
        Stamp::parse_bytes(stamp).map_err(|_| TransidError::Stamp)?;
        Sequence::parse_bytes(sequence).map_err(|_| TransidError::Sequence)?;
        Ok(Self(text))
    }

    /// The caller's appid.
    #[must_use]
    pub fn appid(&self) -> AppId {
        let mut appid = Text::EMPTY;
        appid.push(self.appid_bytes());
        AppId(appid)
    }

    /// The time of signing.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let stamp = split(self.as_bytes()).map(|(_, stamp, _)| Stamp::parse_bytes(stamp));
        // Both constructors have checked it, so the default is never used; it only avoids a panic.
        stamp.and_then(Result::ok).unwrap_or(Stamp::FIRST)
    }

    /// The sequence.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        let sequence = split(self.as_bytes()).map(|(_, _, sequence)| Sequence::parse_bytes(sequence));
        // See `stamp`.
        sequence.and_then(Result::ok).unwrap_or(Sequence::FIRST)
    }

    /// The appid's characters.
    pub(crate) fn appid_bytes(&self) -> &[u8] {
        split(self.as_bytes()).map(|(appid, _, _)| appid).unwrap_or_default()
    }
}

plain_text!(Transid, TransidError);

impl fmt::Debug for Transid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transid({self})")
    }
}

/// Writes the characters after the appid. One loop for both parts is smaller than `stamp.digits()` and
/// `sequence.digits()`.
// Not inlined, so that its numbers leave the stack when this function returns.
#[inline(never)]
pub(crate) fn write_tail(stamp: Stamp, sequence: Sequence, out: &mut [u8]) {
    let [year, month, day, hour, minute, second] = stamp.civil();
    let [a, b, c, d] = sequence.pairs();
    write_two_digits_each(&[20, year, month, day, hour, minute, second, a, b, c, d], out);
}

/// Appid, stamp and sequence, or `None` if there are too few characters.
fn split(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (appid, tail) = text.split_at_checked(text.len().checked_sub(TAIL_LEN)?)?;
    let (stamp, sequence) = tail.split_at_checked(Stamp::LEN)?;
    Some((appid, stamp, sequence))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn the_carrier_pages_example_is_parsed() {
        let transid = Transid::parse("1000012014101615303080000001").unwrap();
        assert_eq!(transid.appid().as_str(), "100001");
        assert_eq!(transid.stamp().to_string(), "20141016153030");
        assert_eq!(transid.sequence().get(), 80_000_001);
        assert_eq!(Transid::new(&transid.appid(), transid.stamp(), transid.sequence()), transid);
    }

    #[test]
    fn the_error_names_the_broken_rule() {
        for (text, error) in [
            ("", TransidError::TooShort),
            ("2014101615303080000001", TransidError::TooShort),
            // The page's Java sample: a tail of 11 characters.
            ("A0B40O520161121001", TransidError::TooShort),
            // The page's Python sample: no appid, so its stamp is not where one must be.
            ("2016071314451512365445", TransidError::TooShort),
            ("A2099123123595999999999AAAAAAAAAAAAAAAAAAAAAAAAAA", TransidError::TooLong),
            ("1000-12014101615303080000001", TransidError::BadCharacter),
            ("1000012014101615303080000001\n", TransidError::BadCharacter),
            ("1000012014131615303080000001", TransidError::Stamp),
            ("1000012014101615303000000000", TransidError::Sequence),
            ("100001201410161530308000000A", TransidError::Sequence),
        ] {
            assert_eq!(Transid::parse(text), Err(error), "{text}");
        }
    }
}
