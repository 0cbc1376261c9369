//! The proof that a transid was made by who knows the password: lower-case hex of
//! SHA-256(appid ‖ password ‖ transid), 64 characters.
//!
//! Carrier page, "token". No separators, no HMAC; why the transid must be checked first stands in
//! [`transid`](crate::Transid). Padding is done here, on top of sha2's bare compression function (FIPS 180-4,
//! 5.1.1 and 5.3.3): the general hasher costs a chip 500 B of flash and 150 B of stack for lengths that
//! cannot occur.

use core::fmt;

use sha2::block_api::compress256;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::credentials::{AppId, Password};
use crate::transid::Transid;

/// A token: whoever sees it beside its transid and a card can send that look-up again, so `Debug` hides it.
/// It has no `==`: use [`verify`](Self::verify).
#[derive(Clone)]
pub struct Token([u8; Token::LEN]);

impl Token {
    /// The length of every token, in characters.
    pub const LEN: usize = 64;

    /// Signs a transid. The appid is normally the transid's own.
    #[must_use]
    pub fn sign(appid: &AppId, password: &Password, transid: &Transid) -> Self {
        Self::of([appid.as_bytes(), password.expose(), transid.as_bytes()])
    }

    /// Signs bytes that are no [`Transid`], for callers that must bear with malformed ones.
    ///
    /// # Danger
    /// Unchecked bytes open the length extension that [`Transid`] closes: the caller must have bounded their
    /// alphabet (`0-9A-Za-z` is safe) and their length before it believes a token over them.
    #[must_use]
    pub fn sign_unchecked_transid(appid: &AppId, password: &Password, transid: &[u8]) -> Self {
        Self::of([appid.as_bytes(), password.expose(), transid])
    }

    /// The token over appid, password and transid.
    pub(crate) fn of(parts: [&[u8]; 3]) -> Self {
        let mut hash = Hash { state: INITIAL, block: [0; BLOCK], filled: 0, length: 0 };
        for part in parts {
            hash.absorb(part);
        }
        hash.finish()
    }

    /// Whether `claimed` is this token, in either case. Takes the same time wherever they differ; only the
    /// length of what was claimed shows.
    #[must_use]
    pub fn verify(&self, claimed: impl AsRef<[u8]>) -> bool {
        let Ok(mut claimed) = <[u8; Self::LEN]>::try_from(claimed.as_ref()) else { return false };
        claimed.make_ascii_lowercase();
        let same = claimed.ct_eq(&self.0).into();
        claimed.zeroize();
        same
    }

    /// The 64 characters, lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hexadecimal digits are UTF-8, so the default is never taken; it only spares a panic.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The 64 characters as bytes, without the cost of proving that they are UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

const BLOCK: usize = 64;

/// FIPS 180-4, 5.3.3: the first 32 bits of the fractional parts of the square roots of the first 8 primes.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256 over at most 512 MiB, a byte at a time: what is hashed here is some hundred bytes.
struct Hash {
    state: [u32; 8],
    block: [u8; BLOCK],
    /// Bytes waiting in `block`, below [`BLOCK`].
    filled: usize,
    /// Bytes absorbed. The standard counts bits in 64; 32 are more than a transid can fill.
    length: u32,
}

impl Hash {
    fn absorb(&mut self, bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len() as u32);
        for &byte in bytes {
            self.put(byte);
        }
    }

    /// One function, called from everywhere, so that the compression is linked once and not inlined thrice.
    #[inline(never)]
    fn put(&mut self, byte: u8) {
        if let Some(slot) = self.block.get_mut(self.filled) {
            *slot = byte;
        }
        self.filled += 1;
        if self.filled == BLOCK {
            compress256(&mut self.state, core::slice::from_ref(&self.block));
            self.filled = 0;
        }
    }

    fn finish(mut self) -> Token {
        let length = self.length;
        self.put(0x80);
        while self.filled != BLOCK - 8 {
            self.put(0);
        }
        for byte in (u64::from(length) * 8).to_be_bytes() {
            self.put(byte);
        }
        // The block held the password; the state was one hash away from it.
        self.block.zeroize();
        let mut token = Token([0; Token::LEN]);
        for (word, digits) in self.state.iter().zip(token.0.as_chunks_mut::<8>().0) {
            let mut word = *word;
            for digit in digits {
                word = word.rotate_left(4);
                let nibble = (word & 0xF) as u8;
                *digit = nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
            }
        }
        token
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_own_padding_is_the_standards_at_every_length() {
        let bytes: [u8; 330] = core::array::from_fn(|n| n as u8);
        for len in 0..=bytes.len() {
            let (head, tail) = bytes[..len].split_at(len / 3);
            let reference: std::string::String =
                Sha256::digest(&bytes[..len]).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(Token::of([head, b"", tail]).as_str(), reference, "{len} bytes");
        }
    }

    #[test]
    fn verifies_either_case_and_nothing_else() {
        let token = Token::of([b"abc", b"", b""]);
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
    fn debug_does_not_tell_the_token() {
        assert_eq!(format!("{:?}", Token::of([b"", b"", b""])), "Token(redacted)");
    }
}
