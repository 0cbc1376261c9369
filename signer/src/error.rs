//! Errors as small `Copy` enums. Each text names the fault and its remedy.
//!
//! No variant carries the rejected input: an error must not bring a password, a token or a card number into a log.
//! A retry with the same input fails again.

mod common;

use core::fmt;

pub use common::Error;

/// An invalid appid, ebid or password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CredentialError {
    /// It is empty.
    Empty,
    /// It is longer than its type's `MAX_LEN`.
    TooLong,
    /// It contains a character outside `0-9A-Za-z`.
    BadCharacter,
}

/// An invalid msisdn, iccid or imsi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CardError {
    /// A msisdn is 1 to 13 digits.
    Msisdn,
    /// An iccid is 20 digits or hexadecimal letters.
    Iccid,
    /// An imsi is 1 to 15 digits.
    Imsi,
}

/// A time that a transid cannot represent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum StampError {
    /// Before the year 2000 at UTC+8: the clock was never set.
    Unset,
    /// After the year 2099 at UTC+8: milliseconds passed as seconds, or a broken clock.
    TooLate,
    /// Not fourteen digits of an existing date and time.
    Malformed,
}

/// A number that is not a valid sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SequenceError {
    /// Zero, or more than eight digits.
    OutOfRange,
}

/// The transid rule that a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TransidError {
    /// Fewer than 23 characters: too few for appid, stamp and sequence.
    TooShort,
    /// More than 48 characters.
    TooLong,
    /// A character outside `0-9A-Za-z`, as in a length-extension attack on the token.
    BadCharacter,
    /// Its last 22 characters do not begin with an existing date and time of the years 2000 to 2099.
    Stamp,
    /// Its last 8 characters are not a number from 00000001 to 99999999.
    Sequence,
}

/// The text does not fit into the caller's buffer; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BufferTooSmall;

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the credential is empty: enter what the carrier issued",
            Self::TooLong => {
                "the credential is too long (appid 26, ebid 32, password 256 bytes): check for pasted extras"
            }
            Self::BadCharacter => {
                "the credential may contain 0-9, A-Z and a-z only: check for spaces or quotes around it"
            }
        })
    }
}

impl fmt::Display for CardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Msisdn => "a msisdn is 1 to 13 digits: leave out '+', blanks and dashes",
            Self::Iccid => {
                "an iccid is 20 digits or letters A-F: copy it from the card or the carrier's portal"
            }
            Self::Imsi => "an imsi is 1 to 15 digits: leave out blanks and dashes",
        })
    }
}

impl fmt::Display for StampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "the clock reads a year before 2000: set it before signing",
            Self::TooLate => "the clock reads a year after 2099: pass seconds, not milliseconds",
            Self::Malformed => "a stamp is YYYYMMDDHHMMSS at UTC+8, years 2000 to 2099: pass 14 digits",
        })
    }
}

impl fmt::Display for SequenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence is a number from 1 to 99999999: after the last one, continue with 1")
    }
}

impl fmt::Display for TransidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => {
                "the transid is shorter than 23 characters: it is appid, YYYYMMDDHHMMSS and 8 digits, without separators"
            }
            Self::TooLong => "the transid is longer than 48 characters: shorten the appid to at most 26",
            Self::BadCharacter => "the transid may contain 0-9, A-Z and a-z only: send it as it was signed",
            Self::Stamp => {
                "the transid has no YYYYMMDDHHMMSS (UTC+8, years 2000 to 2099) before its last 8 digits: \
                 add it"
            }
            Self::Sequence => "the transid must end in 8 digits, 00000001 to 99999999: pad with zeros",
        })
    }
}

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer is too small: QUERY_MAX bytes hold any query")
    }
}

impl core::error::Error for CredentialError {}
impl core::error::Error for CardError {}
impl core::error::Error for StampError {}
impl core::error::Error for SequenceError {}
impl core::error::Error for TransidError {}
impl core::error::Error for BufferTooSmall {}
