//! Response parser: RFC 9112, sections 4 to 8, one byte at a time.
//!
//! Content-Length, chunked coding or the end of the connection (HTTP/1.0) delimits the body. Empty lines before the
//! status line and interim responses (100 Continue) are skipped. Five header fields are read: three for the framing of
//! the body, `Date`, which sets clocks, and `cmiot-transid`, which names the request that is answered. The others are
//! skipped at any length, up to a limit for the head as a whole. A folded field is one line. Contradictory framing is an
//! error.

use super::HttpError;
use crate::sequence::Sequence;
use crate::stamp::Stamp;
use crate::transid::{TAIL_LEN, Transid, write_tail};

/// A complete response, with any status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The HTTP status; proxy and carrier send 200 even for a refusal.
    pub status: u16,
    /// The body; [`Reply`](crate::Reply) reads it.
    pub body: &'a [u8],
    /// The server's `Date`, if it sent one. A clock is set from it within [`DateLimits`](crate::DateLimits).
    pub date: Option<Stamp>,
    /// Whether the connection can carry another lookup.
    pub reusable: bool,
    /// Whether the response names the request that it answers. One that does not, after a request without a response on
    /// the same connection, may answer that.
    pub named: bool,
}

/// Incremental response parser; it accepts pieces of any size.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Decoder {
    line_len: usize,
    /// The current line's first bytes, without its end.
    line: Buffer,
    message: Message,
}

/// Aligned and behind a word, so that it is cleared in its place: next to other bytes it would be moved by `memcpy`.
#[derive(Clone, Debug)]
#[repr(align(4))]
struct Buffer([u8; LINE]);

/// The response so far, without the current line.
#[derive(Clone, Debug)]
struct Message {
    state: State,
    /// Bytes of the head so far, or of the current line after the head.
    head: usize,
    status: u16,
    date: Option<Stamp>,
    length: Option<u32>,
    chunked: bool,
    reusable: bool,
    /// Bytes of the body or of a chunk that are still missing.
    remaining: u32,
    body: usize,
    /// Stamp and sequence of the request.
    request: Option<(Stamp, Sequence)>,
    /// The response has named the request.
    named: bool,
}

/// A line of the head or of the framing, without its end.
#[derive(Clone, Copy)]
struct Line<'a> {
    bytes: &'a [u8],
    /// The line was longer than the buffer: its end is missing.
    truncated: bool,
}

/// The part of the response that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    StatusLine,
    Header,
    /// The first byte after a header line: a blank continues that line.
    Fold,
    /// `remaining` bytes.
    Body,
    /// All bytes until the connection ends.
    Rest,
    ChunkSize,
    /// `remaining` bytes.
    Chunk,
    ChunkEnd,
    Trailer,
    End,
    Failed(HttpError),
}

/// Line buffer: the longest line that is read, `cmiot-transid` with 48 characters, some white space, and its CR.
const LINE: usize = 72;

impl Decoder {
    /// The longest head accepted, in bytes.
    pub const MAX_HEAD: usize = 8192;

    /// A parser in front of the first byte, for the response to any request.
    #[must_use]
    pub const fn new() -> Self {
        Self::for_parts(None)
    }

    /// A parser for the response to the request with this transid. The proxy repeats the transid in `cmiot-transid`; a
    /// response that names another one is an error. The carrier sends no such header, and its responses are read as
    /// [`new`](Self::new) reads them.
    #[must_use]
    pub fn for_transid(transid: &Transid) -> Self {
        Self::for_parts(Some((transid.stamp(), transid.sequence())))
    }

    /// [`for_transid`](Self::for_transid), from the parts of the transid, or [`new`](Self::new) without them. The appid is
    /// not compared.
    #[must_use]
    pub const fn for_parts(request: Option<(Stamp, Sequence)>) -> Self {
        Self { line_len: 0, line: Buffer([0; LINE]), message: Message::new(request) }
    }

    /// Reads `input` and returns whether the response is complete. The body is written to `body`, which must be the
    /// same buffer in every call. Bytes after the response are dropped and make the connection unusable.
    ///
    /// # Errors
    /// When the response is invalid, answers another request, or the body does not fit. Every later call returns the
    /// same error.
    pub fn feed(&mut self, input: &[u8], body: &mut [u8]) -> Result<bool, HttpError> {
        let mut at = self.message.body;
        self.feed_to(input, |byte| {
            let slot = body.get_mut(at).map(|slot| *slot = byte);
            at += 1;
            slot.is_some()
        })
    }

