//! The operators' page: `GET /`, and every path below `/page`.
//!
//! Pages are rendered here from templates, work without JavaScript, and load nothing from elsewhere. Every request passes
//! `guard.rs`, which finds its viewer, before it is routed. A page is a file under `page/`, a line in `routes` and one in
//! `required`.
//!
//! Card numbers are in the bodies of POST only; all other filters are in the query, so that back, reload and bookmarks work.

mod accounts;
mod assets;
mod audit;
mod card;
mod chart;
mod clients;
mod cookie;
mod csv;
mod guard;
mod heads;
mod histogram;
mod history;
mod live;
mod login;
mod mask;
mod moment;
mod nodes;
mod overview;
mod refusals;
mod rows;
mod session;
mod sums;
mod texts;
mod timeline;
mod trends;
mod trouble;
mod verify;
mod view;
mod words;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tower_service::Service as _;

use super::{Admin, Content};
use crate::clock::Time;
use crate::config::file::Role;
use crate::peer::Peer;
use crate::store::StoreError;
use crate::store::audit::query::Deadline;
use card::Cards;
use history::{History, Snapshot};
use live::Live;
use nodes::Nodes;
use session::Sessions;
use sums::IsListed;
use verify::Verification;

/// The scripts and styles of this listener alone; no form to another origin; no frame around a page.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The operators' page.
pub(super) struct Page {
    parts: Arc<Parts>,
    router: Router,
}

/// The parts that the pages share.
struct Parts {
    admin: Arc<Admin>,
    sessions: Sessions,
    history: History,
    cards: Cards,
    live: Live,
    nodes: Nodes,
    verification: Verification,
}

impl Parts {
    /// The sums of the audit from `since` on.
    async fn history(&self, since: Time) -> Snapshot {
        let config = self.admin.relay.config.load_full();
        let dir = config.store_dir.clone();
        let is_listed: IsListed = Arc::new(move |client| config.clients.contains_key(client));
        self.history.read(&dir, since, &is_listed).await
    }

    /// Runs a query of the audit outside of the runtime, with a deadline.
    async fn read<T: Send + 'static>(
        &self,
        limit: Duration,
        query: impl FnOnce(&Path, &Deadline) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let dir = self.admin.relay.config.load().store_dir.clone();
        let clock = self.admin.relay.clock.clone();
        let of = dir.clone();
        let read = tokio::task::spawn_blocking(move || {
            let at = clock.monotonic().saturating_add(limit);
            query(&dir, &Deadline { clock, at })
        });
        read.await.unwrap_or_else(|_| Err(StoreError::io(&of)(io::Error::other("the query failed"))))
    }
}

impl Page {
    /// Over the parts of a running proxy.
    pub(super) fn new(admin: Arc<Admin>) -> Self {
        let clock = &admin.relay.clock;
        let parts = Arc::new(Parts {
            sessions: Sessions::new(clock.clone()),
            history: History::new(clock.clone(), admin.stop.clone()),
            cards: Cards::default(),
            live: Live::new(),
            nodes: Nodes::default(),
            verification: Verification::default(),
            admin,
        });
        Self { router: routes().with_state(Arc::clone(&parts)), parts }
    }

    /// Whether a path is one of the page.
    pub(super) fn has(path: &str) -> bool {
        path == "/" || path == "/page" || path.starts_with("/page/")
    }

    /// Responds to one request.
    pub(super) async fn serve(&self, request: Request<Incoming>, peer: Peer) -> Response<Content> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut response = match guard::admit(&self.parts, request, &peer).await {
            Ok((request, cookie)) => {
                let Ok(mut response) = self.router.clone().call(request).await;
                if let Some(cookie) = cookie {
                    response.headers_mut().append(header::SET_COOKIE, cookie);
                }
                response
            }
            Err(response) => *response,
        };
        harden(response.headers_mut());
        tracing::debug!(%method, path, status = response.status().as_u16(), "page request");
        response.map(Content::from)
    }
}

fn routes() -> Router<Arc<Parts>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/page/card", get(card::show).post(card::search))
        .route("/page/card/refresh", post(card::refresh))
        .route("/page/card/purge", post(card::purge))
        .route("/page/accounts", get(accounts::show))
        .route("/page/clients", get(clients::show))
        .route("/page/refusals", get(refusals::show))
        .route("/page/audit", get(audit::show))
        .route("/page/audit/row", get(audit::row))
        .route("/page/audit/reveal", post(audit::reveal))
        .route("/page/audit/verify", get(verify::show).post(verify::start))
        .route("/page/live", get(live::show))
        .route("/page/live/stream", get(live::stream))
        .route("/page/login", get(login::form).post(login::log_in))
        .route("/page/logout", post(login::log_out))
        .route("/page/language", get(login::switch_language))
        .route("/page/assets/{name}", get(assets::serve))
        .fallback(view::not_found)
}

/// The role that a page requires; none for those that are open.
fn required(path: &str) -> Option<Role> {
    match path {
        "/page/login" | "/page/logout" | "/page/language" => None,
        path if path.starts_with("/page/assets/") => None,
        "/page/card/refresh" | "/page/card/purge" => Some(Role::Operate),
        path if path.starts_with("/page/audit") || path.starts_with("/page/live") => Some(Role::Audit),
        _ => Some(Role::View),
    }
}

/// The headers that every response of the page has.
fn harden(headers: &mut HeaderMap) {
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Under `no-referrer` a browser would post our own forms with `Origin: null`.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// A redirect with GET (RFC 9110 15.4.4).
fn see_other(to: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}
