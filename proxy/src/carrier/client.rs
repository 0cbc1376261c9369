//! HTTP client for the carrier: a pool of connections, TLS, one timeout per call, a limit on the response.
//!
//! It follows no redirect and relays no header of a gateway. The URL holds a token, so it is never part of an error text.
//!
//! A pool is replaced after `MAX_AGE`, with all its connections: the name is resolved again, and traffic does not keep a
//! connection that a firewall has dropped from its table. A call that ends without a response replaces the pool at once,
//! so the next call is made on a new connection.

mod body;

use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::Extensions;
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector, capture_connection};
use hyper_util::client::legacy::{self};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use zeroize::Zeroizing;

use super::charset::ContentType;
use super::connect::{BytesReceived, Connector, Interim};
use super::dialect::WireCall;
use super::fault::Fault;
use crate::clock::{Clock, Time, timeout};
use crate::config::Carrier as Settings;
use crate::tls;

/// Lifetime of a pool. A changed address of the carrier takes effect within this and the duration of one call.
const MAX_AGE: Duration = Duration::from_secs(30);

/// Bytes of a response in addition to its body: head, interim responses, framing of chunks and TLS records.
const OVERHEAD: usize = 64 << 10;

/// An HTTP client for one base URL.
pub struct Client {
    pool: ArcSwap<Pool>,
    settings: Mutex<Settings>,
    clock: Clock,
}

/// A pool of connections, all of them younger than the pool.
struct Pool {
    client: legacy::Client<HttpsConnector<Connector>, Full<Bytes>>,
    connector: HttpsConnector<Connector>,
    base_url: String,
    timeout: Duration,
    max_body: usize,
    /// By the monotonic clock.
    created: Duration,
}

/// A complete response.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) content_type: ContentType,
}

impl Response {
    /// The response, if its HTTP status is 200.
    ///
    /// # Errors
    /// [`Fault::Status`] with the first bytes of the body.
    pub(super) fn ok(self) -> Result<Self, Fault> {
        match self.status {
            StatusCode::OK => Ok(self),
            other => Err(Fault::status(other.as_u16(), &self.body)),
        }
    }
}

impl Client {
    /// A client for the configured base URL. It connects at the first call.
    ///
    /// # Errors
    /// When the platform's root certificates cannot be used and `base_url` is https.
    pub fn new(settings: &Settings, clock: &Clock) -> Result<Self, rustls::Error> {
        let pool = Pool::new(settings, clock.monotonic())?;
        let settings = Mutex::new(settings.clone());
        Ok(Self { pool: ArcSwap::from_pointee(pool), settings, clock: clock.clone() })
    }

    /// Applies changed settings to the calls that start from now on; connections that were made with other settings are
    /// not used again. Calls in flight continue.
    ///
    /// # Errors
    /// As [`Client::new`]; nothing has changed then.
    pub(super) fn reload(&self, new: Settings) -> Result<(), rustls::Error> {
        // Nothing under this lock can panic half-way through a change.
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if *settings != new {
            self.pool.store(Arc::new(Pool::new(&new, self.clock.monotonic())?));
            *settings = new;
        }
        Ok(())
    }

    /// Sends a call, which `write` writes under a base URL, and reads the response, whatever its HTTP status, within the
    /// timeout. `dated` receives the carrier's time as soon as the head of a response that has it was received.
    ///
    /// # Errors
    /// The fault; [`Fault::NoEbid`] if the call cannot be written.
    pub(super) async fn send(
        &self,
        write: impl FnOnce(&str) -> Option<WireCall>,
        dated: impl FnOnce(Time),
    ) -> Result<Response, Fault> {
        let pool = self.pool();
        let call = write(&pool.base_url).ok_or(Fault::NoEbid)?;
        let response = timeout(pool.timeout, pool.exchange(call, dated)).await;
        let response = response.unwrap_or(Err(Fault::Timeout));
        // The event that ended this connection may have ended the idle ones too.
        if matches!(response, Err(Fault::ClosedEarly | Fault::Broken(_) | Fault::Timeout)) {
            self.replace(&pool);
        }
        response
    }

