//! One error for a whole firmware, so that `?` works in a function that signs, sends, reads and stores.
//!
//! The errors of a connection and of a flash are reduced to their kind: the type has no parameter.

use core::fmt;

use crate::error::{BufferTooSmall, CardError, CredentialError, SequenceError, StampError, TransidError};
#[cfg(feature = "http")]
use crate::http::{ExchangeError, HttpError};
#[cfg(any(feature = "serde", feature = "scan"))]
use crate::reply::{Code, Refusal, ReplyError};
#[cfg(feature = "flash")]
use crate::sequence::LeaseError;
use crate::stamp::DateError;

/// Any error of this crate. Each of its errors converts to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// An appid, ebid or password is invalid.
    Credential(CredentialError),
    /// A card's number is invalid.
    Card(CardError),
    /// The time is outside the years 2000 to 2099.
    Stamp(StampError),
    /// The `Date` of a response may not set the clock.
    Date(DateError),
    /// A sequence or a node is invalid.
    Sequence(SequenceError),
    /// A transid is malformed.
    Transid(TransidError),
    /// A buffer is too small.
    Buffer(BufferTooSmall),
    /// The body is not a reply.
    #[cfg(any(feature = "serde", feature = "scan"))]
    Reply(ReplyError),
    /// The carrier refused the lookup with this code.
    #[cfg(any(feature = "serde", feature = "scan"))]
    Refused(Code),
    /// The carrier accepted the lookup, and sent no result.
    #[cfg(any(feature = "serde", feature = "scan"))]
    NoResult,
    /// The result has no `STATUS`: a reply to another operation.
    #[cfg(any(feature = "serde", feature = "scan"))]
    NoStatus,
    /// A password or a token cannot be sent by API v5.
    #[cfg(feature = "v5")]
    Secret(crate::v5::SecretError),
    /// The token of API v5 is expired or unknown.
    #[cfg(feature = "v5")]
    TokenExpired,
    /// The result has no valid token of API v5.
    #[cfg(feature = "v5")]
    NoToken,
    /// The result has no field of the name that was asked for.
    #[cfg(feature = "v5")]
    NoField,
    /// A request or response is invalid.
    #[cfg(feature = "http")]
    Http(HttpError),
    /// The connection failed, or accepts no more bytes.
    #[cfg(feature = "http")]
    Io(#[cfg_attr(feature = "defmt", defmt(Debug2Format))] embedded_io::ErrorKind),
    /// The flash with the sequence failed.
    #[cfg(feature = "flash")]
    Lease(
        #[cfg_attr(feature = "defmt", defmt(Debug2Format))]
        LeaseError<embedded_storage::nor_flash::NorFlashErrorKind>,
    ),
}

