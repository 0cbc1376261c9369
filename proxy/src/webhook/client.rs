//! One attempt: a POST with the headers of Standard Webhooks. Any 2xx is success; a redirect is refused, since its target
//! was not configured. Neither the URL nor the body is part of an error.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::message::Message;
use super::signature::sign;
use crate::clock::{Time, timeout};
use crate::config::Webhook;
use crate::config::webhook::SigningKey;
use crate::tls;

/// An idle connection is closed after this time.
const IDLE: Duration = Duration::from_secs(30);

/// Bytes of a response that are read so that its connection can be used again.
const MAX_RESPONSE: usize = 16 << 10;

/// The reason that a message was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    text: String,
    /// The receiver refuses this very message.
    pub(super) is_final: bool,
    /// The time after which the receiver asks for the next attempt.
    pub(super) retry_after: Option<Duration>,
}

/// The client of one receiver.
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    key: SigningKey,
    timeout: Duration,
}

impl Client {
    /// A client that connects at its first message.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn new(webhook: &Webhook) -> Result<Self, Failure> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(webhook.timeout));
        let tls = tls::client(&webhook.tls).map_err(|error| Failure::new(format!("TLS: {error}")))?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { http, url: webhook.url.clone(), key: webhook.key.clone(), timeout: webhook.timeout })
    }

    /// Posts a message at `now`. Returns the HTTP status.
    ///
    /// # Errors
    /// When it was not accepted.
    pub(super) async fn post(&self, message: &Message, now: Time) -> Result<u16, Failure> {
        let exchange = timeout(self.timeout, self.exchange(message, now));
        exchange.await.unwrap_or_else(|_| Err(Failure::new(format!("no response within {:?}", self.timeout))))
    }

    async fn exchange(&self, message: &Message, now: Time) -> Result<u16, Failure> {
        let Message { id, body, .. } = message;
        let timestamp = now.as_secs();
        let request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("cmiot-proxy/", env!("CARGO_PKG_VERSION")))
            .header(HeaderName::from_static("webhook-id"), id)
            .header(HeaderName::from_static("webhook-timestamp"), timestamp)
            .header(HeaderName::from_static("webhook-signature"), sign(&self.key, id, timestamp, body))
            .body(Full::new(body.clone()))
            .map_err(|_| Failure::new("the request cannot be built".to_owned()))?;
        let response = self.http.request(request).await.map_err(|error| Failure::new(causes(&error)))?;
        let (head, body) = response.into_parts();
        // The status alone counts: whatever goes wrong here only costs the connection.
        let _: Result<_, _> = Limited::new(body, MAX_RESPONSE).collect().await;
        if head.status.is_success() {
            return Ok(head.status.as_u16());
        }
        let status = head.status.as_u16();
        let text = match head.status.is_redirection() {
            true => format!("HTTP {status}: redirects are not followed; correct the url"),
            false => format!("HTTP {status}"),
        };
        let refuses = [
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ];
        Err(Failure {
            text,
            is_final: refuses.contains(&head.status),
            retry_after: retry_after(&head.headers),
        })
    }
}

impl Failure {
    fn new(text: String) -> Self {
        Self { text, is_final: false, retry_after: None }
    }
}

/// `Retry-After` in seconds (RFC 9110 10.2.3); a date there is ignored.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The causes of an error of the client: their texts name no URL.
fn causes(error: &legacy::Error) -> String {
    let mut text = if error.is_connect() { "cannot connect" } else { "no complete response" }.to_owned();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
