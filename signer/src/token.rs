//! The proof that a transid was made by who knows the password: lower-case hex of
//! SHA-256(appid ‖ password ‖ transid), 64 characters.
//!
//! Carrier page, "token". No separators, no HMAC; why the transid must be checked first stands in
//! [`transid`](crate::Transid). Padding is done here, on top of sha2's bare compression function (FIPS 180-4,
//! 5.1.1 and 5.3.3): the general hasher costs a chip 500 B of flash and 150 B of stack for lengths that
//! cannot occur.

use core::{fmt, slice};

use sha2::block_api::compress256;
use subtle::ConstantTimeEq;

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
        // By words: `subtle` keeps the compiler from doing so itself.
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

/// Writes the token over the parts in a row: appid, password and transid; 512 MiB at most.
// Not inlined, so that a caller's stack need not hold a block for the rest of its life.
#[inline(never)]
pub(crate) fn write_token(parts: &[&[u8]; 3], token: &mut [u8; Token::LEN]) {
    // Word by word: to copy the static whole would link `memcpy`. Called in several places, the compression stays a
    // function of its own, optimised as sha2 is and not as its caller.
    let mut state: [u32; 8] = core::array::from_fn(|at| INITIAL[at]);
    let mut block = [0; BLOCK];
    let mut length = 0usize;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let count = absorb(&mut block, length % BLOCK, rest);
            rest = rest.get(count..).unwrap_or_default();
            length = length.wrapping_add(count);
            if length.is_multiple_of(BLOCK) {
                compress256(&mut state, slice::from_ref(&block));
                block = [0; BLOCK];
            }
        }
    }

    // FIPS 180-4, 5.1.1: a one bit, zeros, and the length in bits, as 64 of which 32 are enough here.
    let at = length % BLOCK;
    block[at] = 0x80;
    if at >= BLOCK - 8 {
        compress256(&mut state, slice::from_ref(&block));
        block = [0; BLOCK];
    }
    if let Some(end) = block.last_chunk_mut() {
        *end = (length as u32).wrapping_mul(8).to_be_bytes();
    }
    compress256(&mut state, slice::from_ref(&block));
    // It held the password. Not byte by byte, as `zeroize` itself would.
    block = [0; BLOCK];
    zeroize::optimization_barrier(&block);

    for (word, digits) in state.iter().zip(token.as_chunks_mut().0) {
        *digits = hex(*word);
    }
}

/// Copies of a part, which is not empty, what the block has room for; at least a byte. Returns how much it was.
#[inline(always)]
fn absorb(block: &mut [u8; BLOCK], at: usize, part: &[u8]) -> usize {
    if cfg!(target_os = "none") {
        // A byte a time: to copy more would link `memcpy`.
        block[at] = part.first().copied().unwrap_or_default();
        return 1;
    }
    let room = block.get_mut(at..).unwrap_or_default();
    for (to, from) in room.iter_mut().zip(part) {
        *to = *from;
    }
    room.len().min(part.len())
}

/// A word's eight digits, as many at a time as a register holds and without a branch on what they are.
fn hex(word: u32) -> [u8; 8] {
    if cfg!(target_pointer_width = "64") {
        let pairs = (u64::from(word) | u64::from(word) << 16) & 0x0000_FFFF_0000_FFFF;
        let bytes = (pairs | pairs << 8) & 0x00FF_00FF_00FF_00FF;
        let nibbles = (bytes | bytes << 4) & 0x0F0F_0F0F_0F0F_0F0F;
        // 1 where a nibble is above 9.
        let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        return (nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes();
    }
    let [a, b, c, d] = four_digits(word >> 16);
    let [e, f, g, h] = four_digits(word & 0xFFFF);
    [a, b, c, d, e, f, g, h]
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