    /// The pool, replaced if it is older than `MAX_AGE`.
    fn pool(&self) -> Arc<Pool> {
        let pool = self.pool.load_full();
        if self.clock.monotonic().saturating_sub(pool.created) < MAX_AGE {
            return pool;
        }
        self.replace(&pool);
        self.pool.load_full()
    }

    /// Replaces a pool, unless another call has. Calls in flight on its connections continue.
    fn replace(&self, old: &Arc<Pool>) {
        let new = Arc::new(old.reconnected(self.clock.monotonic()));
        self.pool.compare_and_swap(old, new);
    }
}

impl Pool {
    fn new(settings: &Settings, created: Duration) -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.connect_timeout));
        http.set_local_address(settings.bind);
        // If bytes are not acknowledged within the time for a new connection, the other end is gone.
        http.set_tcp_user_timeout(Some(settings.connect_timeout));
        let max_response = settings.max_body.saturating_mul(4).saturating_add(OVERHEAD);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client(&settings.tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector::new(http, settings.proxy.clone(), max_response));
        Ok(Self {
            client: client(&connector),
            connector,
            base_url: settings.base_url.to_string().trim_end_matches('/').to_owned(),
            timeout: settings.timeout,
            max_body: settings.max_body,
            created,
        })
    }

    /// A pool with the same settings and no connections.
    fn reconnected(&self, created: Duration) -> Self {
        Self {
            client: client(&self.connector),
            connector: self.connector.clone(),
            base_url: self.base_url.clone(),
            created,
            ..*self
        }
    }

    async fn exchange(&self, call: WireCall, dated: impl FnOnce(Time)) -> Result<Response, Fault> {
        let wipes_reply = call.wipes_reply;
        let mut request = request(call);
        let connection = capture_connection(&mut request);
        let response = self.client.request(request).await.map_err(|error| fault(&error, &connection))?;
        let (head, body) = response.into_parts();
        if let Some(carrier_time) = time_of(&head.headers) {
            dated(carrier_time);
        }
        let status = head.status;
        let (body, content_type) = if wipes_reply {
            // The fields of the head share the buffer of the body.
            drop(head);
            (body::read_secret(body, self.max_body).await?, ContentType::UTF_8)
        } else {
            let body = body::read(body, self.max_body).await?;
            let content_type = ContentType::of(&head.headers, &body);
            (body, content_type)
        };
        Ok(Response { status, body, content_type })
    }
}

fn request(WireCall { url, body, .. }: WireCall) -> Request<Full<Bytes>> {
    let uri = uri(url).expect("a checked base URL, a configured path and a percent-encoded query make a URI");
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header(header::ACCEPT, "application/json")
        // Without it any coding would be acceptable (RFC 9110 12.5.3), but the body is relayed as received.
        .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .header(header::USER_AGENT, concat!("cmiot-proxy/", env!("CARGO_PKG_VERSION")));
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json;charset=UTF-8");
    }
    request
        .body(Full::new(body.unwrap_or_default()))
        .expect("a parsed URI and constant headers make a request")
}

/// A URL as a URI that shares its bytes, which are wiped when it is dropped. The pool keeps the authority for as long as the
/// connection: it gets bytes of its own.
fn uri(url: Zeroizing<String>) -> Result<Uri, hyper::http::Error> {
    let mut parts = Uri::from_maybe_shared(Bytes::from_owner(url))?.into_parts();
    let own = parts.authority.map(|authority| authority.as_str().parse::<Authority>());
    parts.authority = own.transpose()?;
    Ok(Uri::from_parts(parts)?)
}

fn client(connector: &HttpsConnector<Connector>) -> legacy::Client<HttpsConnector<Connector>, Full<Bytes>> {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(MAX_AGE)
        // The pool would send the request again if a reused connection turns out closed before a byte of the response.
        // That would use a transid twice; `Carrier::call` retries with a new one.
        .retry_canceled_requests(false)
        .build(connector.clone())
}

