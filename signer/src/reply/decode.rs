//! What is between a JSON string's quotes, turned into characters: escapes (RFC 8259, section 7) and UTF-8.
//!
//! A lone surrogate becomes U+FFFD, as does every byte that is not UTF-8. The carrier's older systems write
//! GBK, whose second bytes may be `\`: a lead byte of GBK that does not begin a UTF-8 character takes the byte
//! behind it along, so that such a `\` neither hides a quote nor begins an escape.

use super::ReplyError;

/// The characters of an escaped string that [`walk`](super::walk) has checked. What is wrong in an unchecked
/// one becomes U+FFFD.
#[derive(Clone)]
pub(super) struct Decode<'a>(pub(super) &'a [u8]);

impl Iterator for Decode<'_> {
    type Item = char;

    // Inlined into its few callers: on a chip, a frame of stack less.
    #[inline(always)]
    fn next(&mut self) -> Option<char> {
        if self.0.is_empty() {
            return None;
        }
        Some(character(&mut self.0).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

/// Takes one character, escaped or not, off the head of a string's inside.
#[inline(never)]
pub(super) fn character(rest: &mut &[u8]) -> Result<char, ReplyError> {
    let first = byte(rest)?;
    if first >= 0x80 {
        return Ok(multibyte(first, rest));
    }
    if first < 0x20 {
        return Err(ReplyError::Malformed);
    }
    if first != b'\\' {
        return Ok(char::from(first));
    }
    Ok(match byte(rest)? {
        b'b' => '\x08',
        b'f' => '\x0C',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => utf16(rest)?,
        itself @ (b'"' | b'\\' | b'/') => char::from(itself),
        _ => return Err(ReplyError::Malformed),
    })
}

/// What `\u` stands for: one unit of UTF-16, or a pair of them. A high surrogate without its low one is no
/// character, and what follows it stands for itself.
fn utf16(rest: &mut &[u8]) -> Result<char, ReplyError> {
    let mut behind = *rest;
    let mut high = 0;
    loop {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(byte(&mut behind)?).to_digit(16).ok_or(ReplyError::Malformed)?;
            unit = unit << 4 | digit;
        }
        if high != 0 {
            if unit & 0xFC00 != 0xDC00 {
                return Ok(char::REPLACEMENT_CHARACTER);
            }
            unit = 0x1_0000 + ((high & 0x3FF) << 10) + (unit & 0x3FF);
        }
        *rest = behind;
        match behind {
            [b'\\', b'u', further @ ..] if unit & 0x1F_FC00 == 0xD800 => {
                high = unit;
                behind = further;
            }
            _ => return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }
}

/// The next byte.
#[inline(always)]
pub(super) fn byte(rest: &mut &[u8]) -> Result<u8, ReplyError> {
    let (&first, behind) = rest.split_first().ok_or(ReplyError::Truncated)?;
    *rest = behind;
    Ok(first)
}

/// Whether an escaped string is `name`, which is ASCII.
pub(super) fn is(escaped: &[u8], name: &[u8]) -> bool {
    let mut chars = Decode(escaped);
    name.iter().all(|&byte| chars.next() == Some(char::from(byte))) && chars.0.is_empty()
}

/// The character that begins with `lead` ≥ 0x80, whose further bytes it takes.
fn multibyte(lead: u8, rest: &mut &[u8]) -> char {
    if let Some((c, behind)) = utf8(lead, rest) {
        *rest = behind;
        return c;
    }
    // As a pair of GBK would be.
    if let (0x81..=0xFE, [0x40..=0xFE, behind @ ..]) = (lead, *rest) {
        *rest = behind;
    }
    char::REPLACEMENT_CHARACTER
}

fn utf8(lead: u8, rest: &[u8]) -> Option<(char, &[u8])> {
    // How many bytes follow, and the least value that needs so many: an overlong form is no UTF-8.
    let (more, least) = match lead {
        0xC0..=0xDF => (1, 0x80),
        0xE0..=0xEF => (2, 0x800),
        0xF0..=0xF7 => (3, 0x1_0000),
        _ => return None,
    };
    let mut value = u32::from(lead) & (0x3F >> more);
    let (following, behind) = rest.split_at_checked(more)?;
    for &byte in following {
        if byte & 0xC0 != 0x80 {
            return None;
        }
        value = value << 6 | u32::from(byte & 0x3F);
    }
    if value < least {
        return None;
    }
    Some((char::from_u32(value)?, behind))
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
