//! The hash by sha2's compression function, which reads blocks of bytes.

use sha2::block_api::compress256;

use super::begin;

/// Bytes per block.
const BLOCK: usize = 64;

/// Blocks that are compressed at once: two on a host, since a token seldom needs more; one on a chip, to save stack.
const BLOCKS: usize = if cfg!(target_os = "none") { 1 } else { 2 };

/// Size of the buffer, in bytes.
const BUFFER: usize = BLOCKS * BLOCK;

/// One block of words.
pub(super) fn compress(state: &mut [u32; 8], block: &[u32; 16]) {
    let mut bytes = [[0; BLOCK]; 1];
    for (word, bytes) in block.iter().zip(bytes.as_flattened_mut().as_chunks_mut().0) {
        *bytes = word.to_be_bytes();
    }
    compress256(state, &bytes);
    // They may contain the password.
    bytes = [[0; BLOCK]; 1];
    zeroize::optimization_barrier(&bytes);
}

/// The hash of the concatenated parts, 512 MiB at most.
#[inline(always)]
pub(super) fn hash(parts: &[&[u8]; 3], state: &mut [u32; 8]) {
    // The compression is called in several places, so it stays a separate function, optimised like sha2 and not like
    // its caller.
    begin(state);
    let mut buffer = [[0; BLOCK]; BLOCKS];
    let mut length = 0usize;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let count = absorb(buffer.as_flattened_mut(), length % BUFFER, rest);
            rest = rest.get(count..).unwrap_or_default();
            length = length.wrapping_add(count);
            if length.is_multiple_of(BUFFER) {
                compress256(state, &buffer);
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
        compress256(state, &buffer);
        buffer = [[0; BLOCK]; BLOCKS];
        last = 0;
    }
    if let Some(end) = buffer.get_mut(last).and_then(|block| block.last_chunk_mut()) {
        *end = (length as u32).wrapping_mul(8).to_be_bytes();
    }
    compress256(state, buffer.get(..=last).unwrap_or_default());
    // The buffer contained the password. `zeroize` itself would clear it byte by byte.
    buffer = [[0; BLOCK]; BLOCKS];
    zeroize::optimization_barrier(&buffer);
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
