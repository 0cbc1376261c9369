//! The tables of API v5: paths, fields, card states and codes, and the values that a gateway of API v2 gets for each.
//!
//! No public page documents API v5: the tables come from code that runs against it, and `docs/carrier-side.md` says how
//! sure each fact is. Each correction is one line here.

use cmiot_signer::{Card, CardKind};

use crate::carrier::verdict::{Class, Code, Usage};
use crate::language::{Text, text};

/// The path of a request for a token.
pub(super) const TOKEN_PATH: &str = "/v5/ec/get/token";

/// The longest token that is accepted, in bytes.
pub(super) const MAX_TOKEN: usize = 512;

/// A text that some replies have in the place of a token.
pub(super) const NO_TOKEN: &str = "-1";

/// An operation of v2 and the query that serves it.
pub(super) struct Twin {
    /// The name of the operation of v2.
    pub(super) operation: &'static str,
    /// The path of the query under the base URL.
    pub(super) path: &'static str,
    pub(super) result: ResultForm,
}

/// The form of `result[0]`.
pub(super) enum ResultForm {
    /// The card state in `cardStatus`: STATUS in v2.
    CardState,
    /// A list of sessions, one per APN: the first one that is online, or else the first, in v2.
    Sessions,
    /// Fields with the same values: the name in v2, and the names in v5.
    Fields(&'static [(&'static str, &'static [&'static str])]),
    /// An action without a result of its own: this field and value in v2.
    Done(&'static str, &'static str),
}

/// The queries, in the order of the operations of v2: 2001, 2002, 2005, 2008, 2011, 2012, 2110 and the action 4001; then
/// the stop reason, which v2 does not have.
pub(super) const TWINS: [Twin; 9] = [
    // 25M01
    twin("gprsrealsingle", "/v5/ec/query/sim-session", ResultForm::Sessions),
    // 25S04
    twin("userstatusrealsingle", "/v5/ec/query/sim-status", ResultForm::CardState),
    // 25U04: KB, possibly with decimals
    twin(
        "gprsusedinfosingle",
        "/v5/ec/query/sim-data-usage",
        ResultForm::Fields(&[("total_gprs", &["dataAmount"])]),
    ),
    // 25M00
    twin("onandoffrealsingle", "/v5/ec/query/on-off-status", ResultForm::Fields(&[("status", &["status"])])),
    // 23B01
    twin("balancerealsingle", "/v5/ec/query/balance-info", ResultForm::Fields(&[("balance", &["amount"])])),
    // 25U05
    twin(
        "smsusedinfosingle",
        "/v5/ec/query/sim-sms-usage",
        ResultForm::Fields(&[("sms", &["smsAmount", "count"])]),
    ),
    // 23S00
    twin(
        "querycardopentime",
        "/v5/ec/query/sim-basic-info",
        ResultForm::Fields(&[
            ("msisdn", &["msisdn"]),
            ("iccid", &["iccid"]),
            ("imsi", &["imsi"]),
            ("opentime", &["openDate"]),
            ("activetime", &["activeDate"]),
        ]),
    ),
    // 25M02
    twin("smsstatusreset", "/v5/ec/reset/sim-sms-status", ResultForm::Done("status", "0")),
    // 25S02: the names on the left are those of the admin API
    twin(
        "sim-stop-reason",
        "/v5/ec/query/sim-stop-reason",
        ResultForm::Fields(&[
            ("stop_reason", &["stopReason"]),
            ("platform", &["platformType"]),
            ("description", &["shutdownReasonDesc"]),
        ]),
    ),
];

const fn twin(operation: &'static str, path: &'static str, result: ResultForm) -> Twin {
    Twin { operation, path, result }
}

/// The field of a card state, and those of a session.
pub(super) const CARD_STATE: &str = "cardStatus";
pub(super) const SESSIONS: &str = "simSessionList";
pub(super) const SESSION_STATUS: &str = "status";
pub(super) const ONLINE: &str = "01";
pub(super) const OFFLINE: &str = "00";
/// Fields of a session in addition to its status: the name in v2, and the name in v5.
pub(super) const SESSION_FIELDS: [(&str, &str); 3] = [("IP", "ip"), ("APN", "apnId"), ("RAT", "rat")];

