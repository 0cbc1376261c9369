//! Text without control and format characters, which a terminal, a pager or a log reader shows unchanged.
//!
//! Control characters (C0, DEL, C1) move the cursor and rewrite lines; format characters (bidirectional overrides,
//! zero-width characters, line separators) hide or reorder text. They are written as escapes: `\n`, `\u{202e}`; inside
//! JSON as JSON escapes (`\u202e`), so that a parser reads the original text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character is shown unchanged, as letters of all scripts are.
pub fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\0'..='\x1f' | '\x7f' => false,
        // `escape_debug` escapes the categories C and Z, which Unicode does not count as printable.
        other => other.escape_debug().len() == 1,
    }
}

/// The text with each character that is not printable escaped.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_printable(character) {
            escaped.push(character);
        } else {
            // Quotes and the backslash are not escaped, since the text is not in quotes.
            escaped.extend(character.escape_debug());
        }
    }
    Cow::Owned(escaped)
}

/// The same line by line: the line breaks stay.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    by_line(text, escape)
}

/// The bytes of a response for a terminal: JSON stays JSON, and its line breaks stay; in any other text they are escaped.
pub fn escape_body(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
    if is_json { escape_json_lines(&text).into_owned() } else { escape(&text).into_owned() }
}

/// A whole JSON text of several lines: [`escape_json`] line by line. Line breaks of JSON are not part of a string.
pub fn escape_json_lines(json: &str) -> Cow<'_, str> {
    by_line(json, |line| match line.trim_matches(['\t', '\r']) {
        line if line.contains('\t') => Cow::Owned(escape_json(&line.replace('\t', " ")).into_owned()),
        line => escape_json(line),
    })
}

fn by_line<'a>(text: &'a str, escape: impl Fn(&'a str) -> Cow<'a, str>) -> Cow<'a, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(escape).collect::<Vec<_>>().join("\n"))
}

/// A complete JSON text with each character that is not printable as a JSON escape.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    if json.chars().all(is_printable) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_printable(character) {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}"); // writing to a String cannot fail
            }
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_that_controls_a_terminal_is_left() {
        for (text, shown) in [
            ("1b[2K", "1b[2K"),
            ("\x1b[2K\x07", "\\u{1b}[2K\\u{7}"),
            ("a\u{9b}31m\u{85}", "a\\u{9b}31m\\u{85}"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            (
                "\u{202e}txt\u{2066}\u{200b}\u{feff}\u{2028}",
                "\\u{202e}txt\\u{2066}\\u{200b}\\u{feff}\\u{2028}",
            ),
            ("正确 \"é\" \\ '", "正确 \"é\" \\ '"),
            ("\u{e0041}", "\\u{e0041}"),
        ] {
            assert_eq!(escape(text), shown);
        }
    }

    #[test]
    fn no_character_steers_a_terminal_in_any_renderer() {
        let all: String = ('\0'..=char::MAX).collect();
        let quoted = serde_json::to_string_pretty(&serde_json::json!({ "all": all })).unwrap();
        for shown in [
            escape(&all).into_owned(),
            escape_json(&quoted).into_owned(),
            escape_body(all.as_bytes()),
            escape_lines(&all).replacen('\n', "", 1),
            escape_body(quoted.replace(": ", "\t:\r").as_bytes()).replace('\n', ""),
        ] {
            assert_eq!(shown.chars().find(|&one| !is_printable(one)), None);
        }
        assert_eq!(escape_lines("a\x1b\nb"), "a\\u{1b}\nb");
        assert_eq!(escape_body(b"{\n\t\"a\":1\r\n}\n"), "{\n\"a\":1\n}\n");
        assert_eq!(escape_body(b"no\nJSON"), "no\\nJSON");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"a": "\x1b\u{9b}\u{202e}\u{e0041}正确\n\""});
        let written = value.to_string();
        let escaped = escape_json(&written);
        assert!(escaped.chars().all(is_printable), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
