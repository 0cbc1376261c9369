//! Request writer: RFC 9112, sections 3 and 5.
//!
//! ```text
//! GET {path}?{query} HTTP/1.1        POST {path} HTTP/1.1
//! Host: {host}                       Host: {host}
//! Connection: close                  Connection: close
//!                                    Content-Type: application/x-www-form-urlencoded
//!                                    Content-Length: {length}
//!
//!                                    {query}
//! ```

use super::HttpError;
use crate::card::Card;
use crate::error::BufferTooSmall;
use crate::request::{SignedRequest, Signer};
use crate::sequence::Sequence;
use crate::sha256::CompressionFunction;
use crate::stamp::{Stamp, div_rem};
use crate::text::copy;

/// The destination of lookups, and the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    host: &'a str,
    path: &'a str,
    method: Method,
    keep_alive: bool,
}

/// The part of the request that carries the parameters; carrier and proxy accept either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// In the URL.
    #[default]
    Get,
    /// In a form body, which most servers keep out of their logs.
    Post,
}

impl<'a> Endpoint<'a> {
    /// Sends lookups to `host` (`name`, `name:port` or `[v6]:port`) under `path`, by GET, one per connection.
    ///
    /// # Errors
    /// When host or path contain a character that could end their line, or that must be percent-encoded.
    pub const fn new(host: &'a str, path: &'a str) -> Result<Self, HttpError> {
        if host.is_empty() || !all_in(host.as_bytes(), b".-:[]_") {
            return Err(HttpError::BadHost);
        }
        if !matches!(path.as_bytes(), [b'/', ..]) || !all_in(path.as_bytes(), b"/%-._~!$&'()*+,;=:@") {
            return Err(HttpError::BadPath);
        }
        Ok(Self { host, path, method: Method::Get, keep_alive: false })
    }

    /// Uses this method.
    #[must_use]
    pub const fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Sets whether the connection is to carry further lookups.
    #[must_use]
    pub const fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// The length of the whole request in bytes.
    #[must_use]
    pub fn request_len(&self, request: &SignedRequest<'_>) -> usize {
        self.len(request.parts().iter().map(|part| part.len()).sum())
    }

    /// Writes the whole request into a buffer and returns its length.
    ///
    /// # Errors
    /// When it does not fit; then nothing was written.
    pub fn write_into(&self, request: &SignedRequest<'_>, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let len = self.request_len(request);
        if len > out.len() {
            return Err(BufferTooSmall);
        }
        Ok(self.write_from(0, request, out))
    }

    /// The length of the whole request for a lookup of `card` in bytes, before it is signed.
    #[must_use]
    pub fn signed_len<C: CompressionFunction>(&self, signer: &Signer<'_, C>, card: &Card) -> usize {
        self.len(signer.query_len(card))
    }

    /// Signs a lookup, writes the whole request into a buffer, and returns its length. The bytes are those of
    /// [`write_into`](Self::write_into); this function is for chips whose stack has no room for a [`SignedRequest`].
    ///
    /// # Errors
    /// When it does not fit; then nothing was written.
    pub fn sign_into<C: CompressionFunction>(
        &self,
        signer: &Signer<'_, C>,
        stamp: Stamp,
        sequence: Sequence,
        card: &Card,
        out: &mut [u8],
    ) -> Result<usize, BufferTooSmall> {
        let query_len = signer.query_len(card);
        let len = self.len(query_len);
        let out = out.get_mut(..len).ok_or(BufferTooSmall)?;
        let mut at = 0;
        self.pieces(query_len, &mut |piece| {
            let room = out.get_mut(at..).unwrap_or_default();
            at += match piece {
                Some(text) => {
                    copy(text, room);
                    text.len()
                }
                // The room is part of a buffer that is long enough.
                None => signer.sign_into(stamp, sequence, card, room).unwrap_or_default(),
            };
        });
        Ok(len)
    }

    /// Writes as much of the request as fits, from its byte `start` on, and returns the count.
    pub(super) fn write_from(&self, start: usize, request: &SignedRequest<'_>, out: &mut [u8]) -> usize {
        let (mut skip, mut len) = (start, 0);
        let mut put = |text: &[u8]| {
            let skipped = skip.min(text.len());
            skip -= skipped;
            let room = out.get_mut(len..).unwrap_or_default();
            for (slot, &byte) in room.iter_mut().zip(text.get(skipped..).unwrap_or_default()) {
                *slot = byte;
                len += 1;
            }
        };
        let query = request.parts();
        self.pieces(query.iter().map(|part| part.len()).sum(), &mut |piece| match piece {
            Some(text) => put(text),
            None => query.iter().for_each(|part| put(part)),
        });
        len
    }

    fn len(&self, query_len: usize) -> usize {
        let mut len = query_len;
        self.pieces(query_len, &mut |piece| len += piece.unwrap_or_default().len());
        len
    }

    /// Hands out the request in pieces; `None` is the query, in the request line (GET) or after the headers (POST).
    fn pieces(&self, query_len: usize, piece: &mut dyn FnMut(Option<&[u8]>)) {
        let post = self.method == Method::Post;
        piece(Some(if post { b"POST " } else { b"GET " }));
        piece(Some(self.path.as_bytes()));
        if !post {
            piece(Some(b"?"));
            piece(None);
        }
        piece(Some(b" HTTP/1.1\r\nHost: "));
        piece(Some(self.host.as_bytes()));
        piece(Some(b"\r\nConnection: "));
        piece(Some(if self.keep_alive { b"keep-alive" } else { b"close" }));
        if post {
            piece(Some(FORM));
            piece(Some(&three_digits(query_len)));
        }
        piece(Some(b"\r\n\r\n"));
        if post {
            piece(None);
        }
    }
}

const FORM: &[u8] = b"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ";

/// The query's length in three digits.
fn three_digits(query_len: usize) -> [u8; 3] {
    const { assert!(crate::request::QUERY_MAX < 1000, "three digits") };
    let mut rest = query_len as u32;
    // Not a loop over units: a division by a variable links a panic.
    [div_rem(&mut rest, 100), div_rem(&mut rest, 10), rest].map(|digit| b'0' + digit as u8)
}

/// Whether every byte is a letter, a digit, or in `others`.
const fn all_in(text: &[u8], others: &[u8]) -> bool {
    // `for` and closures are not allowed in a const fn.
    let mut at = 0;
    while at < text.len() {
        let mut known = text[at].is_ascii_alphanumeric();
        let mut other = 0;
        while other < others.len() {
            known |= text[at] == others[other];
            other += 1;
        }
        if !known {
            return false;
        }
        at += 1;
    }
    true
}
