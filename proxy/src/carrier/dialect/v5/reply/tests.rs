//! Replies of API v5, and the reply of v2 for each.

use cmiot_signer::{Card, CardKind};
use proptest::prelude::*;

use super::*;
use crate::config::{CallMethod, TokenRefresh};
use crate::operation::{BUILT_IN, Operation, Parameters, USER_STATUS};

fn operation(name: &str) -> &'static Operation {
    BUILT_IN.iter().find(|one| one.name == name).unwrap()
}

fn access(untranslatable: &[(&str, &str)]) -> TokenAccess {
    TokenAccess {
        base_url: None,
        method: CallMethod::Post,
        refresh: TokenRefresh::Keep,
        untranslatable: untranslatable
            .iter()
            .map(|(state, status)| ((*state).into(), (*status).into()))
            .collect(),
        secrets: Vec::new(),
    }
}

fn read_as(
    kind: CardKind,
    number: &str,
    operation: &'static Operation,
    body: &[u8],
    untranslatable: &[(&str, &str)],
) -> Result<Read, NotAnEnvelope> {
    let (card, parameters) = (Card::parse(kind, number).unwrap(), Parameters::default());
    read(body, Call { operation, card: &card, parameters: &parameters }, &access(untranslatable))
}

fn msisdn(operation: &'static Operation, body: &str) -> Read {
    read_as(CardKind::Msisdn, "14765004176", operation, body.as_bytes(), &[]).unwrap()
}

fn body(read: &Read) -> &str {
    std::str::from_utf8(read.body.as_ref().unwrap()).unwrap()
}

fn state(state: &str) -> String {
    format!(
        r#"{{"status":"0","message":"正确","result":[{{"cardStatus":{state},"lastChangeDate":"2026-01-15"}}]}}"#
    )
}