/// The platform that a card belongs to. Its card states have an alphabet of their own: as numbers, the two alphabets would
/// collide (`02` and `2` differ), so a state is never read as a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Platform {
    /// The older one: two characters, as the STATUS of v2.
    Pb,
    /// The newer one: one character.
    Ct,
}

impl Platform {
    /// When the usage of a card of this platform is counted: on the older one until the end of the day before.
    pub(super) fn usage(self) -> Usage {
        match self {
            Self::Pb => Usage::Daily,
            Self::Ct => Usage::RealTime,
        }
    }

    /// The platform whose alphabet has states of this length.
    pub(super) fn of(state: &str) -> Option<Self> {
        match state.len() {
            1 => Some(Self::Ct),
            2 => Some(Self::Pb),
            _ => None,
        }
    }
}

/// The card states that v2 has a STATUS for, and that STATUS. `6` (可测试) and `7` (库存) of the newer platform have none.
const STATES: [(Platform, &str, &str); 14] = [
    (Platform::Pb, "00", "00"),
    (Platform::Pb, "01", "01"),
    (Platform::Pb, "02", "02"),
    (Platform::Pb, "03", "03"),
    (Platform::Pb, "04", "04"),
    (Platform::Pb, "05", "05"),
    (Platform::Pb, "06", "06"),
    (Platform::Pb, "07", "07"),
    (Platform::Pb, "99", "99"),
    // 待激活
    (Platform::Ct, "1", "07"),
    // 已激活
    (Platform::Ct, "2", "00"),
    // 停机: one value for one-way and full
    (Platform::Ct, "4", "02"),
    // 预销户
    (Platform::Ct, "8", "03"),
    // 已销户
    (Platform::Ct, "9", "04"),
];

/// The STATUS of v2 for a card state; none if v2 has none.
pub(super) fn status_of(state: &str) -> Option<&'static str> {
    let platform = Platform::of(state)?;
    STATES.iter().find(|(of, name, _)| *of == platform && *name == state).map(|(.., status)| *status)
}

/// The number of digits of a stop reason.
pub(super) const STOP_DIGITS: usize = 12;
/// A digit of a stop reason that does not apply, and of one that does.
pub(super) const NO_STOP: char = '0';
pub(super) const STOP: char = '2';

/// The meaning of the digit at this position, from 1 at the left; none of a position that the table does not have. Several
/// digits may apply to a card.
pub(super) fn stop_meaning(position: usize) -> Option<Text> {
    Some(match position {
        1 => text!("the narrow-band product has expired", "窄带商品到期停机"),
        2 => text!("the card was moved to another device", "机卡分离停机"),
        4 => text!("stopped by the management of M2M", "M2M管理停机"),
        5 => text!("credit control", "信控停机"),
        9 => text!("both ways, by the customer's own wish", "主动双向停机"),
        10 => text!("outside its region", "区域限制停机"),
        11 => text!("both ways, forced", "强制双向停机"),
        _ => return None,
    })
}

/// The code that a gateway of v2 gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GatewayCode {
    /// The carrier's own.
    Same,
    /// This one of v2.
    Fixed(&'static str),
    /// The one of v2 for "no such card" by the kind of number that was sent.
    Card,
}

/// The meaning of a code.
pub(super) struct Meaning {
    pub(super) class: Class,
    pub(super) gateway: GatewayCode,
}

/// The code of a success.
pub(super) const OK: &str = "0";
/// The code for a path that the carrier does not have: the base URL is wrong.
pub(super) const NO_PATH: &str = "10006";
/// The code of v2 for a card state that v2 does not have.
pub(super) const UNTRANSLATABLE: &str = "81";

