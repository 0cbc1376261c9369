//! The rules before any page: the request addresses this listener, comes from it or from no page, has a viewer with the role
//! that the page requires, and, if it is a POST, is one of our own forms with the CSRF token of the session.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use subtle::ConstantTimeEq;

use super::cookie;
use super::session::Session;
use super::view::{self, Viewer};
use super::{Parts, required, see_other};
use crate::admin::auth;
use crate::clock::timeout;
use crate::config::file::Role;
use crate::language::{Language, Text, text};
use crate::peer::Peer;
use crate::units::Secret;
use crate::wire::request::has_one_host;

/// The longest body of a form, in bytes; every form of ours is shorter.
const MAX_FORM: usize = 4 << 10;

const HX_REQUEST: HeaderName = HeaderName::from_static("hx-request");
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");

/// The address of a request, for the limit of the log-in.
#[derive(Clone)]
pub(super) struct From(pub(super) Peer);

/// Admits a request, and adds its [`Viewer`] and its address. Also returns the cookie of a session that it begins.
///
/// # Errors
/// The response to a request that is not admitted.
pub(super) async fn admit(
    parts: &Arc<Parts>,
    request: Request<Incoming>,
    peer: &Peer,
) -> Result<(Request<Body>, Option<HeaderValue>), Box<Response<Body>>> {
    let language = language(request.headers());
    let refuse = |status, text: &Text| Box::new(view::message(status, language, text));
    let admin = &parts.admin;
    let config = admin.relay.config.load_full();
    if !has_one_host(request.uri(), request.version(), request.headers()) {
        let text = text!("Host given twice, or not as :authority", "Host 出现两次，或与 :authority 不同");
        return Err(refuse(StatusCode::BAD_REQUEST, &text));
    }
    let names = peer.names.as_deref().unwrap_or_default();
    let bearer = auth::bearer(request.headers()).map(<[u8]>::to_owned);
    let by_bearer = auth::by_token(&config.admin, bearer.as_deref());
    let is_bearer = !by_bearer.is_empty();
    if !is_bearer && let Err(denied) = auth::check_origin(&config.admin, &request, admin.unix) {
        return Err(Box::new(not_from_here(language, request.method(), denied)));
    }
    let cookie_name = cookie::session_name(&request);
    let session = cookie::value(request.headers(), &cookie_name).and_then(|value| parts.sessions.find(value));
    let of_session = session.as_ref().and_then(|session| session.token.clone());
    let by_session = auth::by_token(&config.admin, of_session.as_ref().map(Secret::expose));
    let (token, by_token) = match &bearer {
        Some(bearer) if is_bearer => (Some(bearer.as_slice()), by_bearer),
        _ => (of_session.as_ref().map(Secret::expose), by_session),
    };
    let roles = auth::roles(&config.admin, by_token, names);
    let name = auth::name(&config.admin, token, names);
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let role = required(&path);
    if let Some(role) = role {
        if roles.is_empty() {
            return Err(Box::new(to_log_in(&request)));
        }
        if !roles.has(role) {
            return Err(refuse(StatusCode::FORBIDDEN, &missing(role)));
        }
    }
    // A caller whom its certificate admits, or where no token is needed: its forms need a session too.
    let mut begun = None;
    let session = match session {
        None if role.is_some() && !is_bearer => {
            let new = parts.sessions.begin(None);
            new.map(|(session, cookie)| {
                begun = cookie::of_session(&cookie_name, &cookie, config.admin.limits.tls.is_some());
                session
            })
        }
        session => session,
    };
    let who = admin.who(&name, peer);
    let can_log_out = token.is_some() && !is_bearer;
    let viewer = Viewer {
        token: token.and_then(|token| std::str::from_utf8(token).ok()).map(Secret::new),
        names: peer.names.clone(),
        cookie_name,
        ..viewer(session.as_ref(), language, roles, name, who, &request, can_log_out)
    };
    let request = if method == Method::POST {
        let is_exempt = is_bearer || path == "/page/login";
        read_form(parts, request, viewer.csrf.as_bytes(), is_exempt)
            .await
            .map_err(|text| refuse(StatusCode::FORBIDDEN, &text))?
    } else {
        request.map(|_| Body::empty())
    };
    let (mut head, body) = request.into_parts();
    head.extensions.insert(Arc::new(viewer));
    head.extensions.insert(From(peer.clone()));
    Ok((Request::from_parts(head, body), begun))
}

