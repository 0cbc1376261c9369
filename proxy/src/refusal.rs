//! Why a request gets no carrier response: [`Refusal`].
//!
//! A refusal has a code in the carrier's numbering, which says whose fault it is, a reason, and the time after which a
//! retry can succeed.

use std::time::Duration;

use crate::carrier::NotSent;
use crate::carrier::fault::Fault;
use crate::carrier::verdict::Code;
use crate::clock::Time;
use crate::outcome::Outcome;

/// Why a request gets no answer of the carrier's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The path is not one of the carrier's that are served here.
    UnknownPath,
    /// An absolute-form target names a host that is neither ours nor the carrier's.
    ForeignHost,
    /// The request does not have the form of a look-up.
    Malformed(Malformed),
    /// The card number breaks its kind's rule.
    Card,
    /// The peer's address may not ask.
    Peer,
    /// The appid is unknown or the token is wrong; which of the two is nobody's business.
    Token,
    /// The transid's stamp is outside the window around the proxy's clock, which stands here.
    StaleTransid(Time),
    /// The transid was used before.
    ReusedTransid,
    /// The ebid is not the client's.
    Ebid,
    /// The client may not ask for this operation.
    Operation,
    /// The client may not ask for this card.
    CardNotAllowed,
    /// No more transids can be remembered for this client; room comes after this long.
    ReplayFull(Duration),
    /// The connection's certificate is not the client's.
    Certificate,
    /// The client asks faster than its rate; a slot is free after this long.
    TooFast(Duration),
    /// `only-if-cached`, and nothing fresh is (RFC 9111 5.2.1.7).
    OnlyIfCached,
    /// Too many requests wait for this card, or too many calls are under way.
    Overloaded,
    /// No answer within the gateway's deadline; the call goes on.
    Deadline,
    /// The carrier refuses the account's own credentials, with this code.
    Credentials(Code),
    /// The carrier could not be asked.
    Carrier(Fault),
    /// The carrier was not asked: to protect the quota, or since it would have been in vain.
    NotSent(NotSent),
    /// The action was begun, as the row of this number says, and its end is not known. Sent again, it might be done twice.
    Begun(Option<i64>),
    /// The client left before there was an answer. Nobody gets this one.
    ClientGone,
    /// The flight ended without a word: a defect of the proxy's.
    TaskFailed,
    /// The audit record could not be committed, so no answer may leave.
    Audit,
}

