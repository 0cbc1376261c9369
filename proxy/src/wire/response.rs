//! The HTTP response to a gateway: always 200, always the three keys of the carrier's envelope.
//!
//! The carrier's body is relayed byte for byte, unless it came in another version of the API than gateways speak. A refusal of the proxy has the envelope of its [`ProxyCode`]. The headers
//! carry details for machines: Cache-Status (RFC 9211) on a carrier response, Proxy-Status (RFC 9209) on a refusal, and on
//! both the transid of the request, so that a gateway does not take a late response for that of its next request.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::carrier::charset::ContentType;
use crate::clock::Time;
use crate::proxy_code::ProxyCode;
use crate::refusal::Description;

/// The proxy's name in Cache-Status and Proxy-Status.
const NAME: &str = "cmiot-proxy";

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// The transid of the request, if it has the exact form.
pub const TRANSID: HeaderName = HeaderName::from_static("cmiot-transid");

/// The handling of a lookup by the cache (RFC 9211 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheStatus {
    /// From the cache, and no carrier response was received for it: none was needed, or no call was possible or fast enough.
    Hit {
        /// Seconds of freshness left, negative once stale.
        ttl: Option<i64>,
        detail: Option<&'static str>,
    },
    /// A stale entry in place of a carrier response that was received and is not relayed.
    StaleInstead {
        forward: Forward,
        /// The HTTP status of the carrier's front end.
        status: u16,
        ttl: Option<i64>,
        detail: Option<&'static str>,
    },
    /// The carrier response to this lookup.
    Forwarded { forward: Forward, stored: bool, detail: Option<&'static str> },
    /// The carrier response to an action, which is not cached.
    Bypass,
}

impl CacheStatus {
    /// The `detail` of a negative response: the carrier does not know the card, or not as the account's.
    pub const NEGATIVE: &'static str = "negative";

    /// The `detail` of a response whose body was made from a reply of the carrier in another version of its API.
    pub const TRANSLATED: &'static str = "translated";

    /// The `detail` of a response that another node of the fleet has received.
    pub const FLEET: &'static str = "fleet";
}

/// The way of a lookup to the carrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    pub reason: ForwardReason,
    /// Another request led the call.
    pub collapsed: bool,
}

/// The reason for which a lookup was forwarded (RFC 9211 2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardReason {
    /// The cache had no entry.
    UriMiss,
    /// The entry was stale.
    Stale,
    /// The entry was fresh, and the request's directives required a fresher one.
    Request,
}

pub type HttpResponse = Response<Full<Bytes>>;

/// The body of a carrier response.
#[derive(Debug)]
pub struct Body<'a> {
    pub bytes: Bytes,
    pub content_type: &'a ContentType,
    /// Set if the body is not the carrier's own: with what is to be said of it, in printable ASCII without quotes.
    pub translated: Option<Option<&'a str>>,
}

/// A response before it is HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayResponse {
    body: Bytes,
    content_type: HeaderValue,
    /// With whether the body is translated.
    cache_status: Option<(CacheStatus, bool)>,
    proxy_status: Option<String>,
    age: Option<Duration>,
    retry_after: Option<Duration>,
    /// Set where the moment matters; otherwise hyper adds `Date`.
    date: Option<Time>,
}

impl GatewayResponse {
    /// A carrier response with this body, received `age` ago. If the body is not the carrier's own, `note` may say what the
    /// carrier wrote.
    pub fn relayed(
        body: Body<'_>,
        cache_status: CacheStatus,
        age: Duration,
        retry_after: Option<Duration>,
    ) -> Self {
        let note = body.translated.and_then(|note| note);
        Self {
            body: body.bytes,
            content_type: body.content_type.value(),
            cache_status: Some((cache_status, body.translated.is_some())),
            proxy_status: note.map(|note| format!("{NAME}; details=\"{note}\"")),
            age: Some(age),
            retry_after,
            date: None,
        }
    }

    /// A response of the proxy itself.
    pub fn refused(refusal: &Description) -> Self {
        let Description { code, retry_after, proxy_error, details, now, .. } = refusal;
        Self {
            body: code.envelope().into(),
            content_type: ContentType::UTF_8.value(),
            cache_status: None,
            proxy_status: Some(format!("{NAME}; error={proxy_error}; details=\"{details}\"")),
            age: None,
            retry_after: *retry_after,
            date: *now,
        }
    }

    /// The HTTP response to the request with this transid, to which hyper adds `Date` and `Content-Length`.
    pub fn into_response(self, transid: Option<HeaderValue>) -> HttpResponse {
        // Capacity for all headers at once, and for the `Date` of HTTP/2; a rare `Retry-After` grows it.
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(header::CONTENT_TYPE, self.content_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(transid) = transid {
            headers.insert(TRANSID, transid);
        }
        let mut put = |name, value: &str| {
            // Values consist of fixed words, digits and codes; an invalid one is left out rather than failing the response.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        if let Some((status, is_translated)) = self.cache_status {
            put(CACHE_STATUS, &status.render(is_translated));
        }
        if let Some(status) = self.proxy_status {
            put(PROXY_STATUS, &status);
        }
        if let Some(now) = self.date {
            put(header::DATE, &httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now.as_secs())));
        }
        if let Some(age) = self.age {
            headers.insert(header::AGE, age.as_secs().into());
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = StatusCode::OK;
        *response.headers_mut() = headers;
        response
    }
}