/// Classifies an error of the pool. Its own text may hold the URL, so only its causes are used.
fn fault(error: &legacy::Error, connection: &CaptureConnection) -> Fault {
    let mut cause = error.source();
    let hyper = cause.and_then(|cause| cause.downcast_ref::<hyper::Error>());
    if hyper.is_some_and(hyper::Error::is_canceled) {
        return Fault::ClosedEarly;
    }
    let early = !error.is_connect() && !received_bytes(connection);
    if early && hyper.is_some_and(hyper::Error::is_incomplete_message) {
        return Fault::ClosedEarly;
    }
    while let Some(inner) = cause {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Fault::Tls(tls.to_string());
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            if let Some(tls) = wrapped::<rustls::Error>(io) {
                return Fault::Tls(tls.to_string());
            }
            if let Some(Interim(bytes)) = wrapped(io) {
                return Fault::Interim(*bytes);
            }
            return match (error.is_connect(), io.kind()) {
                (true, io::ErrorKind::TimedOut) => Fault::ConnectTimeout,
                (true, _) if is_ours(io) => Fault::Descriptors(io.to_string()),
                (true, _) => Fault::Connect(io.to_string()),
                // A reset, or no acknowledgement: counts as a close.
                (false, _) if early => Fault::ClosedEarly,
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

/// Whether a byte of the response was received; without a connection none was.
fn received_bytes(connection: &CaptureConnection) -> bool {
    let mut extras = Extensions::new();
    if let Some(connected) = connection.connection_metadata().as_ref() {
        connected.get_extras(&mut extras);
    }
    extras.get::<BytesReceived>().is_some_and(BytesReceived::any)
}

/// Whether a connection failed because this machine or process has no free descriptor, port or memory.
fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const OURS: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    let ours =
        |errno: Option<i32>| errno.is_some_and(|errno| OURS.iter().any(|one| one.raw_os_error() == errno));
    // The resolver does not report the cause of its failure: try whether a descriptor is free.
    ours(error.raw_os_error())
        || error.raw_os_error().is_none()
            && rustix::io::dup(io::stderr()).is_err_and(|errno| ours(Some(errno.raw_os_error())))
}

/// The error inside an I/O error, at any depth: hyper-rustls adds a wrapper of its own.
fn wrapped<T: std::error::Error + 'static>(error: &io::Error) -> Option<&T> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| wrapped(inner.downcast_ref()?))
}

/// The carrier's time when it sent the response: `Date` (RFC 9110 6.6.1), plus `Age` (RFC 9111 5.1) for a response from a
/// cache on the way. `None` if either cannot be read.
fn time_of(headers: &HeaderMap) -> Option<Time> {
    let text = headers.get(header::DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let age = match headers.get(header::AGE) {
        Some(age) => age.to_str().ok()?.trim().parse::<u32>().ok()?,
        None => 0,
    };
    Some(Time::from_micros(date.as_microsecond()).plus(Duration::from_secs(age.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_keeps_its_secrets_in_the_bytes_of_its_url() {
        let url = Zeroizing::new("https://carrier.example:8443/v5/get?token=T0KEN".to_owned());
        let range = url.as_bytes().as_ptr_range();
        let uri = uri(url).unwrap();
        let is_shared = |part: &str| range.contains(&part.as_ptr());
        assert_eq!(uri.to_string(), "https://carrier.example:8443/v5/get?token=T0KEN");
        assert!(is_shared(uri.path()) && is_shared(uri.query().unwrap()));
        assert!(!is_shared(uri.authority().unwrap().as_str()), "the pool keeps it");
    }

    #[test]
    fn a_date_counts_with_its_age() {
        let read = |age: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::DATE, "Thu, 15 Jan 2026 04:00:00 GMT".parse().unwrap());
            if let Some(age) = age {
                headers.insert(header::AGE, age.parse().unwrap());
            }
            time_of(&headers)
        };
        assert_eq!(read(None), Some(Time::from_secs(1_768_449_600)));
        assert_eq!(read(Some("300")), Some(Time::from_secs(1_768_449_900)));
        assert_eq!(read(Some("soon")), None);
        assert_eq!(time_of(&HeaderMap::new()), None);
    }
}
