//! The bytes of a response: head, and envelope or scripted body. An oversized body is never in memory as a whole.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, DATE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::behaviour::Answer;
use crate::calls::Outcome;
use crate::envelope::{self, Envelope};
use crate::state::{CallGuard, Decision, Reply};

/// The bytes of a broken front end: neither HTTP nor text.
pub(crate) const GARBAGE: &[u8] = b"\x16\x03\x01\x00\xff\xfe\x00garbage\r\n\r\n";

/// The last second that an HTTP date can represent: 9999-12-31 23:59:59.
const LAST_DATE: u64 = 253_402_300_799;

/// The complete HTTP response of a decision.
pub(crate) fn response(decision: &Decision, now: Duration, guard: CallGuard) -> Response<Payload> {
    let (http_status, content_type, parts) = match &decision.behaviour.answer {
        Answer::Body { http_status, content_type, bytes } => {
            (*http_status, content_type.as_str(), Parts::Whole(bytes.clone()))
        }
        Answer::Oversized(bytes) => (200, envelope::CONTENT_TYPE, Parts::padded(envelope(decision), *bytes)),
        _ => (200, envelope::CONTENT_TYPE, Parts::Whole(envelope(decision).into())),
    };
    let mut response = Response::new(Payload { parts, guard: Some(guard) });
    *response.status_mut() = StatusCode::from_u16(http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    if let Ok(value) = HeaderValue::from_str(&date(decision, now)) {
        headers.insert(DATE, value);
    }
    response
}

/// The head and the first `most` bytes of the body, as sent on the wire.
pub(crate) fn partial_response(decision: &Decision, now: Duration, most: usize) -> Vec<u8> {
    let body = envelope(decision);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nDate: {}\r\n\r\n",
        envelope::CONTENT_TYPE,
        body.len(),
        date(decision, now),
    );
    let mut bytes = head.into_bytes();
    bytes.extend(body.bytes().take(most));
    bytes
}

fn envelope(decision: &Decision) -> String {
    let behaviour = &decision.behaviour;
    let (code, verdict) = match &behaviour.answer {
        Answer::Code(code) => (code.as_str(), None),
        Answer::Status(status) => ("0", Some(status.as_str())),
        _ => ("0", None),
    };
    let fields = match &decision.reply {
        Reply::V2(Some((operation, card))) if code == "0" => operation.result(card, verdict),
        Reply::V2(_) => Vec::new(),
        Reply::V5(reply) => return reply.write(behaviour),
    };
    Envelope { code, fields, escaped: behaviour.escaped, numeric: behaviour.numeric }.write()
}

fn date(decision: &Decision, now: Duration) -> String {
    let seconds = now.as_secs().saturating_add_signed(decision.date_offset).min(LAST_DATE);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A response's body, which ends its call when all of it was passed to the connection.
pub(crate) struct Payload {
    parts: Parts,
    guard: Option<CallGuard>,
}

enum Parts {
    /// The whole body, with a declared length.
    Whole(Bytes),
    /// `head`, blanks, `tail`, without a declared length.
    Padded {
        head: Bytes,
        blanks: u64,
        tail: Bytes,
    },
    Done,
}

/// A piece of blanks as it is sent.
static BLANKS: [u8; 64 << 10] = [b' '; 64 << 10];

impl Parts {
    /// `envelope`, padded to `bytes` with blanks before its last brace.
    fn padded(envelope: String, bytes: u64) -> Self {
        let blanks = bytes.saturating_sub(envelope.len() as u64);
        let mut head = Bytes::from(envelope);
        let tail = head.split_off(head.len() - 1);
        Self::Padded { head, blanks, tail }
    }

    fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Done;
                Some(bytes)
            }
            Self::Padded { head, .. } if !head.is_empty() => Some(std::mem::take(head)),
            Self::Padded { blanks, .. } if *blanks > 0 => {
                let piece = usize::try_from(*blanks).unwrap_or(usize::MAX).min(BLANKS.len());
                *blanks -= piece as u64;
                Some(Bytes::from_static(&BLANKS[..piece]))
            }
            Self::Padded { tail, .. } => {
                let tail = std::mem::take(tail);
                *self = Self::Done;
                Some(tail)
            }
            Self::Done => None,
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let next = this.parts.next();
        if matches!(this.parts, Parts::Done)
            && let Some(guard) = this.guard.take()
        {
            guard.end(Outcome::Answered);
        }
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.parts, Parts::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.parts {
            Parts::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Parts::Padded { .. } => SizeHint::default(),
            Parts::Done => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_body_has_its_size_and_stays_json() {
        let envelope = r#"{"status":"0","message":"x","result":[]}"#;
        for size in [0, envelope.len() as u64, 1000, 200_000] {
            let mut parts = Parts::padded(envelope.to_owned(), size);
            let mut body = Vec::new();
            while let Some(piece) = parts.next() {
                body.extend(piece);
            }
            assert_eq!(body.len() as u64, size.max(envelope.len() as u64));
            assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        }
    }
}