fn viewer<B>(
    session: Option<&Session>,
    language: Language,
    roles: auth::Roles,
    name: String,
    who: String,
    request: &Request<B>,
    can_log_out: bool,
) -> Viewer {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    Viewer {
        language,
        roles,
        name,
        who,
        csrf: session.map(|session| session.csrf.clone()).unwrap_or_default(),
        session: session.map(|session| session.id),
        token: None,
        names: None,
        cookie_name: String::new(),
        can_log_out,
        path: request.uri().path().to_owned(),
        target: if request.method() == Method::POST { "/" } else { target }.to_owned(),
    }
}

/// Reads a form, and compares its CSRF token unless the request needs none.
async fn read_form(
    parts: &Parts,
    request: Request<Incoming>,
    csrf: &[u8],
    is_exempt: bool,
) -> Result<Request<Body>, Text> {
    if !is_form(request.headers()) {
        return Err(text!(
            "a page is posted by its own form: application/x-www-form-urlencoded",
            "页面只接受自己的表单：application/x-www-form-urlencoded"
        ));
    }
    let limit = parts.admin.relay.config.load().gateway.limits.timeouts.body;
    let (head, body) = request.into_parts();
    let body = timeout(limit, Limited::new(body, MAX_FORM).collect()).await;
    let Ok(Ok(body)) = body else {
        return Err(text!(
            "the form is late, incomplete or longer than 4 KiB",
            "表单超时、不完整或超过 4 KiB"
        ));
    };
    let body: Bytes = body.to_bytes();
    if !is_exempt {
        let mut fields = form_urlencoded::parse(&body).filter(|(name, _)| name == "csrf");
        let sent = fields.next().map(|(_, value)| value.into_owned()).unwrap_or_default();
        let is_right = !csrf.is_empty() && bool::from(sent.as_bytes().ct_eq(csrf));
        if !is_right || fields.next().is_some() {
            return Err(text!(
                "the form is not from this session: open the page again and repeat it",
                "表单不属于当前会话：请重新打开页面后再试"
            ));
        }
    }
    Ok(Request::from_parts(head, Body::from(body)))
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return false };
    let media_type = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Redirects to the log-in, and from there back to the page.
fn to_log_in<B>(request: &Request<B>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut to = "/page/login".to_owned();
    if request.method() == Method::GET && target != "/" {
        let next: String =
            form_urlencoded::Serializer::new(String::new()).append_pair("next", target).finish();
        to = format!("{to}?{next}");
    }
    if !request.headers().contains_key(HX_REQUEST) {
        return see_other(&to);
    }
    // A part of a page that refreshes itself: the whole page goes to the log-in.
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(HX_REDIRECT, HeaderValue::from_static("/page/login"));
    response
}

/// The response to a request that another page caused, or that does not address this listener. A link of another site gets
/// a link that works.
fn not_from_here(language: Language, method: &Method, denied: auth::Denied) -> Response<Body> {
    let auth::Denied::Browser(reason) = denied else { return denied.response().map(Body::new) };
    let text = match method == Method::GET && reason.contains("another site") {
        true => text!(
            "a page of another site led here: open the page from here",
            "这是从其他网站打开的：请从这里打开页面"
        ),
        false => text!("refused: {reason}", "已拒绝：{reason}"),
    };
    view::message(StatusCode::FORBIDDEN, language, &text)
}

/// The refusal of a viewer without a role.
pub(super) fn missing(role: Role) -> Text {
    text!(
        "your token does not have the role {role}, which this page requires ([[admin.access]])",
        "您的令牌没有此页面所需的角色 {role}（[[admin.access]]）",
        role = role.name()
    )
}

/// The language of the cookie, else the one that the browser prefers.
fn language(headers: &HeaderMap) -> Language {
    match cookie::value(headers, cookie::LANGUAGE) {
        Some("zh") => Language::Chinese,
        Some("en") => Language::English,
        _ => {
            let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
            Language::accepted(accepted.unwrap_or_default())
        }
    }
}
