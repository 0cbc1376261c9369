//! One lookup over HTTP/1.1 and any byte stream: a modem in transparent mode, a TLS session, a socket.
//!
//! An [`Endpoint`] writes the request into a buffer or an embedded-io writer. A [`Decoder`] reads the response in
//! pieces of any size and writes its body to the caller's buffer. `exchange` does both, blocking or async. The byte
//! stream is responsible for timeouts.
//!
//! After any failure a response may still come. It must not be taken for the next lookup's: hang up and dial again; where
//! that is not possible, discard what comes until the line is silent. The proxy names the request in each response
//! (`cmiot-transid`), and the reader refuses another request's; the carrier does not.
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
//! let mut decoder = Decoder::for_transid(request.transid());
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

pub use exchange::{
    exchange, exchange_async, receive, receive_async, receive_into, receive_into_async, send, send_async,
};
pub use request::{Endpoint, Method};
pub use response::{Decoder, Response};

/// An invalid HTTP request or response. An HTTP status is never an error here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum HttpError {
    /// The host is not a name or address with an optional port.
    BadHost,
    /// The path does not begin with `/`, or contains a character that must be percent-encoded.
    BadPath,
    /// The connection was closed before the response was complete.
    Truncated,
    /// The first line is not one of HTTP: an echo of the request, a message of the modem, or another service.
    NotHttp,
    /// The response is not HTTP/1, or its framing is contradictory.
    Malformed,
    /// The response names the transid of another request: it came late, after that request was given up.
    OtherRequest,
    /// The response's head, or a line of its framing, is longer than [`Decoder::MAX_HEAD`].
    HeadTooLong,
    /// The response's body does not fit into the buffer.
    BodyTooLong,
}

/// The reason why an exchange over a byte stream failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ExchangeError<E> {
    /// The byte stream failed.
    Io(E),
    /// The byte stream accepts no more of the request.
    Closed,
    /// The response is invalid.
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
            Self::Truncated => "the connection was closed within the response: retry on a new one",
            Self::NotHttp => {
                "the first line is not HTTP: the modem echoes the request (ATE0 ends that) or reports something \
                 (RING, CONNECT, +CREG: switch its messages off), or host and port are wrong: wait for silence, \
                 then retry on a new connection"
            }
            Self::Malformed => {
                "the response is not valid HTTP/1: bytes were lost, or the modem put a message between them: wait \
                 for silence, then retry on a new connection"
            }
            Self::OtherRequest => {
                "the response answers an earlier request: wait for silence, then retry on a new connection"
            }
            Self::HeadTooLong => "the response's head is too long: check host and port",
            Self::BodyTooLong => {
                "the response's body does not fit: use a larger buffer, or check host and path"
            }
        })
    }
}

impl<E: fmt::Debug> fmt::Display for ExchangeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection failed ({error:?}): retry on a new one"),
            Self::Closed => f.write_str("the connection accepts no more bytes: retry on a new one"),
            Self::Http(error) => error.fmt(f),
        }
    }
}

impl Error for HttpError {}
impl<E: fmt::Debug> Error for ExchangeError<E> {}
