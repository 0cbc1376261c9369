//! The admin listener: its endpoints, and the role that each requires.
//!
//! - `GET /live`, `GET /ready`, `GET /metrics`: `health.rs`.
//! - `GET /cache/stats`, `POST /cache/show`, `/cache/purge`, `/cache/fetch`: `cache.rs`.
//! - `GET /peers`: `peers.rs`.
//! - `POST /audit/query`: `audit.rs`.
//! - `POST /accounts/check`: `accounts.rs`.
//! - `POST /config/reload`: `config.rs`.
//! - `POST /cards/stop-reason`: `stop_reason.rs`.
//! - `GET /`, and every path below `/page`: the operators' page, `page.rs`.
//!
//! `/live` and `/ready` are open, for supervisors and load balancers. Every other path requires a role (`auth.rs`), whether
//! or not it exists; `/metrics` requires one only if `token_file` is set. HEAD is allowed wherever GET is. A further group of
//! endpoints is a file under `admin/`, a line in `Admin::route` and one in `requirement`.

mod accounts;
mod audit;
mod auth;
mod body;
mod cache;
mod config;
mod content;
mod health;
mod page;
mod peers;
mod response;
mod stop_reason;

pub use accounts::CHECK_CARD;
pub use config::{ReloadRequest, Reloads};
pub use health::Probe;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cmiot_signer::Card;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::clock::timeout;
use crate::config::file::Role;
use crate::listen::ConnectionLimiter;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::relay::Relay;
use crate::store::Store;
use crate::store::audit::ActRow;
use crate::wire::request::has_one_host;
use auth::Requirement;
pub use content::Content;
use page::Page;

/// The time that a response waits for the note about its act.
const NOTE_TIMEOUT: Duration = Duration::from_secs(5);

/// The handler of admin requests, with the parts of the proxy that they read.
pub struct Admin {
    /// Source of the configuration, the cache and the flights.
    pub relay: Arc<Relay>,
    /// Connections of the gateway listener.
    pub connections: ConnectionLimiter,
    pub store: Arc<Store>,
    pub metrics: Arc<Metrics>,
    /// The channel over which a reload is requested.
    pub reloads: Reloads,
    /// Test of whether `state.db` can be written.
    pub probe: Arc<Probe>,
    /// Cancelled when the proxy drains.
    pub stop: CancellationToken,
    /// Whether the listener is a Unix socket.
    pub unix: bool,
    /// Held while the accounts are checked.
    pub checking: Arc<tokio::sync::Mutex<()>>,
}

/// The service of the admin listener: the JSON endpoints, and the operators' page.
pub struct AdminService {
    admin: Arc<Admin>,
    page: Page,
}

impl AdminService {
    /// Over the parts of a running proxy.
    pub fn new(admin: Admin) -> Self {
        let admin = Arc::new(admin);
        Self { page: Page::new(Arc::clone(&admin)), admin }
    }

    /// Responds to one request.
    pub async fn serve(&self, request: Request<Incoming>, peer: Peer) -> Response<Content> {
        if Page::has(request.uri().path()) {
            return self.page.serve(request, peer).await;
        }
        self.admin.serve(request, peer).await.map(Content::from)
    }
}

impl Admin {
    /// Responds to a request of the JSON endpoints.
    async fn serve(&self, request: Request<Incoming>, peer: Peer) -> Response<Full<Bytes>> {
        // The log never has the query, which could contain a card.
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let names = peer.names.as_deref().unwrap_or_default();
        let config = self.relay.config.load_full();
        if !has_one_host(request.uri(), request.version(), request.headers()) {
            return response::text(StatusCode::BAD_REQUEST, "Host given twice, or not as :authority\n");
        }
        let response = match auth::check(&config.admin, &request, names, self.unix, requirement(&path)) {
            Ok(()) => {
                let by = auth::name(&config.admin, auth::bearer(request.headers()), names);
                self.route(request, &self.who(&by, &peer)).await
            }
            Err(denied) => denied.response(),
        };
        tracing::debug!(%method, path, status = response.status().as_u16(), "admin request");
        response
    }

    /// A caller as the notes about its acts name it.
    fn who(&self, name: &str, peer: &Peer) -> String {
        let from = if self.unix { "unix".to_owned() } else { peer.address.to_string() };
        format!("by={name} from={from}")
    }

    /// Reads the JSON body of a request, within the timeout for bodies of gateways.
    async fn read<T: DeserializeOwned>(&self, request: Request<Incoming>) -> Result<T, String> {
        let timeout = self.relay.config.load().gateway.limits.timeouts.body;
        body::json(request, timeout).await
    }

    /// Writes the note about an act of an operator into the audit: `who` is the caller and its address. Returns whether it
    /// is there.
    async fn note(&self, what: &'static str, who: &str, selection: &str, card: Option<Card>) -> bool {
        let act = ActRow { at: self.relay.clock.now(), what, detail: format!("{who}{selection}"), card };
        let noted = matches!(timeout(NOTE_TIMEOUT, self.store.audit.append_act(act)).await, Ok(Ok(_)));
        if !noted {
            tracing::warn!(what, "an act of an operator is not recorded: the audit cannot be written");
        }
        noted
    }

    async fn route(&self, request: Request<Incoming>, who: &str) -> Response<Full<Bytes>> {
        // The listener omits the content of a response to HEAD (RFC 9110 9.3.2).
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        match (method, request.uri().path()) {
            (&Method::GET, "/live") => health::live(),
            (&Method::GET, "/ready") => health::ready(self, &request),
            (&Method::GET, "/metrics") => health::metrics(self, request.headers()),
            (&Method::GET, "/peers") => peers::list(self),
            (&Method::GET, "/cache/stats") => cache::stats(self).await,
            (&Method::POST, "/cache/show") => cache::show(self, request).await,
            (&Method::POST, "/cache/purge") => cache::purge(self, request, who).await,
            (&Method::POST, "/cache/fetch") => cache::fetch(self, request, who).await,
            (&Method::POST, "/audit/query") => audit::respond(self, request).await,
            (&Method::POST, "/accounts/check") => accounts::check(self, request, who).await,
            (&Method::POST, "/cards/stop-reason") => stop_reason::respond(self, request, who).await,
            (&Method::POST, "/config/reload") => config::reload(self, who).await,
            (_, "/live" | "/ready" | "/metrics" | "/peers" | "/cache/stats") => {
                response::method_not_allowed("GET, HEAD")
            }
            (
                _,
                "/cache/show" | "/cache/purge" | "/cache/fetch" | "/audit/query" | "/accounts/check"
                | "/cards/stop-reason" | "/config/reload",
            ) => response::method_not_allowed("POST"),
            _ => response::text(
                StatusCode::NOT_FOUND,
                "no such endpoint: /live, /ready, /metrics, /peers, /cache/stats, /audit/query\n",
            ),
        }
    }
}

/// The requirement of a path, with any method.
fn requirement(path: &str) -> Requirement {
    match path {
        "/live" | "/ready" => Requirement::None,
        "/metrics" => Requirement::RoleIfTokenFile(Role::View),
        "/peers" | "/cache/stats" => Requirement::Role(Role::View),
        "/cache/show" | "/cache/purge" | "/cache/fetch" | "/accounts/check" | "/cards/stop-reason"
        | "/config/reload" => Requirement::Role(Role::Operate),
        "/audit/query" => Requirement::Role(Role::Audit),
        _ => Requirement::AnyRole,
    }
}