/// Implements the conversions of errors without a parameter.
macro_rules! from {
    ($($(#[$attribute:meta])* $error:ty => $variant:ident;)*) => {
        $(
            $(#[$attribute])*
            impl From<$error> for Error {
                fn from(error: $error) -> Self {
                    Self::$variant(error)
                }
            }
        )*
    };
}

from! {
    CredentialError => Credential;
    CardError => Card;
    StampError => Stamp;
    DateError => Date;
    SequenceError => Sequence;
    TransidError => Transid;
    BufferTooSmall => Buffer;
    #[cfg(any(feature = "serde", feature = "scan"))]
    ReplyError => Reply;
    #[cfg(feature = "http")]
    HttpError => Http;
    #[cfg(feature = "v5")]
    crate::v5::SecretError => Secret;
}

impl From<core::convert::Infallible> for Error {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(any(feature = "serde", feature = "scan"))]
impl From<Refusal<'_>> for Error {
    fn from(refusal: Refusal<'_>) -> Self {
        match refusal {
            Refusal::Refused { code, .. } => Self::Refused(code),
            Refusal::NoResult => Self::NoResult,
            Refusal::NoStatus => Self::NoStatus,
        }
    }
}

#[cfg(feature = "v5")]
impl From<crate::v5::Refusal<'_>> for Error {
    fn from(refusal: crate::v5::Refusal<'_>) -> Self {
        use crate::v5::Refusal;
        match refusal {
            Refusal::TokenExpired => Self::TokenExpired,
            Refusal::Refused { code, .. } => Self::Refused(code),
            Refusal::NoResult => Self::NoResult,
            Refusal::NoToken => Self::NoToken,
            Refusal::NoStatus => Self::NoStatus,
            Refusal::NoField => Self::NoField,
        }
    }
}

#[cfg(feature = "http")]
impl<E: embedded_io::Error> From<ExchangeError<E>> for Error {
    fn from(error: ExchangeError<E>) -> Self {
        match error {
            ExchangeError::Io(error) => Self::Io(error.kind()),
            ExchangeError::Closed => Self::Io(embedded_io::ErrorKind::WriteZero),
            ExchangeError::Http(error) => Self::Http(error),
        }
    }
}

#[cfg(feature = "flash")]
impl<E: embedded_storage::nor_flash::NorFlashError> From<LeaseError<E>> for Error {
    fn from(error: LeaseError<E>) -> Self {
        Self::Lease(match error {
            LeaseError::Flash(error) => LeaseError::Flash(error.kind()),
            LeaseError::Layout => LeaseError::Layout,
            LeaseError::Worn => LeaseError::Worn,
            LeaseError::Exhausted => LeaseError::Exhausted,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(error) => error.fmt(f),
            Self::Card(error) => error.fmt(f),
            Self::Stamp(error) => error.fmt(f),
            Self::Date(error) => error.fmt(f),
            Self::Sequence(error) => error.fmt(f),
            Self::Transid(error) => error.fmt(f),
            Self::Buffer(error) => error.fmt(f),
            #[cfg(any(feature = "serde", feature = "scan"))]
            Self::Reply(error) => error.fmt(f),
            #[cfg(any(feature = "serde", feature = "scan"))]
            Self::Refused(code) => {
                write!(f, "the carrier refused with code {}: see its list of error codes", code.as_str())
            }
            #[cfg(any(feature = "serde", feature = "scan"))]
            Self::NoResult => Refusal::NoResult.fmt(f),
            #[cfg(any(feature = "serde", feature = "scan"))]
            Self::NoStatus => Refusal::NoStatus.fmt(f),
            #[cfg(feature = "v5")]
            Self::Secret(error) => error.fmt(f),
            #[cfg(feature = "v5")]
            Self::TokenExpired => crate::v5::Refusal::TokenExpired.fmt(f),
            #[cfg(feature = "v5")]
            Self::NoToken => crate::v5::Refusal::NoToken.fmt(f),
            #[cfg(feature = "v5")]
            Self::NoField => crate::v5::Refusal::NoField.fmt(f),
            #[cfg(feature = "http")]
            Self::Http(error) => error.fmt(f),
            #[cfg(feature = "http")]
            Self::Io(kind) => write!(f, "the connection failed ({kind:?}): retry on a new one"),
            #[cfg(feature = "flash")]
            Self::Lease(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn each_error_keeps_its_text() {
        assert_eq!(Error::from(StampError::Unset).to_string(), StampError::Unset.to_string());
        assert_eq!(Error::from(DateError::TooLate).to_string(), DateError::TooLate.to_string());
        assert_eq!(Error::from(BufferTooSmall).to_string(), BufferTooSmall.to_string());
    }

    #[cfg(feature = "http")]
    #[test]
    fn an_error_of_a_connection_keeps_its_kind() {
        let kind = embedded_io::ErrorKind::TimedOut;
        assert_eq!(Error::from(ExchangeError::Io(kind)), Error::Io(kind));
        let closed = Error::from(ExchangeError::<embedded_io::ErrorKind>::Closed);
        assert_eq!(closed, Error::Io(embedded_io::ErrorKind::WriteZero));
        assert_eq!(
            Error::from(ExchangeError::<embedded_io::ErrorKind>::Http(HttpError::BadHost)),
            Error::Http(HttpError::BadHost)
        );
    }

    #[cfg(feature = "scan")]
    #[test]
    fn a_refusal_keeps_its_code() {
        let body = br#"{"status":"10","message":"no"}"#;
        let refusal = crate::Reply::scan(body).unwrap().into_status().unwrap_err();
        let error = Error::from(refusal);
        assert!(matches!(error, Error::Refused(code) if code.as_str() == "10"));
        assert!(error.to_string().contains("code 10"), "{error}");
    }
}
