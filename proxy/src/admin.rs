//! The operators' listener: which path is whose page, and who may see it.
//!
//! - `GET /live`, `GET /ready`, `GET /metrics`: `health.rs`.
//! - `GET /cache/stats`, `POST /cache/show`, `/cache/purge`, `/cache/fetch`: `cache.rs`.
//! - `GET /peers`: `peers.rs`.
//! - `POST /audit/query`: `audit.rs`.
//!
//! `/live` and `/ready` are for whoever starts and balances the process. Everything else needs the bearer token where
//! one is configured, whether or not there is such a page. A further room of pages is a file under `admin/` and a
//! line in `Admin::page`.

mod audit;
mod auth;
mod body;
mod cache;
mod health;
mod peers;
mod reply;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::listen::Places;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::store::Store;

/// What the operators' listener looks at.
pub struct Admin {
    /// For the configuration, the cache and the flights.
    pub relay: Arc<Relay>,
    /// The gateways' connections.
    pub connections: Places,
    /// Whether the stores can be written.
    pub store: Arc<Store>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
}

impl Admin {
    /// Answers one request.
    pub async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // Never the query: a card could stand there.
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let public = matches!(path.as_str(), "/live" | "/ready");
        let token = &self.relay.config.load().admin.token;
        let response = match public || auth::authorized(token.as_ref(), request.headers()) {
            true => self.page(request).await,
            false => auth::unauthorized(),
        };
        tracing::debug!(%method, path, status = response.status().as_u16(), "operators' page");
        response
    }

    /// The JSON of a request, within what a gateway's body may take.
    async fn read<T: DeserializeOwned>(&self, request: Request<Incoming>) -> Result<T, String> {
        let patience = self.relay.config.load().gateway.body.0;
        body::json(request, patience).await
    }

    async fn page(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/live") => health::live(),
            (&Method::GET, "/ready") => health::ready(self).await,
            (&Method::GET, "/metrics") => health::metrics(self),
            (&Method::GET, "/peers") => peers::busiest(self),
            (&Method::GET, "/cache/stats") => cache::stats(self).await,
            (&Method::POST, "/cache/show") => cache::show(self, request).await,
            (&Method::POST, "/cache/purge") => cache::purge(self, request).await,
            (&Method::POST, "/cache/fetch") => cache::fetch(self, request).await,
            (&Method::POST, "/audit/query") => audit::query(self, request).await,
            (_, "/live" | "/ready" | "/metrics" | "/peers" | "/cache/stats") => reply::only("GET"),
            (_, "/cache/show" | "/cache/purge" | "/cache/fetch" | "/audit/query") => reply::only("POST"),
            _ => reply::text(
                StatusCode::NOT_FOUND,
                "no such page: /live, /ready, /metrics, /peers, /cache/stats, /audit/query\n",
            ),
        }
    }
}
