//! Meaning of a carrier reply, whatever dialect it came in: code, class and card status.
//!
//! The class decides whether a reply is stored, relayed or followed by another call. The tables of codes belong to
//! [`dialect`](super::dialect).

use std::fmt;
use std::sync::Arc;

use cmiot_signer::{ReplyError, Status};

use crate::inline_str::InlineStr;

/// The envelope code of a reply: 1-16 characters, leading zeros kept (`01016`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    bytes: [u8; Self::MAX_LEN],
    len: u8,
}

impl Code {
    /// The longest text that is accepted as a code.
    pub const MAX_LEN: usize = 16;

    /// From text; `None` when empty, longer than [`Self::MAX_LEN`] or not of letters and digits.
    pub fn parse(text: &str) -> Option<Self> {
        let fits =
            (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        fits.then(|| {
            let mut bytes = [0; Self::MAX_LEN];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            // At most 16, as just checked.
            #[expect(clippy::cast_possible_truncation)]
            let len = text.len() as u8;
            Self { bytes, len }
        })
    }

    /// The code as the carrier wrote it.
    pub fn as_str(&self) -> &str {
        // `parse` accepts ASCII letters and digits only.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}

/// Class of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A success with the field that the operation asks for.
    Ok,
    /// The account's credentials or address are refused: never the gateway's fault, never relayed as it is.
    Credentials,
    /// The account has no subscription for the operation: as `Credentials`, for one operation.
    Subscription,
    /// The parameters are wrong.
    BadRequest,
    /// The card does not exist or does not belong to the account: stored for a short time.
    NotFound,
    /// The result has not been computed yet.
    NotReady,
    /// Too many calls: the account needs a cool-down.
    Throttled,
    /// The carrier is busy or has an internal error.
    Busy,
    /// The carrier does not accept the token of the call, which it issued itself. Never relayed.
    TokenRefused,
    /// A code that the table of its dialect does not have, where that table is known to be incomplete: never stored, and a
    /// stale entry is a better response, since it may say that there were too many calls.
    Unknown,
    /// Any other code: relayed and never stored.
    Other,
}

impl Class {
    /// Its name in the admin API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Credentials | Self::Subscription => "carrier-credentials",
            Self::BadRequest => "bad-request",
            Self::NotFound => "not-found",
            Self::NotReady => "not-ready",
            Self::Throttled => "throttled",
            Self::Busy => "busy",
            Self::TokenRefused => "carrier-token",
            Self::Unknown => "unknown",
            Self::Other => "other",
        }
    }

    /// Whether the carrier refuses the account itself, for one operation or for all.
    pub fn refuses_account(self) -> bool {
        matches!(self, Self::Credentials | Self::Subscription)
    }

    /// Whether a stale entry that may be served is a better response than this reply.
    pub fn yields_to_stale(self) -> bool {
        self.refuses_account()
            || matches!(
                self,
                Self::NotReady | Self::Throttled | Self::Busy | Self::TokenRefused | Self::Unknown
            )
    }
}

/// A carrier reply, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub code: Code,
    pub class: Class,
    /// The card's status in a success of the user-status operation.
    pub status: Option<Status>,
}

/// The code and the card state that the carrier wrote, where the reply for gateways was made from a reply in another dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Translated {
    /// Its code.
    pub code: Code,
    /// Its card state.
    pub state: Option<InlineStr<16>>,
    /// The counting of the card's usage, by its platform.
    pub usage: Usage,
    /// A note for the gateway: printable ASCII without quotes. None for a success.
    pub note: Option<Arc<str>>,
}

/// The time until which the carrier counts the usage of a card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Usage {
    /// The end of the day before.
    Daily,
    /// The call.
    RealTime,
    /// Not known.
    #[default]
    Unknown,
}

impl Translated {
    /// In one text, as it is stored: the code, `/daily` or `/real-time` if the counting is known, a space and the note.
    pub fn written(&self) -> String {
        let usage = match self.usage {
            Usage::Daily => "/daily",
            Usage::RealTime => "/real-time",
            Usage::Unknown => "",
        };
        match &self.note {
            Some(note) => format!("{}{usage} {note}", self.code),
            None => format!("{}{usage}", self.code),
        }
    }

    /// From [`Self::written`]; the card state is in the audit only. None for a text that no proxy wrote.
    pub fn read(written: &str) -> Option<Self> {
        let (head, note) = match written.split_once(' ') {
            Some((head, note)) => (head, Some(note)),
            None => (written, None),
        };
        let (code, usage) = match head.split_once('/') {
            Some((code, "daily")) => (code, Usage::Daily),
            Some((code, "real-time")) => (code, Usage::RealTime),
            Some(_) => return None,
            None => (head, Usage::Unknown),
        };
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte);
        note.is_none_or(|note| note.bytes().all(plain)).then_some(())?;
        let note = note.map(Arc::from);
        Some(Self { code: Code::parse(code)?, state: None, usage, note })
    }
}

/// Defect of a body that is not a carrier reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAnEnvelope {
    /// Not JSON, truncated, or without the fields of an envelope.
    #[error("{0}")]
    Unreadable(ReplyError),
    /// The status is empty, over-long or not of letters and digits.
    #[error("the envelope's status is no code")]
    Code,
    /// Not a JSON object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A success without a usable token, in the reply to a request for one.
    #[error("it has no token")]
    NoToken,
}