    /// [`feed`](Self::feed), with the body handed to `push`, one byte per call; it returns false if it has no room.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub fn feed_to(&mut self, input: &[u8], mut push: impl FnMut(u8) -> bool) -> Result<bool, HttpError> {
        for &byte in input {
            if let Err(error) = self.byte(byte, &mut push) {
                self.message.state = State::Failed(error);
            }
        }
        self.is_complete()
    }

    /// Whether the response is complete.
    ///
    /// # Errors
    /// The error that [`feed`](Self::feed) has returned.
    #[inline(always)] // It follows each byte that comes alone.
    pub const fn is_complete(&self) -> Result<bool, HttpError> {
        match self.message.state {
            State::Failed(error) => Err(error),
            State::End => Ok(true),
            _ => Ok(false),
        }
    }

    /// Ends the response because the connection was closed, which delimits some bodies.
    ///
    /// # Errors
    /// When the response is not complete, or has failed before.
    pub fn close(&mut self) -> Result<(), HttpError> {
        self.message.reusable = false;
        match self.message.state {
            State::Rest | State::End => {
                self.message.state = State::End;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => Err(HttpError::Truncated),
        }
    }

    /// The response, once it is complete; `body` is the buffer passed to [`feed`](Self::feed).
    #[must_use]
    pub fn response<'a>(&self, body: &'a [u8]) -> Response<'a> {
        let message = &self.message;
        Response {
            status: message.status,
            body: body.get(..message.body).unwrap_or_default(),
            date: message.date,
            reusable: message.reusable && message.state == State::End,
            named: message.named,
        }
    }

    /// The body's length in bytes so far.
    #[must_use]
    pub const fn body_len(&self) -> usize {
        self.message.body
    }

    fn byte(&mut self, byte: u8, push: &mut impl FnMut(u8) -> bool) -> Result<(), HttpError> {
        let message = &mut self.message;
        match message.state {
            State::End => message.reusable = false,
            State::Rest | State::Body | State::Chunk => {
                if !push(byte) {
                    return Err(HttpError::BodyTooLong);
                }
                message.body += 1;
                if message.state != State::Rest {
                    message.remaining = message.remaining.saturating_sub(1);
                    if message.remaining == 0 {
                        let chunk = message.state == State::Chunk;
                        message.state = if chunk { State::ChunkEnd } else { State::End };
                    }
                }
            }
            State::Failed(_) => {}
            _ => self.line_byte(byte)?,
        }
        Ok(())
    }

    fn line_byte(&mut self, byte: u8) -> Result<(), HttpError> {
        self.message.head += 1;
        if self.message.head > Self::MAX_HEAD {
            return Err(HttpError::HeadTooLong);
        }
        if self.message.state == State::Fold {
            self.message.state = State::Header;
            // RFC 9112, 5.2: the end of a folded line is replaced by a blank; here its own first blank.
            if byte != b' ' && byte != b'\t' {
                self.end_line()?;
            }
        }
        if byte != b'\n' {
            if let Some(slot) = self.line.0.get_mut(self.line_len) {
                *slot = byte;
            }
            // Beyond the buffer, only the length shows that the line is truncated.
            self.line_len += 1;
            return Ok(());
        }
        // A bare LF is accepted, as RFC 9112, section 2.2, allows.
        if let Some(last) = self.line_len.checked_sub(1)
            && self.line.0.get(last) == Some(&b'\r')
        {
            self.line_len = last;
        }
        if self.message.state == State::Header && self.line_len > 0 {
            self.message.state = State::Fold;
            return Ok(());
        }
        self.end_line()
    }

    fn end_line(&mut self) -> Result<(), HttpError> {
        let bytes = self.line.0.get(..self.line_len.min(LINE)).unwrap_or_default();
        let line = Line { bytes, truncated: self.line_len > LINE };
        self.line_len = 0;
        self.message.take_line(line)
    }
}

impl Message {
    const fn new(request: Option<(Stamp, Sequence)>) -> Self {
        Self {
            state: State::StatusLine,
            head: 0,
            status: 0,
            date: None,
            length: None,
            chunked: false,
            reusable: false,
            remaining: 0,
            body: 0,
            request,
            named: false,
        }
    }

    fn take_line(&mut self, line: Line<'_>) -> Result<(), HttpError> {
        match self.state {
            // RFC 9112, 2.2; a modem ends its messages with one.
            State::StatusLine if line.bytes.is_empty() => {}
            State::StatusLine => self.status_line(line.bytes)?,
            State::Header if line.bytes.is_empty() => self.end_of_head()?,
            State::Header => self.header(line)?,
            State::ChunkSize => {
                self.remaining = chunk_size(line)?;
                self.state = if self.remaining == 0 { State::Trailer } else { State::Chunk };
                self.head = 0;
            }
            State::ChunkEnd if line.bytes.is_empty() => {
                self.state = State::ChunkSize;
                self.head = 0;
            }
            State::ChunkEnd => return Err(HttpError::Malformed),
            State::Trailer if line.bytes.is_empty() => self.state = State::End,
            // Trailer fields; the other states take no lines.
            _ => {}
        }
        Ok(())
    }

