//! API v2: a signed query in the URL; a reply envelope of status, message and result.
//!
//! The classes follow the carrier's error table for API v2. Texts drift between its releases and codes do not, so no
//! text is read here. A code that the table does not have is relayed and never stored ([`Class::Other`]).

use cmiot_signer::{Password, Reply, SignedRequest, Signer, Status, Transid};

use crate::carrier::Call;
use crate::carrier::verdict::{Class, Code, NotAnEnvelope, Verdict};
use crate::config::Account;
use crate::language::{Text, text};
use crate::operation::Parameters;
use crate::printable::is_printable;

/// The field of the user-status reply whose values are card statuses.
const STATUS: &str = "STATUS";

/// A call with its signature.
pub(in crate::carrier) struct SignedCall<'a> {
    signed: SignedRequest<'a>,
    path: &'static str,
    parameters: &'a Parameters,
}

impl<'a> SignedCall<'a> {
    /// `None` where the account has no ebid for the operation.
    pub(super) fn new(
        account: &'a Account,
        password: &'a Password,
        transid: Transid,
        call: Call<'a>,
    ) -> Option<Self> {
        let ebid = account.ebid_of(call.operation)?;
        let signed = Signer::new(&account.appid, ebid, password).sign_transid(transid, call.card);
        Some(Self { signed, path: call.operation.path, parameters: call.parameters })
    }

    /// The URL under a base URL. It holds a token.
    pub(super) fn url(&self, base_url: &str) -> String {
        let mut url = String::with_capacity(320);
        self.signed.write_url(base_url, self.path, &mut url).expect("writing to a String cannot fail");
        if !self.parameters.is_empty() {
            url.push('&');
            url.push_str(self.parameters.as_str());
        }
        url
    }
}

/// Reads a reply; `field` of `result[0]` must be there in a success.
///
/// # Errors
/// [`NotAnEnvelope`] for a body that is not a carrier reply: HTML, truncated, without a status.
pub(super) fn read_reply(body: &[u8], field: &str) -> Result<Verdict, NotAnEnvelope> {
    // The length of the body was limited when it was received.
    let reply = Reply::parse_up_to(body, usize::MAX).map_err(NotAnEnvelope::Unreadable)?;
    let code = Code::parse(reply.code()).ok_or(NotAnEnvelope::Code)?;
    let status = reply.status().filter(|status| !is_blank(status.code()));
    Ok(match class_of(code.as_str()) {
        Class::Ok if field == STATUS && status.is_some() => Verdict { code, class: Class::Ok, status },
        // A success without the field is relayed and replaces no stored entry.
        Class::Ok if field == STATUS || !Reply::has_result_field(body, field) => {
            Verdict { code, class: Class::Other, status: None }
        }
        class => Verdict { code, class, status: None },
    })
}

/// Whether a value has no visible character.
fn is_blank(value: &str) -> bool {
    value.chars().all(|c| c.is_whitespace() || !is_printable(c))
}

/// The verdict of a reply that was stored with its code and card status.
pub(super) fn stored_verdict(code: Code, status: Option<Status>) -> Verdict {
    Verdict { code, class: class_of(code.as_str()), status }
}

/// The code as a metric label. All codes that the table does not have share one label, since a carrier may write any.
pub(super) fn label(code: &Code) -> &str {
    match class_of(code.as_str()) {
        Class::Other => "other",
        _ => code.as_str(),
    }
}

/// The likely cause when the carrier refuses an account with this code, for the operator.
pub(super) fn refusal_hint(code: &Code) -> Text {
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

fn class_of(code: &str) -> Class {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_share_one_label() {
        let label = |code| label(&Code::parse(code).unwrap()).to_owned();
        assert_eq!(["0", "71", "01016"].map(label), ["0", "71", "01016"]);
        assert_eq!(["103", "00", "nonsense", "10006"].map(label), ["other"; 4]);
    }

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

    #[test]
    fn code_99_and_status_99_differ() {
        let envelope = read_reply(br#"{"status":"99","message":"x","result":[]}"#, STATUS).unwrap();
        assert_eq!((envelope.class, envelope.status), (Class::Busy, None));
        let card = read_reply(
            "{\"status\":\"0\",\"message\":\"正确\",\"result\":[{\"STATUS\":\"99\"}]}".as_bytes(),
            STATUS,
        )
        .unwrap();
        assert_eq!((card.class, card.status), (Class::Ok, Some(Status::NoSuchNumber)));
    }

    #[test]
    fn a_success_without_the_field_is_not_stored() {
        let class = |body: &str| read_reply(body.as_bytes(), "GPRSSTATUS").unwrap().class;
        assert_eq!(class(r#"{"status":"0","message":"","result":[{"GPRSSTATUS":"x"}]}"#), Class::Ok);
        for body in [r#"{"status":"0","result":[{"IP":"x"}]}"#, r#"{"status":"0","result":[[]]}"#] {
            assert_eq!(class(body), Class::Other, "{body}");
        }
        for body in [r#"{"status":"0","result":[]}"#, r#"{"status":"0","result":[{"X":"00"}]}"#] {
            assert_eq!(read_reply(body.as_bytes(), STATUS).unwrap().class, Class::Other, "{body}");
        }
    }

    #[test]
    fn a_blank_value_counts_as_missing() {
        for field in [STATUS, "GPRSSTATUS"] {
            for blank in ["", " ", "\\u0000", "\u{3000}\\t", "\\u200b\u{feff}"] {
                let body = format!(r#"{{"status":"0","result":[{{"{field}":"{blank}"}}]}}"#);
                let verdict = read_reply(body.as_bytes(), field).unwrap();
                assert_eq!((verdict.class, verdict.status), (Class::Other, None), "{body}");
            }
        }
    }

    #[test]
    fn other_operations_are_read_as_tolerantly_as_the_status() {
        for body in [
            &b"{\"status\":\"0\",\"message\":\"\xd5\xfd\xc8\xb7\",\"result\":[{\"GPRSSTATUS\":\"00\"}]}"[..],
            b"\xef\xbb\xbf{\"status\":\"0\",\"result\":[{\"GPRSSTATUS\":\"00\"}]}\0\0",
            b"{\"status\":\"0\",\"message\":\"\\ud83d\",\"result\":[{\"IP\":\"\\udc00\",\"GPRSSTATUS\":\"00\"}]}",
            b"{\"status\":\"0\",\"result\":[{\"\\u0047PRSSTATUS\":null},{\"x\":1}]}",
        ] {
            let verdict = read_reply(body, "GPRSSTATUS").unwrap();
            assert_eq!(verdict.class, Class::Ok, "{}", String::from_utf8_lossy(body));
        }
        let other =
            br#"{"status":"0","GPRSSTATUS":"00","result":[{"a":{"GPRSSTATUS":"00"}},{"GPRSSTATUS":"00"}]}"#;
        assert_eq!(
            read_reply(other, "GPRSSTATUS").unwrap().class,
            Class::Other,
            "only the first result's own"
        );
    }

    #[test]
    fn a_body_that_is_not_an_envelope_is_an_error() {
        for body in ["", "<html>502</html>", "{\"status\":\"0\",\"mess", "{}", "[]", "{\"status\":\"a b\"}"] {
            assert!(read_reply(body.as_bytes(), STATUS).is_err(), "{body}");
        }
    }
}
