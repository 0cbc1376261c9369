//! The body of a carrier reply as a call's row keeps it: its hash, or its first bytes.
//!
//! ```text
//! body = 01 SHA-256 | 02 HMAC-SHA256 | 03 bytes | 04 SHA-256 bytes      of the body; see migrations/audit/0002_bodies.sql
//! ```
//!
//! A body holds the card, and a hash of it can be found by trying all cards. So where cards are hashed with a key, the hash
//! of the body is, too.

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use super::identity::IdentityKey;
use crate::config::Bodies;

/// The most bytes of a body that are kept.
pub(crate) const MOST: usize = 4_096;

/// The kept part of a body.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    hash: [u8; 32],
    /// The first bytes; none if only the hash is kept.
    bytes: Option<Box<[u8]>>,
    is_whole: bool,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It has a card.
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    /// The part of a body to keep; none if none is.
    pub(crate) fn of(body: &[u8], mode: Bodies) -> Option<Self> {
        let bytes = match mode {
            Bodies::None => return None,
            Bodies::Hash => None,
            Bodies::Full => Some(&body[..body.len().min(MOST)]),
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, body).as_ref());
        Some(Self { hash, bytes: bytes.map(Into::into), is_whole: body.len() <= MOST })
    }

    /// Its form in a row. With a key only the keyed hash is written, whatever is kept.
    pub(crate) fn written(&self, key: Option<&IdentityKey>) -> Box<[u8]> {
        match (key, &self.bytes) {
            (Some(key), _) => [&[2][..], &key.hash_body(&self.hash)].concat(),
            (None, None) => [&[1][..], &self.hash].concat(),
            (None, Some(bytes)) if self.is_whole => [&[3][..], bytes].concat(),
            (None, Some(bytes)) => [&[4][..], &self.hash, bytes].concat(),
        }
        .into_boxed_slice()
    }
}

/// The hash of a body as the view `carrier_call` shows it: `hmac-sha256:` and hex with the key of a month, `sha256:` and
/// hex without one.
pub fn shown_hash(body: &[u8], key: Option<&IdentityKey>) -> String {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, body).as_ref());
    match key {
        Some(key) => format!("hmac-sha256:{}", HEXLOWER.encode(&key.hash_body(&sha256))),
        None => format!("sha256:{}", HEXLOWER.encode(&sha256)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_shown_as_sha256sum_prints_it() {
        // printf '{}' | sha256sum
        let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(shown_hash(b"{}", None), format!("sha256:{hash}"));
    }

    #[test]
    fn the_first_byte_says_what_is_kept() {
        let written = |body: &[u8], mode| Body::of(body, mode).map(|body| body.written(None));
        // printf '{}' | sha256sum
        let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(written(b"{}", Bodies::None), None);
        assert_eq!(hex(&written(b"{}", Bodies::Hash).unwrap()), format!("01{hash}"));
        assert_eq!(&*written(b"{}", Bodies::Full).unwrap(), b"\x03{}");
        let long = [b'x'; MOST + 1];
        let longest = written(&long[..MOST], Bodies::Full).unwrap();
        assert_eq!((longest[0], longest.len()), (3, 1 + MOST));
        let truncated = written(&long, Bodies::Full).unwrap();
        assert_eq!((truncated[0], truncated.len()), (4, 1 + 32 + MOST));
        assert_eq!(truncated[1..33], written(&long, Bodies::Hash).unwrap()[1..]);
    }
}
