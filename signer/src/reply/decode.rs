//! Decoder of the text between a JSON string's quotes: escapes (RFC 8259, section 7) and UTF-8.
//!
//! A lone surrogate becomes U+FFFD, as does every byte that is not UTF-8. The carrier's older systems write GBK,
//! whose second bytes may be `\`. A lead byte of GBK that does not begin a UTF-8 character therefore includes the
//! next byte, so that such a `\` neither hides a quote nor begins an escape. A few pairs of GBK look like UTF-8 and leave
//! a `\` behind: a document that cannot be read is read again as GBK.

use super::cursor::{Cursor, Encoding};

/// The characters of an escaped string that [`walk`](super::walk) has checked. An unchecked string ends at its first
/// fault.
#[derive(Clone)]
pub(super) struct Decode<'a>(Cursor<'a>);

impl<'a> Decode<'a> {
    pub(super) fn new(escaped: &'a [u8]) -> Self {
        Self(Cursor::new(escaped, Encoding::Utf8First))
    }
}

impl Iterator for Decode<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        character(&mut self.0)
    }
}

/// Whether an escaped string is `name`, which is ASCII.
pub(super) fn is(escaped: &[u8], name: &[u8]) -> bool {
    let mut chars = Decode::new(escaped);
    name.iter().all(|&byte| chars.next() == Some(char::from(byte))) && chars.0.0.is_empty()
}

/// Takes one character, escaped or not, of a string; `None` if it is malformed or truncated.
pub(super) fn character(rest: &mut Cursor<'_>) -> Option<char> {
    let first = rest.peek();
    if first < 0x20 {
        return None;
    }
    rest.bump();
    if first >= 0x80 {
        return Some(multibyte(first, rest));
    }
    if first != b'\\' {
        return Some(char::from(first));
    }
    let escaped = match rest.peek() {
        b'b' => b'\x08',
        b'f' => b'\x0C',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return utf16(rest),
        itself @ (b'"' | b'\\' | b'/') => itself,
        _ => return None,
    };
    rest.bump();
    Some(char::from(escaped))
}

/// Reads `u` and its digits: one unit of UTF-16, or a surrogate pair. A high surrogate without its low one is no
/// character, and the text after it is read separately.
fn utf16(rest: &mut Cursor<'_>) -> Option<char> {
    let mut value = unit(rest)?;
    if value & 0xFC00 == 0xD800 {
        let mut ahead = rest.clone();
        if ahead.take(b'\\')
            && let Some(low @ 0xDC00..=0xDFFF) = unit(&mut ahead)
        {
            value = 0x1_0000 + ((value & 0x3FF) << 10) + (low & 0x3FF);
            *rest = ahead;
        }
    }
    Some(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// `u` and four digits.
fn unit(rest: &mut Cursor<'_>) -> Option<u32> {
    if !rest.take(b'u') {
        return None;
    }
    let mut unit = 0;
    for _ in 0..4 {
        unit = unit << 4 | char::from(rest.peek()).to_digit(16)?;
        rest.bump();
    }
    Some(unit)
}

/// The character that begins with `lead` ≥ 0x80, whose further bytes it takes.
fn multibyte(lead: u8, rest: &mut Cursor<'_>) -> char {
    let character = if rest.is_gbk() { None } else { utf8(lead, rest) };
    character.unwrap_or_else(|| {
        // A pair of GBK.
        if let 0x81..=0xFE = lead {
            rest.take_in(0x40, 0xFE);
        }
        char::REPLACEMENT_CHARACTER
    })
}

fn utf8(lead: u8, rest: &mut Cursor<'_>) -> Option<char> {
    // The number of further bytes, and the least value that needs them: an overlong form is not UTF-8.
    let (more, least) = match lead {
        0xC0..=0xDF => (1, 0x80),
        0xE0..=0xEF => (2, 0x800),
        0xF0..=0xF7 => (3, 0x1_0000),
        _ => return None,
    };
    let mut value = u32::from(lead) & (0x3F >> more);
    let mut ahead = rest.clone();
    for _ in 0..more {
        let byte = ahead.peek();
        if !ahead.take_in(0x80, 0xBF) {
            return None;
        }
        value = value << 6 | u32::from(byte & 0x3F);
    }
    if value < least {
        return None;
    }
    let c = char::from_u32(value)?;
    *rest = ahead;
    Some(c)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{string::String, vec::Vec};

    use super::*;

    fn decoded(escaped: &[u8]) -> String {
        Decode::new(escaped).collect()
    }

    #[test]
    fn escapes_and_surrogates() {
        assert_eq!(decoded(br"\u6b63\u786E"), "正确");
        assert_eq!(decoded(br#"\"\\\/\b\f\n\r\t"#), "\"\\/\x08\x0C\n\r\t");
        assert_eq!(decoded(br"\ud83d\ude00!"), "😀!");
        assert_eq!(decoded(br"\ud83d!"), "\u{FFFD}!");
        assert_eq!(decoded(br"\ude00\ud83d"), "\u{FFFD}\u{FFFD}");
        assert_eq!(decoded(br"\ud83d\u0041"), "\u{FFFD}A");
        assert_eq!(decoded(br"\ud83d\ud83d\ude00"), "\u{FFFD}😀");
    }

    #[test]
    fn valid_utf8_is_what_core_says_it_is() {
        let all: String = (' '..=char::MAX).filter(|&c| c != '\\').collect();
        assert!(decoded(all.as_bytes()) == all, "every character comes through");
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        // "请求" in GBK, and a character whose second byte is a backslash.
        assert_eq!(decoded(b"\xC7\xEB\xC7\xF3"), "\u{FFFD}\u{FFFD}");
        assert_eq!(decoded(b"\xD5\x5Cn"), "\u{FFFD}n");
        // Overlong, surrogate, beyond the last, cut off, continuation alone.
        for bad in [&b"\xC0\x80"[..], b"\xED\xA0\x80", b"\xF5\x80\x80\x80", b"\xE6\xAD", b"\x80"] {
            let chars: Vec<char> = Decode::new(bad).collect();
            assert!(!chars.is_empty() && chars.iter().all(|&c| c == '\u{FFFD}'), "{bad:x?}: {chars:?}");
        }
    }

    #[test]
    fn names_are_compared_decoded_and_whole() {
        assert!(is(br"status", b"status"));
        assert!(is(br"\u0073tatus", b"status"));
        for other in ["statu", "statuses", "STATUS", ""] {
            assert!(!is(other.as_bytes(), b"status"), "{other}");
        }
    }
}
