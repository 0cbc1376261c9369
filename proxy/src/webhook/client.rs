//! One attempt: a POST with the headers of Standard Webhooks. Any 2xx is success; a redirect is refused, since its target
//! was not configured. Neither the URL nor the body is part of an error.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::message::Message;
use super::signature::sign_with_all;
use crate::clock::{Time, timeout};
use crate::config::Webhook;
use crate::config::webhook::SigningKey;
use crate::tls;

/// An idle connection is closed after this time.
const IDLE: Duration = Duration::from_secs(30);

/// Bytes of a response that are read so that its connection can be used again.
const MAX_RESPONSE: usize = 16 << 10;

/// The time for reading them.
const DRAIN_TIME: Duration = Duration::from_secs(1);

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
    keys: Vec<SigningKey>,
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
        Ok(Self { http, url: webhook.url.clone(), keys: webhook.keys.clone(), timeout: webhook.timeout })
    }

    /// Posts a message at `now`. Returns the HTTP status.
    ///
    /// # Errors
    /// When it was not accepted.
    pub(super) async fn post(&self, message: &Message, now: Time) -> Result<u16, Failure> {
        let late = |_| Err(Failure::new(format!("no response within {:?}", self.timeout)));
        let (head, body) =
            timeout(self.timeout, self.send(message, now)).await.unwrap_or_else(late)?.into_parts();
        // The status alone counts: a body that is cut off, too long or endless only costs the connection.
        let _: Result<_, _> = timeout(DRAIN_TIME, Limited::new(body, MAX_RESPONSE).collect()).await;
        let status = head.status.as_u16();
        if head.status.is_success() {
            return Ok(status);
        }
        let text = match head.status.is_redirection() {
            true => format!("HTTP {status}: redirects are not followed; correct the url"),
            false => format!("HTTP {status}"),
        };
        // Not 400: receivers also send it for a wrong key or clock, which is no property of the message.
        let refuses = [
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

    /// Returns the response when its head is there.
    async fn send(&self, message: &Message, now: Time) -> Result<Response<Incoming>, Failure> {
        let Message { id, body, .. } = message;
        let timestamp = now.as_secs();
        let request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("cmiot-proxy/", env!("CARGO_PKG_VERSION")))
            .header(HeaderName::from_static("webhook-id"), id)
            .header(HeaderName::from_static("webhook-timestamp"), timestamp)
            .header(
                HeaderName::from_static("webhook-signature"),
                sign_with_all(&self.keys, id, timestamp, body),
            )
            .body(Full::new(body.clone()))
            .map_err(|_| Failure::new("the request cannot be built".to_owned()))?;
        self.http.request(request).await.map_err(|error| Failure::new(causes(&error)))
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::webhook::EventClass;

    /// The result of a message that gets this response, after which the connection stays open.
    async fn result_of(response: &'static [u8]) -> Result<u16, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = Webhook {
            name: "one".into(),
            url: format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap(),
            keys: SigningKey::parse_all(b"whsec_dGhlLXdlYmhvb2tzLXNpZGUtb2YtaXQtaW4tYnl0ZXM=").unwrap(),
            events: vec![EventClass::Status],
            groups: Vec::new(),
            tls: tls::ClientTrust::default(),
            timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(60),
        };
        let receiver = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _: usize = stream.read(&mut [0; 4_096]).await.unwrap();
            stream.write_all(response).await.unwrap();
            std::future::pending::<()>().await;
        });
        let now = Time::from_secs(1_768_000_000);
        let result = Client::new(&webhook).unwrap().post(&Message::test("one", now), now).await;
        receiver.abort();
        result
    }

    #[tokio::test]
    async fn a_response_counts_although_its_body_does_not_end() {
        assert_eq!(result_of(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await, Ok(200));
        let failure = result_of(b"HTTP/1.1 500 No\r\ncontent-length: 9\r\n\r\n").await.unwrap_err();
        assert_eq!((failure.to_string().as_str(), failure.is_final), ("HTTP 500", false));
    }

    #[tokio::test]
    async fn a_receiver_asks_for_the_time_of_the_next_attempt_in_seconds() {
        for (response, asked) in [
            (&b"HTTP/1.1 503 No\r\nretry-after: 90\r\ncontent-length: 0\r\n\r\n"[..], Some(90)),
            (
                b"HTTP/1.1 429 No\r\nretry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\ncontent-length: 0\r\n\r\n",
                None,
            ),
            (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", None),
        ] {
            let failure = result_of(response).await.unwrap_err();
            assert_eq!(failure.retry_after, asked.map(Duration::from_secs), "{failure}");
        }
    }

    #[tokio::test]
    async fn only_a_status_about_the_message_itself_is_final() {
        for (response, is_final) in [
            (&b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n"[..], false),
            (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", false),
            (b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n", true),
            (b"HTTP/1.1 422 No\r\ncontent-length: 0\r\n\r\n", true),
        ] {
            let failure = result_of(response).await.unwrap_err();
            assert_eq!(failure.is_final, is_final, "{failure}");
        }
    }
}
