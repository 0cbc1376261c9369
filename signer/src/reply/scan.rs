//! Collector of a reply's four values, in one pass.
//!
//! Their positions: `{"status":…,"message":…,"result":[{"STATUS":…},…]}`.

use core::mem;

use super::ReplyError;
use super::cursor::Encoding;
use super::decode::{Decode, is};
use super::walk::{Container, Nesting, Value, Visit, walk};

/// The values of a reply, not yet checked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'a> {
    /// Indexed by [`Field`]; `None` for a missing key.
    values: [Option<Value<'a>>; 4],
    /// Elements of `result`, if it is an array.
    pub(super) results: usize,
    /// One of these four keys occurred twice.
    pub(super) duplicate: bool,
}

/// A key that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// `status`
    Code,
    /// `message`
    Message,
    /// `result`
    Result,
    /// `STATUS` of the first element of `result`
    Status,
}

impl<'a> Fields<'a> {
    pub(super) fn get(&self, field: Field) -> Option<Value<'a>> {
        self.values.get(field as usize).copied().flatten()
    }

    pub(super) fn set(&mut self, field: Field, value: Value<'a>) {
        if let Some(slot) = self.values.get_mut(field as usize) {
            self.duplicate |= slot.is_some();
            *slot = Some(value);
        }
    }
}

impl Field {
    /// The envelope's field of this name, which is still escaped.
    pub(super) fn of_envelope(key: &[u8]) -> Option<Self> {
        static NAMES: [(&[u8], Field); 3] =
            [(b"status", Field::Code), (b"message", Field::Message), (b"result", Field::Result)];
        NAMES.iter().find(|(name, _)| is(key, name)).map(|(_, field)| *field)
    }

    /// The first result's field of this name.
    pub(super) fn of_result(key: &[u8]) -> Option<Self> {
        is(key, b"STATUS").then_some(Self::Status)
    }
}

/// Reads a trimmed body, as GBK if it is not JSON in UTF-8.
pub(super) fn collect(body: &[u8]) -> Result<Fields<'_>, ReplyError> {
    let mut fault = None;
    for encoding in [Encoding::Utf8First, Encoding::Gbk] {
        let mut collector = Collector { fields: Fields::default(), next: None, in_results: false };
        match walk(body, encoding, &mut collector) {
            Ok(()) => return Ok(collector.fields),
            // The second reading is a guess: the fault of the first one is reported.
            Err(error) => fault = fault.or(Some(error)),
        }
        if body.iter().all(u8::is_ascii) {
            break;
        }
    }
    Err(fault.unwrap_or(ReplyError::Malformed))
}

struct Collector<'a> {
    fields: Fields<'a>,
    /// The field whose value comes next.
    next: Option<Field>,
    /// The walk is inside `result`, and that is an array.
    in_results: bool,
}

/// Position of the envelope's members.
const ENVELOPE: Nesting = Nesting::inside(&[Container::Object]);
/// Position of the results, if `result` is an array.
const RESULTS: Nesting = Nesting::inside(&[Container::Object, Container::Array]);
/// Position of a result's members.
const RESULT: Nesting = Nesting::inside(&[Container::Object, Container::Array, Container::Object]);

impl<'a> Visit<'a> for Collector<'a> {
    fn key(&mut self, nesting: Nesting, key: &'a [u8]) {
        if nesting == ENVELOPE {
            self.next = Field::of_envelope(key);
        } else if nesting == RESULT && self.in_results && self.fields.results == 1 {
            self.next = Field::of_result(key);
        }
    }

    fn value(&mut self, nesting: Nesting, value: Value<'a>) {
        // Only keys of the envelope and of a result set the field, and the value follows the key directly.
        let field = self.next.take();
        if nesting == ENVELOPE {
            self.in_results = field == Some(Field::Result) && value == Value::Array;
        } else if nesting == RESULTS && self.in_results {
            self.fields.results += 1;
        }
        if let Some(field) = field {
            self.fields.set(field, value);
        }
    }
}

/// Whether the first element of `result` in a trimmed body has a field of this name.
pub(super) fn has_result_field(body: &[u8], name: &[u8]) -> Result<bool, ReplyError> {
    for encoding in [Encoding::Utf8First, Encoding::Gbk] {
        let mut search =
            FieldSearch { name, next: None, named: false, in_results: false, results: 0, found: false };
        if walk(body, encoding, &mut search).is_ok() {
            return Ok(search.found);
        }
    }
    Err(ReplyError::Malformed)
}

/// A visitor that searches for one field of the first result.
struct FieldSearch<'n> {
    name: &'n [u8],
    /// The field whose value comes next.
    next: Option<Field>,
    /// The value of the field comes next.
    named: bool,
    in_results: bool,
    results: usize,
    found: bool,
}

impl<'a> Visit<'a> for FieldSearch<'_> {
    fn key(&mut self, nesting: Nesting, key: &'a [u8]) {
        if nesting == ENVELOPE {
            self.next = Field::of_envelope(key);
        } else if nesting == RESULT && self.in_results && self.results == 1 {
            self.named = is(key, self.name);
        }
    }

    fn value(&mut self, nesting: Nesting, value: Value<'a>) {
        let field = self.next.take();
        self.found |= mem::take(&mut self.named) && !matches!(value, Value::Text(text) if is_blank(text));
        if nesting == ENVELOPE {
            self.in_results = field == Some(Field::Result) && value == Value::Array;
        } else if nesting == RESULTS && self.in_results {
            self.results += 1;
        }
    }
}

/// Whether a text between quotes has no visible character.
fn is_blank(text: &[u8]) -> bool {
    // U+00AD, U+200B-U+200F, U+202A-U+202E, U+2060-U+206F and U+FEFF are format characters.
    let unseen = |c| matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    Decode::new(text).all(|c| c.is_whitespace() || c.is_control() || unseen(c))
}
