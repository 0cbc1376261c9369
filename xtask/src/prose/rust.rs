//! Comments and messages of a Rust source.
//!
//! A message is a string literal with a space in it, outside tests. Strings are found as the language defines them,
//! so that `//` in a string begins no comment and a quote in a comment begins no string.

use super::text::{Collector, Paragraph};

/// The paragraphs of all comments, and each message as a paragraph of its own.
pub(super) fn paragraphs(file: &str, source: &str) -> Vec<Paragraph> {
    let is_test_file = file.starts_with("tests/") || file.ends_with("/tests.rs") || file.contains("/tests/");
    let tests_from =
        if is_test_file { 0 } else { source.find("\n#[cfg(test)]\nmod ").unwrap_or(source.len()) };
    let mut collector = Collector::default();
    let mut messages = Vec::new();
    let mut last_comment = 0;
    for (start, piece) in pieces(source) {
        let line = 1 + source[..start].matches('\n').count();
        match piece {
            Piece::Comment(text) => {
                if line != last_comment + 1 {
                    collector.end_comment();
                }
                last_comment = line;
                let is_doc =
                    (text.starts_with("///") && !text.starts_with("////")) || text.starts_with("//!");
                collector.line(line, text.trim_start_matches('/').trim_start_matches('!'), is_doc);
            }
            Piece::String(text) if start < tests_from && text.trim().contains(' ') => {
                messages.push(Paragraph { line, text: text.replace("\\\n", " \n"), is_doc: false });
            }
            Piece::String(_) => {}
        }
    }
    let mut paragraphs = collector.into_paragraphs();
    paragraphs.append(&mut messages);
    paragraphs
}

enum Piece<'a> {
    /// With its slashes, to the end of the line.
    Comment(&'a str),
    /// Without its quotes, escapes as written.
    String(&'a str),
}

/// The line comments and string literals, each with its offset.
fn pieces(source: &str) -> Vec<(usize, Piece<'_>)> {
    let bytes = source.as_bytes();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        at += if rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            pieces.push((at, Piece::Comment(&rest[..length])));
            length
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest, at.checked_sub(1).map(|before| bytes[before])) {
            let open = hashes + 2; // r, hashes, quote
            let close = format!("\"{}", "#".repeat(hashes));
            let length = rest[open..].find(&close).unwrap_or(rest.len() - open);
            pieces.push((at, Piece::String(&rest[open..open + length])));
            (open + length + close.len()).min(rest.len())
        } else if let Some(string) = rest.strip_prefix('"') {
            let length = string_length(string);
            pieces.push((at, Piece::String(&string[..length])));
            (length + 2).min(rest.len())
        } else if rest.starts_with('\'') {
            char_length(rest)
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
    }
    pieces
}

/// The number of hashes, if a raw string begins here.
fn raw_string(rest: &str, before: Option<u8>) -> Option<usize> {
    let follows_name =
        before.is_some_and(|byte| byte != b'b' && (byte.is_ascii_alphanumeric() || byte == b'_'));
    let hashes = rest.strip_prefix('r').filter(|_| !follows_name)?;
    let count = hashes.bytes().take_while(|byte| *byte == b'#').count();
    hashes[count..].starts_with('"').then_some(count)
}

/// The bytes of a string before its closing quote.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    end.unwrap_or(text.len())
}

/// The bytes of a character literal, or 1 for a lifetime.
fn char_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        // `'\''`, `'\u{1F600}'`
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            rest[from..].find('\'').map_or(1, |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
