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
#[derive(Clone, Copy)]
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

    /// The token over the parts in a row: appid, password and transid.
    pub(crate) fn of(parts: [&[u8]; 3]) -> Self {
        let mut token = Self([0; Self::LEN]);
        write_token(&parts, &mut token.0);
        token
    }

    /// Whether `claimed` is this token, in either case. Takes the same time wherever they differ; only the
    /// length of what was claimed shows.
    #[must_use]
    pub fn verify(&self, claimed: impl AsRef<[u8]>) -> bool {
        let Ok(mut claimed) = <[u8; Self::LEN]>::try_from(claimed.as_ref()) else { return false };
        claimed.make_ascii_lowercase();
        claimed.ct_eq(&self.0).into()
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

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

const BLOCK: usize = 64;

/// FIPS 180-4, 5.3.3: the first 32 bits of the fractional parts of the square roots of the first 8 primes.
static INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// FIPS 180-4, 5.1.1: a one bit and zeros, as many as it takes.
static PADDING: [u8; BLOCK] = {
    let mut padding = [0; BLOCK];
    padding[0] = 0x80;
    padding
};

/// Writes the token over the parts in a row: appid, password and transid; 512 MiB at most.
// Not inlined, so that a caller's stack need not hold a hasher for the rest of its life.
#[inline(never)]
pub(crate) fn write_token(parts: &[&[u8]; 3], token: &mut [u8; Token::LEN]) {
    let mut hash = Hash { state: INITIAL, block: PADDING, filled: 0 };
    let mut length = 0u32;
    for part in parts {
        hash.absorb(part);
        length = length.wrapping_add(part.len() as u32);
    }
    // As much as leaves room for the length, one byte at least. The standard counts bits in 64.
    let padding = (BLOCK + BLOCK - 9 - hash.filled) % BLOCK + 1;
    hash.absorb(PADDING.get(..padding).unwrap_or_default());
    let [a, b, c, d] = length.wrapping_mul(8).to_be_bytes();
    hash.absorb(&[0, 0, 0, 0, a, b, c, d]);
    // It held the password.
    hash.block.zeroize();

    for (word, digits) in hash.state.iter().zip(token.as_chunks_mut::<8>().0) {
        let mut word = *word;
        for digit in digits {
            word = word.rotate_left(4);
            let nibble = word as u8 & 0xF;
            *digit = nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
        }
    }
}

struct Hash {
    state: [u32; 8],
    block: [u8; BLOCK],
    /// Bytes waiting in `block`, fewer than [`BLOCK`].
    filled: usize,
}

impl Hash {
    // Not inlined: it is called thrice, and the compression should be linked once.
    #[inline(never)]
    fn absorb(&mut self, mut bytes: &[u8]) {
        loop {
            let free = self.block.get_mut(self.filled..).unwrap_or_default();
            let taken = free.len().min(bytes.len());
            // A loop, since `copy_from_slice` would link its panic.
            for (slot, &byte) in free.iter_mut().zip(bytes) {
                *slot = byte;
            }
            self.filled += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.filled < BLOCK {
                return;
            }
            compress256(&mut self.state, core::slice::from_ref(&self.block));
            self.filled = 0;
        }
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
