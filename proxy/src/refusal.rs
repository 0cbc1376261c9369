//! The reasons for which a request gets no carrier response: [`Refusal`].
//!
//! [`Refusal::describe`] has one arm per refusal, which states all that the response, the audit record and the metrics say
//! of it. A new refusal is a variant and its arm.

use std::borrow::Cow;
use std::time::Duration;

use cmiot_signer::Stamp;

use crate::carrier::NotSent;
use crate::carrier::fault::Fault;
use crate::carrier::verdict::Code;
use crate::clock::Time;
use crate::outcome::Outcome;
use crate::proxy_code::ProxyCode;

/// The reason for which a request gets no carrier response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The path is not an operation that the proxy serves.
    UnknownPath,
    /// An absolute-form target names a host that is neither the proxy's nor the carrier's.
    ForeignHost,
    /// The request does not have the form of a lookup.
    Malformed(Malformed),
    /// The card number breaks its kind's rule.
    Card,
    /// The peer's address is not allowed.
    Peer,
    /// The appid is unknown or the token is wrong; the response does not reveal which.
    Token,
    /// The transid's stamp is outside the window around the proxy's clock, which showed this time.
    StaleTransid(Time),
    /// The transid was used before.
    ReusedTransid,
    /// The ebid is not the client's.
    Ebid,
    /// The client has no permission for this operation.
    Operation,
    /// The client has no permission for this card.
    CardNotAllowed,
    /// The replay cache has no room for another transid of this client until this time has passed.
    ReplayFull(Duration),
    /// The connection's certificate is not the client's.
    Certificate,
    /// The client exceeds its rate until this time has passed.
    TooFast(Duration),
    /// `only-if-cached`, and no entry is fresh (RFC 9111 5.2.1.7).
    OnlyIfCached,
    /// Too many requests wait for this card, or too many calls are in flight.
    Overloaded,
    /// No response within the gateway deadline; the call continues.
    Deadline,
    /// The carrier refuses the account's own credentials, with this code.
    Credentials(Code),
    /// The carrier refuses the token that it has just issued, with this code.
    TokenRefused(Code),
    /// The carrier call failed.
    Carrier(Fault),
    /// No call was made: to protect the quota, or since it would have failed.
    NotSent(NotSent),
    /// The action's intent is the audit row of this number, and its result is not known. A second call might execute it
    /// twice.
    Begun(Option<i64>),
    /// The client disconnected before its response. Only the audit record shows this refusal.
    ClientGone,
    /// The flight's task ended without a result: a defect of the proxy.
    TaskFailed,
    /// The audit record could not be committed, so no response may leave.
    Audit,
    /// The database of the fleet is away, so that another node may have accepted the transid. It is not marked used.
    Alone,
}

/// The defect in the form of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Neither GET nor POST.
    Method,
    /// The target is longer than 2 KiB.
    TargetTooLong,
    /// The body is longer than 4 KiB.
    BodyTooLong,
    /// The body ended early.
    BodyTruncated,
    /// A GET with a body.
    GetBody,
    /// The request has a Transfer-Encoding.
    TransferEncoding,
    /// Two Host headers, or one that differs from `:authority`.
    Host,
    /// Percent-encoding that is broken, or encodes NUL or invalid UTF-8.
    Encoding,
    /// A parameter is given twice, or in URL and body with different values.
    Duplicate(&'static str),
    /// A parameter is missing or empty.
    Missing(&'static str),
    /// A parameter that the operation does not declare.
    Undeclared(ParameterName),
    /// The value of a declared parameter is not 1-64 unreserved characters.
    Parameter(&'static str),
    /// None of msisdn, iccid and imsi.
    NoCard,
    /// More than one of msisdn, iccid and imsi.
    SeveralCards,
    /// The appid is not 1-26 letters and digits.
    AppId,
    /// The transid is not appid, stamp and eight digits.
    Transid,
}

/// The name of an undeclared parameter, in a form that is safe in a header: it is untrusted text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParameterName {
    bytes: [u8; 32],
    len: u8,
}

impl ParameterName {
    /// Keeps the first 32 characters; any but letters, digits, `-`, `.` and `_` become `?`.
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; 32];
        let mut len = 0;
        for (slot, character) in bytes.iter_mut().zip(name.chars()) {
            let plain = character.is_ascii_alphanumeric() || "-._".contains(character);
            *slot = if plain { character as u8 } else { b'?' };
            len += 1;
        }
        Self { bytes, len }
    }

    pub fn as_str(&self) -> &str {
        // `new` stores ASCII only, so the default is never used.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// The facts that the response, the audit record and the metrics state of a refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    pub code: ProxyCode,
    /// The cause, as one stable word for metrics, audit and log.
    pub reason: &'static str,
    /// [`Outcome::Refused`] if the gateway has to change its request, [`Outcome::Failed`] if the proxy or the carrier has a
    /// problem.
    pub outcome: Outcome,
    /// The code and the HTTP status of the carrier's response, if there was one and it is not relayed.
    pub carrier_code: Option<Code>,
    pub carrier_status: Option<u16>,
    /// The time after which a retry can succeed, if waiting helps.
    pub retry_after: Option<Duration>,
    /// The proxy's time, for a gateway whose clock differs.
    pub now: Option<Time>,
    /// The proxy error type, with its parameters (RFC 9209 2.3).
    pub proxy_error: &'static str,
    /// The remedy or cause in words, for `details` (RFC 9209 2.1.5): it needs no escapes inside a quoted string.
    pub details: Cow<'static, str>,
}

