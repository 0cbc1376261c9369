//! Being built.
#![no_std]
#![forbid(unsafe_code)]

mod card;
mod credentials;
mod error;
#[cfg(any(feature = "serde", feature = "scan"))]
mod reply;
mod request;
mod sequence;
mod stamp;
mod text;
mod token;
mod transid;

pub use card::{Card, CardKind, Iccid, Imsi, Masked, Msisdn};
pub use credentials::{AppId, Ebid, Password};
pub use error::{BufferTooSmall, CardError, CredentialError, SequenceError, StampError, TransidError};
#[cfg(any(feature = "serde", feature = "scan"))]
pub use reply::{Code, Message, Refusal, Reply, ReplyError, Status, UnknownStatus};
pub use request::{PATH, QUERY_MAX, SignedRequest, Signer, TARGET_MAX};
pub use sequence::Sequence;
pub use stamp::Stamp;
pub use token::Token;
pub use transid::Transid;
