//! Short texts without an allocation: [`InlineStr`].

use std::cmp::Ordering;
use std::fmt;

/// A text stored inline, truncated to at most `N` (≤ 255) bytes at a character boundary.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InlineStr<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> InlineStr<N> {
    /// As much of `text` as fits.
    pub fn new(text: &str) -> Self {
        const { assert!(N <= u8::MAX as usize, "the length is one byte") };
        let kept = &text[..text.floor_char_boundary(N)];
        let mut bytes = [0; N];
        bytes[..kept.len()].copy_from_slice(kept.as_bytes());
        // At most N, which fits.
        Self { bytes, len: kept.len() as u8 }
    }

    pub fn as_str(&self) -> &str {
        // `new` stores UTF-8 only, so the default is never used.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The bytes, without the check for UTF-8 that `as_str` costs.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl<const N: usize> Ord for InlineStr<N> {
    /// The order of the texts: the bytes after the end are zero. Compares eight bytes at once, since the first digits of
    /// most cards are equal.
    fn cmp(&self, other: &Self) -> Ordering {
        let ((words, rest), (others, others_rest)) =
            (self.bytes.as_chunks::<8>(), other.bytes.as_chunks::<8>());
        let number = |word: &[u8; 8]| u64::from_be_bytes(*word);
        let by_words = words.iter().map(number).cmp(others.iter().map(number));
        by_words.then_with(|| rest.cmp(others_rest)).then(self.len.cmp(&other.len))
    }
}

impl<const N: usize> PartialOrd for InlineStr<N> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<const N: usize> From<&str> for InlineStr<N> {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl<const N: usize> fmt::Debug for InlineStr<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_keeps_whole_characters() {
        for (text, kept) in [("", ""), ("71", "71"), ("12345678", "12345678"), ("123456789", "12345678")] {
            assert_eq!(InlineStr::<8>::new(text).as_str(), kept);
        }
        assert_eq!(InlineStr::<8>::new("正确正确").as_str(), "正确");
    }

    #[test]
    fn inline_texts_are_ordered_as_their_texts_are() {
        let whole = "0123456789abcdef0123456789abcdef";
        // Each prefix, a greater byte at each position, and a text that continues with a zero byte.
        let longer = (0..=whole.len()).map(|end| whole[..end].to_owned());
        let greater = (0..whole.len()).map(|at| format!("{}x{}", &whole[..at], &whole[at + 1..]));
        let texts: Vec<_> = longer.chain(greater).chain(["0\0".to_owned(), "正确".to_owned()]).collect();
        for (one, other) in texts.iter().flat_map(|one| texts.iter().map(move |other| (one, other))) {
            assert_eq!(
                InlineStr::<32>::new(one).cmp(&InlineStr::new(other)),
                one.cmp(other),
                "{one} {other}"
            );
            let short = [one, other].map(|text| InlineStr::<21>::new(text));
            assert_eq!(short[0].cmp(&short[1]), short[0].as_str().cmp(short[1].as_str()), "{short:?}");
        }
    }
}