const DENIED: &str = "http_request_denied";
const INTERNAL: &str = "proxy_internal_error";
const BAD_REQUEST: &str = "http_request_error; status-code=400";

impl Description {
    /// The gateway has to change its request.
    fn refused(
        code: ProxyCode,
        reason: &'static str,
        proxy_error: &'static str,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code,
            reason,
            outcome: Outcome::Refused,
            carrier_code: None,
            carrier_status: None,
            retry_after: None,
            now: None,
            proxy_error,
            details: details.into(),
        }
    }

    /// The proxy or the carrier has a problem.
    fn failed(
        reason: &'static str,
        proxy_error: &'static str,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { outcome: Outcome::Failed, ..Self::refused(ProxyCode::Busy, reason, proxy_error, details) }
    }

    fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    fn after_seconds(self, seconds: u64) -> Self {
        self.after(Duration::from_secs(seconds))
    }
}

impl Refusal {
    /// The reason of [`Self::StaleTransid`].
    pub const STALE_TRANSID: &'static str = "transid-stale";

    /// The reason of [`Self::Alone`]. In the record of a request with a carrier response it says that the node was alone,
    /// and that another node may have accepted the transid too.
    pub const ALONE: &'static str = "alone";

    /// All that is said of this refusal.
    pub fn describe(&self) -> Description {
        use Description as D;
        use ProxyCode as P;
        match self {
            Self::UnknownPath => D::refused(
                P::Interface,
                "unknown-path",
                "http_request_error; status-code=404",
                "no such operation",
            ),
            Self::ForeignHost => D::refused(
                P::Interface,
                "foreign-host",
                "http_request_error; status-code=421",
                "target names a foreign host",
            ),
            Self::Malformed(malformed) => malformed.describe(),
            Self::Card => {
                D::refused(P::CardNumber, "card-format", BAD_REQUEST, "card number breaks its kind's rule")
            }
            Self::Peer => D::refused(P::Address, "peer", DENIED, "address not allowed"),
            Self::Certificate => {
                D::refused(P::Address, "certificate", DENIED, "client certificate not this client's")
            }
            Self::Token => D::refused(P::Token, "token", DENIED, "appid or token wrong"),
            Self::StaleTransid(now) => {
                let text = stale_transid(*now);
                D { now: Some(*now), ..D::refused(P::Token, Self::STALE_TRANSID, DENIED, text) }
            }
            Self::ReusedTransid => D::refused(P::Token, "transid-reused", DENIED, "transid used before"),
            Self::Ebid => D::refused(P::Subscription, "ebid", DENIED, "ebid wrong"),
            Self::Operation => D::refused(P::Subscription, "operation", DENIED, "operation not allowed"),
            Self::CardNotAllowed => D::refused(P::Card, "card", DENIED, "card not allowed"),
            Self::TooFast(wait) => D::refused(P::Throttled, "rate", DENIED, "too fast").after(*wait),
            Self::ReplayFull(wait) => {
                D::refused(P::Throttled, "replay-full", DENIED, "too many transids within the window")
                    .after(*wait)
            }
            Self::OnlyIfCached => D::refused(
                P::Busy,
                "only-if-cached",
                "http_request_error; status-code=504",
                "only-if-cached and nothing fresh",
            ),
            Self::Overloaded => {
                D::failed("crowded", "connection_limit_reached", "too many wait already").after_seconds(1)
            }
            Self::Deadline => {
                D::failed("deadline", "http_response_timeout", "the call goes on, ask again").after_seconds(1)
            }
            Self::Credentials(code) => D {
                carrier_code: Some(*code),
                carrier_status: Some(200),
                ..credentials(*code).after_seconds(60)
            },
            Self::TokenRefused(code) => D {
                carrier_code: Some(*code),
                carrier_status: Some(200),
                ..D::failed(
                    "carrier-token",
                    DENIED,
                    format!("carrier refuses a token that it has just issued, with code {code}"),
                )
                .after_seconds(5)
            },
            Self::Carrier(fault) => D {
                carrier_status: fault.http_status(),
                ..D::failed(
                    fault.name(),
                    fault.proxy_error(),
                    format!("carrier call failed: {}", fault.name()),
                )
                .after_seconds(5)
            },
            Self::NotSent(not_sent) => describe_not_sent(not_sent),
            Self::Begun(row) => D {
                code: P::Other,
                ..D::failed(
                    "action-begun",
                    "http_response_incomplete",
                    row.map_or(Cow::Borrowed("action begun"), |row| {
                        format!("action begun: audit row {row}").into()
                    }),
                )
            },
            Self::ClientGone => D::failed("client-gone", INTERNAL, "the client has left"),
            Self::TaskFailed => D::failed("lost", INTERNAL, "the call was lost").after_seconds(1),
            Self::Audit => D::failed("audit", INTERNAL, "audit unavailable").after_seconds(5),
            Self::Alone => {
                D::failed(Self::ALONE, INTERNAL, "database of the fleet unavailable").after_seconds(5)
            }
        }
    }
}

