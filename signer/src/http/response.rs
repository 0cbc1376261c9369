//! Response parser: RFC 9112, sections 4 to 8, one byte at a time.
//!
//! Content-Length, chunked coding or the end of the connection (HTTP/1.0) delimits the body. Interim responses (100
//! Continue) are skipped. Four header fields are read: three for the framing of the body, and `Date`, which sets
//! clocks. The others are skipped at any length, up to a limit for the head as a whole. Contradictory framing is an
//! error.

use super::HttpError;
use crate::stamp::Stamp;

/// A complete response, with any status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The HTTP status; proxy and carrier send 200 even for a refusal.
    pub status: u16,
    /// The body; [`Reply`](crate::Reply) reads it.
    pub body: &'a [u8],
    /// The server's `Date`, if it sent one: sets the clock of a gateway that has none.
    pub date: Option<Stamp>,
    /// Whether the connection can carry another lookup.
    pub reusable: bool,
}

/// Incremental response parser; it accepts pieces of any size.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// The current line's first bytes, without its end.
    line: [u8; LINE],
    line_len: usize,
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
}

/// Line buffer: the longest line that is read, `Date: Sun, 06 Nov 1994 08:49:37 GMT`, and some white space.
const LINE: usize = 48;

impl Decoder {
    /// The longest head accepted, in bytes.
    pub const MAX_HEAD: usize = 8192;

    /// A parser in front of the first byte.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::StatusLine,
            line: [0; LINE],
            line_len: 0,
            head: 0,
            status: 0,
            date: None,
            length: None,
            chunked: false,
            reusable: false,
            remaining: 0,
            body: 0,
        }
    }

    /// Reads `input` and returns whether the response is complete. The body is written to `body`, which must be the
    /// same buffer in every call. Bytes after the response are dropped and make the connection unusable.
    ///
    /// # Errors
    /// When the response is invalid, or the body does not fit. The decoder cannot be used afterwards.
    pub fn feed(&mut self, input: &[u8], body: &mut [u8]) -> Result<bool, HttpError> {
        for &byte in input {
            match self.state {
                State::End => self.reusable = false,
                State::Rest => self.push_byte(byte, body)?,
                State::Body | State::Chunk => {
                    self.push_byte(byte, body)?;
                    self.remaining = self.remaining.saturating_sub(1);
                    if self.remaining == 0 {
                        self.state = if self.state == State::Chunk { State::ChunkEnd } else { State::End };
                    }
                }
                _ => self.line_byte(byte)?,
            }
        }
        Ok(self.state == State::End)
    }

    /// Ends the response because the connection was closed, which delimits some bodies.
    ///
    /// # Errors
    /// When the response is not complete.
    pub fn close(&mut self) -> Result<(), HttpError> {
        self.reusable = false;
        match self.state {
            State::Rest | State::End => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(HttpError::Truncated),
        }
    }

    /// The response, once it is complete; `body` is the buffer passed to [`feed`](Self::feed).
    #[must_use]
    pub fn response<'a>(&self, body: &'a [u8]) -> Response<'a> {
        Response {
            status: self.status,
            body: body.get(..self.body).unwrap_or_default(),
            date: self.date,
            reusable: self.reusable && self.state == State::End,
        }
    }

    fn push_byte(&mut self, byte: u8, body: &mut [u8]) -> Result<(), HttpError> {
        *body.get_mut(self.body).ok_or(HttpError::BodyTooLong)? = byte;
        self.body += 1;
        Ok(())
    }

    fn line_byte(&mut self, byte: u8) -> Result<(), HttpError> {
        self.head += 1;
        if self.head > Self::MAX_HEAD {
            return Err(HttpError::HeadTooLong);
        }
        if byte != b'\n' {
            if let Some(slot) = self.line.get_mut(self.line_len) {
                *slot = byte;
            }
            // Beyond the buffer, only the length shows that the line is truncated.
            self.line_len += 1;
            return Ok(());
        }
        let line = self.line;
        let truncated = self.line_len > LINE;
        let line = line.get(..self.line_len.min(LINE)).unwrap_or_default();
        // A bare LF is accepted, as RFC 9112, section 2.2, allows.
        let bytes = line.strip_suffix(b"\r").unwrap_or(line);
        self.line_len = 0;
        self.take_line(Line { bytes, truncated })
    }

    fn take_line(&mut self, line: Line<'_>) -> Result<(), HttpError> {
        match self.state {
            State::StatusLine => self.status_line(line.bytes)?,
            State::Header if line.bytes.is_empty() => self.end_of_head()?,
            State::Header => self.header(line)?,
            State::ChunkSize => {
                self.remaining = chunk_size(line.bytes)?;
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
        let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9', b' ', status @ ..] = line else {
            return Err(HttpError::Malformed);
        };
        let ([a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..]) = status
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
        // A folded line, or a blank before the colon, could hide one of the names below.
        if name.iter().any(u8::is_ascii_whitespace) || value.is_none() && !truncated {
            return Err(HttpError::Malformed);
        }
        if name.eq_ignore_ascii_case(b"date") && !truncated {
            self.date = value.and_then(|value| Stamp::from_http_date(value).ok());
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = value.filter(|_| !truncated).and_then(decimal).ok_or(HttpError::Malformed)?;
            if self.length.is_some_and(|earlier| earlier != length) {
                return Err(HttpError::Malformed);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // The request allowed no other coding, and a second "chunked" would be one.
            if truncated || self.chunked || !value.is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"))
            {
                return Err(HttpError::Malformed);
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            let value = value.unwrap_or_default();
            let close =
                value.split(|&byte| byte == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"close"));
            self.reusable &= !close && !truncated;
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), HttpError> {
        self.state = match (self.status, self.chunked, self.length) {
            // The request asked for no change of protocol.
            (101, ..) | (_, true, Some(_)) => return Err(HttpError::Malformed),
            (100..=199, ..) => {
                let head = self.head;
                *self = Self::new();
                self.head = head;
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

/// Reads at most 7 hexadecimal digits, up to the end, a blank or an extension.
fn chunk_size(line: &[u8]) -> Result<u32, HttpError> {
    let end = line.iter().position(|byte| b"; \t".contains(byte)).unwrap_or(line.len());
    let digits = line.get(..end).unwrap_or_default();
    if digits.is_empty() || digits.len() > 7 {
        return Err(HttpError::Malformed);
    }
    digits.iter().try_fold(0, |size, &digit| {
        let value = char::from(digit).to_digit(16).ok_or(HttpError::Malformed)?;
        Ok(size << 4 | value)
    })
}

/// Reads one to nine digits.
fn decimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |number, &digit| {
        let value = char::from(digit).to_digit(10)?;
        Some(number * 10 + value)
    })
}
