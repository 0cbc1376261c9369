//! The token of API v5: opaque, up to 512 bytes, and as secret as a password while it lives.

use core::fmt;

use zeroize::Zeroize;

use super::SecretError;
use crate::reply::v5::Unescape;

/// A borrowed token, of a response or of a [`TokenStore`]. It has no `Display` and no `==`, and `Debug` hides it.
#[derive(Clone, Copy)]
pub struct Token<'a>(Kind<'a>);

#[derive(Clone, Copy)]
enum Kind<'a> {
    /// The token's characters.
    Plain(&'a [u8]),
    /// The text between a JSON string's quotes, checked to decode to a valid token.
    Escaped(&'a [u8]),
}

impl<'a> Token<'a> {
    /// The longest token accepted, in bytes. The carrier states no limit.
    pub const MAX_LEN: usize = 512;

    /// Checks a token that the caller has kept.
    ///
    /// # Errors
    /// [`SecretError::Token`] when it is empty, `-1`, longer than [`Self::MAX_LEN`], or has a byte that is not printable
    /// ASCII, or a blank.
    pub fn parse(token: &'a [u8]) -> Result<Self, SecretError> {
        if is_token(token.iter().copied()) { Ok(Self(Kind::Plain(token))) } else { Err(SecretError::Token) }
    }

    /// Checks the text between a JSON string's quotes.
    pub(crate) fn from_escaped(escaped: &'a [u8]) -> Option<Self> {
        is_token(Unescape::new(escaped)).then_some(Self(Kind::Escaped(escaped)))
    }

    /// The token's characters, one after the other: to keep it elsewhere than in a [`TokenStore`].
    pub fn expose(&self) -> impl Iterator<Item = u8> + use<'a> {
        let (plain, escaped): (&[u8], &[u8]) = match self.0 {
            Kind::Plain(plain) => (plain, b""),
            Kind::Escaped(escaped) => (b"", escaped),
        };
        plain.iter().copied().chain(Unescape::new(escaped))
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

fn is_token(bytes: impl Iterator<Item = u8>) -> bool {
    // A refused fetch may carry the token `-1`.
    let mut refused = b"-1".iter();
    let mut differs = false;
    let mut len = 0;
    for byte in bytes {
        if len == Token::MAX_LEN || !byte.is_ascii_graphic() {
            return false;
        }
        differs |= refused.next() != Some(&byte);
        len += 1;
    }
    len > 0 && (differs || refused.next().is_some())
}

/// Memory for one token, which outlives the response that brought it; wiped on drop and before each change.
pub struct TokenStore {
    bytes: [u8; Token::MAX_LEN],
    len: u16,
}

impl TokenStore {
    /// An empty store.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; Token::MAX_LEN], len: 0 }
    }

    /// Replaces the content by `token`.
    pub fn set(&mut self, token: Token<'_>) {
        self.clear();
        // A token is no longer than the array.
        for (slot, byte) in self.bytes.iter_mut().zip(token.expose()) {
            *slot = byte;
            self.len = self.len.wrapping_add(1);
        }
    }

    /// The token; `None` if there is none.
    #[must_use]
    pub fn get(&self) -> Option<Token<'_>> {
        let token = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        // `set` stores valid tokens only.
        if token.is_empty() { None } else { Some(Token(Kind::Plain(token))) }
    }

    /// Wipes the content: after a query was refused, or at the end of the ttl.
    pub fn clear(&mut self) {
        self.bytes.zeroize();
        self.len.zeroize();
    }
}

impl Default for TokenStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TokenStore {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.len == 0 { "TokenStore(empty)" } else { "TokenStore(redacted)" })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_token_is_printable_and_not_minus_one() {
        let longest = [b'a'; Token::MAX_LEN];
        for right in [b"a".as_slice(), b"-", b"-2", b"-1x", b"1", b"+/=\"\\", &longest] {
            assert!(Token::parse(right).is_ok(), "{right:?}");
        }
        let too_long = [b'a'; Token::MAX_LEN + 1];
        for wrong in [b"".as_slice(), b"-1", b"a b", b"a\n", "é".as_bytes(), b"\0", &too_long] {
            assert_eq!(Token::parse(wrong).err(), Some(SecretError::Token), "{wrong:?}");
        }
    }

    #[test]
    fn an_escaped_token_is_decoded() {
        let exposed = |escaped: &'static str| -> Option<Vec<u8>> {
            Token::from_escaped(escaped.as_bytes()).map(|token| token.expose().collect())
        };
        assert_eq!(exposed(r#"a\/b\"\\\u0041"#).as_deref(), Some(br#"a/b"\A"#.as_slice()));
        for wrong in ["", r"\u002d1", r"a\n", r"\u00e9", "é", r"\u0000"] {
            assert_eq!(exposed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_store_keeps_the_last_token_and_is_wiped() {
        let mut store = TokenStore::new();
        assert!(store.get().is_none());
        store.set(Token::parse(&[b'x'; Token::MAX_LEN]).unwrap());
        store.set(Token::from_escaped(br"a\/b").unwrap());
        assert_eq!(store.get().unwrap().expose().collect::<Vec<_>>(), b"a/b");
        assert!(store.bytes.get(3..).unwrap().iter().all(|&byte| byte == 0));
        store.clear();
        assert!(store.get().is_none() && store.bytes.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn debug_shows_no_token() {
        let token = Token::parse(b"secret").unwrap();
        let mut store = TokenStore::new();
        store.set(token);
        let text = format!("{token:?} {store:?}");
        assert_eq!(text, "Token(redacted) TokenStore(redacted)");
    }
}
