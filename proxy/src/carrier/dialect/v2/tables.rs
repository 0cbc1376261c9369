//! The carrier's error table for API v2: the class of each code. A code that the table does not have is relayed and never
//! stored ([`Class::Other`]).

use crate::carrier::verdict::{Class, Code};
use crate::language::{Text, text};

/// The class of a code.
pub(super) fn class_of(code: &str) -> Class {
    match code {
        "0" => Class::Ok,
        "3" => Class::Subscription,
        "4" | "5" | "6" | "7" | "8" => Class::Credentials,
        "10" | "13" | "14" | "15" | "17" | "18" | "19" | "21" | "23" | "26" | "28" | "29" | "38"
        | "01016" => Class::BadRequest,
        "2" | "9" | "11" | "12" | "22" | "24" | "25" | "27" | "32" | "34" | "35" | "36" | "39" | "40"
        | "41" | "43" | "81" | "205" => Class::NotFound,
        "20" | "42" => Class::NotReady,
        "71" | "72" | "75" => Class::Throttled,
        "1" | "37" | "73" | "74" | "99" | "100" | "101" | "102" | "200" | "201" | "202" | "204" | "300" => {
            Class::Busy
        }
        _ => Class::Other,
    }
}

/// Whether a code says that the account has no such card.
pub(in crate::carrier::dialect) fn lacks_card(code: &Code) -> bool {
    matches!(code.as_str(), "11" | "12" | "24" | "25")
}

/// The likely cause when the carrier refuses an account with this code, for the operator.
pub(in crate::carrier::dialect) fn refusal_hint(code: &Code) -> Text {
    match code.as_str() {
        "3" => text!(
            "the account has no subscription for this operation, or the ebid is wrong",
            "该账号没有订购此能力，或能力编码（ebid）错误"
        ),
        "6" => {
            text!("this machine's address is not on the carrier's allow-list", "本机地址不在运营商的白名单中")
        }
        "7" => text!(
            "appid or password wrong, or this machine's clock",
            "应用编码（appid）或密码错误，或本机时钟有误"
        ),
        _ => text!("the carrier refuses the account", "运营商拒绝该账号"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listed_code_has_its_class() {
        let listed = |from: u32, to: u32| (from..=to).map(|code| code.to_string());
        assert_eq!(class_of("3"), Class::Subscription);
        for code in listed(4, 8) {
            assert_eq!(class_of(&code), Class::Credentials, "{code}");
        }
        for code in listed(17, 19).chain(listed(13, 15)).chain(["10", "38", "01016"].map(str::to_owned)) {
            assert_eq!(class_of(&code), Class::BadRequest, "{code}");
        }
        for code in listed(34, 36).chain(listed(39, 41)).chain(["12", "205"].map(str::to_owned)) {
            assert_eq!(class_of(&code), Class::NotFound, "{code}");
        }
        for code in listed(200, 202).chain(listed(100, 102)) {
            assert_eq!(class_of(&code), Class::Busy, "{code}");
        }
        for code in ["103", "203", "10006", "00", "nonsense"] {
            assert_eq!(class_of(code), Class::Other, "{code}");
        }
    }
}
