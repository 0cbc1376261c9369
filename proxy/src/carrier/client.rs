//! HTTP towards the carrier: a pool of connections, TLS, one deadline, a cap on the answer.
//!
//! No redirect is followed, no header of a gateway relayed. The URL holds a token, so it
//! never reaches an error text.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use cmiot_signer::SignedRequest;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{self, HeaderMap};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::fault::Fault;
use super::route::Route;
use crate::clock::Time;
use crate::config::Carrier as Settings;
use crate::tls;

/// A pool of connections to one carrier.
pub struct Client {
    pool: legacy::Client<HttpsConnector<Route>, Empty<Bytes>>,
    base_url: String,
    timeout: Duration,
    max_body: usize,
}

/// What came back over HTTP 200.
pub(super) struct Response {
    /// The whole body.
    pub(super) body: Bytes,
    /// The carrier's `Date`, where it sent a readable one.
    pub(super) date: Option<Time>,
}

impl Client {
    /// A client for the configured base URL; connects when first asked.
    ///
    /// # Errors
    /// When the platform's root certificates cannot be used and `base_url` is https.
    pub fn new(settings: &Settings) -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.connect_timeout));
        http.set_local_address(settings.bind);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client(&settings.tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Route::new(http, settings.proxy.clone()));
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            // A reused connection that turns out closed is tried anew by the pool before a byte was answered; that
            // would repeat a transid, and whether to repeat is not the pool's to decide.
            .retry_canceled_requests(false)
            .build(https);
        let base_url = settings.base_url.to_string().trim_end_matches('/').to_owned();
        Ok(Self { pool, base_url, timeout: settings.timeout, max_body: settings.max_body })
    }

    /// Sends a signed look-up and reads the answer within the flight's timeout.
    pub(super) async fn get(&self, path: &str, signed: &SignedRequest<'_>) -> Result<Response, Fault> {
        tokio::time::timeout(self.timeout, self.exchange(path, signed)).await.unwrap_or(Err(Fault::Timeout))
    }

    async fn exchange(&self, path: &str, signed: &SignedRequest<'_>) -> Result<Response, Fault> {
        let response = self.pool.request(self.request(path, signed)).await.map_err(|error| fault(&error))?;
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, self.max_body).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(Fault::TooLong(self.max_body)),
            Err(_) => return Err(Fault::Broken("in the middle of the answer".to_owned())),
        };
        match head.status {
            StatusCode::OK => Ok(Response { body, date: date(&head.headers) }),
            other => Err(Fault::status(other.as_u16(), &body)),
        }
    }

    fn request(&self, path: &str, signed: &SignedRequest<'_>) -> Request<Empty<Bytes>> {
        let mut url = String::with_capacity(320);
        signed.write_url(&self.base_url, path, &mut url).expect("writing to a String cannot fail");
        let uri: Uri =
            url.parse().expect("a checked base URL, a path of ours and a percent-encoded query make a URI");
        Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("cmiot-proxy/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .expect("a parsed URI and constant headers make a request")
    }
}

/// Sorts what the pool reports; its own text may hold the URL, so only the causes are looked at.
fn fault(error: &legacy::Error) -> Fault {
    let mut cause = error.source();
    let hyper = cause.and_then(|cause| cause.downcast_ref::<hyper::Error>());
    if hyper.is_some_and(|e| e.is_canceled() || e.is_incomplete_message()) {
        return Fault::ClosedEarly;
    }
    while let Some(inner) = cause {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Fault::Tls(tls.to_string());
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            if let Some(tls) = tls_error(io) {
                return Fault::Tls(tls.to_string());
            }
            return match (error.is_connect(), io.kind()) {
                (true, io::ErrorKind::TimedOut) => Fault::ConnectTimeout,
                (true, _) => Fault::Connect(io.to_string()),
                (false, _) => Fault::Broken(io.to_string()),
            };
        }
        cause = inner.source();
    }
    if error.is_connect() {
        Fault::Connect("no address to connect to".to_owned())
    } else {
        Fault::Broken("closed before a complete answer".to_owned())
    }
}

/// What TLS refused, which hyper-rustls wraps into an I/O error once more.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| tls_error(inner.downcast_ref()?))
}

/// The `Date` header (RFC 9110 6.6.1), where it is an IMF-fixdate.
fn date(headers: &HeaderMap) -> Option<Time> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Time::from_micros(parsed.as_microsecond()))
}
