//! Access to the admin listener: bearer tokens (RFC 6750 2.1) and client certificates, the roles that each of them has,
//! and rules against requests from web pages.
//!
//! A browser sends requests for untrusted pages, to loopback too, with the client certificate that it has, but never with
//! an `Authorization` header whose token the page does not have. So a request without a valid one must address the listener
//! by one of the listener's names (a page could rebind its own name to our address), must post JSON (which a page of
//! another origin cannot without a CORS preflight), and must not come from another origin.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Version};
use subtle::ConstantTimeEq;

use super::response;
use crate::config::admin::{Access, Admin, By, Token};
use crate::config::file::Role;
use crate::units::Secret;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The role that an endpoint requires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Requirement {
    /// Open, for supervisors and load balancers.
    None,
    /// Any role: no such endpoint.
    AnyRole,
    /// This role if `token_file` is set, otherwise no role.
    RoleIfTokenFile(Role),
    Role(Role),
}

/// The reason of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Denied {
    /// No valid token or certificate.
    Unauthenticated,
    /// Authenticated, without this role.
    MissingRole(Role),
    /// The request may come from a web page in a browser.
    Browser(&'static str),
}

/// The roles of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Roles {
    view: bool,
    operate: bool,
    audit: bool,
}

impl Roles {
    const ALL: Self = Self { view: true, operate: true, audit: true };

    /// `operate` and `audit` each include `view`.
    fn add(&mut self, role: Role) {
        self.view = true;
        self.operate |= role == Role::Operate;
        self.audit |= role == Role::Audit;
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether this role is among them.
    pub(super) fn has(self, role: Role) -> bool {
        match role {
            Role::View => self.view,
            Role::Operate => self.operate,
            Role::Audit => self.audit,
        }
    }

    fn check(self, requirement: Requirement) -> Result<(), Denied> {
        let required = match requirement {
            Requirement::None => return Ok(()),
            Requirement::AnyRole if self.is_empty() => return Err(Denied::Unauthenticated),
            Requirement::AnyRole => return Ok(()),
            Requirement::Role(role) | Requirement::RoleIfTokenFile(role) => role,
        };
        match required {
            _ if self.is_empty() => Err(Denied::Unauthenticated),
            role if self.has(role) => Ok(()),
            role => Err(Denied::MissingRole(role)),
        }
    }
}

/// Checks whether a request is allowed. `names` are those of its client certificate; `unix` is true for a Unix socket.
pub(super) fn check<B>(
    admin: &Admin,
    request: &Request<B>,
    names: &[String],
    unix: bool,
    requirement: Requirement,
) -> Result<(), Denied> {
    if requirement == Requirement::None {
        return Ok(());
    }
    let by_token = by_token(admin, bearer(request.headers()));
    let mut roles = roles(admin, by_token, names);
    // Metrics are open to scrapers of this machine, unless the operator has set a token.
    if matches!((requirement, &admin.token), (Requirement::RoleIfTokenFile(_), Token::Made(_))) {
        roles.view = true;
    }
    roles.check(requirement)?;
    if !by_token.is_empty() {
        return Ok(());
    }
    check_origin(admin, request, unix)?;
    if request.method() == Method::POST && !is_json(request.headers()) {
        return Err(Denied::Browser("send it with Content-Type: application/json"));
    }
    Ok(())
}

/// The roles of a token's bearer and of a certificate's holder; all where no token is needed.
pub(super) fn roles(admin: &Admin, by_token: Roles, names: &[String]) -> Roles {
    let mut roles = by_token;
    for access in &admin.access {
        if let By::Certificate(name) = &access.by
            && names.contains(name)
        {
            roles.add(access.role);
        }
    }
    if admin.token == Token::Off { Roles::ALL } else { roles }
}

/// The name of the caller of an allowed request, for the audit: that of its entry in `[[admin.access]]`, `token` for the
/// token of every role, `open` where none is needed.
pub(super) fn name(admin: &Admin, claimed: Option<&[u8]>, names: &[String]) -> String {
    let same = |token: &Secret| claimed.is_some_and(|claimed| bool::from(claimed.ct_eq(token.expose())));
    if admin.token.secret().is_some_and(same) {
        return "token".to_owned();
    }
    let is_caller = |access: &&Access| match &access.by {
        By::Token(token) => same(token),
        By::Certificate(name) => names.contains(name),
    };
    let found = admin.access.iter().find(is_caller);
    found.map_or_else(|| "open".to_owned(), |access| access.name.replace(char::is_whitespace, "_"))
}

/// The roles of a token. Every token is compared, each in constant time.
pub(super) fn by_token(admin: &Admin, claimed: Option<&[u8]>) -> Roles {
    let mut roles = Roles::default();
    let Some(claimed) = claimed else { return roles };
    let same = |token: &Secret| bool::from(claimed.ct_eq(token.expose()));
    if admin.token.secret().is_some_and(same) {
        roles = Roles::ALL;
    }
    for access in &admin.access {
        if let By::Token(token) = &access.by
            && same(token)
        {
            roles.add(access.role);
        }
    }
    roles
}

/// The token of the one `Authorization` header. The scheme's case does not matter (RFC 9110 11.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (all.next()?.as_bytes(), all.next()) else { return None };
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii_start())
}

