//! What the simulated carrier does with a call: when it answers, and with what.
//!
//! A [`Behaviour`] waits (latency, then gate) and then gives its [`Answer`]. Faults are values like any
//! other, so that a test reads as what it provokes: `Rule::prefix("1476").then(Answer::Reset)`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

/// How one call is treated. `Behaviour::default()` is the carrier on a good day.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// What is answered.
    pub answer: Answer,
    /// How long the carrier takes; `None` takes [`Config::latency`](crate::Config::latency).
    pub latency: Option<Duration>,
    /// Holds the call, after its latency, until the gate lets it pass.
    pub gate: Option<Gate>,
    /// Seconds by which the `Date` header is ahead of (negative: behind) the clock, on top of
    /// [`Config::date_offset`](crate::Config::date_offset).
    pub date_offset: i64,
    /// Writes text beyond ASCII as `\uXXXX`, as some JSON writers do.
    pub escaped: bool,
    /// Writes the envelope's `status` as a JSON number, where it is one.
    pub numeric: bool,
}

/// What a caller receives.
///
/// [`Usual`](Self::Usual), [`Status`](Self::Status) and [`Code`](Self::Code) are the carrier's envelope; the
/// others are what a caller must survive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// Code 0 and the operation's usual result (STATUS 00).
    #[default]
    Usual,
    /// Code 0 with this in the operation's verdict field: STATUS of a look-up of status.
    Status(String),
    /// This code, its text from the carrier's table, and an empty result.
    Code(String),
    /// Any body, with its HTTP status (100 to 999) and content type. A status out of range becomes 500, a
    /// content type that no header can carry is left out.
    Body {
        /// The HTTP status code.
        http_status: u16,
        /// The `Content-Type` header's value.
        content_type: String,
        /// The body.
        bytes: Bytes,
    },
    /// Nothing, ever: the connection stays open until the caller leaves or the simulator stops.
    Hang,
    /// The connection is reset (TCP RST) before any byte.
    Reset,
    /// The connection is closed in order (TCP FIN) before any byte.
    Close,
    /// The usual head with its full `Content-Length`, this many bytes of the body, then a close.
    Truncate(usize),
    /// The same, but then nothing more on a connection that stays open.
    Stall(usize),
    /// Bytes that are not HTTP, then a close.
    Garbage,
    /// A well-formed success of exactly this many bytes (blanks inside the JSON), of undeclared length
    /// (chunked), so that only counting notices. Never shorter than the envelope itself.
    Oversized(u64),
}

impl Answer {
    /// A front end's error page in HTML, over this HTTP status.
    #[must_use]
    pub fn html(http_status: u16) -> Self {
        let page = format!(
            "<html>\r\n<head><title>{http_status}</title></head>\r\n<body><center><h1>{http_status}</h1></center></body>\r\n</html>\r\n"
        );
        Self::Body { http_status, content_type: "text/html".to_owned(), bytes: page.into() }
    }

    /// This body over HTTP 200 with the carrier's own content type.
    #[must_use]
    pub fn body(bytes: impl Into<Bytes>) -> Self {
        Self::Body {
            http_status: 200,
            content_type: crate::answer::CONTENT_TYPE.to_owned(),
            bytes: bytes.into(),
        }
    }

    /// The code of the whole envelope that is answered; `None` where none is.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Usual | Self::Status(_) | Self::Oversized(_) => Some("0"),
            Self::Code(code) => Some(code),
            _ => None,
        }
    }
}

/// A gate that holds calls until a test lets them pass: what makes "N at once" certain without sleeping.
///
/// Closed when made; clones are the same gate. A held call counts as arrived and in flight.
#[derive(Clone)]
pub struct Gate {
    passes: Arc<Semaphore>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self { passes: Arc::new(Semaphore::new(0)) }
    }

    /// Lets `calls` more calls pass, those waiting first.
    pub fn release(&self, calls: usize) {
        self.passes.add_permits(calls);
    }

    /// Lets every call pass, now and from now on.
    pub fn open(&self) {
        self.passes.close();
    }

    /// Waits for a pass and uses it up.
    pub(crate) async fn pass(&self) {
        // A closed semaphore is an open gate.
        if let Ok(permit) = self.passes.acquire().await {
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
            .field("open", &self.passes.is_closed())
            .field("passes", &self.passes.available_permits())
            .finish()
    }
}
