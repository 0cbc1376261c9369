//! A JSON parser that checks every byte of a document against RFC 8259, with bounded stack.
//!
//! Nesting takes one bit per level and no recursion: in a recursive parser, 400 bytes of `[` overwrite the memory of a
//! 16 KiB chip. Nothing is decoded; a visitor receives keys and values in place.

use super::ReplyError;
use super::cursor::{Cursor, Encoding};
use super::decode::character;

/// The most containers that may be nested. The carrier's replies have three; serde-json-core recurses over unknown
/// fields, with about 100 B of stack per level.
pub(super) const MAX_DEPTH: usize = 16;

/// A value, as far as the readers need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// The text between a string's quotes, still escaped.
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

/// A kind of container, with its bit in [`Nesting`].
#[derive(Clone, Copy)]
pub(super) enum Container {
    Object = 0,
    Array = 1,
}

/// The containers around a value: one bit per container below a leading 1, the lowest for the innermost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Nesting(u32);

/// A receiver of a document's keys and values, in document order.
pub(super) trait Visit<'a> {
    /// A member's key, still escaped; its value comes next.
    fn key(&mut self, nesting: Nesting, key: &'a [u8]);
    /// A value; the values inside a container follow it, one level deeper.
    fn value(&mut self, nesting: Nesting, value: Value<'a>);
}

/// The object in a body of at most `most` bytes, without byte-order mark, surrounding white space and trailing NULs.
pub(super) fn trim(body: &[u8], most: usize) -> Result<&[u8], ReplyError> {
    if body.len() > most {
        return Err(ReplyError::TooLong);
    }
    let ([0xEF, 0xBB, 0xBF, body @ ..] | body) = body;
    let mut cursor = Cursor::new(body, Encoding::Utf8First);
    cursor.skip_space();
    let mut body = cursor.0;
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
pub(super) fn walk<'a>(
    document: &'a [u8],
    encoding: Encoding,
    visit: &mut impl Visit<'a>,
) -> Result<(), ReplyError> {
    let mut cursor = Cursor::new(document, encoding);
    let mut nesting = Nesting::TOP;
    if step_through(&mut cursor, &mut nesting, visit).is_some() {
        return Ok(());
    }
    Err(if nesting.is_too_deep() {
        ReplyError::TooDeep
    } else if cursor.0.is_empty() {
        ReplyError::Truncated
    } else {
        ReplyError::Malformed
    })
}

/// `None` if the document is truncated, malformed or too deep.
fn step_through<'a>(
    cursor: &mut Cursor<'a>,
    nesting: &mut Nesting,
    visit: &mut impl Visit<'a>,
) -> Option<()> {
    loop {
        let value = cursor.value()?;
        visit.value(*nesting, value);
        let opened = match value {
            Value::Array => Some(Container::Array),
            Value::Object => Some(Container::Object),
            _ => None,
        };
        if let Some(container) = opened {
            nesting.enter(container);
            if nesting.is_too_deep() {
                return None;
            }
        }
        let mut opened = opened.is_some();
        // Close the containers that end here; stop before the next value.
        loop {
            if *nesting == Nesting::TOP {
                return cursor.0.is_empty().then_some(());
            }
            let in_array = nesting.in_array();
            if cursor.take_token(if in_array { b']' } else { b'}' }) {
                nesting.leave();
                opened = false;
                continue;
            }
            if !opened {
                cursor.expect(b',')?;
            }
            if !in_array {
                visit.key(*nesting, cursor.text()?);
                cursor.expect(b':')?;
            }
            break;
        }
    }
}

impl Nesting {
    /// Outside every container.
    const TOP: Self = Self(1);

    /// Inside these containers, the outermost first.
    pub(super) const fn inside(containers: &[Container]) -> Self {
        let mut nesting = Self::TOP;
        // `for` is not allowed in a const fn.
        let mut at = 0;
        while at < containers.len() {
            nesting.enter(containers[at]);
            at += 1;
        }
        nesting
    }

    const fn enter(&mut self, container: Container) {
        self.0 = self.0 << 1 | container as u32;
    }

    fn leave(&mut self) {
        self.0 >>= 1;
    }

    fn in_array(self) -> bool {
        self.0 & 1 == 1
    }

    fn is_too_deep(self) -> bool {
        const { assert!(MAX_DEPTH + 1 < 32, "one bit per level, and one above") };
        self.0 >> MAX_DEPTH > 1
    }
}

impl<'a> Cursor<'a> {
    /// Skips white space.
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// Skips white space and takes the next byte if it is this one; returns whether it was.
    fn take_token(&mut self, byte: u8) -> bool {
        self.skip_space();
        self.take(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take_token(byte).then_some(())
    }

    /// Takes a whole string, number or literal, or the opening bracket of a container.
    fn value(&mut self) -> Option<Value<'a>> {
        self.skip_space();
        let start = self.clone();
        Some(match self.peek() {
            b'"' => Value::Text(self.text()?),
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Value::Number(start.until(self))
            }
            b'[' => {
                self.bump();
                Value::Array
            }
            b'{' => {
                self.bump();
                Value::Object
            }
            first => {
                let literal: &[u8] = match first {
                    b't' => b"true",
                    b'f' => b"false",
                    _ => b"null",
                };
                literal.iter().all(|&byte| self.take(byte)).then_some(Value::Literal)?
            }
        })
    }

    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`
    fn number(&mut self) -> Option<()> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Some(())
    }

    /// Takes one digit or more.
    fn digits(&mut self) -> Option<()> {
        let mut any = None;
        while self.take_in(b'0', b'9') {
            any = Some(());
        }
        any
    }

    /// Takes a string and returns the text between its quotes.
    fn text(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.clone();
        loop {
            let text = start.until(self);
            if self.take(b'"') {
                return Some(text);
            }
            character(self)?;
        }
    }
}
