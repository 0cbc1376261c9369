//! The token, which authenticates a transid: lower-case hex of SHA-256(appid ‖ password ‖ transid), 64 characters.
//!
//! Carrier page, "token". It has no separators and no HMAC; [`transid`](crate::Transid) explains why the transid must
//! be checked first.

use core::fmt;

use subtle::ConstantTimeEq;

use crate::credentials::{AppId, Password};
use crate::sha256::{Buffer, CompressionFunction, DefaultCompression};
use crate::transid::Transid;

/// A token. Its transid and a card suffice to replay the lookup, so `Debug` hides it. It has no `==`: use
/// [`verify`](Self::verify).
#[derive(Clone, Copy)]
pub struct Token([u8; Token::LEN]);

impl Token {
    /// The length of every token, in characters.
    pub const LEN: usize = 64;

    /// Signs a transid. The appid is normally the transid's own.
    #[must_use]
    pub fn sign(appid: &AppId, password: &Password, transid: &Transid) -> Self {
        Self::of(&DefaultCompression, [appid.as_bytes(), password.expose(), transid.as_bytes()])
    }

    /// Signs bytes that are not a [`Transid`], for callers that must accept malformed ones.
    ///
    /// # Danger
    /// Unchecked bytes allow the length extension that [`Transid`] prevents: the caller must check their alphabet
    /// (`0-9A-Za-z` is safe) and their length before it trusts a token over them.
    #[must_use]
    pub fn sign_unchecked_transid(appid: &AppId, password: &Password, transid: &[u8]) -> Self {
        Self::of(&DefaultCompression, [appid.as_bytes(), password.expose(), transid])
    }

    /// The token over the concatenated parts: appid, password and transid.
    pub(crate) fn of<C: CompressionFunction>(compression: &C, parts: [&[u8]; 3]) -> Self {
        let mut token = Self([0; Self::LEN]);
        write_token(compression, &parts, &mut token.0);
        token
    }

    /// Whether `claimed` is this token, in either case. The time does not depend on the position of a difference, only
    /// on the length of `claimed`.
    #[must_use]
    pub fn verify(&self, claimed: impl AsRef<[u8]>) -> bool {
        let Ok(mut claimed) = <[u8; Self::LEN]>::try_from(claimed.as_ref()) else { return false };
        claimed.make_ascii_lowercase();
        // By words: `subtle` prevents the compiler from grouping bytes itself.
        let words = |hex: &[u8; Self::LEN]| -> [u32; Self::LEN / 4] {
            core::array::from_fn(|n| {
                let [a, b, c, d] = [hex[4 * n], hex[4 * n + 1], hex[4 * n + 2], hex[4 * n + 3]];
                u32::from_ne_bytes([a, b, c, d])
            })
        };
        words(&claimed).ct_eq(&words(&self.0)).into()
    }

    /// The 64 characters, lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hexadecimal digits are UTF-8, so the default is never used; it only avoids a panic.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The 64 characters as bytes, without the cost of proving that they are UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Writes the token over the concatenated parts: appid, password and transid; 512 MiB at most.
// Not inlined, so that the block leaves the stack when this function returns.
#[inline(never)]
pub(crate) fn write_token<C: CompressionFunction>(
    compression: &C,
    parts: &[&[u8]; 3],
    token: &mut [u8; Token::LEN],
) {
    let mut buffer = Buffer::default();
    compression.hash(parts, &mut buffer);
    write_hex(&buffer.state, token);
}

/// Writes a hash's digits without a branch on their values.
#[inline(always)]
fn write_hex(state: &[u32; 8], token: &mut [u8; Token::LEN]) {
    if cfg!(target_os = "none") {
        for (n, digits) in token.as_chunks_mut().0.iter_mut().enumerate() {
            let word = state[n / 2];
            *digits = four_digits(if n % 2 == 0 { word >> 16 } else { word & 0xFFFF });
        }
        return;
    }
    // By bytes, which a host's compiler vectorises.
    let mut bytes = [0; 32];
    for (word, bytes) in state.iter().zip(bytes.as_chunks_mut().0) {
        *bytes = word.to_be_bytes();
    }
    for (byte, [high, low]) in bytes.iter().zip(token.as_chunks_mut().0) {
        *high = digit(byte >> 4);
        *low = digit(byte & 0xF);
    }
}

/// The digit of a nibble.
fn digit(nibble: u8) -> u8 {
    // 1 where it is above 9.
    let letter = (nibble + 6) >> 4;
    nibble + b'0' + letter * (b'a' - b'0' - 10)
}

/// The digits of a number of 16 bits: a nibble to each byte, then what makes it a character.
fn four_digits(number: u32) -> [u8; 4] {
    let bytes = (number | number << 8) & 0x00FF_00FF;
    let nibbles = (bytes | bytes << 4) & 0x0F0F_0F0F;
    // 1 where a nibble is above 9.
    let letters = (nibbles + 0x0606_0606) >> 4 & 0x0101_0101;
    (nibbles + 0x3030_3030 + letters * u32::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use super::*;

    #[test]
    fn verifies_either_case_and_nothing_else() {
        let token = Token::of(&DefaultCompression, [b"abc", b"", b""]);
        // FIPS 180-2, appendix B.1
        assert_eq!(token.as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(token.verify(token.as_str()));
        assert!(token.verify(token.as_str().to_ascii_uppercase()));
        for at in 0..Token::LEN {
            let mut wrong = *token.as_bytes();
            wrong[at] ^= 1;
            assert!(!token.verify(wrong), "differs at {at}");
        }
        for wrong in [&token.as_str()[..63], "", &format!("{} ", token.as_str()), &" ".repeat(64)] {
            assert!(!token.verify(wrong));
        }
    }

    #[test]
    fn debug_hides_the_token() {
        assert_eq!(format!("{:?}", Token::of(&DefaultCompression, [b"", b"", b""])), "Token(redacted)");
    }
}
