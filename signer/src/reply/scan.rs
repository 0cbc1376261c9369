//! The four values of an answer, picked up in one walk over it.
//!
//! In `{"status":…,"message":…,"result":[{"STATUS":…},…]}` the envelope's members lie at depth 1, the results
//! at depth 2 and the first result's members at depth 3.

use super::ReplyError;
use super::decode::is;
use super::walk::{Value, Visit, walk};

/// What an answer states, unjudged. `None` is a key that is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found<'a> {
    /// `status`
    pub(super) code: Option<Value<'a>>,
    /// `message`
    pub(super) message: Option<Value<'a>>,
    /// `STATUS` of the first element of `result`
    pub(super) status: Option<Value<'a>>,
    /// Elements of `result`, if it is an array.
    pub(super) results: usize,
    /// One of these four keys occurred twice.
    pub(super) duplicate: bool,
}

/// Reads a trimmed body.
pub(super) fn find(body: &[u8]) -> Result<Found<'_>, ReplyError> {
    let mut finder =
        Finder { found: Found::default(), member: Member::Other, result: None, at_status: false };
    walk(body, &mut finder)?;
    Ok(finder.found)
}

struct Finder<'a> {
    found: Found<'a>,
    /// The member of the envelope that the walk is in.
    member: Member,
    /// The value of `result`, once met.
    result: Option<Value<'a>>,
    /// The next value is the first result's `STATUS`.
    at_status: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Code,
    Message,
    Result,
    Other,
}

impl Finder<'_> {
    fn in_results(&self) -> bool {
        self.member == Member::Result && self.result == Some(Value::Array)
    }
}

impl<'a> Visit<'a> for Finder<'a> {
    fn key(&mut self, depth: usize, key: &'a [u8]) {
        if depth == 1 {
            let (member, again) = if is(key, b"status") {
                (Member::Code, self.found.code.is_some())
            } else if is(key, b"message") {
                (Member::Message, self.found.message.is_some())
            } else if is(key, b"result") {
                (Member::Result, self.result.is_some())
            } else {
                (Member::Other, false)
            };
            self.member = member;
            self.found.duplicate |= again;
        } else if depth == 3 && self.in_results() && self.found.results == 1 {
            self.at_status = is(key, b"STATUS");
            self.found.duplicate |= self.at_status && self.found.status.is_some();
        }
    }

    fn value(&mut self, depth: usize, value: Value<'a>) {
        match depth {
            1 => match self.member {
                Member::Code => self.found.code = Some(value),
                Member::Message => self.found.message = Some(value),
                Member::Result => self.result = Some(value),
                Member::Other => {}
            },
            2 if self.in_results() => self.found.results += 1,
            3 if self.at_status => {
                self.found.status = Some(value);
                self.at_status = false;
            }
            _ => {}
        }
    }
}
