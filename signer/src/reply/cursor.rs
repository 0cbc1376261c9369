//! A place in a document.
//!
//! Reading never fails: behind the end are zeros, which no JSON holds. Nothing is taken before it is known to be
//! right, so that where a reader gave up says why: at the end, the document is cut off; elsewhere, it is wrong.

/// What is left of a document.
#[derive(Clone)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next byte; 0 at the end.
    pub(super) fn peek(&self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }

    /// Takes the next byte, if there is one.
    pub(super) fn bump(&mut self) {
        if let [_, rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// Takes the next byte if it is this one; whether it was.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.take_in(byte, byte)
    }

    /// Takes the next byte if it is from `least` ≥ 1 to `most`; whether it was.
    pub(super) fn take_in(&mut self, least: u8, most: u8) -> bool {
        let fits = (least..=most).contains(&self.peek());
        if fits {
            self.bump();
        }
        fits
    }

    /// What lies between here and `end`, a later place in the same document.
    pub(super) fn until(&self, end: &Self) -> &'a [u8] {
        self.0.get(..self.0.len().wrapping_sub(end.0.len())).unwrap_or_default()
    }
}
