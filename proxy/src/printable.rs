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
    fn escaped_json_has_the_same_value() {
        let value = serde_json::json!({"a": "\x1b\u{9b}\u{202e}\u{e0041}正确\n\""});
        let written = value.to_string();
        let escaped = escape_json(&written);
        assert!(escaped.chars().all(is_printable), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
