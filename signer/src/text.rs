//! A short inline text, the content of every checked type of this crate.
//!
//! The bytes after the text stay zero, so that derived equality and hashing depend on the text only. The content is
//! bytes, not `str`: UTF-8 validation would link its tables into a firmware that never prints anything. Only `as_str`
//! validates.

use core::cmp::Ordering;

/// At most `N` (≤ 255) bytes of UTF-8.
///
/// The length comes first, so that it is at the same place in texts of every `N`: code for several of them is shared.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub(crate) struct Text<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// The empty text.
    pub(crate) const EMPTY: Self = {
        assert!(N <= u8::MAX as usize, "the length is one byte");
        Self { len: 0, bytes: [0; N] }
    };

    /// The text of 1 to `N` characters that all belong to `alphabet`, in the spelling that `case` says.
    ///
    /// `const`, so that a firmware's credentials can be checked at compile time and stay in flash.
    pub(crate) const fn checked(text: &[u8], alphabet: Alphabet, case: Case) -> Result<Self, Fault> {
        let mut this = Self::EMPTY;
        match this.set(text, alphabet, case) {
            Ok(()) => Ok(this),
            Err(fault) => Err(fault),
        }
    }

    /// [`checked`](Self::checked) in place: the move of a text would link `memcpy`. `self` is empty; after a fault its
    /// content is unspecified.
    pub(crate) const fn set(&mut self, text: &[u8], alphabet: Alphabet, case: Case) -> Result<(), Fault> {
        if text.is_empty() {
            return Err(Fault::Empty);
        }
        if text.len() > N {
            return Err(Fault::TooLong);
        }
        // `for` is not allowed in a const fn.
        let mut at = 0;
        while at < text.len() {
            if !alphabet.has(text[at]) {
                return Err(Fault::BadCharacter);
            }
            self.bytes[at] = match case {
                Case::Kept => text[at],
                Case::Upper => text[at].to_ascii_uppercase(),
            };
            at += 1;
        }
        self.len = text.len() as u8;
        Ok(())
    }

    /// Appends all of `more`, or nothing if it does not fit.
    pub(crate) fn push(&mut self, more: &[u8]) -> bool {
        let free = self.bytes.get_mut(usize::from(self.len)..).unwrap_or_default();
        if copy(more, free).is_none() {
            return false;
        }
        // `more` fits after `len`, so the sum is at most N, which fits a byte.
        self.len = self.len.wrapping_add(more.len() as u8);
        true
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    pub(crate) fn as_str(&self) -> &str {
        // All content is UTF-8, so the default is never used; it only avoids a panic.
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl<const N: usize> Ord for Text<N> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl<const N: usize> PartialOrd for Text<N> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Copies all of `from` to the beginning of `to` and returns the rest of `to`; if it does not fit, copies nothing and
/// returns `None`.
pub(crate) fn copy<'a>(from: &[u8], to: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (head, rest) = to.split_at_mut_checked(from.len())?;
    // A loop, because `copy_from_slice` would link its panic.
    for (slot, &byte) in head.iter_mut().zip(from) {
        *slot = byte;
    }
    Some(rest)
}

/// The characters that a text may contain.
#[derive(Clone, Copy)]
pub(crate) enum Alphabet {
    /// `0-9`
    Digits,
    /// `0-9A-Fa-f`
    Hex,
    /// `0-9A-Za-z`
    Alphanumeric,
}

impl Alphabet {
    pub(crate) const fn has(self, byte: u8) -> bool {
        match self {
            Self::Digits => byte.is_ascii_digit(),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
        }
    }
}

/// The spelling in which a text is kept.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    /// As it was given.
    Kept,
    /// In upper case.
    Upper,
}

/// The reason why [`Text::checked`] refuses a text; each type has its own error for it.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Empty,
    TooLong,
    BadCharacter,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<const N: usize>(sample: &str) -> Text<N> {
        let Ok(text) = Text::checked(sample.as_bytes(), Alphabet::Alphanumeric, Case::Kept) else {
            panic!("{sample} is no alphanumeric text of {N}");
        };
        text
    }

    #[test]
    fn push_is_all_or_nothing() {
        let mut text = Text::<4>::EMPTY;
        assert!(text.push(b"abc"));
        assert!(!text.push(b"de"));
        assert_eq!(text.as_bytes(), b"abc");
        assert!(text.push(b"d"));
        assert_eq!(text.as_str(), "abcd");
        assert!(text.push(b""));
        assert!(!text.push(b"e"));
    }

    #[test]
    fn orders_as_str_does() {
        for (a, b) in [("1", "10"), ("10", "2"), ("a", "b"), ("B", "a"), ("same", "same")] {
            assert_eq!(text::<4>(a).cmp(&text(b)), a.cmp(b), "{a} against {b}");
        }
    }
}
