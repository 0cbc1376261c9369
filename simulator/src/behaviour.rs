//! The simulated carrier's treatment of a call: the time and the content of its answer.
//!
//! A [`Behaviour`] waits (latency, then gate) and then sends its [`Answer`]. Faults are ordinary values, so that a test
//! names the fault that it provokes: `Rule::prefix("1476").then(Answer::Reset)`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

/// The treatment of one call. `Behaviour::default()` is a carrier without faults.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// The content of the answer.
    pub answer: Answer,
    /// The delay before the answer; `None` means [`Config::latency`](crate::Config::latency).
    pub latency: Option<Duration>,
    /// Holds the call, after its latency, until the gate releases it.
    pub gate: Option<Gate>,
    /// Seconds by which the `Date` header is ahead of (negative: behind) the clock, on top of
    /// [`Config::date_offset`](crate::Config::date_offset).
    pub date_offset: i64,
    /// Writes text beyond ASCII as `\uXXXX`, as some JSON writers do.
    pub escaped: bool,
    /// Writes the envelope's `status` as a JSON number, where it is one.
    pub numeric: bool,
}

/// The content of an answer.
///
/// [`Default`](Self::Default), [`Status`](Self::Status) and [`Code`](Self::Code) are the carrier's envelope; the
/// others are faults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// Code 0 and the operation's default result (STATUS 00).
    #[default]
    Default,
    /// Code 0 with this value in the operation's verdict field, which is STATUS for a status lookup.
    Status(String),
    /// This code, its text from the carrier's table, and an empty result.
    Code(String),
    /// Any body, with its HTTP status (100 to 999) and content type. A status out of range becomes 500; a content type
    /// that is not a valid header value is omitted.
    Body {
        /// The HTTP status code.
        http_status: u16,
        /// The `Content-Type` header's value.
        content_type: String,
        /// The body.
        bytes: Bytes,
    },
    /// No answer: the connection stays open until the caller disconnects or the simulator stops.
    Hang,
    /// The connection is reset (TCP RST) before any byte.
    Reset,
    /// The connection is closed in order (TCP FIN) before any byte.
    Close,
    /// The head with the full `Content-Length`, this many bytes of the body, then a close.
    Truncate(usize),
    /// As [`Truncate`](Self::Truncate), but the connection stays open without further bytes.
    Stall(usize),
    /// Bytes that are not HTTP, then a close.
    Garbage,
    /// A well-formed success of exactly this many bytes (blanks inside the JSON), without a declared length (chunked), so
    /// that only a receiver that counts bytes notices. Never shorter than the envelope itself.
    Oversized(u64),
}

impl Answer {
    /// A front end's error page in HTML, with this HTTP status.
    #[must_use]
    pub fn html(http_status: u16) -> Self {
        let page = format!(
            "<html>\r\n<head><title>{http_status}</title></head>\r\n<body><center><h1>{http_status}</h1></center></body>\r\n</html>\r\n"
        );
        Self::Body { http_status, content_type: "text/html".to_owned(), bytes: page.into() }
    }

    /// This body with HTTP status 200 and the carrier's content type.
    #[must_use]
    pub fn body(bytes: impl Into<Bytes>) -> Self {
        Self::Body {
            http_status: 200,
            content_type: crate::envelope::CONTENT_TYPE.to_owned(),
            bytes: bytes.into(),
        }
    }

    /// The code of the envelope; `None` if the answer is not a whole envelope.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Default | Self::Status(_) | Self::Oversized(_) => Some("0"),
            Self::Code(code) => Some(code),
            _ => None,
        }
    }
}

/// A gate that holds calls until a test releases them, so that N calls are in flight at once without sleeping.
///
/// A new gate is closed; clones are the same gate. A held call counts as received and in flight.
#[derive(Clone)]
pub struct Gate {
    permits: Arc<Semaphore>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(0)) }
    }

    /// Releases `calls` more calls, waiting ones first.
    pub fn release(&self, calls: usize) {
        self.permits.add_permits(calls);
    }

    /// Releases all waiting and all later calls.
    pub fn open(&self) {
        self.permits.close();
    }

    /// Waits for a permit and uses it.
    pub(crate) async fn acquire(&self) {
        // A closed semaphore is an open gate.
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("open", &self.permits.is_closed())
            .field("permits", &self.permits.available_permits())
            .finish()
    }
}
