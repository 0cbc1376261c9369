//! Faults: the ends of a call without a carrier reply.
//!
//! Each fault has an RFC 9209 proxy error type, for `Proxy-Status`, and tells whether the carrier may have counted the
//! call. The first bytes of a body that is not a carrier reply are kept for the operator's log.

use zeroize::Zeroize;

use super::verdict::NotAnEnvelope;

/// Reason for the end of an attempt without a reply.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// No connection: refused, unreachable, or no such name. The carrier has not received the call.
    #[error("no connection to the carrier: {0}")]
    Connect(String),
    /// No connection in time.
    #[error("no connection to the carrier within connect_timeout")]
    ConnectTimeout,
    /// No connection, since this machine has no free descriptor, port or memory: not a fault of the carrier.
    #[error("this machine has no descriptor, port, address or memory for a connection to the carrier: {0}")]
    Descriptors(String),
    /// A TLS error: certificate or protocol.
    #[error("TLS with the carrier failed: {0}")]
    Tls(String),
    /// The connection was closed, reset or dead before any byte of a response, as happens to idle ones.
    #[error("the carrier closed the connection before answering")]
    ClosedEarly,
    /// The connection broke after the call was sent.
    #[error("the connection to the carrier broke: {0}")]
    Broken(String),
    /// No complete response in time.
    #[error("no answer from the carrier within its timeout")]
    Timeout,
    /// An HTTP status other than 200.
    #[error("the carrier's front end answered HTTP {status}: {excerpt}")]
    Status {
        status: u16,
        /// The first bytes of the body, printable.
        excerpt: String,
    },
    /// Too many bytes before a complete response: interim (1xx) responses, or an endless head.
    #[error("the carrier sent {0} bytes without a complete response")]
    Interim(usize),
    /// More bytes than `max_body`.
    #[error("the answer is longer than max_body = {0} bytes")]
    TooLong(usize),
    /// A complete response that is not a reply envelope.
    #[error("not the carrier's envelope ({why}): {excerpt}")]
    NotAnEnvelope {
        why: NotAnEnvelope,
        /// The first bytes of the body, printable.
        excerpt: String,
    },
    /// The account has no ebid for the operation: nothing was sent.
    #[error("the account has no ebid for this operation: add it to its `ebids`")]
    NoEbid,
    /// The call has no transid: state.db is unavailable.
    #[error("state.db gives no transid: see the error before")]
    Sequence,
    /// The account has no token, and no request for one was made, since the last one failed a moment ago: nothing was sent.
    #[error("the account has no token, and the last request for one has failed: see the error before")]
    NoToken,
    /// The proxy ended the call at the end of the grace time of its shutdown.
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

    /// The same without the bytes of the body, if these may repeat this secret.
    pub(super) fn hiding(mut self, secret: &str) -> Self {
        if let Self::Status { excerpt, .. } | Self::NotAnEnvelope { excerpt, .. } = &mut self
            && repeats(excerpt, secret)
        {
            hide(excerpt);
        }
        self
    }

    /// The same without the bytes of the body: it may repeat any part of the call.
    pub(super) fn without_excerpt(mut self) -> Self {
        if let Self::Status { excerpt, .. } | Self::NotAnEnvelope { excerpt, .. } = &mut self {
            hide(excerpt);
        }
        self
    }

    /// Whether an immediate retry may help: no response had started, and the cause may have passed.
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ClosedEarly)
    }

    /// Whether it is a local fault: nothing was sent that counts, and it is not caused by the carrier.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Descriptors(_) | Self::NoEbid | Self::NoToken | Self::Sequence | Self::Shutdown)
    }

    /// Whether the carrier may have executed the call, since bytes of it may have been sent.
    pub fn may_be_done(&self) -> bool {
        !matches!(
            self,
            Self::Connect(_)
                | Self::ConnectTimeout
                | Self::Descriptors(_)
                | Self::NoEbid
                | Self::NoToken
                | Self::Sequence
        )
    }

    /// The fault in one word, and its number, for the nodes of a fleet that wait for this call; none if another node should
    /// call instead, since the carrier has not received the call, and the cause may be this machine or its network.
    pub fn shared(&self) -> Option<String> {
        match self {
            Self::ClosedEarly | Self::Broken(_) | Self::Timeout | Self::NotAnEnvelope { .. } => {
                Some(self.name().to_owned())
            }
            Self::Status { status, .. } => Some(format!("{} {status}", self.name())),
            Self::Interim(bytes) | Self::TooLong(bytes) => Some(format!("{} {bytes}", self.name())),
            Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Descriptors(_)
            | Self::Tls(_)
            | Self::NoEbid
            | Self::NoToken
            | Self::Sequence
            | Self::Shutdown => None,
        }
    }

    /// The fault of a call of another node, from [`Self::shared`]; its details are in the log of that node. None for a fault
    /// that this version does not know.
    pub fn of_other_node(text: &str) -> Option<Self> {
        let (name, number) = text.split_once(' ').unwrap_or((text, ""));
        let excerpt = "see the node that called".to_owned();
        Some(match name {
            "closed-early" => Self::ClosedEarly,
            "broken" => Self::Broken(excerpt),
            "timeout" => Self::Timeout,
            "not-an-envelope" => Self::NotAnEnvelope { why: NotAnEnvelope::Code, excerpt },
            "http-status" => Self::Status { status: number.parse().ok()?, excerpt },
            "interim" => Self::Interim(number.parse().ok()?),
            "too-long" => Self::TooLong(number.parse().ok()?),
            _ => return None,
        })
    }

    /// The HTTP status of the response, if there was one.
    pub fn http_status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::TooLong(_) | Self::NotAnEnvelope { .. } => Some(200),
            _ => None,
        }
    }

    /// Its name in metrics and the audit.
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
            Self::NoToken => "no-token",
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
            Self::NoToken => "destination_unavailable",
            Self::NoEbid | Self::Sequence | Self::Descriptors(_) | Self::Shutdown => "proxy_internal_error",
        }
    }
}