/// The rules for a request without a valid `Authorization`, of any method: it addresses this listener, and a page of another
/// origin did not send it.
pub(super) fn check_origin<B>(admin: &Admin, request: &Request<B>, unix: bool) -> Result<(), Denied> {
    let headers = request.headers();
    let hosts = hosts(request)?;
    let nameless = hosts.is_empty() && request.version() == Version::HTTP_10;
    if !unix && !nameless && (hosts.is_empty() || !hosts.iter().all(|host| is_ours(admin, host))) {
        return Err(Denied::Browser(
            "Host must be an IP address, localhost or one of [admin] names; or send a token",
        ));
    }
    let same_origin = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority
            .is_some_and(|authority| hosts.iter().any(|host| host.as_str().eq_ignore_ascii_case(authority)))
    };
    if !headers.get_all(header::ORIGIN).iter().all(same_origin) {
        return Err(Denied::Browser("it was sent by a page of another origin"));
    }
    let from_here = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    if !headers.get_all(SEC_FETCH_SITE).iter().all(from_here) {
        return Err(Denied::Browser("it was sent by a page of another site"));
    }
    Ok(())
}

/// Every name by which the request addresses the proxy: that of its target, and its `Host`.
fn hosts<B>(request: &Request<B>) -> Result<Vec<Authority>, Denied> {
    let unreadable = Denied::Browser("its Host cannot be read");
    let mut hosts: Vec<Authority> = request.uri().authority().cloned().into_iter().collect();
    for host in request.headers().get_all(header::HOST) {
        hosts.push(Authority::try_from(host.as_bytes()).map_err(|_| unreadable)?);
    }
    Ok(hosts)
}

/// Whether an authority names this listener: a page cannot rebind an IP address, and the operator lists the other names.
fn is_ours(admin: &Admin, authority: &Authority) -> bool {
    let host = authority.host();
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok();
    let named = || host.eq_ignore_ascii_case("localhost");
    let listed = || admin.names.iter().any(|name| name.eq_ignore_ascii_case(host));
    !authority.as_str().contains('@') && (literal || named() || listed())
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return false };
    let media_type = value.as_bytes().split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    media_type.eq_ignore_ascii_case(b"application/json")
}

impl Denied {
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        match self {
            Self::Unauthenticated => {
                let message = "send Authorization: Bearer and the token of [admin] token_file or, where none is set, of \
                            admin.token in [store] dir\n";
                let mut response = response::text(StatusCode::UNAUTHORIZED, message);
                let headers = response.headers_mut();
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Self::MissingRole(role) => {
                response::text(StatusCode::FORBIDDEN, format!("the role {} is missing\n", role.name()))
            }
            Self::Browser(reason) => response::text(StatusCode::FORBIDDEN, format!("refused: {reason}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenConfig;
    use crate::config::admin::Access;

    const TOKEN: &str = "0123456789abcdef";

    fn admin(token: Token, access: Vec<Access>) -> Admin {
        Admin {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 8081)).into(),
            token,
            names: vec!["ops.example".to_owned()],
            access,
            limits: ListenConfig::for_tests(),
        }
    }

    fn given() -> Token {
        Token::Given(Secret::new(TOKEN))
    }

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().method(method).uri(uri);
        headers.iter().fold(builder, |all, (name, value)| all.header(*name, *value)).body(()).unwrap()
    }

    const VIEW: Requirement = Requirement::Role(Role::View);
    const OPERATE: Requirement = Requirement::Role(Role::Operate);
    const AUDIT: Requirement = Requirement::Role(Role::Audit);

    #[test]
    fn only_the_whole_token_is_valid_with_the_scheme_in_any_case() {
        let with = |value: &str| {
            let request = request("GET", "/peers", &[("host", "x"), ("authorization", value)]);
            check(&admin(given(), Vec::new()), &request, &[], false, VIEW)
        };
        for right in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            assert_eq!(with(&format!("{right} {TOKEN}")), Ok(()), "{right}");
        }
        for wrong in
            [TOKEN, "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer ", "Basic x", "Bearer"]
        {
            assert_eq!(with(wrong), Err(Denied::Unauthenticated), "{wrong}");
        }
        let value = format!("Bearer {TOKEN}");
        let twice = [("authorization", value.as_str()), ("authorization", value.as_str())];
        let twice = check(&admin(given(), Vec::new()), &request("GET", "/peers", &twice), &[], false, VIEW);
        assert_eq!(twice, Err(Denied::Unauthenticated));
    }

