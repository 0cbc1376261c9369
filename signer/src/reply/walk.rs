//! A walk over a JSON document that checks every byte of it against RFC 8259, in bounded stack.
//!
//! Nesting is a depth and one bit a level, not recursion: 400 bytes of `[` overwrite the memory of a 16 KiB
//! chip in a parser that recurses. Nothing is decoded; a visitor sees keys and values in place.

use super::ReplyError;
use super::decode::{byte, character};

/// How many containers may lie in one another. The carrier's answers have three; serde-json-core recurses
/// over unknown fields, about 100 B of stack a level.
pub(super) const MAX_DEPTH: usize = 16;

/// A value, as far as anybody here asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// What is between a string's quotes, still escaped.
    Text(&'a [u8]),
    /// A number's characters.
    Number(&'a [u8]),
    /// The beginning of an array.
    Array,
    /// The beginning of an object.
    Object,
    /// `null`, `true` or `false`.
    Literal,
}

/// What is told about a document, in its order. `depth` counts the containers around.
pub(super) trait Visit<'a> {
    /// A member's key, still escaped; its value comes next.
    fn key(&mut self, depth: usize, key: &'a [u8]);
    /// A value; those inside a container follow it, one deeper.
    fn value(&mut self, depth: usize, value: Value<'a>);
}

/// The object in a body: without byte-order mark, white space around and NULs behind.
pub(super) fn trim(body: &[u8]) -> Result<&[u8], ReplyError> {
    if body.len() > super::Reply::MAX_LEN {
        return Err(ReplyError::TooLong);
    }
    let ([0xEF, 0xBB, 0xBF, body @ ..] | body) = body;
    let mut body = body;
    while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = body {
        body = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r' | b'\n' | 0] = body {
        body = rest;
    }
    match body {
        [b'{', ..] => Ok(body),
        [] => Err(ReplyError::Truncated),
        _ => Err(ReplyError::NotJson),
    }
}

/// Walks over all of `document`.
pub(super) fn walk<'a>(document: &'a [u8], visit: &mut impl Visit<'a>) -> Result<(), ReplyError> {
    const { assert!(MAX_DEPTH < 32, "one bit a level") };
    let mut cursor = Cursor(document);
    let mut depth = 0;
    // The lowest bit stands for the innermost container: 1 for an array.
    let mut arrays = 0u32;
    loop {
        let value = cursor.value()?;
        visit.value(depth, value);
        let mut opened = matches!(value, Value::Array | Value::Object);
        if opened {
            if depth == MAX_DEPTH {
                return Err(ReplyError::TooDeep);
            }
            depth += 1;
            arrays = arrays << 1 | u32::from(matches!(value, Value::Array));
        }
        // Close what ends here; stop before the next value.
        loop {
            if depth == 0 {
                return if cursor.0.is_empty() { Ok(()) } else { Err(ReplyError::Malformed) };
            }
            let in_array = arrays & 1 == 1;
            let byte = cursor.peek()?;
            if byte == if in_array { b']' } else { b'}' } {
                cursor.bump();
                depth -= 1;
                arrays >>= 1;
                opened = false;
                continue;
            }
            if !opened {
                cursor.expect(b',')?;
            }
            if !in_array {
                cursor.expect(b'"')?;
                visit.key(depth, cursor.text()?);
                cursor.expect(b':')?;
            }
            break;
        }
    }
}

/// What is left of the document.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Result<u8, ReplyError> {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.0 {
            self.0 = rest;
        }
        self.first()
    }

    fn first(&self) -> Result<u8, ReplyError> {
        self.0.first().copied().ok_or(ReplyError::Truncated)
    }

    fn bump(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    fn expect(&mut self, byte: u8) -> Result<(), ReplyError> {
        if self.peek()? != byte {
            return Err(ReplyError::Malformed);
        }
        self.bump();
        Ok(())
    }

    /// A whole string, number or literal, or the bracket of a container.
    fn value(&mut self) -> Result<Value<'a>, ReplyError> {
        let first = self.peek()?;
        let start = self.0;
        if let b'-' | b'0'..=b'9' = first {
            self.number()?;
            return Ok(Value::Number(before(start, self.0)));
        }
        self.bump();
        match first {
            b'"' => Ok(Value::Text(self.text()?)),
            b'[' => Ok(Value::Array),
            b'{' => Ok(Value::Object),
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            _ => Err(ReplyError::Malformed),
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Result<Value<'a>, ReplyError> {
        for &expected in rest {
            if byte(&mut self.0)? != expected {
                return Err(ReplyError::Malformed);
            }
        }
        Ok(Value::Literal)
    }

    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn number(&mut self) -> Result<(), ReplyError> {
        if self.first()? == b'-' {
            self.bump();
        }
        if self.first()? == b'0' {
            self.bump();
        } else {
            self.digits()?;
        }
        if self.first()? == b'.' {
            self.bump();
            self.digits()?;
        }
        if self.first()? | 0x20 == b'e' {
            self.bump();
            if let b'+' | b'-' = self.first()? {
                self.bump();
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), ReplyError> {
        if !self.first()?.is_ascii_digit() {
            return Err(ReplyError::Malformed);
        }
        while self.first()?.is_ascii_digit() {
            self.bump();
        }
        Ok(())
    }

    /// The rest of a string whose opening quote was taken, up to the closing one, which is taken too.
    fn text(&mut self) -> Result<&'a [u8], ReplyError> {
        let start = self.0;
        while self.first()? != b'"' {
            character(&mut self.0)?;
        }
        let text = before(start, self.0);
        self.bump();
        Ok(text)
    }
}

/// What of `start` comes before its own tail `rest`.
fn before<'a>(start: &'a [u8], rest: &[u8]) -> &'a [u8] {
    start.get(..start.len().wrapping_sub(rest.len())).unwrap_or_default()
}
