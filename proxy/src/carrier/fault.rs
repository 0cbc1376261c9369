//! What kept the carrier from answering: nothing that was said, everything that went wrong on the way.
//!
//! Each fault has an RFC 9209 proxy error type, for `Proxy-Status`, and says whether the carrier may have counted the
//! call. The first bytes of what was not the carrier's envelope are kept for the operator's log.

use super::verdict::NotAnEnvelope;

/// Why an attempt ended without an answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// No connection: refused, unreachable, or no such name. The carrier has not seen the call.
    #[error("no connection to the carrier: {0}")]
    Connect(String),
    /// No connection in time.
    #[error("no connection to the carrier within connect_timeout")]
    ConnectTimeout,
    /// TLS failed: certificate or protocol.
    #[error("TLS with the carrier failed: {0}")]
    Tls(String),
    /// The connection was closed before any answer began, as idle ones are now and then.
    #[error("the carrier closed the connection before answering")]
    ClosedEarly,
    /// The connection broke after the call was sent.
    #[error("the connection to the carrier broke: {0}")]
    Broken(String),
    /// No complete answer in time.
    #[error("no answer from the carrier within its timeout")]
    Timeout,
    /// Another HTTP status than 200.
    #[error("the carrier's front end answered HTTP {status}: {excerpt}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The first bytes of the body, printable.
        excerpt: String,
    },
    /// More bytes than `max_body`.
    #[error("the answer is longer than max_body = {0} bytes")]
    TooLong(usize),
    /// A complete answer that is not the carrier's envelope.
    #[error("not the carrier's envelope ({why}): {excerpt}")]
    NotAnEnvelope {
        /// What is wrong with it.
        why: NotAnEnvelope,
        /// Its first bytes, printable.
        excerpt: String,
    },
    /// The proxy could not number the call: state.db is unavailable.
    #[error("state.db gives no transid: see the error before")]
    Sequence,
}

impl Fault {
    pub(super) fn not_an_envelope(why: NotAnEnvelope, body: &[u8]) -> Self {
        Self::NotAnEnvelope { why, excerpt: excerpt(body) }
    }

    pub(super) fn status(status: u16, body: &[u8]) -> Self {
        Self::Status { status, excerpt: excerpt(body) }
    }

    /// Whether a second attempt is worth making at once: no answer had begun, and nothing says that it would not help.
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ClosedEarly)
    }

    /// A short name, for metrics and the audit.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect-timeout",
            Self::Tls(_) => "tls",
            Self::ClosedEarly => "closed-early",
            Self::Broken(_) => "broken",
            Self::Timeout => "timeout",
            Self::Status { .. } => "http-status",
            Self::TooLong(_) => "too-long",
            Self::NotAnEnvelope { .. } => "not-an-envelope",
            Self::Sequence => "sequence",
        }
    }

    /// The proxy error type of RFC 9209 2.3.
    pub fn proxy_error(&self) -> &'static str {
        match self {
            Self::Connect(_) => "destination_unavailable",
            Self::ConnectTimeout => "connection_timeout",
            Self::Tls(_) => "tls_protocol_error",
            Self::ClosedEarly | Self::Broken(_) => "connection_terminated",
            Self::Timeout => "http_response_timeout",
            Self::Status { .. } | Self::NotAnEnvelope { .. } => "http_protocol_error",
            Self::TooLong(_) => "http_response_body_size",
            Self::Sequence => "proxy_internal_error",
        }
    }
}

/// The first bytes for the log: one line, printable ASCII, the rest as dots.
fn excerpt(body: &[u8]) -> String {
    const KEPT: usize = 120;
    let shown = |b: &u8| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' };
    body.iter().take(KEPT).map(shown).collect()
}
