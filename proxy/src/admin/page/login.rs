//! Log-in with a token of the admin listener, log-out, and the switch of the language.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, Form, Query, State};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::cookie::{self, LANGUAGE};
use super::guard::From;
use super::view::{self, View, Viewer};
use super::{Parts, see_other};
use crate::admin::auth;
use crate::language::{Text, text};
use crate::units::Secret;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Asked {
    /// The path to go to after the log-in.
    next: String,
}

#[derive(Deserialize)]
pub(super) struct LogIn {
    token: Secret,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
pub(super) struct Switch {
    to: String,
    #[serde(default)]
    back: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LogInPage {
    view: View,
    next: String,
    problem: Option<String>,
}

pub(super) async fn form(
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    page(&viewer, &asked.next, StatusCode::OK, None)
}

pub(super) async fn log_in(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Extension(From(peer)): Extension<From>,
    Form(asked): Form<LogIn>,
) -> Response<Body> {
    let config = parts.admin.relay.config.load_full();
    let is_right = || !auth::by_token(&config.admin, Some(asked.token.expose())).is_empty();
    match parts.sessions.attempt(peer.address, is_right) {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!(peer = %peer.address, "a log-in to the operators' page failed");
            let problem = text!("this is not a token of this proxy", "这不是本代理的令牌");
            return page(&viewer, &asked.next, StatusCode::UNAUTHORIZED, Some(&problem));
        }
        Err(wait) => {
            let seconds = wait.as_secs() + 1;
            let problem = text!(
                "too many log-ins have failed: try again in {seconds} s",
                "登录失败次数过多：请在 {seconds} 秒后再试"
            );
            let mut response = page(&viewer, &asked.next, StatusCode::TOO_MANY_REQUESTS, Some(&problem));
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return response;
        }
    }
    // The session before it ends: a log-in begins a new one.
    viewer.session.into_iter().for_each(|id| parts.sessions.end(id));
    let begun = parts.sessions.begin(Some(asked.token));
    let tls = config.admin.limits.tls.is_some();
    let Some(cookie) = begun.and_then(|(_, value)| cookie::of_session(&viewer.cookie_name, &value, tls))
    else {
        let problem = text!("the system has no random numbers", "系统无法提供随机数");
        return page(&viewer, &asked.next, StatusCode::INTERNAL_SERVER_ERROR, Some(&problem));
    };
    let mut response = see_other(local(&asked.next));
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

pub(super) async fn log_out(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
) -> Response<Body> {
    viewer.session.into_iter().for_each(|id| parts.sessions.end(id));
    let mut response = see_other("/page/login");
    if let Some(cookie) = cookie::no_session(&viewer.cookie_name) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

pub(super) async fn switch_language(Query(switch): Query<Switch>) -> Response<Body> {
    let to = if switch.to == "zh" { "zh" } else { "en" };
    let mut response = see_other(local(&switch.back));
    let cookie = format!("{LANGUAGE}={to}; Path=/; SameSite=Strict; Max-Age=31536000");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn page(viewer: &Viewer, next: &str, status: StatusCode, problem: Option<&Text>) -> Response<Body> {
    let page = LogInPage {
        view: viewer.view(),
        next: local(next).to_owned(),
        problem: problem.map(|problem| problem.of(viewer.language).to_owned()),
    };
    view::html(status, &page)
}

/// A target of this listener's page, or that of the overview: a link must not lead elsewhere after a log-in.
fn local(target: &str) -> &str {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let is_ours =
        super::Page::has(path) && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_form = path.starts_with("/page/login") || path.starts_with("/page/language");
    if is_ours && !is_form { target } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_leads_to_a_page_of_this_listener_only() {
        for target in ["/", "/page/audit?outcome=hit", "/page/card"] {
            assert_eq!(local(target), target);
        }
        for target in [
            "",
            "//evil.example",
            "https://evil.example/",
            "/\\evil.example",
            "/metrics",
            "/page/a\r\nX: y",
            "/page/login",
        ] {
            assert_eq!(local(target), "/", "{target:?}");
        }
    }
}
