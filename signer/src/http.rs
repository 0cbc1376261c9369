//! One look-up over HTTP/1.1 and whatever carries bytes: a modem in transparent mode, a TLS session, a socket.
//!
//! An [`Endpoint`] writes the request into a buffer, or into an embedded-io writer; a [`Decoder`] takes the
//! answer as it comes, in pieces of any size, and puts its body into the caller's buffer. `exchange` does both,
//! blocking or async. Time-outs are up to what carries the bytes.
//!
//! ```
//! use cmiot_signer::http::{Decoder, Endpoint};
//! # use cmiot_signer::{AppId, Card, CardKind, Ebid, PATH, Password, Reply, Sequence, Signer, Stamp};
//! # let (appid, ebid) = (AppId::parse("100001")?, Ebid::parse("1")?);
//! # let (password, card) = (Password::new(b"pw")?, Card::parse(CardKind::Imsi, "460079650004176")?);
//! # let request = Signer::new(&appid, &ebid, &password).sign(Stamp::FIRST, Sequence::FIRST, &card);
//! let mut buffer = [0; 512];
//! let len = Endpoint::new("192.168.1.10:8080", PATH)?.write_into(&request, &mut buffer)?;
//! assert!(buffer[..len].starts_with(b"GET /v2/userstatusrealsingle?appid=100001&transid="));
//!
//! let mut decoder = Decoder::new();
//! assert!(!decoder.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n", &mut buffer)?);
//! assert!(decoder.feed(br#"{"status":"7","result":[]}"#, &mut buffer)?);
//! assert_eq!(Reply::parse(decoder.response(&buffer).body)?.code(), "7");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod exchange;
mod request;
mod response;

use core::error::Error;
use core::fmt;

pub use exchange::{exchange, exchange_async, receive, receive_async, send, send_async};
pub use request::{Endpoint, Method};
pub use response::{Decoder, Response};

/// What is wrong with a request or an answer, as HTTP. Whatever HTTP status an answer has is no error here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpError {
    /// The host holds something else than a name or address and a port.
    BadHost,
    /// The path does not begin with `/`, or holds what would have to be percent-encoded.
    BadPath,
    /// The connection was closed before the answer was complete.
    Truncated,
    /// This is not HTTP/1, or its framing contradicts itself.
    Malformed,
    /// The answer's head, or a line of its framing, is longer than [`Decoder::MAX_HEAD`].
    HeadTooLong,
    /// The answer's body does not fit into the buffer.
    BodyTooLong,
}

/// Why a look-up over some byte carrier failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeError<E> {
    /// What carries the bytes failed.
    Io(E),
    /// What carries the bytes takes no more of the request.
    Closed,
    /// What came is no answer.
    Http(HttpError),
}

impl<E> From<HttpError> for ExchangeError<E> {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadHost => "the host is not a name or address with an optional port: leave out http://",
            Self::BadPath => "the path must begin with '/' and be percent-encoded where needed",
            Self::Truncated => "the connection was closed within the answer: ask again on a new one",
            Self::Malformed => {
                "the answer is not HTTP/1: check host and port, then ask again on a new connection"
            }
            Self::HeadTooLong => "the answer's head is too long: check that host and port are right",
            Self::BodyTooLong => {
                "the answer's body does not fit: use a larger buffer, or check host and path"
            }
        })
    }
}

impl<E: fmt::Debug> fmt::Display for ExchangeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection failed ({error:?}): ask again on a new one"),
            Self::Closed => f.write_str("the connection takes no more: ask again on a new one"),
            Self::Http(error) => error.fmt(f),
        }
    }
}

impl Error for HttpError {}
impl<E: fmt::Debug> Error for ExchangeError<E> {}