    #[test]
    fn each_role_allows_its_endpoints_and_a_missing_one_is_named() {
        let by = |role, name: &str| Access {
            name: name.to_owned(),
            role,
            by: By::Token(Secret::new(&format!("the-token-of-{name}"))),
        };
        let certified = Access {
            name: "c".to_owned(),
            role: Role::Audit,
            by: By::Certificate("auditor.example".to_owned()),
        };
        let access = vec![
            by(Role::View, "viewer"),
            by(Role::Operate, "operator"),
            by(Role::Audit, "auditor"),
            certified,
        ];
        let admin = admin(given(), access);
        let may = |token: &str, names: &[String], requirement| {
            let value = format!("Bearer {token}");
            let headers = [("host", "127.0.0.1"), ("authorization", value.as_str())];
            check(&admin, &request("GET", "/", &headers), names, false, requirement)
        };
        for (token, operates, audits) in [
            ("the-token-of-viewer", false, false),
            ("the-token-of-operator", true, false),
            ("the-token-of-auditor", false, true),
            (TOKEN, true, true),
        ] {
            assert_eq!(may(token, &[], VIEW), Ok(()), "{token}");
            assert_eq!(
                may(token, &[], OPERATE),
                if operates { Ok(()) } else { Err(Denied::MissingRole(Role::Operate)) }
            );
            assert_eq!(
                may(token, &[], AUDIT),
                if audits { Ok(()) } else { Err(Denied::MissingRole(Role::Audit)) }
            );
        }
        let names = ["auditor.example".to_owned()];
        assert_eq!(may("", &names, AUDIT), Ok(()));
        assert_eq!(may("", &names, OPERATE), Err(Denied::MissingRole(Role::Operate)));
        assert_eq!(may("the-token-of-operator", &names, OPERATE), Ok(()), "both count");
        assert_eq!(may("", &["other.example".to_owned()], VIEW), Err(Denied::Unauthenticated));
    }

    #[test]
    fn without_a_valid_token_a_request_from_a_page_is_refused() {
        let open = admin(Token::Off, Vec::new());
        let may = |method: &str, headers: &[(&str, &str)], unix| {
            check(&open, &request(method, "/cache/purge", headers), &[], unix, OPERATE).is_ok()
        };
        let json = ("content-type", "application/json; charset=utf-8");
        for host in
            ["127.0.0.1:8081", "127.0.0.1", "[::1]:8081", "localhost:8081", "LOCALHOST", "ops.example:1"]
        {
            assert!(may("POST", &[("host", host), json], false), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "ops.example.evil",
            "me@127.0.0.1",
            "127.0.0.1.evil",
            "",
            "a b",
        ] {
            assert!(!may("POST", &[("host", host), json], false), "{host}");
            assert!(!may("GET", &[("host", host)], false), "{host}");
        }
        assert!(!may("POST", &[("host", "127.0.0.1"), ("host", "evil.example"), json], false));
        assert!(!may("GET", &[], false), "HTTP/1.1 needs a Host");
        assert!(may("POST", &[("host", "whatever.example"), json], true), "over a Unix socket");
        assert!(!may("POST", &[("host", "whatever.example")], true));
        let here = ("host", "127.0.0.1:8081");
        for (media_type, fits) in
            [("application/JSON", true), ("text/plain", false), ("application/json-seq", false)]
        {
            assert_eq!(may("POST", &[here, ("content-type", media_type)], false), fits, "{media_type}");
        }
        assert!(!may("POST", &[here], false), "without a type");
        for (name, value, fits) in [
            ("origin", "http://127.0.0.1:8081", true),
            ("origin", "http://127.0.0.1:8082", false),
            ("origin", "http://evil.example", false),
            ("origin", "null", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
        ] {
            assert_eq!(may("POST", &[here, json, (name, value)], false), fits, "{name}: {value}");
        }
    }

    #[test]
    fn metrics_are_open_until_a_token_file_is_set_and_http_1_0_needs_no_host() {
        let may = |token, headers: &[(&str, &str)], version| {
            let mut request = request("GET", "/metrics", headers);
            *request.version_mut() = version;
            check(&admin(token, Vec::new()), &request, &[], false, Requirement::RoleIfTokenFile(Role::View))
        };
        let made = || Token::Made(Some(Secret::new(TOKEN)));
        assert_eq!(may(made(), &[("host", "127.0.0.1")], Version::HTTP_11), Ok(()));
        assert_eq!(may(made(), &[], Version::HTTP_10), Ok(()));
        assert!(may(made(), &[("host", "evil.example")], Version::HTTP_11).is_err());
        assert_eq!(may(given(), &[("host", "127.0.0.1")], Version::HTTP_11), Err(Denied::Unauthenticated));
        let peers = request("GET", "/peers", &[("host", "127.0.0.1")]);
        assert_eq!(check(&admin(made(), Vec::new()), &peers, &[], false, VIEW), Err(Denied::Unauthenticated));
    }
}
