//! Who may see the operators' pages: whoever sends the bearer token (RFC 6750 2.1), compared in constant time.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use subtle::ConstantTimeEq;

use super::reply;
use crate::config::units::Secret;

/// Whether these headers hold the token, or none is needed. How far a guess was right does not show.
pub(super) fn authorized(token: Option<&Secret>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let claimed = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let claimed = claimed.and_then(|value| value.strip_prefix(b"Bearer "));
    claimed.is_some_and(|claimed| bool::from(claimed.ct_eq(token.expose())))
}

/// What everybody else gets.
pub(super) fn unauthorized() -> Response<Full<Bytes>> {
    let mut response = reply::text(
        StatusCode::UNAUTHORIZED,
        "send Authorization: Bearer and the token of [admin] token_file\n",
    );
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let token = Secret::new("0123456789abcdef");
        let with = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            authorized(Some(&token), &headers)
        };
        assert!(with("Bearer 0123456789abcdef"));
        for wrong in
            ["0123456789abcdef", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer ", "Basic x"]
        {
            assert!(!with(wrong), "{wrong}");
        }
        assert!(!authorized(Some(&token), &HeaderMap::new()));
        assert!(authorized(None, &HeaderMap::new()));
    }
}