/// What is wrong with the form of a request.
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
    /// Percent-encoding that is broken, or encodes NUL or what is not UTF-8.
    Encoding,
    /// A parameter stands twice, or in URL and body with different values.
    Duplicate(&'static str),
    /// A parameter is missing or empty.
    Missing(&'static str),
    /// A parameter that the operation's row does not declare.
    Undeclared(ParameterName),
    /// A declared parameter holds what is no short text of unreserved characters.
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

/// The name of a parameter that nobody declared, as far as it can stand in a header: it is a stranger's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParameterName {
    bytes: [u8; 32],
    len: u8,
}

impl ParameterName {
    /// Its first characters; what is neither letter, digit, `-`, `.` nor `_` becomes `?`.
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

    /// The text.
    pub fn as_str(&self) -> &str {
        // ASCII alone is put in.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl Refusal {
    /// The code in the carrier's numbering that gateways understand.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownPath | Self::ForeignHost => "10006",
            Self::Malformed(_) => "10",
            Self::Card => "38",
            Self::Peer | Self::Certificate => "6",
            Self::Token | Self::StaleTransid(_) | Self::ReusedTransid => "7",
            Self::Ebid | Self::Operation => "3",
            Self::CardNotAllowed => "8",
            Self::TooFast(_)
            | Self::ReplayFull(_)
            | Self::NotSent(NotSent::Budget(_) | NotSent::CoolDown(_)) => "72",
            Self::Begun(_) => "99",
            Self::OnlyIfCached
            | Self::ClientGone
            | Self::Overloaded
            | Self::Deadline
            | Self::Credentials(_)
            | Self::Carrier(_)
            | Self::NotSent(
                NotSent::Uncounted(_)
                | NotSent::Breaker(_)
                | NotSent::Credentials(..)
                | NotSent::Unrecorded
                | NotSent::Shutdown,
            )
            | Self::TaskFailed
            | Self::Audit => "73",
        }
    }

    /// What is wrong, in one stable word for metrics and audit.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown-path",
            Self::ForeignHost => "foreign-host",
            Self::Malformed(what) => what.reason(),
            Self::Card => "card-format",
            Self::Peer => "peer",
            Self::Token => "token",
            Self::StaleTransid(_) => "transid-stale",
            Self::ReusedTransid => "transid-reused",
            Self::Ebid => "ebid",
            Self::Operation => "operation",
            Self::CardNotAllowed => "card",
            Self::TooFast(_) => "rate",
            Self::ReplayFull(_) => "replay-full",
            Self::Certificate => "certificate",
            Self::OnlyIfCached => "only-if-cached",
            Self::Overloaded => "crowded",
            Self::Deadline => "deadline",
            Self::Credentials(_) => "carrier-credentials",
            Self::Carrier(fault) => fault.name(),
            Self::NotSent(NotSent::Budget(_)) => "budget",
            Self::NotSent(NotSent::Uncounted(_)) => "budget-uncounted",
            Self::NotSent(NotSent::CoolDown(_)) => "cool-down",
            Self::NotSent(NotSent::Breaker(_)) => "breaker",
            Self::NotSent(NotSent::Credentials(..)) => "carrier-credentials",
            Self::NotSent(NotSent::Unrecorded) => "audit",
            Self::NotSent(NotSent::Shutdown) => "shutdown",
            Self::Begun(_) => "action-begun",
            Self::ClientGone => "client-gone",
            Self::TaskFailed => "lost",
            Self::Audit => "audit",
        }
    }

    /// Whose turn it is: the gateway's ([`Outcome::Refused`]) or ours and the carrier's ([`Outcome::Failed`]).
    pub fn outcome(&self) -> Outcome {
        match (self, self.code()) {
            (Self::NotSent(_) | Self::Begun(_), _) => Outcome::Failed,
            (Self::OnlyIfCached, _) => Outcome::Refused,
            (_, "73") => Outcome::Failed,
            _ => Outcome::Refused,
        }
    }

    /// The HTTP status of the carrier's response, where there was one and it is refused for what it is.
    pub fn carrier_status(&self) -> Option<u16> {
        match self {
            Self::Credentials(_) => Some(200),
            Self::Carrier(fault) => fault.http_status(),
            _ => None,
        }
    }

    /// How long to wait before asking again, where waiting helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooFast(wait) | Self::ReplayFull(wait) => Some(*wait),
            Self::NotSent(not_asked) => Some(not_asked.wait()),
            Self::Overloaded | Self::Deadline | Self::TaskFailed => Some(Duration::from_secs(1)),
            Self::Carrier(_) | Self::Audit => Some(Duration::from_secs(5)),
            Self::Credentials(_) => Some(Duration::from_secs(60)),
            _ => None,
        }
    }
}

impl Malformed {
    fn reason(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::TargetTooLong => "target-too-long",
            Self::BodyTooLong => "body-too-long",
            Self::BodyTruncated => "body-cut-off",
            Self::GetBody => "get-body",
            Self::TransferEncoding => "transfer-encoding",
            Self::Host => "host",
            Self::Encoding => "encoding",
            Self::Duplicate(_) => "doubled-parameter",
            Self::Missing(_) => "missing-parameter",
            Self::Undeclared(_) => "undeclared-parameter",
            Self::Parameter(_) => "parameter-format",
            Self::NoCard => "no-card",
            Self::SeveralCards => "several-cards",
            Self::AppId => "appid-format",
            Self::Transid => "transid-format",
        }
    }
}
