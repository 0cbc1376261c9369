//! What can go wrong, as small `Copy` enums: each text names the fault and what to do about it.
//!
//! No variant carries what was rejected: a password, a token or a card number must not end up in a log by
//! way of an error. Nothing here is worth a retry with the same input.

use core::error::Error;
use core::fmt;

/// An appid, ebid or password that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialError {
    /// There is nothing in it.
    Empty,
    /// It is longer than its type's `MAX_LEN`.
    TooLong,
    /// It holds something else than `0-9A-Za-z`.
    BadCharacter,
}

/// A msisdn, iccid or imsi that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CardError {
    /// A msisdn is 1 to 13 digits.
    Msisdn,
    /// An iccid is 20 digits or hexadecimal letters.
    Iccid,
    /// An imsi is 1 to 15 digits.
    Imsi,
}

/// A moment that no transid can state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StampError {
    /// Before the year 2000 at UTC+8: a clock that was never set.
    Unset,
    /// After the year 2099 at UTC+8: milliseconds handed in as seconds, or a broken clock.
    TooLate,
    /// Not fourteen digits that name a second of the calendar.
    Malformed,
}

/// A number that no transid can end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SequenceError {
    /// Zero, or more than eight digits.
    OutOfRange,
}

/// The rule of a transid that a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransidError {
    /// Fewer than 23 characters: appid, stamp and sequence cannot all be there.
    TooShort,
    /// More than 48 characters.
    TooLong,
    /// Something else than `0-9A-Za-z` is in it, as in a length-extension attack on the token.
    BadCharacter,
    /// Its last 22 characters do not begin with a second of the calendar between 2000 and 2099.
    Stamp,
    /// Its last 8 characters are not a number from 00000001 to 99999999.
    Sequence,
}

/// The text does not fit into the buffer handed in; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferTooSmall;

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the credential is empty: enter what the carrier issued",
            Self::TooLong => {
                "the credential is too long (appid 26, ebid 32, password 256 bytes): check for pasted extras"
            }
            Self::BadCharacter => {
                "the credential may hold 0-9, A-Z and a-z only: check for spaces or quotes around it"
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
            Self::TooLate => "the clock reads a year after 2099: hand in seconds, not milliseconds",
            Self::Malformed => "a stamp is YYYYMMDDHHMMSS at UTC+8, years 2000 to 2099: hand in 14 digits",
        })
    }
}

impl fmt::Display for SequenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence is a number from 1 to 99999999: after the last one comes 1 again")
    }
}

impl fmt::Display for TransidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => {
                "the transid is shorter than 23 characters: it is appid, YYYYMMDDHHMMSS and 8 digits in a row"
            }
            Self::TooLong => "the transid is longer than 48 characters: shorten the appid to at most 26",
            Self::BadCharacter => "the transid may hold 0-9, A-Z and a-z only: send it as it was signed",
            Self::Stamp => {
                "the transid has no YYYYMMDDHHMMSS (UTC+8, years 2000 to 2099) before its last 8 digits: \
                 put it there"
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

impl Error for CredentialError {}
impl Error for CardError {}
impl Error for StampError {}
impl Error for SequenceError {}
impl Error for TransidError {}
impl Error for BufferTooSmall {}