/// Whether a text has a part of a secret, long enough to differ from other words, or names one.
fn repeats(text: &str, secret: &str) -> bool {
    const PART: usize = 6;
    let lower = text.to_ascii_lowercase();
    if ["token", "password"].iter().any(|name| lower.contains(name)) {
        return true;
    }
    let secret = secret.as_bytes();
    let parts = secret.windows(PART.min(secret.len().max(1)));
    parts.into_iter().any(|part| memchr::memmem::find(text.as_bytes(), part).is_some())
}

/// Replaces an excerpt, and wipes it.
fn hide(excerpt: &mut String) {
    excerpt.zeroize();
    excerpt.push_str("not shown, it may repeat a secret");
}

/// The first bytes for the log: one line, printable ASCII, the rest as dots.
///
/// Error pages often repeat the URL, and ours holds a token and a card number: words that may be either, long ones with a
/// digit, are left out.
fn excerpt(body: &[u8]) -> String {
    const KEPT: usize = 120;
    const LONG: usize = 10;
    let mut start = &body[..body.len().min(KEPT)];
    if start.len() < body.len() {
        // A part of a number counts, too.
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
    fn a_fault_that_is_shared_says_the_same_at_another_node() {
        let excerpt = String::new();
        for fault in [
            Fault::ClosedEarly,
            Fault::Broken(String::new()),
            Fault::Timeout,
            Fault::Status { status: 503, excerpt: excerpt.clone() },
            Fault::Interim(70_000),
            Fault::TooLong(65_536),
            Fault::NotAnEnvelope { why: NotAnEnvelope::Code, excerpt },
        ] {
            let other = Fault::of_other_node(&fault.shared().unwrap()).unwrap();
            assert_eq!((other.name(), other.http_status()), (fault.name(), fault.http_status()));
            assert!(fault.may_be_done(), "{fault}: the carrier may have counted it");
        }
        for local in [Fault::ConnectTimeout, Fault::NoEbid, Fault::Sequence, Fault::Shutdown] {
            assert_eq!(local.shared(), None, "{local}");
            assert_eq!(Fault::of_other_node(local.name()), None, "{local}");
        }
        assert_eq!(Fault::of_other_node("http-status"), None, "without its number");
    }

    #[test]
    fn an_excerpt_that_repeats_a_part_of_the_token_is_hidden() {
        let token = "opaque_token-of-letters";
        for (page, shown) in
            [("bad token=opaque_token-of-letters!", false), ("502 for that.of-letters", false), ("502", true)]
        {
            let fault = Fault::status(502, page.as_bytes()).hiding(token);
            assert_eq!(fault.to_string().contains(page), shown, "{fault}");
            let fault = Fault::status(502, page.as_bytes()).without_excerpt();
            assert!(!fault.to_string().contains(&format!(": {page}")), "{fault}");
        }
    }

    #[test]
    fn an_excerpt_repeats_neither_token_nor_card() {
        let token = "599a332d6caf2c44b76f1b02d786d3889c44fbf778fef24a58772c8c63ca8819";
        let page = format!("<h1>502 Bad Gateway</h1>\r\nmsisdn=14765004176&token={token}");
        let shown = excerpt(page.as_bytes());
        assert_eq!(shown, "<h1>502 Bad Gateway</h1>..msisdn=***&token=***");
    }

    #[test]
    fn a_truncated_number_at_the_end_is_hidden_too() {
        for blanks in 100..120 {
            let shown = excerpt(format!("{}14765004176", " ".repeat(blanks)).as_bytes());
            assert!(!shown.contains("147"), "{shown}");
        }
    }
}
