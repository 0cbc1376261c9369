//! The operators' listener.
//!
//! - `GET /live`: 200 while the process runs.
//! - `GET /ready`: 200 while look-ups are answered, else 503; the body says what is wrong.
//! - `GET /metrics`: Prometheus; needs the bearer token where one is configured.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use subtle::ConstantTimeEq;

use crate::config::units::Secret;
use crate::metrics::{Levels, Metrics};
use crate::relay::Relay;
use crate::store::Store;

/// What the operators' listener looks at.
pub struct Admin {
    /// The bearer token, where one is needed.
    pub token: Option<Secret>,
    /// For the cache and the flights.
    pub relay: Arc<Relay>,
    /// Whether the stores can be written.
    pub store: Arc<Store>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
}

impl Admin {
    /// Answers one request.
    pub async fn serve<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/live") => text(StatusCode::OK, "live\n"),
            (&Method::GET, "/ready") => self.ready().await,
            (&Method::GET, "/metrics") if self.authorized(request) => self.metrics(),
            (_, "/metrics") if !self.authorized(request) => unauthorized(),
            (_, "/live" | "/ready" | "/metrics") => text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n"),
            _ => text(StatusCode::NOT_FOUND, "no such page: /live, /ready, /metrics\n"),
        }
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        // One real commit, which waits for the disk.
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || store.writable()).await {
            Ok(Ok(())) => text(StatusCode::OK, "ready\n"),
            Ok(Err(error)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the check died\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let levels = Levels {
            cache_entries: self.relay.cache.entries(),
            flights: self.relay.flights.under_way(),
            audit_queue: self.store.audit.queued(),
        };
        let mut response = text(StatusCode::OK, self.metrics.render(levels));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        );
        response
    }

    /// Compared in constant time: how far a guess was right does not show.
    fn authorized<B>(&self, request: &Request<B>) -> bool {
        let Some(token) = &self.token else { return true };
        let claimed = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let claimed = claimed.and_then(|value| value.strip_prefix(b"Bearer "));
        claimed.is_some_and(|claimed| bool::from(claimed.ct_eq(token.expose())))
    }
}

fn unauthorized() -> Response<Full<Bytes>> {
    let mut response =
        text(StatusCode::UNAUTHORIZED, "send Authorization: Bearer and the token of [admin] token_file\n");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