    /// `HTTP/1.1 200 OK`; the reason phrase may be missing or truncated.
    fn status_line(&mut self, line: &[u8]) -> Result<(), HttpError> {
        let [b'H', b'T', b'T', b'P', b'/', rest @ ..] = line else {
            return Err(HttpError::NotHttp);
        };
        let ([b'1', b'.', minor @ b'0'..=b'9', b' ', a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [
            b'1',
            b'.',
            minor @ b'0'..=b'9',
            b' ',
            a @ b'1'..=b'5',
            b @ b'0'..=b'9',
            c @ b'0'..=b'9',
            b' ',
            ..,
        ]) = rest
        else {
            return Err(HttpError::Malformed);
        };
        self.status = [a, b, c].iter().fold(0, |status, &digit| status * 10 + u16::from(digit - b'0'));
        self.reusable = *minor != b'0';
        self.state = State::Header;
        Ok(())
    }

    fn header(&mut self, line: Line<'_>) -> Result<(), HttpError> {
        let Line { bytes, truncated } = line;
        let mut halves = bytes.splitn(2, |&byte| byte == b':');
        let name = halves.next().unwrap_or_default();
        let value = halves.next().map(<[u8]>::trim_ascii);
        // A blank before the colon could hide one of the names below.
        if name.iter().any(u8::is_ascii_whitespace) || value.is_none() && !truncated {
            return Err(HttpError::Malformed);
        }
        // An incomplete value is none.
        let whole = value.filter(|_| !truncated);
        if name.eq_ignore_ascii_case(b"date") && !truncated {
            self.date = value.and_then(|value| Stamp::from_http_date(value).ok());
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = whole.and_then(decimal).ok_or(HttpError::Malformed)?;
            if self.length.is_some_and(|earlier| earlier != length) {
                return Err(HttpError::Malformed);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // The request allowed no other coding, and a second "chunked" would be one. "identity" of RFC 2616 is none.
            let value = whole.ok_or(HttpError::Malformed)?;
            if !value.eq_ignore_ascii_case(b"identity") {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HttpError::Malformed);
                }
                self.chunked = true;
            }
        } else if name.eq_ignore_ascii_case(b"connection") {
            let value = value.unwrap_or_default();
            let close =
                value.split(|&byte| byte == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"close"));
            self.reusable &= !close && !truncated;
        } else if name.eq_ignore_ascii_case(b"cmiot-transid")
            && let Some((stamp, sequence)) = self.request
        {
            let mut tail = [0; TAIL_LEN];
            write_tail(stamp, sequence, &mut tail);
            if !whole.is_some_and(|value| ends_with(value, &tail)) {
                return Err(HttpError::OtherRequest);
            }
            self.named = true;
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), HttpError> {
        self.state = match (self.status, self.chunked, self.length) {
            // The request asked for no change of protocol.
            (101, ..) | (_, true, Some(_)) => return Err(HttpError::Malformed),
            (100..=199, ..) => {
                self.date = None;
                self.length = None;
                self.chunked = false;
                State::StatusLine
            }
            (204 | 304, ..) | (_, false, Some(0)) => State::End,
            (_, true, None) => State::ChunkSize,
            (_, false, Some(length)) => {
                self.remaining = length;
                State::Body
            }
            (_, false, None) => State::Rest,
        };
        Ok(())
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a chunk's size: leading zeros and at most 7 hexadecimal digits, up to the end, a blank or an extension.
fn chunk_size(line: Line<'_>) -> Result<u32, HttpError> {
    let end = line.bytes.iter().position(|byte| b"; \t".contains(byte));
    // The digits of a truncated line are all there only if something follows them.
    if end.is_none() && line.truncated {
        return Err(HttpError::Malformed);
    }
    let digits = line.bytes.get(..end.unwrap_or(line.bytes.len())).unwrap_or_default();
    number(digits, 16, 7).ok_or(HttpError::Malformed)
}

/// Reads a decimal number: leading zeros and at most nine digits.
fn decimal(digits: &[u8]) -> Option<u32> {
    number(digits, 10, 9)
}

/// Reads one digit or more; after the leading zeros at most `most`, which fit 32 bits.
fn number(digits: &[u8], base: u32, most: u32) -> Option<u32> {
    let (mut number, mut left) = (0u32, most);
    for &digit in digits {
        let value = char::from(digit).to_digit(base)?;
        if number > 0 || value > 0 {
            left = left.checked_sub(1)?;
        }
        number = number.wrapping_mul(base).wrapping_add(value);
    }
    (!digits.is_empty()).then_some(number)
}

/// Whether a value is longer than `tail` and ends with it.
fn ends_with(value: &[u8], tail: &[u8]) -> bool {
    // Byte by byte: slices are compared by `memcmp`.
    value.len() > tail.len() && value.iter().rev().zip(tail.iter().rev()).all(|(a, b)| a == b)
}
