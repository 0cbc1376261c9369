//! The cookies of the page: of a session, and of the language.
//!
//! Browsers send a cookie to every port of a host (RFC 6265 8.5). The name of the session's cookie therefore ends with the
//! port by which the browser addresses the listener: two proxies that are reached by two ports of one host, such as those
//! of `ssh -L`, do not replace each other's cookie.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, http::uri::Authority};

/// The beginning of the name of a session's cookie.
const SESSION: &str = "cmiot_session";
/// The cookie of the language.
pub(super) const LANGUAGE: &str = "cmiot_language";

/// The name of a session's cookie for the port in `:authority` or `Host`; without a port, that of the scheme.
pub(super) fn session_name<B>(request: &Request<B>) -> String {
    let host = || Authority::try_from(request.headers().get(header::HOST)?.as_bytes()).ok();
    let authority = request.uri().authority().cloned().or_else(host);
    match authority.and_then(|authority| authority.port_u16()) {
        Some(port) => format!("{SESSION}_{port}"),
        None => SESSION.to_owned(),
    }
}

/// The value of a cookie (RFC 6265 5.4).
pub(super) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(one, _)| *one == name).map(|(_, value)| value)
}

/// The cookie of a session: out of reach of scripts, and sent with requests of this site alone.
pub(super) fn of_session(name: &str, value: &str, tls: bool) -> Option<HeaderValue> {
    let secure = if tls { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}")).ok()
}

/// Removes the cookie of a session.
pub(super) fn no_session(name: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("{name}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_session_cookie_ends_with_the_port() {
        for (target, host, name) in [
            ("/", Some("localhost:8081"), "cmiot_session_8081"),
            ("/", Some("[::1]:8082"), "cmiot_session_8082"),
            ("/", Some("proxy.example"), "cmiot_session"),
            ("/", Some("proxy.example:0; a=b"), "cmiot_session"),
            ("/", None, "cmiot_session"),
            ("https://proxy.example:8443/", Some("proxy.example:8443"), "cmiot_session_8443"),
            ("https://proxy.example:8443/", None, "cmiot_session_8443"),
        ] {
            let request = Request::get(target);
            let request = host.into_iter().fold(request, |request, host| request.header(header::HOST, host));
            assert_eq!(session_name(&request.body(()).unwrap()), name, "{target} {host:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("cmiot_session_8081=a; cmiot_session=b"));
        headers.append(header::COOKIE, HeaderValue::from_static("cmiot_session_80=c"));
        for (name, found) in [
            ("cmiot_session_8081", Some("a")),
            ("cmiot_session", Some("b")),
            ("cmiot_session_80", Some("c")),
            ("cmiot_session_808", None),
        ] {
            assert_eq!(value(&headers, name), found, "{name}");
        }
    }
}