/// The meaning of a code; none of a code that the table does not have. `is_action` is whether the call changes something.
pub(super) fn meaning(code: &str, is_action: bool) -> Option<Meaning> {
    use GatewayCode::{Card, Fixed, Same};
    let (class, gateway) = match code {
        OK => (Class::Ok, Same),
        "11000" => (Class::BadRequest, Fixed("10")),
        "11011" | "12007" | "12008" | "12009" | "12010" => (Class::NotFound, Card),
        "12034" => (Class::NotFound, Fixed("9")),
        "12199" => (Class::NotFound, Fixed("205")),
        "12021" => (Class::TokenRefused, Fixed("73")),
        "12004" | "12022" => (Class::Credentials, Fixed("73")),
        "12047" | "12048" | "12089" | "12098" | "12099" | "12100" if is_action => (Class::Other, Same),
        "13000" => (Class::Throttled, Fixed("73")),
        "19010" => (Class::Busy, Fixed("1")),
        NO_PATH => (Class::Unknown, Fixed("73")),
        _ => return None,
    };
    Some(Meaning { class, gateway })
}

/// The meaning of a code that the table does not have: it may be a code for too many calls.
pub(super) const UNKNOWN: Meaning = Meaning { class: Class::Unknown, gateway: GatewayCode::Fixed("1") };

/// The code of v2 for a card that the account does not have.
pub(super) fn card_code(card: &Card) -> &'static str {
    match card.kind() {
        CardKind::Msisdn => "12",
        CardKind::Imsi => "24",
        CardKind::Iccid => "25",
    }
}

/// The text of an envelope of v2 with this code.
pub(super) fn text_of(code: &str) -> &'static str {
    match code {
        OK => "正确",
        "1" => "操作失败，请稍后再试",
        "9" => "该群组不属于所查询的集团",
        "10" => "请求参数不正确，请参考能力调用文档",
        "12" => "MSISDN不是所查询的集团下的用户",
        "24" => "IMSI不是所查询的集团下的用户",
        "25" => "ICCID不是所查询的集团下的用户",
        "73" => "系统忙，请稍后再试",
        UNTRANSLATABLE => "该卡状态没有对应的取值",
        "205" => "该用户没有订购此产品",
        _ => "调用失败",
    }
}

/// The likely cause when the carrier refuses an account with this code, for the operator.
pub(super) fn refusal_hint(code: &Code) -> Option<Text> {
    Some(match code.as_str() {
        "12004" => text!("the carrier does not know the appid", "运营商不认识该应用编码（appid）"),
        "12021" => text!(
            "the carrier refuses a token that it has just issued: another program may use this appid",
            "运营商拒绝刚刚发放的 token：可能有其他程序使用该应用编码（appid）"
        ),
        "12022" => text!("the password is wrong", "密码错误"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{BUILT_IN, STOP_REASON};
    use proptest::prelude::*;

    #[test]
    fn the_operations_with_a_twin_are_those_of_the_table() {
        for operation in &BUILT_IN {
            let twin = TWINS.iter().any(|twin| twin.operation == operation.name);
            assert_eq!(operation.v5, twin, "{}", operation.name);
        }
        assert!(TWINS.iter().any(|twin| twin.operation == STOP_REASON.name));
        assert_eq!(TWINS.len(), BUILT_IN.iter().filter(|one| one.v5).count() + 1);
    }

    #[test]
    fn each_card_state_has_the_status_of_its_platform() {
        for (state, status) in [
            ("00", "00"),
            ("02", "02"),
            ("99", "99"),
            ("1", "07"),
            ("2", "00"),
            ("4", "02"),
            ("8", "03"),
            ("9", "04"),
        ] {
            assert_eq!(status_of(state), Some(status), "{state}");
        }
        for state in ["", "6", "7", "0", "3", "5", "08", "002", " 2", "2 ", "+2", "0x"] {
            assert_eq!(status_of(state), None, "{state}");
        }
    }

    proptest! {
        #[test]
        fn states_that_are_equal_as_numbers_differ(number in 0_u32..100) {
            let (short, long) = (number.to_string(), format!("{number:02}"));
            if short.len() == 1 {
                prop_assert_ne!(Platform::of(&short), Platform::of(&long));
                // 1-4, 8 and 9 have different meanings on the two platforms.
                if let (Some(ct), Some(pb)) = (status_of(&short), status_of(&long)) {
                    prop_assert_ne!(ct, pb);
                }
            }
        }
    }

    #[test]
    fn a_code_of_actions_is_unknown_in_a_lookup() {
        assert!(meaning("12047", false).is_none());
        assert_eq!(meaning("12047", true).map(|meaning| meaning.gateway), Some(GatewayCode::Same));
    }
}
