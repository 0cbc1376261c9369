//! API v2: a signed query in the URL; a reply envelope of status, message and result.
//!
//! A reply is relayed byte for byte. Texts drift between the carrier's releases and codes do not, so no text is read here.

mod tables;

use cmiot_signer::{Reply, Signer, Status, Transid};
use zeroize::Zeroizing;

use super::{Authorization, WireCall};
use crate::carrier::Call;
use crate::carrier::verdict::{Class, Code, NotAnEnvelope, Verdict};
use crate::config::Account;
use crate::printable::is_printable;
use tables::class_of;
pub(super) use tables::{lacks_card, refusal_hint};

/// The field of the user-status reply whose values are card statuses.
const STATUS: &str = "STATUS";

/// A signed call under a base URL. `None` if the account has no ebid for the operation, or no password authorizes it.
pub(super) fn write(
    base_url: &str,
    account: &Account,
    authorization: Authorization<'_>,
    transid: Transid,
    call: Call<'_>,
) -> Option<WireCall> {
    let (ebid, Authorization::Password(password)) = (account.ebid_of(call.operation)?, authorization) else {
        return None;
    };
    let signed = Signer::new(&account.appid, ebid, password).sign_transid(transid, call.card);
    let mut url = Zeroizing::new(String::with_capacity(320));
    signed.write_url(base_url, call.operation.path, &mut *url).expect("writing to a String cannot fail");
    if !call.parameters.is_empty() {
        url.push('&');
        url.push_str(call.parameters.as_str());
    }
    Some(WireCall { url, body: None, wipes_reply: false })
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
