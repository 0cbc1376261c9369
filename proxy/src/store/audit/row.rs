//! One request as the audit keeps it: owned and cheap to move, with nothing secret in it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::{AppId, Card};

use crate::clock::Time;

/// One request, answered or about to be. Never holds a password, a token or a URL.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// When the request came.
    pub at: Time,
    /// Whose request it is, or claims to be: see `authenticated`.
    pub client: Option<AppId>,
    /// The client's group, if the client is known.
    pub group: Option<Arc<str>>,
    /// The account that the carrier was asked with.
    pub account: Option<Arc<str>>,
    /// The address that it came from.
    pub peer: IpAddr,
    /// The look-up asked for, if its path is one.
    pub operation: Option<Arc<str>>,
    /// The card asked about, if it is well-formed.
    pub card: Option<Card>,
    /// The gateway's transid, well-formed or not.
    pub transid: Option<Clip<48>>,
    /// What became of it: one of a closed set, which is kept once per file.
    pub outcome: &'static str,
    /// Why there is no answer of the carrier's: one of a closed set.
    pub reason: Option<&'static str>,
    /// The code answered to the gateway.
    pub code: Clip<16>,
    /// The code that the carrier answered with, if it did.
    pub carrier_code: Option<Clip<16>>,
    /// The STATUS answered, if there is one.
    pub status: Option<Clip<16>>,
    /// How old the carrier's answer was.
    pub age: Option<Duration>,
    /// The transid of the carrier call that gave this answer, or of the last attempt.
    pub carrier_transid: Option<Clip<48>>,
    /// From the request's arrival until the record was made.
    pub latency: Duration,
    /// Whether the token was right.
    pub authenticated: bool,
}

/// A text kept in place, cut off after at most `N` (≤ 255) bytes at the end of a character.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Clip<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Clip<N> {
    /// As much of `text` as fits.
    pub fn new(text: &str) -> Self {
        const { assert!(N <= u8::MAX as usize, "the length is kept in one byte") };
        let kept = &text[..text.floor_char_boundary(N)];
        let mut bytes = [0; N];
        bytes[..kept.len()].copy_from_slice(kept.as_bytes());
        // At most N, which fits.
        Self { bytes, len: kept.len() as u8 }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // What `new` puts in is UTF-8, so the default is never taken.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl<const N: usize> From<&str> for Clip<N> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const N: usize> fmt::Debug for Clip<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_keeps_whole_characters() {
        for (text, kept) in [("", ""), ("71", "71"), ("12345678", "12345678"), ("123456789", "12345678")] {
            assert_eq!(Clip::<8>::new(text).as_str(), kept);
        }
        assert_eq!(Clip::<8>::new("正确正确").as_str(), "正确");
    }
}