impl CacheStatus {
    /// As a header value; a body that is not the carrier's own is marked.
    fn render(self, is_translated: bool) -> String {
        let mut text = String::with_capacity(64);
        text.push_str(NAME);
        let (ttl, detail) = match self {
            Self::Hit { ttl, detail } => {
                text.push_str("; hit");
                (ttl, detail)
            }
            Self::StaleInstead { forward, status, ttl, detail } => {
                text.push_str(forward.reason.as_str());
                // An absent `fwd-status` means 200 (2.3).
                if status != 200 {
                    let _ = write!(text, "; fwd-status={status}"); // writing to a String cannot fail
                }
                text.push_str(if forward.collapsed { "; collapsed" } else { "" });
                (ttl, detail)
            }
            Self::Forwarded { forward, stored, detail } => {
                text.push_str(forward.reason.as_str());
                text.push_str(if stored { "; stored" } else { "" });
                text.push_str(if forward.collapsed { "; collapsed" } else { "" });
                (None, detail)
            }
            Self::Bypass => {
                text.push_str("; fwd=bypass");
                (None, None)
            }
        };
        if let Some(ttl) = ttl {
            let _ = write!(text, "; ttl={ttl}"); // writing to a String cannot fail
        }
        match (detail, is_translated) {
            (None, false) => {}
            (Some(detail), false) => text.extend(["; detail=", detail]),
            (None, true) => text.extend(["; detail=", Self::TRANSLATED]),
            (Some(detail), true) => text.extend(["; detail=\"", Self::TRANSLATED, ", ", detail, "\""]),
        }
        text
    }
}

impl ForwardReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::UriMiss => "; fwd=uri-miss",
            Self::Stale => "; fwd=stale",
            Self::Request => "; fwd=request",
        }
    }
}

/// The response to connections over the limit, built once: the shortest one that a gateway can parse.
pub fn overload_response() -> &'static [u8] {
    static RESPONSE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let body = ProxyCode::Busy.envelope();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: {}\r\n\
             Proxy-Status: {NAME}; error=connection_limit_reached\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    &RESPONSE
}

/// Rounded up, since a retry a moment too early fails again.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    fn header(response: GatewayResponse, name: &str) -> Option<String> {
        response.into_response(None).headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn cache_status_is_rendered_as_the_rfc_writes_it() {
        let hit = |ttl| CacheStatus::Hit { ttl: Some(ttl), detail: None };
        assert_eq!(hit(27).render(false), "cmiot-proxy; hit; ttl=27");
        assert_eq!(hit(-8).render(false), "cmiot-proxy; hit; ttl=-8");
        let miss = Forward { reason: ForwardReason::UriMiss, collapsed: false };
        let stored = CacheStatus::Forwarded { forward: miss, stored: true, detail: None };
        assert_eq!(stored.render(false), "cmiot-proxy; fwd=uri-miss; stored");
        let stale = |status| CacheStatus::StaleInstead {
            forward: Forward { reason: ForwardReason::Stale, collapsed: true },
            status,
            ttl: Some(-8),
            detail: Some("http-status"),
        };
        assert_eq!(
            stale(503).render(false),
            "cmiot-proxy; fwd=stale; fwd-status=503; collapsed; ttl=-8; detail=http-status"
        );
        assert_eq!(stale(200).render(false), "cmiot-proxy; fwd=stale; collapsed; ttl=-8; detail=http-status");
        let follower = CacheStatus::Forwarded {
            forward: Forward { collapsed: true, ..miss },
            stored: true,
            detail: Some(CacheStatus::NEGATIVE),
        };
        assert_eq!(follower.render(false), "cmiot-proxy; fwd=uri-miss; stored; collapsed; detail=negative");
        assert_eq!(CacheStatus::Bypass.render(false), "cmiot-proxy; fwd=bypass");
        assert_eq!(CacheStatus::Bypass.render(true), "cmiot-proxy; fwd=bypass; detail=translated");
        assert_eq!(stored.render(true), "cmiot-proxy; fwd=uri-miss; stored; detail=translated");
        assert!(follower.render(true).ends_with("; detail=\"translated, negative\""));
    }

    #[test]
    fn a_refusal_is_rendered_in_the_carriers_envelope() {
        let refusal = Refusal::TooFast(Duration::from_millis(1_500));
        let response = GatewayResponse::refused(&refusal.describe());
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["status"], "72");
        assert_eq!(body["result"], serde_json::json!([]));
        assert_eq!(header(response.clone(), "retry-after").unwrap(), "2");
        assert_eq!(header(response.clone(), "cache-status"), None);
        assert_eq!(
            header(response, "proxy-status").unwrap(),
            "cmiot-proxy; error=http_request_denied; details=\"too fast\""
        );
    }

    #[test]
    fn a_response_names_its_request() {
        let refused = || GatewayResponse::refused(&Refusal::UnknownPath.describe());
        let transid = HeaderValue::from_static("1000012014101615303080000001");
        let named = refused().into_response(Some(transid));
        assert_eq!(named.headers().get("cmiot-transid").unwrap(), "1000012014101615303080000001");
        assert_eq!(header(refused(), "cmiot-transid"), None);
    }

    #[test]
    fn the_refusal_of_a_stale_transid_states_the_time() {
        let refusal = Refusal::StaleTransid(Time::from_secs(1_413_444_630));
        let response = GatewayResponse::refused(&refusal.describe());
        assert_eq!(header(response.clone(), "date").unwrap(), "Thu, 16 Oct 2014 07:30:30 GMT");
        assert!(header(response, "proxy-status").unwrap().contains("20141016153030"));
    }

    #[test]
    fn the_overload_response_is_a_whole_http_response() {
        let text = std::str::from_utf8(overload_response()).unwrap();
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: 67\r\n\
            Proxy-Status: cmiot-proxy; error=connection_limit_reached\r\nRetry-After: 1\r\nConnection: close\r\n\r\n\
            {\"status\":\"73\",\"message\":\"系统忙，请稍后再试\",\"result\":[]}";
        assert_eq!(text, expected);
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), 67);
    }
}
