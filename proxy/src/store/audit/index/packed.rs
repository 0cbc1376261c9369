//! A sorted run in memory: some 20 bytes per entry instead of 48.
//!
//! ```text
//! entry = length of the card, card, number as i64
//! ```

use super::IndexEntry;
use crate::inline_str::InlineStr;

/// The entries of a run, taken from the front.
pub(super) struct Packed {
    bytes: Vec<u8>,
    /// The offset of the next entry.
    at: usize,
}

impl Packed {
    pub(super) fn new(entries: &[IndexEntry]) -> Self {
        let size = |entry: &IndexEntry| 1 + entry.card.as_bytes().len() + size_of::<i64>();
        let mut bytes = Vec::with_capacity(entries.iter().map(size).sum());
        for IndexEntry { card, id } in entries {
            let card = card.as_bytes();
            // At most 32: see `IndexEntry`.
            bytes.push(card.len() as u8);
            bytes.extend_from_slice(card);
            bytes.extend_from_slice(&id.to_ne_bytes());
        }
        Self { bytes, at: 0 }
    }
}

impl Iterator for Packed {
    type Item = IndexEntry;

    fn next(&mut self) -> Option<IndexEntry> {
        let (&length, rest) = self.bytes.get(self.at..)?.split_first()?;
        let (card, rest) = rest.split_at_checked(usize::from(length))?;
        let id = i64::from_ne_bytes(*rest.first_chunk()?);
        self.at += 1 + card.len() + size_of::<i64>();
        // The bytes came from a `str`.
        Some(IndexEntry { card: InlineStr::new(std::str::from_utf8(card).ok()?), id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let entry = |card, id| IndexEntry { card: InlineStr::new(card), id };
        let entries = [
            entry("", 1),
            entry("14765004176", i64::MAX),
            entry("898602C99816C0445401", -1),
            entry("0123456789abcdef0123456789abcdef", 7),
        ];
        assert_eq!(Packed::new(&entries).collect::<Vec<_>>(), entries);
        assert_eq!(Packed::new(&[]).next(), None);
    }
}
