//! What is between a JSON string's quotes, turned into characters: escapes (RFC 8259, section 7) and UTF-8.
//!
//! A lone surrogate becomes U+FFFD, as does every byte that is not UTF-8. The carrier's older systems write
//! GBK, whose second bytes may be `\`: a lead byte of GBK that does not begin a UTF-8 character takes the byte
//! behind it along, so that such a `\` neither hides a quote nor begins an escape.

/// The characters of an escaped string that [`walk`](super::walk) has checked. Unchecked ones only come out
/// differently.
#[derive(Clone)]
pub(super) struct Decode<'a>(pub(super) &'a [u8]);

impl Iterator for Decode<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let (&first, rest) = self.0.split_first()?;
        if first >= 0x80 {
            let (len, c) = multibyte(self.0);
            self.0 = self.0.get(len..).unwrap_or_default();
            return Some(c);
        }
        self.0 = rest;
        if first != b'\\' {
            return Some(char::from(first));
        }
        let (&kind, rest) = rest.split_first()?;
        self.0 = rest;
        Some(match kind {
            b'b' => '\x08',
            b'f' => '\x0C',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => self.escaped_unit(),
            other => char::from(other),
        })
    }
}

impl Decode<'_> {
    /// What `\u` stands for: one character from one unit of UTF-16 or from a pair.
    fn escaped_unit(&mut self) -> char {
        let Some((unit, rest)) = hex4(self.0) else { return char::REPLACEMENT_CHARACTER };
        self.0 = rest;
        if unit & 0xFC00 == 0xD800
            && let [b'\\', b'u', rest @ ..] = rest
            && let Some((low, rest)) = hex4(rest)
            && low & 0xFC00 == 0xDC00
        {
            self.0 = rest;
            let c = 0x1_0000 + ((unit & 0x3FF) << 10) + (low & 0x3FF);
            return char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
        char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

/// Whether an escaped string is `name`, which is ASCII.
pub(super) fn is(escaped: &[u8], name: &[u8]) -> bool {
    let mut chars = Decode(escaped);
    name.iter().all(|&byte| chars.next() == Some(char::from(byte))) && chars.0.is_empty()
}

/// The character that begins with a byte ≥ 0x80, and how many bytes it takes.
pub(super) fn multibyte(bytes: &[u8]) -> (usize, char) {
    utf8(bytes).unwrap_or_else(|| {
        let len = match *bytes {
            [0x81..=0xFE, 0x40..=0xFE, ..] => 2,
            _ => 1,
        };
        (len, char::REPLACEMENT_CHARACTER)
    })
}

fn utf8(bytes: &[u8]) -> Option<(usize, char)> {
    let (&lead, rest) = bytes.split_first()?;
    // How many bytes follow, and the least value that needs so many: an overlong form is no UTF-8.
    let (more, least) = match lead {
        0xC0..=0xDF => (1, 0x80),
        0xE0..=0xEF => (2, 0x800),
        0xF0..=0xF7 => (3, 0x1_0000),
        _ => return None,
    };
    let mut value = u32::from(lead) & (0x3F >> more);
    for &byte in rest.get(..more)? {
        if byte & 0xC0 != 0x80 {
            return None;
        }
        value = value << 6 | u32::from(byte & 0x3F);
    }
    if value < least {
        return None;
    }
    Some((1 + more, char::from_u32(value)?))
}

/// The value of four hexadecimal digits, and what follows them.
pub(super) fn hex4(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(4)?;
    let mut value = 0;
    for &digit in digits {
        value = value << 4 | char::from(digit).to_digit(16)?;
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{string::String, vec::Vec};

    use super::*;

    fn decoded(escaped: &[u8]) -> String {
        Decode(escaped).collect()
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
        let all: String = ('\0'..=char::MAX).filter(|&c| c != '\\').collect();
        assert!(decoded(all.as_bytes()) == all, "every character comes through");
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        // "请求" in GBK, and a character whose second byte is a backslash.
        assert_eq!(decoded(b"\xC7\xEB\xC7\xF3"), "\u{FFFD}\u{FFFD}");
        assert_eq!(decoded(b"\xD5\x5Cn"), "\u{FFFD}n");
        // Overlong, surrogate, beyond the last, cut off, continuation alone.
        for bad in [&b"\xC0\x80"[..], b"\xED\xA0\x80", b"\xF5\x80\x80\x80", b"\xE6\xAD", b"\x80"] {
            let chars: Vec<char> = Decode(bad).collect();
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
