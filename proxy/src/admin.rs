//! The admin listener: which path is whose page, and the role that it needs.
//!
//! - `GET /live`, `GET /ready`, `GET /metrics`: `health.rs`.
//! - `GET /cache/stats`, `POST /cache/show`, `/cache/purge`, `/cache/fetch`: `cache.rs`.
//! - `GET /peers`: `peers.rs`.
//! - `POST /audit/query`: `audit.rs`.
//! - `POST /config/reload`: `config.rs`.
//!
//! `/live` and `/ready` are for whoever starts and balances the process. Everything else needs a role (`auth.rs`), whether
//! or not there is such a page (HEAD is answered wherever GET is); `/metrics` does so only with `token_file`. A further group of pages is a file under
//! `admin/`, a line in `Admin::page` and one in `needs`.

mod audit;
mod auth;
mod body;
mod cache;
mod config;
mod health;
mod peers;
mod response;

pub use config::{Asked, Reloads};
pub use health::Probe;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::config::file::Role;
use crate::listen::ConnectionLimiter;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::relay::Relay;
use crate::store::Store;
use crate::wire::request::has_one_host;
use auth::Needs;

/// What the operators' listener looks at.
pub struct Admin {
    /// For the configuration, the cache and the flights.
    pub relay: Arc<Relay>,
    /// The gateways' connections.
    pub connections: ConnectionLimiter,
    /// Whether the stores can be written.
    pub store: Arc<Store>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// The channel over which a reload is requested.
    pub reloads: Reloads,
    /// Whether `state.db` can be written.
    pub probe: Arc<Probe>,
    /// Cancelled when the proxy drains.
    pub stop: CancellationToken,
    /// Whether the listener is a Unix socket.
    pub unix: bool,
}

impl Admin {
    /// Answers one request.
    pub async fn serve(&self, request: Request<Incoming>, origin: Peer) -> Response<Full<Bytes>> {
        // Never the query: a card could stand there.
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let names = origin.names.as_deref().unwrap_or_default();
        let config = self.relay.config.load_full();
        if !has_one_host(request.uri(), request.version(), request.headers()) {
            return response::text(StatusCode::BAD_REQUEST, "Host given twice, or not as :authority\n");
        }
        let response = match auth::check(&config.admin, &request, names, self.unix, needs(&path)) {
            Ok(()) => self.page(request).await,
            Err(denied) => denied.response(),
        };
        tracing::debug!(%method, path, status = response.status().as_u16(), "operators' page");
        response
    }

    /// The JSON of a request, within what a gateway's body may take.
    async fn read<T: DeserializeOwned>(&self, request: Request<Incoming>) -> Result<T, String> {
        let patience = self.relay.config.load().gateway.limits.timeouts.body;
        body::json(request, patience).await
    }

    async fn page(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // The listener leaves the content out (RFC 9110 9.3.2).
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        match (method, request.uri().path()) {
            (&Method::GET, "/live") => health::live(),
            (&Method::GET, "/ready") => health::ready(self),
            (&Method::GET, "/metrics") => health::metrics(self),
            (&Method::GET, "/peers") => peers::busiest(self),
            (&Method::GET, "/cache/stats") => cache::stats(self).await,
            (&Method::POST, "/cache/show") => cache::show(self, request).await,
            (&Method::POST, "/cache/purge") => cache::purge(self, request).await,
            (&Method::POST, "/cache/fetch") => cache::fetch(self, request).await,
            (&Method::POST, "/audit/query") => audit::respond(self, request).await,
            (&Method::POST, "/config/reload") => config::reload(self).await,
            (_, "/live" | "/ready" | "/metrics" | "/peers" | "/cache/stats") => response::only("GET, HEAD"),
            (_, "/cache/show" | "/cache/purge" | "/cache/fetch" | "/audit/query" | "/config/reload") => {
                response::only("POST")
            }
            _ => response::text(
                StatusCode::NOT_FOUND,
                "no such page: /live, /ready, /metrics, /peers, /cache/stats, /audit/query\n",
            ),
        }
    }
}

/// What a page needs, whatever the method.
fn needs(path: &str) -> Needs {
    match path {
        "/live" | "/ready" => Needs::Nothing,
        "/metrics" => Needs::RoleOfToken(Role::View),
        "/peers" | "/cache/stats" => Needs::Role(Role::View),
        "/cache/show" | "/cache/purge" | "/cache/fetch" | "/config/reload" => Needs::Role(Role::Operate),
        "/audit/query" => Needs::Role(Role::Audit),
        _ => Needs::Any,
    }
}
