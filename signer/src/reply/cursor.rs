//! A position in a document.
//!
//! Reading never fails: after the end it returns zeros, which valid JSON never contains. A reader takes a byte only
//! after checking it, so the position at which it stops gives the reason: at the end, the document is truncated;
//! elsewhere, it is malformed.

/// The rest of a document.
#[derive(Clone)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8], Encoding);

/// The reading of bytes from 0x80 on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A character of UTF-8 where there is one, and otherwise a pair of GBK.
    Utf8First,
    Gbk,
}

impl<'a> Cursor<'a> {
    /// The beginning of a document.
    pub(super) fn new(document: &'a [u8], encoding: Encoding) -> Self {
        Self(document, encoding)
    }

    pub(super) fn is_gbk(&self) -> bool {
        self.1 == Encoding::Gbk
    }

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

    /// Takes the next byte if it is this one; returns whether it was.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        self.take_in(byte, byte)
    }

    /// Takes the next byte if it is from `least` ≥ 1 to `most`; returns whether it was.
    pub(super) fn take_in(&mut self, least: u8, most: u8) -> bool {
        let fits = (least..=most).contains(&self.peek());
        if fits {
            self.bump();
        }
        fits
    }

    /// The bytes from here to `end`, a later position in the same document.
    pub(super) fn until(&self, end: &Self) -> &'a [u8] {
        self.0.get(..self.0.len().wrapping_sub(end.0.len())).unwrap_or_default()
    }
}
