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
    /// No connection, for want of something of ours: descriptors, ports or memory. The carrier has nothing to do with it.
    #[error("this machine has no descriptor, port, address or memory for a connection to the carrier: {0}")]
    Descriptors(String),
    /// TLS failed: certificate or protocol.
    #[error("TLS with the carrier failed: {0}")]
    Tls(String),
    /// The connection was closed, reset or found dead before any byte of a response, as idle ones are now and then.
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
    /// Bytes without end before a complete response: interim (1xx) responses, or a head that goes on.
    #[error("the carrier sent {0} bytes without a complete response")]
    Interim(usize),
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
    /// The account has no ebid for the operation: nothing was sent.
    #[error("the account has no ebid for this operation: add it to its `ebids`")]
    NoEbid,
    /// The proxy could not number the call: state.db is unavailable.
    #[error("state.db gives no transid: see the error before")]
    Sequence,
    /// The proxy ended the call: the grace time of its shutdown was over.
    #[error("the proxy was shutting down, and its grace time was over")]
    Shutdown,
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

    /// Whether it is the proxy's own: nothing was sent that counts, and it says nothing about the carrier.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Descriptors(_) | Self::NoEbid | Self::Sequence | Self::Shutdown)
    }

    /// Whether the carrier may have done what was asked, for all that is known: bytes of the call may have left.
    pub fn may_be_done(&self) -> bool {
        !matches!(
            self,
            Self::Connect(_) | Self::ConnectTimeout | Self::Descriptors(_) | Self::NoEbid | Self::Sequence
        )
    }

    /// The HTTP status of the response that came, if one did.
    pub fn http_status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::TooLong(_) | Self::NotAnEnvelope { .. } => Some(200),
            _ => None,
        }
    }

    /// A short name, for metrics and the audit.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::ConnectTimeout => "connect-timeout",
            Self::Descriptors(_) => "descriptors",
            Self::Tls(_) => "tls",
            Self::ClosedEarly => "closed-early",
            Self::Broken(_) => "broken",
            Self::Timeout => "timeout",
            Self::Status { .. } => "http-status",
            Self::Interim(_) => "interim",
            Self::TooLong(_) => "too-long",
            Self::NotAnEnvelope { .. } => "not-an-envelope",
            Self::NoEbid => "no-ebid",
            Self::Sequence => "sequence",
            Self::Shutdown => "shutdown",
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
            Self::Status { .. } | Self::NotAnEnvelope { .. } | Self::Interim(_) => "http_protocol_error",
            Self::TooLong(_) => "http_response_body_size",
            Self::NoEbid | Self::Sequence | Self::Descriptors(_) | Self::Shutdown => "proxy_internal_error",
        }
    }
}

/// The first bytes for the log: one line, printable ASCII, the rest as dots.
///
/// Error pages like to repeat the URL, and ours holds a token and a card number: whatever looks like either, a long
/// word with a digit in it, is left out.
fn excerpt(body: &[u8]) -> String {
    const KEPT: usize = 120;
    const LONG: usize = 10;
    let mut start = &body[..body.len().min(KEPT)];
    if start.len() < body.len() {
        // Half a number is one too.
        let words = start.iter().rposition(|b| !b.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
        start = &start[..words];
    }
    let mut shown = String::with_capacity(KEPT);
    for word in start.chunk_by(|a, b| a.is_ascii_alphanumeric() == b.is_ascii_alphanumeric()) {
        if word.len() >= LONG && word.iter().any(u8::is_ascii_digit) {
            shown.push_str("***");
        } else {
            shown.extend(
                word.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' }),
            );
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_repeats_neither_token_nor_card() {
        let token = "599a332d6caf2c44b76f1b02d786d3889c44fbf778fef24a58772c8c63ca8819";
        let page = format!("<h1>502 Bad Gateway</h1>\r\nmsisdn=14765004176&token={token}");
        let shown = excerpt(page.as_bytes());
        assert_eq!(shown, "<h1>502 Bad Gateway</h1>..msisdn=***&token=***");
    }

    #[test]
    fn a_number_cut_off_at_the_end_is_hidden_too() {
        for blanks in 100..120 {
            let shown = excerpt(format!("{}14765004176", " ".repeat(blanks)).as_bytes());
            assert!(!shown.contains("147"), "{shown}");
        }
    }
}
