//! SHA-256 (FIPS 180-4) over the three parts of a token, with an exchangeable compression function.
//!
//! Padding is done here (5.1.1): a general hasher costs a chip 500 B of flash and 150 B of stack for lengths that cannot
//! occur. The compression function (6.2.2) takes most of the time, and chips have hardware for it, so it is a trait.
//!
//! | compression | use |
//! | --- | --- |
//! | sha2 | the default, and the only default on a host; there it uses the processor's instructions |
//! | [`SmallCompression`] | the default of a chip with feature `small` |
//! | the caller's | hardware, by [`Signer::with_compression`](crate::Signer::with_compression) |

mod bytes;
mod small;

pub use small::SmallCompression;

/// SHA-256's compression function (FIPS 180-4, 6.2.2), in software or hardware.
///
/// A function or closure is one, too:
///
/// ```
/// # use cmiot_signer::{AppId, CompressionFunction, Ebid, Password, Signer, SmallCompression};
/// # let (appid, ebid) = (AppId::parse("100001").unwrap(), Ebid::parse("1").unwrap());
/// # let password = Password::new(b"pw").unwrap();
/// fn by_hardware(state: &mut [u32; 8], block: &mut [u32; 16]) {
///     // Load the state and the block into the peripheral, start it, wait, and read the state back.
/// #   SmallCompression.compress(state, block);
/// }
/// let signer = Signer::new(&appid, &ebid, &password).with_compression(by_hardware);
/// ```
pub trait CompressionFunction {
    /// Replaces the state by the next one. `block` has the sixteen words of the message in order, each with its first
    /// byte in the most significant position; the function may overwrite it.
    ///
    /// All blocks of a token are passed in their order, and the first with the initial state of FIPS 180-4, 5.3.3:
    /// hardware that cannot load a state can keep it.
    fn compress(&self, state: &mut [u32; 8], block: &mut [u32; 16]);

    /// Sets `state` to the hash of the concatenated parts. The default is right for every compression function.
    #[doc(hidden)]
    fn hash(&self, parts: &[&[u8]; 3], buffer: &mut Buffer) {
        hash(self, parts, buffer);
    }
}

impl<F: Fn(&mut [u32; 8], &mut [u32; 16])> CompressionFunction for F {
    fn compress(&self, state: &mut [u32; 8], block: &mut [u32; 16]) {
        self(state, block);
    }
}

/// The memory of a hash.
#[derive(Default)]
pub struct Buffer {
    pub(crate) state: [u32; 8],
    block: [u32; 16],
}

/// The compression function that is used without a choice: sha2's, or [`SmallCompression`] on a chip
/// (`target_os = "none"`) with feature `small`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultCompression;

/// Whether [`SmallCompression`] is the default.
const SMALL: bool = cfg!(all(feature = "small", target_os = "none"));

impl CompressionFunction for DefaultCompression {
    #[inline(always)]
    fn compress(&self, state: &mut [u32; 8], block: &mut [u32; 16]) {
        if SMALL {
            return SmallCompression.compress(state, block);
        }
        bytes::compress(state, block);
    }

    #[inline(always)]
    fn hash(&self, parts: &[&[u8]; 3], buffer: &mut Buffer) {
        if SMALL { hash(&SmallCompression, parts, buffer) } else { bytes::hash(parts, &mut buffer.state) }
    }
}

/// FIPS 180-4, 5.3.3: the first 32 bits of the fractional parts of the square roots of the first 8 primes.
static INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Sets the initial state.
#[inline(always)]
fn begin(state: &mut [u32; 8]) {
    // Word by word: a copy of the whole static would link `memcpy`.
    for (word, initial) in state.iter_mut().zip(&INITIAL) {
        *word = *initial;
    }
}

/// The hash of the concatenated parts, 512 MiB at most, in a buffer of words.
#[inline(always)]
fn hash<C: CompressionFunction + ?Sized>(compression: &C, parts: &[&[u8]; 3], buffer: &mut Buffer) {
    let Buffer { state, block } = buffer;
    begin(state);
    let (mut word, mut length) = (0, 0usize);
    for part in parts {
        for &byte in *part {
            let at = length / 4 % 16;
            word = word << 8 | u32::from(byte);
            length = length.wrapping_add(1);
            if length.is_multiple_of(4) {
                block[at] = word;
                if length.is_multiple_of(64) {
                    compression.compress(state, block);
                }
            }
        }
    }
    // FIPS 180-4, 5.1.1: a one bit, zeros, and the length in bits, as 64 of which 32 are enough here.
    let mut at = length / 4 % 16;
    block[at] = (word << 8 | 0x80) << (8 * (3 - length % 4));
    at += 1;
    while at != 14 {
        if at == 16 {
            compression.compress(state, block);
            at = 0;
        }
        block[at % 16] = 0;
        at += 1;
    }
    let [.., high, low] = block;
    (*high, *low) = (0, (length as u32).wrapping_mul(8));
    compression.compress(state, block);
    // The block contained the password.
    *block = [0; 16];
    zeroize::optimization_barrier(block);
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::String;
    use std::vec::Vec;
    use std::{format, vec};

    use sha2::{Digest, Sha256};

    use super::*;

    /// The hash of the parts in hexadecimal.
    fn hashed(compression: &impl CompressionFunction, parts: [&[u8]; 3]) -> String {
        let mut buffer = Buffer::default();
        compression.hash(&parts, &mut buffer);
        buffer.state.iter().map(|word| format!("{word:08x}")).collect()
    }

    #[test]
    fn every_compression_gives_the_examples_of_nist() {
        // FIPS 180-2, appendix B, and the examples that NIST publishes for FIPS 180-4.
        let long = vec![b'a'; 1_000_000];
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let three_blocks = b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn\
            hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
        let examples: [(&[u8], &str); 5] = [
            (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (two_blocks, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"),
            (three_blocks, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"),
            (&long, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ];
        for (message, hash) in examples {
            let parts = [message, b"", b""];
            assert_eq!(hashed(&SmallCompression, parts), hash);
            assert_eq!(hashed(&DefaultCompression, parts), hash);
        }
    }

    #[test]
    fn the_own_padding_is_the_standards_at_every_length() {
        let bytes: Vec<u8> = (0..330).map(|n| n as u8).collect();
        // With its own buffer of words, as a chip's hardware has it.
        let of_words =
            |state: &mut [u32; 8], block: &mut [u32; 16]| DefaultCompression.compress(state, block);
        for len in 0..=bytes.len() {
            let (head, tail) = bytes[..len].split_at(len / 3);
            let reference: String =
                Sha256::digest(&bytes[..len]).iter().map(|b| format!("{b:02x}")).collect();
            for parts in [[head, b"", tail], [head, tail, b""]] {
                assert_eq!(hashed(&DefaultCompression, parts), reference, "{len} bytes");
                assert_eq!(hashed(&SmallCompression, parts), reference, "{len} bytes");
                assert_eq!(hashed(&of_words, parts), reference, "{len} bytes");
            }
        }
    }

    #[test]
    fn the_block_is_empty_after_a_hash() {
        let mut buffer = Buffer::default();
        SmallCompression
            .hash(&[b"100001", b"example-password", b"1000012014101615303080000001"], &mut buffer);
        assert_eq!(buffer.block, [0; 16]);
    }
}
