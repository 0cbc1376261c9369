//! The viewer of a page, and the frame around each page: texts, navigation, the token of its forms.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::Extension;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::session::Id;
use super::texts::Texts;
use crate::admin::Admin;
use crate::admin::auth::{self, Roles};
use crate::config::file::Role;
use crate::language::{Language, Text, text};
use crate::units::Secret;

/// The person who asks for a page.
pub(super) struct Viewer {
    pub(super) language: Language,
    pub(super) roles: Roles,
    /// Its entry in `[[admin.access]]`, as in the audit.
    pub(super) name: String,
    /// Name and address, as the notes about its acts have them.
    pub(super) who: String,
    /// The value that its forms carry; empty without a session.
    pub(super) csrf: String,
    pub(super) session: Option<Id>,
    /// The token of the request or of its session.
    pub(super) token: Option<Secret>,
    /// The names of its client certificate.
    pub(super) names: Option<Arc<[String]>>,
    /// The name of the cookie of its session.
    pub(super) cookie_name: String,
    /// Whether the session holds a token.
    pub(super) can_log_out: bool,
    pub(super) path: String,
    /// Path and query of the page, to return to.
    pub(super) target: String,
}

impl Viewer {
    /// Whether the present configuration still gives the viewer a role: a stream may be older than a reload.
    pub(super) fn still_has(&self, admin: &Admin, role: Role) -> bool {
        let config = admin.relay.config.load();
        let by_token = auth::by_token(&config.admin, self.token.as_ref().map(Secret::expose));
        auth::roles(&config.admin, by_token, self.names.as_deref().unwrap_or_default()).has(role)
    }

    /// The frame of a page.
    pub(super) fn view(&self) -> View {
        let has = |role| self.roles.has(role);
        View {
            t: Texts::of(self.language),
            language: self.language,
            path: self.path.clone(),
            back: encoded(&self.target),
            name: self.name.clone(),
            csrf: self.csrf.clone(),
            can_log_out: self.can_log_out,
            views: has(Role::View),
            operates: has(Role::Operate),
            audits: has(Role::Audit),
        }
    }
}

/// The frame of a page, for its template.
pub(super) struct View {
    pub(super) t: &'static Texts,
    pub(super) language: Language,
    pub(super) path: String,
    /// Path and query of the page, encoded for a query.
    pub(super) back: String,
    pub(super) name: String,
    pub(super) csrf: String,
    pub(super) can_log_out: bool,
    pub(super) views: bool,
    pub(super) operates: bool,
    pub(super) audits: bool,
}

impl View {
    /// The value of `aria-current` for a link of the navigation; none for another page's.
    pub(super) fn current(&self, path: &str) -> bool {
        self.path == path
    }

    pub(super) fn is_chinese(&self) -> bool {
        self.language == Language::Chinese
    }

    /// The frame of a viewer with every role but `operate`.
    #[cfg(test)]
    pub(super) fn of_auditor(language: Language) -> Self {
        Self {
            t: Texts::of(language),
            language,
            path: "/".to_owned(),
            back: "%2F".to_owned(),
            name: String::new(),
            csrf: String::new(),
            can_log_out: false,
            views: true,
            operates: false,
            audits: true,
        }
    }
}

#[derive(Template)]
#[template(path = "message.html")]
struct Message {
    view: View,
    text: String,
}

/// A page with one sentence.
pub(super) fn message(status: StatusCode, language: Language, text: &Text) -> Response<Body> {
    let viewer = Viewer {
        language,
        roles: Roles::default(),
        name: String::new(),
        who: String::new(),
        csrf: String::new(),
        session: None,
        token: None,
        names: None,
        cookie_name: String::new(),
        can_log_out: false,
        path: String::new(),
        target: "/".to_owned(),
    };
    html(status, &Message { view: viewer.view(), text: text.of(language).to_owned() })
}

/// A page with one sentence, for a viewer who is known.
pub(super) fn message_for(viewer: &Viewer, status: StatusCode, text: &Text) -> Response<Body> {
    html(status, &Message { view: viewer.view(), text: text.of(viewer.language).to_owned() })
}

pub(super) async fn not_found(Extension(viewer): Extension<Arc<Viewer>>) -> Response<Body> {
    let text = text!("there is no such page", "没有这个页面");
    message_for(&viewer, StatusCode::NOT_FOUND, &text)
}

/// A page from its template.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Response<Body> {
    let (status, html) = match page.render() {
        Ok(html) => (status, html),
        // The templates have no fallible part but their writer, which is a string.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Language, Cookie"));
    response
}

/// A value of a query.
pub(super) fn encoded(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}
