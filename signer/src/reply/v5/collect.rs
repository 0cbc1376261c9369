//! Collector of an envelope's values and of two fields of its first result, in one pass.

use crate::reply::cursor::Encoding;
use crate::reply::decode::is;
use crate::reply::walk::{self, Container, Nesting, Value, Visit};
use crate::reply::{Code, Message, ReplyError};

/// The values of a reply, not yet checked.
pub(super) struct Collector<'a, 'n> {
    /// Names of two fields of the first result; an empty name is none.
    names: [&'n [u8]; 2],
    code: Option<Value<'a>>,
    message: Option<Value<'a>>,
    pub(super) fields: [Option<Value<'a>>; 2],
    pub(super) results: usize,
    has_result: bool,
    duplicate: bool,
    next: Next,
    /// The walk is inside `result`, and that is an array.
    in_results: bool,
}

/// The meaning of the value that follows a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Other,
    Code,
    Message,
    Result,
    First,
    Second,
}

const ENVELOPE: Nesting = Nesting::inside(&[Container::Object]);
const RESULTS: Nesting = Nesting::inside(&[Container::Object, Container::Array]);
const RESULT: Nesting = Nesting::inside(&[Container::Object, Container::Array, Container::Object]);

/// Reads a body, as GBK if it is not JSON in UTF-8.
pub(super) fn collect<'a, 'n>(body: &'a [u8], names: [&'n [u8]; 2]) -> Result<Collector<'a, 'n>, ReplyError> {
    let body = walk::trim(body, crate::Reply::MAX_LEN)?;
    let mut fault = None;
    for encoding in [Encoding::Utf8First, Encoding::Gbk] {
        let mut collector = Collector::new(names);
        match walk::walk(body, encoding, &mut collector) {
            Ok(()) => return Ok(collector),
            // The second reading is a guess: the fault of the first one is reported.
            Err(error) => fault = fault.or(Some(error)),
        }
        if body.iter().all(u8::is_ascii) {
            break;
        }
    }
    Err(fault.unwrap_or(ReplyError::Malformed))
}

impl<'a, 'n> Collector<'a, 'n> {
    fn new(names: [&'n [u8]; 2]) -> Self {
        Self {
            names,
            code: None,
            message: None,
            fields: [None; 2],
            results: 0,
            has_result: false,
            duplicate: false,
            next: Next::Other,
            in_results: false,
        }
    }

    /// Code and message.
    pub(super) fn envelope(&self) -> Result<(Code, Message<'a>), ReplyError> {
        if self.duplicate {
            return Err(ReplyError::DuplicateKey);
        }
        let (Some(Value::Text(code)) | Some(Value::Number(code))) = self.code else {
            return Err(ReplyError::NotEnvelope);
        };
        let message = match self.message {
            Some(Value::Text(message)) => message,
            _ => b"",
        };
        Ok((Code::from_escaped(code).ok_or(ReplyError::NotEnvelope)?, Message(message)))
    }
}

impl<'a> Visit<'a> for Collector<'a, '_> {
    fn key(&mut self, nesting: Nesting, key: &'a [u8]) {
        if nesting == ENVELOPE {
            static NAMES: [(&[u8], Next); 3] =
                [(b"status", Next::Code), (b"message", Next::Message), (b"result", Next::Result)];
            let found = NAMES.iter().find(|(name, _)| is(key, name));
            self.next = found.map_or(Next::Other, |(_, next)| *next);
        } else if nesting == RESULT && self.in_results && self.results == 1 {
            let [first, second] = self.names;
            if is(key, first) {
                self.next = Next::First;
            } else if !second.is_empty() && is(key, second) {
                self.next = Next::Second;
            }
        }
    }

    fn value(&mut self, nesting: Nesting, value: Value<'a>) {
        // Only keys of the envelope and of a result set it, and the value follows the key directly.
        let next = core::mem::replace(&mut self.next, Next::Other);
        if nesting == ENVELOPE {
            self.in_results = next == Next::Result && value == Value::Array;
        } else if nesting == RESULTS && self.in_results {
            self.results = self.results.wrapping_add(1);
        }
        let [first, second] = &mut self.fields;
        let slot = match next {
            Next::Other => return,
            Next::Result => {
                self.duplicate |= core::mem::replace(&mut self.has_result, true);
                return;
            }
            Next::Code => &mut self.code,
            Next::Message => &mut self.message,
            Next::First => first,
            Next::Second => second,
        };
        self.duplicate |= slot.replace(value).is_some();
    }
}