#[test]
fn each_alphabet_keeps_its_meaning() {
    for (written, status) in [
        (r#""02""#, "02"),
        (r#""2""#, "00"),
        ("2", "00"),
        (r#""01""#, "01"),
        (r#""1""#, "07"),
        (r#""04""#, "04"),
        (r#""4""#, "02"),
        (r#"" 8 ""#, "03"),
        (r#""9""#, "04"),
        (r#""99""#, "99"),
    ] {
        let read = msisdn(USER_STATUS, &state(written));
        assert_eq!(
            body(&read),
            format!(r#"{{"status":"0","message":"正确","result":[{{"STATUS":"{status}"}}]}}"#)
        );
        assert_eq!((read.verdict.class, read.verdict.status.unwrap().code()), (Class::Ok, status));
        let said = read.translated.unwrap();
        let raw = written.trim_matches('"').trim();
        assert_eq!((said.state.unwrap().as_str(), said.note.as_deref()), (raw, None));
    }
}

#[test]
fn a_state_that_v2_does_not_have_is_code_81_unless_the_operator_decides() {
    for written in ["6", "7", "5", "08", "0x", "2.0", "002"] {
        let read = msisdn(USER_STATUS, &state(&format!("\"{written}\"")));
        assert_eq!((read.verdict.code.as_str(), read.verdict.class), ("81", Class::NotFound), "{written}");
        let said = read.translated.unwrap();
        assert_eq!(said.note.as_deref(), Some(&*format!("carrier cardStatus {written}")));
        assert_eq!(said.state.unwrap().as_str(), written);
    }
    let decided = |written: &str| {
        let body = state(&format!("\"{written}\""));
        let decisions = [("6", "00"), ("2", "04")];
        read_as(CardKind::Msisdn, "14765004176", USER_STATUS, body.as_bytes(), &decisions).unwrap()
    };
    assert_eq!(decided("6").verdict.status.unwrap().code(), "00");
    assert_eq!(decided("6").translated.unwrap().state.unwrap().as_str(), "6");
    assert_eq!(decided("7").verdict.code.as_str(), "81");
    assert_eq!(decided("2").verdict.status.unwrap().code(), "00", "the table has it");
}

#[test]
fn a_card_that_is_not_there_is_refused_by_the_kind_of_its_number() {
    for code in ["11011", "12007", "12008", "12009", "12010"] {
        let written = format!(r#"{{"status":"{code}","message":"x","result":[]}}"#);
        for (kind, number, expected) in [
            (CardKind::Msisdn, "14765004176", "12"),
            (CardKind::Imsi, "460079650004176", "24"),
            (CardKind::Iccid, "898600D6991330004146", "25"),
        ] {
            let read = read_as(kind, number, USER_STATUS, written.as_bytes(), &[]).unwrap();
            assert_eq!((read.verdict.code.as_str(), read.verdict.class), (expected, Class::NotFound));
            assert_eq!(read.translated.unwrap().note.as_deref(), Some(&*format!("carrier code {code}")));
        }
    }
}

#[test]
fn each_code_has_its_class_and_the_code_of_v2() {
    for (code, gateway, class) in [
        ("11000", "10", Class::BadRequest),
        ("12034", "9", Class::NotFound),
        ("12199", "205", Class::NotFound),
        ("12021", "73", Class::TokenRefused),
        ("12004", "73", Class::Credentials),
        ("12022", "73", Class::Credentials),
        ("13000", "73", Class::Throttled),
        ("19010", "1", Class::Busy),
        ("10006", "73", Class::Unknown),
        ("12047", "1", Class::Unknown),
        ("77777", "1", Class::Unknown),
    ] {
        for written in [format!("\"{code}\""), code.to_owned()] {
            let read =
                msisdn(USER_STATUS, &format!(r#"{{"status":{written},"message":"忙\"","result":[]}}"#));
            assert_eq!((read.verdict.code.as_str(), read.verdict.class), (gateway, class), "{code}");
            // A stored row and another node read it in the form of v2.
            assert!(v2::read_reply(read.body.as_ref().unwrap(), "STATUS").is_ok());
        }
    }
    let unknown = msisdn(USER_STATUS, r#"{"status":"77777","message":"忙\" 1","result":[]}"#);
    assert_eq!(unknown.translated.unwrap().note.as_deref(), Some("carrier code 77777 %E5%BF%99%22 1"));
    let action =
        msisdn(operation("smsstatusreset"), r#"{"status":"12047","message":"已是\"该状态","result":[]}"#);
    assert_eq!(body(&action), r#"{"status":"12047","message":"已是\"该状态","result":[]}"#);
    assert_eq!(action.verdict.class, Class::Other);
}

#[test]
fn each_operation_has_the_fields_of_v2() {
    for (name, result, expected) in [
        (
            "gprsrealsingle",
            r#"{"simSessionList":[{"apnId":"A","status":"00","rat":"6"},{"apnId":"B","status":"01","ip":"10.0.0.1","rat":"8"}]}"#,
            r#"{"GPRSSTATUS":"01","IP":"10.0.0.1","APN":"B","RAT":"8"}"#,
        ),
        ("gprsrealsingle", r#"{"simSessionList":[]}"#, r#"{"GPRSSTATUS":"00","IP":"","APN":"","RAT":""}"#),
        ("onandoffrealsingle", r#"{"status":"1"}"#, r#"{"status":"1"}"#),
        ("gprsusedinfosingle", r#"{"dataAmount":"1024.50"}"#, r#"{"total_gprs":"1024.50"}"#),
        ("gprsusedinfosingle", r#"{"dataAmount":10240}"#, r#"{"total_gprs":"10240"}"#),
        ("smsusedinfosingle", r#"{"smsAmount":"3"}"#, r#"{"sms":"3"}"#),
        ("balancerealsingle", r#"{"amount":"12.50"}"#, r#"{"balance":"12.50"}"#),
        (
            "querycardopentime",
            r#"{"msisdn":"1","imsi":"2","iccid":"3","activeDate":" ","openDate":"2017-05-16","remark":" "}"#,
            r#"{"msisdn":"1","iccid":"3","imsi":"2","opentime":"2017-05-16","activetime":""}"#,
        ),
        ("smsstatusreset", "{}", r#"{"status":"0"}"#),
    ] {
        let read = msisdn(operation(name), &format!(r#"{{"status":"0","message":"x","result":[{result}]}}"#));
        assert_eq!(body(&read), format!(r#"{{"status":"0","message":"正确","result":[{expected}]}}"#));
        assert_eq!(read.verdict.class, Class::Ok, "{name}");
    }
    for (name, result) in [
        ("gprsusedinfosingle", r#"{"dataAmount":" "}"#),
        ("gprsusedinfosingle", "{}"),
        ("gprsrealsingle", "{}"),
        ("userstatusrealsingle", r#"{"cardStatus":" "}"#),
        ("userstatusrealsingle", r#"{"cardStatus":null}"#),
    ] {
        let read = msisdn(operation(name), &format!(r#"{{"status":"0","message":"x","result":[{result}]}}"#));
        assert_eq!(read.verdict.class, Class::Other, "{name} {result}: without a result nothing is stored");
    }
}

#[test]
fn a_token_has_its_time_in_any_form() {
    let read = |ttl: &str| {
        let body = format!(r#"{{"status":"0","message":"x","result":[{{"token":"T-1_a/b=" {ttl}}}]}}"#);
        match read_token(body.as_bytes()) {
            Ok(TokenReply::Token { token, ttl }) => (token.as_str().to_owned(), ttl.map(|ttl| ttl.as_secs())),
            _ => panic!("{ttl}"),
        }
    };
    for (written, seconds) in [
        (r#", "ttl":"3600""#, Some(3_600)),
        (r#", "ttl":3600"#, Some(3_600)),
        (r#", "ttl":"59.9""#, Some(59)),
        ("", None),
        (r#", "ttl":"0""#, None),
        (r#", "ttl":0"#, None),
        (r#", "ttl":null"#, None),
        (r#", "ttl":"soon""#, None),
        (r#", "ttl":"-1""#, None),
        (r#", "ttl":"99999999999999999999""#, None),
    ] {
        assert_eq!(read(written), ("T-1_a/b=".to_owned(), seconds), "{written}");
    }
}

#[test]
fn what_is_no_token_is_none() {
    let long = "x".repeat(513);
    for token in ["\"-1\"", "\"\"", "null", "7", "\"a b\"", "\"密\"", &format!("\"{long}\"")] {
        let body = format!(r#"{{"status":"0","message":"x","result":[{{"token":{token}}}]}}"#);
        assert!(matches!(read_token(body.as_bytes()), Err(NotAnEnvelope::NoToken)), "{token}");
    }
    for (code, class) in [
        ("12022", Class::Credentials),
        ("13000", Class::Throttled),
        // Without a token no call can be made: the breaker counts these.
        ("12021", Class::Busy),
        ("77777", Class::Busy),
    ] {
        let body = format!(r#"{{"status":"{code}","message":"x","result":[{{"token":"-1"}}]}}"#);
        let Ok(TokenReply::Refused(read)) = read_token(body.as_bytes()) else { panic!("{code}") };
        assert_eq!((read.verdict.class, read.translated.unwrap().code.as_str()), (class, code));
    }
}

#[test]
fn what_is_written_of_a_reply_is_read_back() {
    for body in
        [state("\"2\""), state("\"6\""), r#"{"status":"77777","message":"忙 x","result":[]}"#.to_owned()]
    {
        let said = msisdn(USER_STATUS, &body).translated.unwrap();
        for usage in [Usage::Daily, Usage::RealTime, Usage::Unknown] {
            let said = Translated { usage, ..(*said).clone() };
            let read = Translated::read(&said.written()).unwrap();
            assert_eq!((read.code, &read.note, read.usage), (said.code, &said.note, usage));
        }
    }
    for wrong in
        ["", "0/", "0/weekly", "0/daily/", "/daily", "a b\"c", "a b\\c", "a\nb", "密", "12345678901234567"]
    {
        assert_eq!(Translated::read(wrong), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_reply_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for operation in &BUILT_IN {
            let _ = read_as(CardKind::Msisdn, "14765004176", operation, &bytes, &[]);
        }
        let _ = read_token(&bytes);
    }

    #[test]
    fn any_state_has_its_status_or_none(written in "[0-9a-z ]{0,4}", escaped in any::<bool>()) {
        let text = if escaped {
            written.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect()
        } else {
            written.clone()
        };
        let read = msisdn(USER_STATUS, &state(&format!("\"{text}\"")));
        let status = read.verdict.status.map(|status| status.code().to_owned());
        prop_assert_eq!(status.as_deref(), tables::status_of(written.trim()));
        if read.verdict.class != Class::Other {
            let said = read.translated.unwrap();
            prop_assert_eq!(said.state.unwrap().as_str().to_owned(), written.trim());
        }
    }
}

#[test]
fn an_escaped_token_is_read_like_a_plain_one() {
    for (written, token) in [
        (r"a\/b", "a/b"),
        (r"YQ\u003d\u003D\u002b", "YQ==+"),
        (r"a\\/b", r"a\/b"),
        (r#"a\"b\u0022c\u005cd"#, r#"a"b"c\d"#),
    ] {
        let body = format!("\u{feff}{{\"status\":\"0\",\"result\":[{{\"token\":\"{written}\"}}]}}");
        let mut body = body.into_bytes();
        let read = |body: &[u8]| match read_token(body) {
            Ok(TokenReply::Token { token, .. }) => Some(token.as_str().to_owned()),
            _ => None,
        };
        assert_eq!(read(&body).as_deref(), Some(token), "{written}");
        // With a text in GBK.
        let end = body.len() - 1;
        body.splice(end..end, b",\"message\":\"\xd5\xfd\"".iter().copied());
        assert_eq!(read(&body).as_deref(), Some(token), "{written}");
    }
    for wrong in [r"a\u0020b", r"a\", r"a\u00", r"\u002d1", r"a\u00e9"] {
        let body = format!("{{\"status\":\"0\",\"result\":[{{\"token\":\"{wrong}\"}}]}}");
        assert!(read_token(body.as_bytes()).is_err(), "{wrong}");
    }
}