impl Malformed {
    fn describe(self) -> Description {
        let (reason, details): (_, Cow<'static, str>) = match self {
            Self::Method => ("method", "neither GET nor POST".into()),
            Self::TargetTooLong => ("target-too-long", "target longer than 2 KiB".into()),
            Self::BodyTooLong => ("body-too-long", "body longer than 4 KiB".into()),
            Self::BodyTruncated => ("body-cut-off", "body cut off".into()),
            Self::GetBody => ("get-body", "GET with a body".into()),
            Self::TransferEncoding => {
                ("transfer-encoding", "send Content-Length, not Transfer-Encoding".into())
            }
            Self::Host => ("host", "Host given twice, or not as :authority".into()),
            Self::Encoding => ("encoding", "percent-encoding broken, NUL or not UTF-8".into()),
            Self::Duplicate(name) => ("doubled-parameter", format!("{name} given twice").into()),
            Self::Missing(name) => ("missing-parameter", format!("{name} missing").into()),
            Self::Undeclared(name) => (
                "undeclared-parameter",
                format!("parameter {} is not declared for this operation", name.as_str()).into(),
            ),
            Self::Parameter(name) => {
                ("parameter-format", format!("{name} is not 1-64 letters, digits and -._~").into())
            }
            Self::NoCard => ("no-card", "none of msisdn, iccid, imsi".into()),
            Self::SeveralCards => ("several-cards", "more than one of msisdn, iccid, imsi".into()),
            Self::AppId => ("appid-format", "appid is not 1-26 letters and digits".into()),
            Self::Transid => ("transid-format", "transid is not appid, YYYYMMDDHHMISS, 8 digits".into()),
        };
        Description::refused(ProxyCode::Parameters, reason, BAD_REQUEST, details)
    }
}

fn describe_not_sent(not_sent: &NotSent) -> Description {
    use Description as D;
    let description = match not_sent {
        NotSent::Budget(_) => {
            D { code: ProxyCode::Throttled, ..D::failed("budget", DENIED, "carrier budget spent") }
        }
        NotSent::Uncounted(_) => {
            D::failed("budget-uncounted", INTERNAL, "calls of the day cannot be counted: state.db")
        }
        NotSent::CoolDown(_) => D {
            code: ProxyCode::Throttled,
            ..D::failed("cool-down", DENIED, "account in cool-down after carrier throttling")
        },
        NotSent::Breaker(_) => {
            D::failed("breaker", "destination_unavailable", "carrier failed too often in a row")
        }
        NotSent::NoToken(_) => D::failed(
            "no-token",
            "destination_unavailable",
            "no-token: the last request for a token has failed",
        ),
        NotSent::Credentials(code, _) => credentials(*code),
        NotSent::Unrecorded => D::failed("audit", INTERNAL, "audit unavailable"),
        NotSent::Shutdown => D::failed("shutdown", INTERNAL, "shutting down"),
    };
    description.after(not_sent.wait())
}

fn credentials(code: Code) -> Description {
    let details = format!("carrier refuses the account's credentials with code {code}");
    Description::failed("carrier-credentials", DENIED, details)
}

/// With the proxy's time in the form of a transid, so that firmware without a clock can set its own.
fn stale_transid(now: Time) -> Cow<'static, str> {
    match Stamp::from_unix(now.as_secs()) {
        Ok(now) => format!("transid stamp too far from {now} at UTC+8").into(),
        Err(_) => "transid stamp too far from the proxy's clock, which is not set".into(),
    }
}
