//! The operators' page: `GET /`, and every path below `/page`.
//!
//! Pages are rendered here from templates, work without JavaScript, and load nothing from elsewhere. Every request passes
//! `guard.rs`, which finds its viewer, before it is routed. A page is a file under `page/`, a line in `routes` and one in
//! `required`.
//!
//! Card numbers are in the bodies of POST only; all other filters are in the query, so that back, reload and bookmarks work.

mod assets;
mod guard;
mod login;
mod overview;
mod session;
mod texts;
mod trouble;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tower_service::Service as _;

use super::{Admin, Content};
use crate::config::file::Role;
use crate::peer::Peer;
use session::Sessions;

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
}

impl Page {
    /// Over the parts of a running proxy.
    pub(super) fn new(admin: Arc<Admin>) -> Self {
        let sessions = Sessions::new(admin.relay.clock.clone());
        let parts = Arc::new(Parts { admin, sessions });
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
        .route("/page/login", get(login::form).post(login::log_in))
        .route("/page/logout", post(login::log_out))
        .route("/page/language", get(login::switch_language))
        .route("/page/assets/{name}", get(assets::serve))
        .fallback(view::not_found)
}

/// The role that a page requires; none for those that are open.
fn required(method: &Method, path: &str) -> Option<Role> {
    let _ = method;
    match path {
        "/page/login" | "/page/logout" | "/page/language" => None,
        path if path.starts_with("/page/assets/") => None,
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
