//! From an outcome to the HTTP response that a gateway can read: always 200, always the three keys.
//!
//! The carrier's body is relayed byte for byte. What the proxy itself has to say wears the carrier's envelope, with
//! `status` a string and `result` an array, since real clients break on anything else; details for machines stand in
//! headers: Cache-Status (RFC 9211) on what the carrier said, Proxy-Status (RFC 9209) on what the proxy made.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use cmiot_signer::Stamp;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::carrier::NotSent;
use crate::carrier::charset::ContentType;
use crate::clock::Time;
use crate::refusal::{Malformed, Refusal};

/// The name that stands in Cache-Status and Proxy-Status.
const NAME: &str = "cmiot-proxy";

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// How the cache handled a look-up (RFC 9211 2). What stands in for a response of the carrier's was forwarded; what
/// stands in for none at all (no connection, no call allowed, too slow) is a hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStatus {
    /// Answered from the cache.
    pub hit: bool,
    /// Why it was forwarded: nothing was there, or only something stale.
    pub forward_reason: Option<ForwardReason>,
    /// The HTTP status of the carrier's front end, where it is not 200, which an absent `fwd-status` means (2.3).
    pub forward_status: Option<u16>,
    /// Seconds of freshness left, negative once stale.
    pub ttl: Option<i64>,
    /// The answer went into the cache.
    pub stored: bool,
    /// The call was another request's.
    pub collapsed: bool,
    /// The answer is a stored "no": not found, or not the account's.
    pub negative: bool,
    /// Why there is nothing fresher: the reason of the refusal that this answer stands in for.
    pub stale_reason: Option<&'static str>,
}

/// Why a look-up went to the carrier (RFC 9211 2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardReason {
    /// Nothing of use was in the cache.
    UriMiss,
    /// What was in the cache was stale.
    Stale,
    /// What was in the cache was fresh, and the gateway wanted it fresher.
    Request,
    /// What is asked changes something, and passes the cache by.
    Bypass,
}

/// An answer as HTTP.
pub type HttpResponse = Response<Full<Bytes>>;

/// An answer before it is HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayResponse {
    body: Bytes,
    content_type: HeaderValue,
    cache_status: Option<CacheStatus>,
    proxy_status: Option<String>,
    age: Option<Duration>,
    retry_after: Option<Duration>,
    /// Where the moment matters; HTTP adds `Date` by itself otherwise.
    date: Option<Time>,
}

impl GatewayResponse {
    /// What the carrier said, `age` ago.
    pub fn relayed(
        body: Bytes,
        content_type: &ContentType,
        cache_status: CacheStatus,
        age: Duration,
        retry_after: Option<Duration>,
    ) -> Self {
        Self {
            body,
            content_type: content_type.value(),
            cache_status: Some(cache_status),
            proxy_status: None,
            age: Some(age),
            retry_after,
            date: None,
        }
    }

    /// What the proxy says itself.
    pub fn refused(refusal: &Refusal) -> Self {
        Self {
            body: envelope(refusal.code()),
            content_type: ContentType::UTF_8.value(),
            cache_status: None,
            proxy_status: Some(proxy_status(refusal)),
            age: None,
            retry_after: refusal.retry_after(),
            date: match refusal {
                Refusal::StaleTransid(now) => Some(*now),
                _ => None,
            },
        }
    }

