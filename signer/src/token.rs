//! The token, which authenticates a transid: lower-case hex of SHA-256(appid ‖ password ‖ transid), 64 characters.
//!
//! Carrier page, "token". It has no separators and no HMAC; [`transid`](crate::Transid) explains why the transid must
//! be checked first. Padding is done here, over sha2's compression function (FIPS 180-4, 5.1.1 and 5.3.3): the general
//! hasher costs a chip 500 B of flash and 150 B of stack for lengths that cannot occur.

use core::fmt;

use sha2::block_api::compress256;
use subtle::ConstantTimeEq;

use crate::credentials::{AppId, Password};
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
        Self::of([appid.as_bytes(), password.expose(), transid.as_bytes()])
    }

    /// Signs bytes that are not a [`Transid`], for callers that must accept malformed ones.
    ///
    /// # Danger
    /// Unchecked bytes allow the length extension that [`Transid`] prevents: the caller must check their alphabet
    /// (`0-9A-Za-z` is safe) and their length before it trusts a token over them.
    #[must_use]
    pub fn sign_unchecked_transid(appid: &AppId, password: &Password, transid: &[u8]) -> Self {
        Self::of([appid.as_bytes(), password.expose(), transid])
    }

    /// The token over the concatenated parts: appid, password and transid.
    pub(crate) fn of(parts: [&[u8]; 3]) -> Self {
        let mut token = Self([0; Self::LEN]);
        write_token(&parts, &mut token.0);
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

const BLOCK: usize = 64;

/// Blocks that are compressed at once: two on a host, since a token seldom needs more; one on a chip, to save stack.
const BLOCKS: usize = if cfg!(target_os = "none") { 1 } else { 2 };

/// Size of the buffer, in bytes.
const BUFFER: usize = BLOCKS * BLOCK;

/// FIPS 180-4, 5.3.3: the first 32 bits of the fractional parts of the square roots of the first 8 primes.
static INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Writes the token over the concatenated parts: appid, password and transid; 512 MiB at most.
// Not inlined, so that the block leaves the stack when this function returns.
#[inline(never)]
pub(crate) fn write_token(parts: &[&[u8]; 3], token: &mut [u8; Token::LEN]) {
    // Word by word: a copy of the whole static would link `memcpy`. The compression is called in several places, so it
    // stays a separate function, optimised like sha2 and not like its caller.
    let mut state: [u32; 8] = core::array::from_fn(|at| INITIAL[at]);
    let mut buffer = [[0; BLOCK]; BLOCKS];
    let mut length = 0usize;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let count = absorb(buffer.as_flattened_mut(), length % BUFFER, rest);
            rest = rest.get(count..).unwrap_or_default();
            length = length.wrapping_add(count);
            if length.is_multiple_of(BUFFER) {
                compress256(&mut state, &buffer);
                buffer = [[0; BLOCK]; BLOCKS];
            }
        }
    }

    // FIPS 180-4, 5.1.1: a one bit, zeros, and the length in bits, as 64 of which 32 are enough here.
    let at = length % BUFFER;
    if let Some(end) = buffer.as_flattened_mut().get_mut(at) {
        *end = 0x80;
    }
    let mut last = (at + 8) / BLOCK;
    if last == BLOCKS {
        compress256(&mut state, &buffer);
        buffer = [[0; BLOCK]; BLOCKS];
        last = 0;
    }
    if let Some(end) = buffer.get_mut(last).and_then(|block| block.last_chunk_mut()) {
        *end = (length as u32).wrapping_mul(8).to_be_bytes();
    }
    compress256(&mut state, buffer.get(..=last).unwrap_or_default());
    // The buffer contained the password. `zeroize` itself would clear it byte by byte.
    buffer = [[0; BLOCK]; BLOCKS];
    zeroize::optimization_barrier(&buffer);

    write_hex(&state, token);
}

/// Copies as much of a non-empty part as fits into the block, at least one byte, and returns the count.
#[inline(always)]
fn absorb(block: &mut [u8], at: usize, part: &[u8]) -> usize {
    if cfg!(target_os = "none") {
        // One byte at a time: a larger copy would link `memcpy`.
        if let (Some(to), Some(from)) = (block.get_mut(at), part.first()) {
            *to = *from;
        }
        return 1;
    }
    let buffer = block.get_mut(at..).unwrap_or_default();
    let count = buffer.len().min(part.len());
    let (to, from) = (buffer.get_mut(..count).unwrap_or_default(), part.get(..count).unwrap_or_default());
    let Some(last) = from.last_chunk::<8>() else {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
        return count;
    };
    // Eight bytes at a time, and the last eight again, which covers the remainder.
    for (to, from) in to.as_chunks_mut::<8>().0.iter_mut().zip(from.as_chunks::<8>().0) {
        *to = *from;
    }
    if let Some(to) = to.last_chunk_mut() {
        *to = *last;
    }
    count
}

/// Writes a hash's digits without a branch on their values.
#[inline(always)]
fn write_hex(state: &[u32; 8], token: &mut [u8; Token::LEN]) {
    if cfg!(target_os = "none") {
        for (word, digits) in state.iter().zip(token.as_chunks_mut().0) {
            *digits = eight_digits(*word);
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
    nibble + b'0' + (letter.wrapping_neg() & (b'a' - b'0' - 10))
}

/// A word's digits: four at a time, for a chip.
fn eight_digits(word: u32) -> [u8; 8] {
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
    fn debug_hides_the_token() {
        assert_eq!(format!("{:?}", Token::of([b"", b"", b""])), "Token(redacted)");
    }
}
