//! The lookups (and the one action) that a carrier account may call.
//!
//! All of them use the same signature and card parameter; they differ in the last segment of the path and in the fields
//! of `result[0]`. The first field is the *verdict field*, whose value a rule's `status=` replaces.

use crate::card::Card;
use crate::v5;

/// One API of the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// 2001 `gprsrealsingle`: whether the card has a data session now.
    Session,
    /// 2002 `userstatusrealsingle`: the card's STATUS.
    Status,
    /// 2005 `gprsusedinfosingle`: data used this month until yesterday, in KB.
    DataUsed,
    /// 2008 `onandoffrealsingle`: whether the device is switched on.
    Power,
    /// 2011 `balancerealsingle`: the account's balance.
    Balance,
    /// 2012 `smsusedinfosingle`: short messages sent this month until yesterday.
    SmsUsed,
    /// 2105 `querycardlifecycle`: the card's life cycle stage.
    Lifecycle,
    /// 2110 `querycardopentime`: the date of the card's activation.
    OpenTime,
    /// 4001 `smsstatusreset`: the only *action*: a call changes state at the carrier.
    SmsReset,
    /// A call of API v5.
    V5(v5::Operation),
}

impl From<v5::Operation> for Operation {
    fn from(operation: v5::Operation) -> Self {
        Self::V5(operation)
    }
}

impl Operation {
    /// Every operation of API v2, in the order of the carrier's numbers.
    pub const ALL: [Self; 9] = [
        Self::Session,
        Self::Status,
        Self::DataUsed,
        Self::Power,
        Self::Balance,
        Self::SmsUsed,
        Self::Lifecycle,
        Self::OpenTime,
        Self::SmsReset,
    ];

    /// The carrier's number of this API, such as `2002` or `25S04`.
    #[must_use]
    pub const fn api(self) -> &'static str {
        match self {
            Self::Session => "2001",
            Self::Status => "2002",
            Self::DataUsed => "2005",
            Self::Power => "2008",
            Self::Balance => "2011",
            Self::SmsUsed => "2012",
            Self::Lifecycle => "2105",
            Self::OpenTime => "2110",
            Self::SmsReset => "4001",
            Self::V5(operation) => operation.api(),
        }
    }

    /// The last segment of its path, such as `userstatusrealsingle`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "gprsrealsingle",
            Self::Status => "userstatusrealsingle",
            Self::DataUsed => "gprsusedinfosingle",
            Self::Power => "onandoffrealsingle",
            Self::Balance => "balancerealsingle",
            Self::SmsUsed => "smsusedinfosingle",
            Self::Lifecycle => "querycardlifecycle",
            Self::OpenTime => "querycardopentime",
            Self::SmsReset => "smsstatusreset",
            Self::V5(operation) => operation.name(),
        }
    }

    /// Whether a call changes state at the carrier.
    #[must_use]
    pub const fn is_action(self) -> bool {
        match self {
            Self::V5(operation) => operation.is_action(),
            _ => matches!(self, Self::SmsReset),
        }
    }

    /// The operation of either API with this name or number (`userstatusrealsingle`, `2002`, `sim-status`, `25S04`).
    #[must_use]
    pub fn find(name_or_api: &str) -> Option<Self> {
        let v5 = v5::Operation::ALL.into_iter().map(Self::V5);
        Self::ALL.into_iter().chain(v5).find(|one| one.name() == name_or_api || one.api() == name_or_api)
    }

    /// The operation of a request path under `prefix`. Doubled slashes are tolerated, as by the carrier.
    pub(crate) fn at(path: &str, prefix: &str) -> Option<Self> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        for expected in prefix.split('/').filter(|segment| !segment.is_empty()) {
            if segments.next() != Some(expected) {
                return None;
            }
        }
        match [segments.next(), segments.next(), segments.next(), segments.next(), segments.next()] {
            [Some("v2"), Some(name), None, ..] => Self::ALL.into_iter().find(|one| one.name() == name),
            [Some("v5"), Some("ec"), Some(folder), Some(name), None] => {
                let is_at = |one: &v5::Operation| one.path().split_once('/') == Some((folder, name));
                v5::Operation::ALL.into_iter().find(is_at).map(Self::V5)
            }
            _ => None,
        }
    }

    /// The fields of `result[0]` for `card`, verdict field first; `verdict` replaces the default value. None for API v5,
    /// whose results `v5/operation.rs` has.
    pub(crate) fn result(self, card: &Card, verdict: Option<&str>) -> Vec<(&'static str, String)> {
        let (field, default) = match self {
            Self::Session => ("GPRSSTATUS", "01"),
            Self::Status => ("STATUS", "00"),
            Self::DataUsed => ("total_gprs", "10240"),
            Self::Power => ("status", "1"),
            Self::Balance => ("balance", "12.50"),
            Self::SmsUsed => ("sms", "3"),
            Self::Lifecycle => ("lifecycle", "2"),
            Self::OpenTime => ("opentime", "2017-05-16"),
            Self::SmsReset => ("status", "0"),
            Self::V5(_) => return Vec::new(),
        };
        let mut fields = vec![(field, verdict.unwrap_or(default).to_owned())];
        match self {
            Self::Session => {
                for (name, value) in [("IP", "10.32.0.17"), ("APN", "CMIOT"), ("RAT", "6")] {
                    fields.push((name, value.to_owned()));
                }
            }
            Self::Lifecycle => fields.push(("opentime", "2017-05-16".to_owned())),
            Self::OpenTime => fields.push((card.kind.parameter(), card.number.clone())),
            _ => {}
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_with_doubled_slashes_and_under_a_prefix() {
        for path in ["/v2/userstatusrealsingle", "//v2//userstatusrealsingle", "/v2/userstatusrealsingle/"] {
            assert_eq!(Operation::at(path, ""), Some(Operation::Status), "{path}");
        }
        assert_eq!(Operation::at("/iot/v2/gprsrealsingle", "/iot"), Some(Operation::Session));
        assert_eq!(Operation::at("/v2/gprsrealsingle", "/iot"), None);
        for one in v5::Operation::ALL {
            assert_eq!(
                Operation::at(&format!("/iot//v5/ec/{}", one.path()), "/iot"),
                Some(Operation::V5(one))
            );
        }
    }

    #[test]
    fn other_paths_have_no_operation() {
        for path in [
            "/",
            "/v2",
            "/v1/userstatusrealsingle",
            "/v2/userstatusrealsingle/x",
            "/v2/USERSTATUS",
            "/v5/ec/get",
            "/v5/query/sim-status",
            "/v5/ec/get/sim-status",
            "/v5/ec/query/sim-status/batch",
        ] {
            assert_eq!(Operation::at(path, ""), None, "{path}");
        }
    }

    #[test]
    fn names_and_numbers_find_their_operation() {
        for one in Operation::ALL {
            assert_eq!(Operation::find(one.name()), Some(one));
            assert_eq!(Operation::find(one.api()), Some(one));
        }
        for one in v5::Operation::ALL {
            assert_eq!(Operation::find(one.name()), Some(Operation::V5(one)));
            assert_eq!(Operation::find(one.api()), Some(Operation::V5(one)));
        }
        assert_eq!(Operation::find("2003"), None);
    }

    #[test]
    fn only_the_reset_is_an_action() {
        let actions: Vec<_> = Operation::ALL.into_iter().filter(|one| one.is_action()).collect();
        assert_eq!(actions, [Operation::SmsReset]);
    }
}