    /// The response. HTTP/1.1 adds `Date` and `Content-Length`.
    pub fn into_response(self) -> HttpResponse {
        // Room for all of them at once, and for the Date of HTTP/2.
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(header::CONTENT_TYPE, self.content_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let mut put = |name, value: &str| {
            // Built of fixed words, digits and codes; a value that were none is left out rather than failing the answer.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        if let Some(status) = self.cache_status {
            put(CACHE_STATUS, &status.render());
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
    fn render(self) -> String {
        let mut text = String::with_capacity(64);
        text.push_str(NAME);
        if self.hit {
            text.push_str("; hit");
        }
        match self.forward_reason {
            Some(ForwardReason::UriMiss) => text.push_str("; fwd=uri-miss"),
            Some(ForwardReason::Stale) => text.push_str("; fwd=stale"),
            Some(ForwardReason::Request) => text.push_str("; fwd=request"),
            Some(ForwardReason::Bypass) => text.push_str("; fwd=bypass"),
            None => {}
        }
        if let Some(status) = self.forward_status {
            let _ = write!(text, "; fwd-status={status}"); // writing to a String cannot fail
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={ttl}");
        }
        match (self.negative, self.stale_reason) {
            (true, _) => text.push_str("; detail=negative"),
            (false, Some(reason)) => {
                let _ = write!(text, "; detail={reason}");
            }
            (false, None) => {}
        }
        text
    }
}

/// The carrier's envelope around one of its codes, with the text that its table gives.
fn envelope(code: &str) -> Bytes {
    Bytes::from(format!(r#"{{"status":"{code}","message":"{}","result":[]}}"#, text(code)))
}

/// The carrier's text for a code that the proxy itself answers.
fn text(code: &str) -> &'static str {
    match code {
        "3" => "订购关系鉴权不通过",
        "6" => "IP地址鉴权不通过",
        "7" => "TOKEN鉴权不通过",
        "8" => "白名单鉴权不通过",
        "10" => "请求参数不正确，请参考能力调用文档",
        "38" => "码号信息错误，请检查MSISDN、ICCID、IMSI是否正确",
        "99" => "其他错误",
        "72" => "已超出单位时间客户调用限制，请稍后再试",
        "10006" => "请求的接口不存在",
        _ => "系统忙，请稍后再试",
    }
}

/// RFC 9209 2.1: the error type, and in `details` what to change.
fn proxy_status(refusal: &Refusal) -> String {
    let (error, details) = match refusal {
        Refusal::UnknownPath => ("http_request_error; status-code=404", "no such operation".to_owned()),
        Refusal::ForeignHost => {
            ("http_request_error; status-code=421", "target names a foreign host".to_owned())
        }
        Refusal::Malformed(what) => ("http_request_error; status-code=400", malformed(*what)),
        Refusal::Card => {
            ("http_request_error; status-code=400", "card number breaks its kind's rule".to_owned())
        }
        Refusal::OnlyIfCached => {
            ("http_request_error; status-code=504", "only-if-cached and nothing fresh".to_owned())
        }
        Refusal::Peer => ("http_request_denied", "address not allowed".to_owned()),
        Refusal::Token => ("http_request_denied", "appid or token wrong".to_owned()),
        Refusal::StaleTransid(now) => ("http_request_denied", stale(*now)),
        Refusal::ReusedTransid => ("http_request_denied", "transid used before".to_owned()),
        Refusal::Ebid => ("http_request_denied", "ebid wrong".to_owned()),
        Refusal::Operation => ("http_request_denied", "operation not allowed".to_owned()),
        Refusal::CardNotAllowed => ("http_request_denied", "card not allowed".to_owned()),
        Refusal::TooFast(_) => ("http_request_denied", "too fast".to_owned()),
        Refusal::ReplayFull(_) => ("http_request_denied", "too many transids within the window".to_owned()),
        Refusal::Certificate => ("http_request_denied", "client certificate not this client's".to_owned()),
        Refusal::Overloaded => ("connection_limit_reached", "too many wait already".to_owned()),
        Refusal::Deadline => ("http_response_timeout", "the call goes on, ask again".to_owned()),
        Refusal::Credentials(code) => {
            ("http_request_denied", format!("carrier refuses the account's credentials with code {code}"))
        }
        Refusal::Carrier(fault) => (fault.proxy_error(), format!("carrier call failed: {}", fault.name())),
        Refusal::NotSent(NotSent::Budget(_)) => ("http_request_denied", "carrier budget spent".to_owned()),
        Refusal::NotSent(NotSent::Uncounted(_)) => {
            ("proxy_internal_error", "calls of the day cannot be counted: state.db".to_owned())
        }
        Refusal::NotSent(NotSent::CoolDown(_)) => {
            ("http_request_denied", "carrier throttled the account, which rests".to_owned())
        }
        Refusal::NotSent(NotSent::Breaker(_)) => {
            ("destination_unavailable", "carrier failed too often in a row".to_owned())
        }
        Refusal::NotSent(NotSent::Credentials(code, _)) => {
            ("http_request_denied", format!("carrier refuses the account's credentials with code {code}"))
        }
        Refusal::NotSent(NotSent::Unrecorded) => ("proxy_internal_error", "audit unavailable".to_owned()),
        Refusal::NotSent(NotSent::Shutdown) => ("proxy_internal_error", "shutting down".to_owned()),
        Refusal::Begun(Some(row)) => ("http_response_incomplete", format!("action begun: audit row {row}")),
        Refusal::Begun(None) => ("http_response_incomplete", "action begun".to_owned()),
        Refusal::ClientGone => ("proxy_internal_error", "the client has left".to_owned()),
        Refusal::TaskFailed => ("proxy_internal_error", "the call was lost".to_owned()),
        Refusal::Audit => ("proxy_internal_error", "audit unavailable".to_owned()),
    };
    format!("{NAME}; error={error}; details=\"{details}\"")
}

/// With the proxy's time as a transid has it, so that firmware without a clock can set itself.
fn stale(now: Time) -> String {
    match Stamp::from_unix(now.as_secs()) {
        Ok(now) => format!("transid stamp too far from {now} at UTC+8"),
        Err(_) => "transid stamp too far from the proxy's clock, which is not set".to_owned(),
    }
}

fn malformed(what: Malformed) -> String {
    match what {
        Malformed::Method => "neither GET nor POST".to_owned(),
        Malformed::TargetTooLong => "target longer than 2 KiB".to_owned(),
        Malformed::BodyTooLong => "body longer than 4 KiB".to_owned(),
        Malformed::BodyTruncated => "body cut off".to_owned(),
        Malformed::GetBody => "GET with a body".to_owned(),
        Malformed::TransferEncoding => "send Content-Length, not Transfer-Encoding".to_owned(),
        Malformed::Host => "Host given twice, or not as :authority".to_owned(),
        Malformed::Encoding => "percent-encoding broken, NUL or not UTF-8".to_owned(),
        Malformed::Duplicate(name) => format!("{name} given twice"),
        Malformed::Missing(name) => format!("{name} missing"),
        Malformed::Undeclared(name) => {
            format!("parameter {} is not declared for this operation", name.as_str())
        }
        Malformed::Parameter(name) => format!("{name} is not 1-64 letters, digits and -._~"),
        Malformed::NoCard => "none of msisdn, iccid, imsi".to_owned(),
        Malformed::SeveralCards => "more than one of msisdn, iccid, imsi".to_owned(),
        Malformed::AppId => "appid is not 1-26 letters and digits".to_owned(),
        Malformed::Transid => "transid is not appid, YYYYMMDDHHMISS, 8 digits".to_owned(),
    }
}

/// Rounded up, since asking a moment too early helps nobody.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(answer: GatewayResponse, name: &str) -> Option<String> {
        answer.into_response().headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn cache_status_reads_as_the_rfc_writes_it() {
        let shown = |status: CacheStatus| status.render();
        assert_eq!(
            shown(CacheStatus { hit: true, ttl: Some(27), ..Default::default() }),
            "cmiot-proxy; hit; ttl=27"
        );
        assert_eq!(
            shown(CacheStatus { hit: true, ttl: Some(-8), ..Default::default() }),
            "cmiot-proxy; hit; ttl=-8"
        );
        let miss =
            CacheStatus { forward_reason: Some(ForwardReason::UriMiss), stored: true, ..Default::default() };
        assert_eq!(shown(miss), "cmiot-proxy; fwd=uri-miss; stored");
        let failed = CacheStatus {
            forward_reason: Some(ForwardReason::Stale),
            forward_status: Some(503),
            ttl: Some(-8),
            stale_reason: Some("http-status"),
            ..Default::default()
        };
        assert_eq!(shown(failed), "cmiot-proxy; fwd=stale; fwd-status=503; ttl=-8; detail=http-status");
        let follower = CacheStatus { collapsed: true, negative: true, ..miss };
        assert_eq!(shown(follower), "cmiot-proxy; fwd=uri-miss; stored; collapsed; detail=negative");
    }

    #[test]
    fn a_refusal_wears_the_carriers_envelope() {
        let answer = GatewayResponse::refused(&Refusal::TooFast(Duration::from_millis(1_500)));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["status"], "72");
        assert_eq!(body["result"], serde_json::json!([]));
        assert_eq!(header(answer.clone(), "retry-after").unwrap(), "2");
        assert_eq!(header(answer.clone(), "cache-status"), None);
        assert_eq!(
            header(answer, "proxy-status").unwrap(),
            "cmiot-proxy; error=http_request_denied; details=\"too fast\""
        );
    }

    #[test]
    fn a_stale_transid_is_told_the_time() {
        let answer = GatewayResponse::refused(&Refusal::StaleTransid(Time::from_secs(1_413_444_630)));
        assert_eq!(header(answer.clone(), "date").unwrap(), "Thu, 16 Oct 2014 07:30:30 GMT");
        assert!(header(answer, "proxy-status").unwrap().contains("20141016153030"));
    }

    #[test]
    fn an_unknown_appid_reads_like_a_wrong_token() {
        // There is one refusal for both, so that no answer can tell them apart.
        assert_eq!(GatewayResponse::refused(&Refusal::Token).body, envelope("7"));
    }
}
