//! The calls of API v5: paths, numbers and the fields of `result[0]`.

use crate::card::Card;
use crate::v5::reply::{Field, Value};

/// One API of v5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `get/token`: a token for appid and password.
    Token,
    /// 25S04 `sim-status`: the card's `cardStatus`, of two characters (PB) or one (CT).
    SimStatus,
    /// 25M01 `sim-session`: the card's data sessions, one per APN.
    SimSession,
    /// 25M00 `on-off-status`: whether the device is switched on.
    OnOffStatus,
    /// 25U04 `sim-data-usage`: data used this month, in KB.
    DataUsage,
    /// 25U05 `sim-sms-usage`: short messages sent this month.
    SmsUsage,
    /// 23B01 `balance-info`: the balance.
    Balance,
    /// 23S00 `sim-basic-info`: the card's three numbers and its dates.
    BasicInfo,
    /// 25S02 `sim-stop-reason`: why the card is out of service.
    StopReason,
    /// 25M02 `sim-sms-status`: the only *action*: a call changes state at the carrier.
    SmsReset,
}

impl Operation {
    /// Every operation, the token first.
    pub const ALL: [Self; 10] = [
        Self::Token,
        Self::SimStatus,
        Self::SimSession,
        Self::OnOffStatus,
        Self::DataUsage,
        Self::SmsUsage,
        Self::Balance,
        Self::BasicInfo,
        Self::StopReason,
        Self::SmsReset,
    ];

    /// The carrier's number of this API, such as `25S04`; `token` for the token, whose number is not known.
    #[must_use]
    pub const fn api(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::SimStatus => "25S04",
            Self::SimSession => "25M01",
            Self::OnOffStatus => "25M00",
            Self::DataUsage => "25U04",
            Self::SmsUsage => "25U05",
            Self::Balance => "23B01",
            Self::BasicInfo => "23S00",
            Self::StopReason => "25S02",
            Self::SmsReset => "25M02",
        }
    }

    /// Its path below `/v5/ec/`, such as `query/sim-status`.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Token => "get/token",
            Self::SimStatus => "query/sim-status",
            Self::SimSession => "query/sim-session",
            Self::OnOffStatus => "query/on-off-status",
            Self::DataUsage => "query/sim-data-usage",
            Self::SmsUsage => "query/sim-sms-usage",
            Self::Balance => "query/balance-info",
            Self::BasicInfo => "query/sim-basic-info",
            Self::StopReason => "query/sim-stop-reason",
            Self::SmsReset => "reset/sim-sms-status",
        }
    }

    /// The last segment of its path, such as `sim-status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.path().split_once('/').map_or("", |(_, name)| name)
    }

    /// Whether a call changes state at the carrier.
    #[must_use]
    pub const fn is_action(self) -> bool {
        matches!(self, Self::SmsReset)
    }

    /// The fields of `result[0]` for `card`; `verdict` replaces the default value of the first, or of the session's
    /// status. A session with the verdict `""` is an empty list. None for the action, whose result is empty.
    pub(super) fn result(self, card: &Card, verdict: Option<&str>) -> Vec<Field> {
        let text = |name, value: &str| (name, Value::Text(value.to_owned()));
        let first = |name, default: &str| text(name, verdict.unwrap_or(default));
        match self {
            Self::Token | Self::SmsReset => Vec::new(),
            Self::SimStatus => vec![first("cardStatus", "00"), text("lastChangeDate", "20260516103000")],
            Self::SimSession => {
                let session = vec![
                    text("apnId", "CMIOT"),
                    first("status", "01"),
                    text("ip", "10.32.0.17"),
                    text("createDate", "20260516103000"),
                    text("rat", "6"),
                ];
                let sessions = if verdict == Some("") { Vec::new() } else { vec![session] };
                vec![("simSessionList", Value::List(sessions))]
            }
            Self::OnOffStatus => vec![first("status", "1")],
            Self::DataUsage => vec![first("dataAmount", "10240")],
            Self::SmsUsage => vec![first("smsAmount", "3")],
            Self::Balance => vec![first("amount", "12.50")],
            Self::BasicInfo => {
                let mut fields = vec![first("openDate", "2017-05-16"), text("activeDate", "2017-05-17")];
                fields.push((card.kind.parameter(), Value::Text(card.number.clone())));
                fields.push(text("remark", " "));
                fields
            }
            Self::StopReason => vec![
                first("stopReason", "000000000000"),
                text("platformType", "PB"),
                text("shutdownReasonDesc", " "),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_last_segment_of_the_path() {
        assert_eq!(Operation::SimStatus.name(), "sim-status");
        assert_eq!(Operation::Token.name(), "token");
        for one in Operation::ALL {
            assert!(!one.name().is_empty() && !one.name().contains('/'), "{one:?}");
        }
    }
}
