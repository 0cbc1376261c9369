//! API v5: known answers, every rule of its reader, and properties of every input.
#![cfg(feature = "v5")]
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use cmiot_signer::v5::{
    CardStatus, CtStatus, Operation, Query, Refusal, Reply, SecretError, TOKEN_PATH, Token, TokenReply,
    TokenRequest, TokenStore,
};
use cmiot_signer::{
    BufferTooSmall, Card, CardKind, Error, Password, Reply as V2Reply, ReplyError, Status, Transid,
};
use proptest::prelude::*;

/// The text that a function writes; `len` is what it announced.
fn text(len: usize, write: impl FnOnce(&mut [u8]) -> Result<usize, BufferTooSmall>) -> String {
    let mut buffer = vec![0; len];
    assert_eq!(write(&mut buffer), Ok(len));
    String::from_utf8(buffer).unwrap()
}

fn status_reply(value: &str) -> String {
    format!(r#"{{"status":"0","message":"正确","result":[{{"cardStatus":{value},"lastChangeDate":" "}}]}}"#)
}

fn status(value: &str) -> CardStatus {
    Reply::scan(status_reply(value).as_bytes()).unwrap().into_status().unwrap()
}

fn token_reply(result: &str) -> String {
    format!(r#"{{"status":"0","message":"正确","result":[{{{result}}}]}}"#)
}

#[test]
fn every_vector_is_written() {
    let rows = include_str!("v5.tsv").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for row in rows {
        let columns: Vec<&str> = row.split('\t').collect();
        let [kind, transid, secret, refresh, card, body, query] = columns[..] else {
            panic!("not seven columns: {row}");
        };
        let transid = Transid::parse(transid).unwrap();
        if kind == "token" {
            let password = Password::new(secret.as_bytes()).unwrap();
            let request = TokenRequest::new(transid, &password).unwrap();
            let request = if refresh == "1" { request.renewing() } else { request };
            assert_eq!(text(request.body_len(), |out| request.body_into(out)), body);
            assert_eq!(text(request.query_len(), |out| request.query_into(out)), query);
        } else {
            let kind = [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi]
                .into_iter()
                .find(|one| one.as_str() == kind)
                .unwrap();
            let card = Card::parse(kind, card).unwrap();
            let request = Query::new(transid, Token::parse(secret.as_bytes()).unwrap(), &card);
            assert_eq!(text(request.body_len(), |out| request.body_into(out)), body);
            assert_eq!(text(request.query_len(), |out| request.query_into(out)), query);
        }
        count += 1;
    }
    assert!(count > 30, "{count}");
}

#[test]
fn paths_are_those_of_public_clients() {
    assert_eq!(TOKEN_PATH, "/v5/ec/get/token");
    assert_eq!(Operation::SimStatus.path(), "/v5/ec/query/sim-status");
    assert_eq!(Operation::SmsReset.path(), "/v5/ec/reset/sim-sms-status");
}

#[test]
fn the_two_alphabets_are_kept_apart() {
    for (code, expected, v2) in [
        ("00", CardStatus::Pb(Status::Normal), Some("00")),
        ("01", CardStatus::Pb(Status::OneWayBarred), Some("01")),
        ("02", CardStatus::Pb(Status::Barred), Some("02")),
        ("03", CardStatus::Pb(Status::PreCancelled), Some("03")),
        ("04", CardStatus::Pb(Status::Cancelled), Some("04")),
        ("05", CardStatus::Pb(Status::Transferred), Some("05")),
        ("06", CardStatus::Pb(Status::Dormant), Some("06")),
        ("07", CardStatus::Pb(Status::AwaitingActivation), Some("07")),
        ("99", CardStatus::Pb(Status::NoSuchNumber), Some("99")),
        ("1", CardStatus::Ct(CtStatus::AwaitingActivation), Some("07")),
        ("2", CardStatus::Ct(CtStatus::Active), Some("00")),
        ("4", CardStatus::Ct(CtStatus::Barred), Some("02")),
        ("6", CardStatus::Ct(CtStatus::Testing), None),
        ("7", CardStatus::Ct(CtStatus::InStock), None),
        ("8", CardStatus::Ct(CtStatus::PreCancelled), Some("03")),
        ("9", CardStatus::Ct(CtStatus::Cancelled), Some("04")),
    ] {
        let read = status(&format!("\"{code}\""));
        assert_eq!((read, CardStatus::from_code(code)), (expected, expected));
        assert_eq!((read.code(), read.code_bytes()), (code, code.as_bytes()));
        assert_eq!(read.as_v2().map(|status| status.code().to_owned()).as_deref(), v2, "{code}");
    }
}

#[test]
fn any_other_status_is_unknown_and_kept() {
    for code in ["", " ", "0", "3", "5", "08", "002", "2 ", " 2", "+2", "x", "待激活"] {
        let read = status(&format!("\"{code}\""));
        assert!(matches!(read, CardStatus::Unknown(_)), "{code}: {read:?}");
        assert_eq!((read.code(), read.as_v2()), (code, None));
        assert_eq!(read, CardStatus::from_code(code));
    }
    assert_eq!(status(&format!("\"{}\"", "x".repeat(40))).code(), "x".repeat(16));
}

#[test]
fn a_status_as_a_number_is_unknown() {
    for number in ["2", "99", "0", "2.0"] {
        let read = status(number);
        assert!(matches!(read, CardStatus::Unknown(_)), "{number}: {read:?}");
        assert_eq!(read.code(), number);
    }
    for other in ["null", "true", "[]", "{}"] {
        let body = status_reply(other);
        assert_eq!(Reply::scan(body.as_bytes()).unwrap().into_status(), Err(Refusal::NoStatus), "{other}");
    }
}

#[test]
fn refusals_are_told_apart() {
    let read = |body: &'static str| Reply::scan(body.as_bytes()).unwrap();
    let expired = read(r#"{"status":"12021","message":"TOKEN已过期","result":[]}"#);
    assert!(expired.is_token_expired());
    assert_eq!(expired.into_status(), Err(Refusal::TokenExpired));
    assert_eq!(Error::from(Refusal::TokenExpired), Error::TokenExpired);
    let refused = read(r#"{"status":11011,"message":"no"}"#);
    let Err(Refusal::Refused { code, message }) = refused.into_status() else { panic!("{refused:?}") };
    assert_eq!((code.as_str(), message.to_string().as_str()), ("11011", "no"));
    assert_eq!(read(r#"{"status":"0","result":[]}"#).into_status(), Err(Refusal::NoResult));
    assert_eq!(read(r#"{"status":"0","result":[{"STATUS":"00"}]}"#).into_status(), Err(Refusal::NoStatus));
    assert_eq!(
        read(r#"{"status":"0","result":[{},{"cardStatus":"2"}]}"#).into_status(),
        Err(Refusal::NoStatus)
    );
}

#[test]
fn a_body_that_is_no_reply_has_the_errors_of_v2() {
    for (body, error) in [
        ("", ReplyError::Truncated),
        ("<html>", ReplyError::NotJson),
        ("{\"status\":\"0\"", ReplyError::Truncated),
        ("{\"status\":\"0\",}", ReplyError::Malformed),
        ("{\"message\":\"x\"}", ReplyError::NotEnvelope),
        ("{\"status\":\"0\",\"status\":\"1\"}", ReplyError::DuplicateKey),
        ("{\"status\":\"0\",\"result\":[],\"result\":[]}", ReplyError::DuplicateKey),
        (
            "{\"status\":\"0\",\"result\":[{\"cardStatus\":\"2\",\"cardStatus\":\"02\"}]}",
            ReplyError::DuplicateKey,
        ),
    ] {
        assert_eq!(Reply::scan(body.as_bytes()).err(), Some(error), "{body}");
    }
    let twice = token_reply(r#""token":"a","token":"b""#);
    assert_eq!(TokenReply::scan(twice.as_bytes()).err(), Some(ReplyError::DuplicateKey));
    let twice = token_reply(r#""token":"a","ttl":1,"ttl":2"#);
    assert_eq!(TokenReply::scan(twice.as_bytes()).err(), Some(ReplyError::DuplicateKey));
}

#[test]
fn other_fields_are_read_by_name() {
    let body = r#"{"status":"0","message":"","result":[{"dataAmount":"10.50","apn":"x"}]}"#;
    let field = Reply::scan_field(body.as_bytes(), "dataAmount").unwrap().field().unwrap();
    assert_eq!(
        (field.to_string().as_str(), field.raw(), field.is_number()),
        ("10.50", b"10.50".as_slice(), false)
    );
    let number = Reply::scan_field(br#"{"status":0,"result":[{"smsAmount":3}]}"#, "smsAmount").unwrap();
    assert!(number.field().unwrap().is_number());
    let other = Reply::scan_field(body.as_bytes(), "amount").unwrap();
    assert_eq!(other.into_field().err(), Some(Refusal::NoField));
    let expired = Reply::scan_field(br#"{"status":"12021","result":[]}"#, "amount").unwrap();
    assert_eq!(expired.into_field().err(), Some(Refusal::TokenExpired));
}

#[test]
fn a_token_and_its_ttl_are_read_in_every_shape() {
    for (ttl, stated, renew) in [
        (r#","ttl":"3600""#, Some(3600), 3240),
        (r#","ttl":3600"#, Some(3600), 3240),
        ("", None, 3240),
        (r#","ttl":"0""#, Some(0), 3240),
        (r#","ttl":0"#, Some(0), 3240),
        (r#","ttl":"soon""#, None, 3240),
        (r#","ttl":"""#, None, 3240),
        (r#","ttl":" ""#, None, 3240),
        (r#","ttl":-5"#, None, 3240),
        (r#","ttl":"3600.0""#, None, 3240),
        (r#","ttl":3.6e3"#, None, 3240),
        (r#","ttl":null"#, None, 3240),
        (r#","ttl":[3600]"#, None, 3240),
        (r#","ttl":"99999999999999999999""#, None, 3240),
        (r#","ttl":4294967295"#, Some(u32::MAX), 3240),
        (r#","ttl":"\u0033600""#, Some(3600), 3240),
        (r#","ttl":"601""#, Some(601), 541),
        (r#","ttl":"600""#, Some(600), 540),
        (r#","ttl":"100""#, Some(100), 50),
        (r#","ttl":"1""#, Some(1), 1),
    ] {
        let body = token_reply(&format!(r#""token":"example-token"{ttl}"#));
        let reply = TokenReply::scan(body.as_bytes()).unwrap();
        assert_eq!((reply.ttl(), reply.renew_after()), (stated, renew), "{ttl}");
        let token: Vec<u8> = reply.into_token().unwrap().expose().collect();
        assert_eq!(token, b"example-token", "{ttl}");
    }
}

#[test]
fn a_reply_without_a_valid_token_has_none() {
    let too_long = format!(r#""token":"{}""#, "x".repeat(513));
    for result in [
        "",
        r#""token":"-1""#,
        r#""token":"""#,
        r#""token":null"#,
        r#""token":12"#,
        r#""token":"a b""#,
        r#""token":"é""#,
        &too_long,
    ] {
        let body = token_reply(result);
        assert_eq!(
            TokenReply::scan(body.as_bytes()).unwrap().into_token().err(),
            Some(Refusal::NoToken),
            "{result}"
        );
    }
    let refused = br#"{"status":"12022","message":"no","result":[{"token":"-1"}]}"#;
    let reply = TokenReply::scan(refused).unwrap();
    assert!(matches!(reply.into_token(), Err(Refusal::Refused { code, .. }) if code.as_str() == "12022"));
    assert_eq!(Error::from(SecretError::Token).to_string(), SecretError::Token.to_string());
}

#[test]
fn nothing_prints_a_token() {
    let body = token_reply(r#""token":"example-token","ttl":"3600""#);
    let reply = TokenReply::scan(body.as_bytes()).unwrap();
    let field = Reply::scan_field(body.as_bytes(), "token").unwrap();
    assert!(!format!("{reply:?} {field:?} {:?}", reply.into_token()).contains("example-token"));
}

/// Bodies near the carrier's grammar.
fn bodies() -> impl Strategy<Value = String> {
    let key = prop_oneof!["status", "message", "result", "STATUS", "cardStatus", "[a-z]{0,3}"];
    let leaf = prop_oneof![
        r#""[ -!#-\[\]-~]{0,20}""#,
        Just("\"0\"".to_owned()),
        Just("\"正确\"".to_owned()),
        "[1-9][0-9]{0,5}",
        Just("null".to_owned()),
    ];
    let value = leaf.prop_recursive(4, 32, 4, move |inner| {
        let member = (key.clone(), inner.clone()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec(member, 0..4).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    });
    (value.clone(), value)
        .prop_map(|(result, message)| format!(r#"{{"status":"0","message":{message},"result":[{result}]}}"#))
}

/// The reader of v5 agrees with that of v2 on everything that both read.
fn agrees_with_v2(body: &[u8]) {
    let (v2, v5) = (V2Reply::scan(body), Reply::scan_field(body, "STATUS"));
    assert_eq!(v2.err(), v5.err());
    if let (Ok(v2), Ok(v5)) = (v2, v5) {
        assert_eq!((v2.code(), v2.message(), v2.results()), (v5.code(), v5.message(), v5.results()));
        let status = v5.field().map(|field| Status::from_code(&field.to_string()));
        assert_eq!(v2.status(), status);
    }
}

proptest! {
    #[test]
    fn both_readers_agree_on_the_envelope(body in bodies()) {
        agrees_with_v2(body.as_bytes());
    }

    #[test]
    fn no_body_causes_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        agrees_with_v2(&body);
        let _ = TokenReply::scan(&body);
        let _ = Reply::scan(&body).map(Reply::into_status);
    }

    #[test]
    fn a_token_survives_a_reply_a_store_and_a_query(token in r"[!-~]{1,512}") {
        prop_assume!(token != "-1");
        let body = escaped_reply(&token);
        let reply = TokenReply::scan(body.as_bytes()).unwrap();
        let mut store = TokenStore::new();
        store.set(reply.into_token().unwrap());
        let card = Card::parse(CardKind::Msisdn, "1440000000001").unwrap();
        let transid = Transid::parse("2000012014101615303080000001").unwrap();
        let query = Query::new(transid, store.get().unwrap(), &card);
        // A body is the same JSON string again, and a reader of JSON returns the token.
        let sent = text(query.body_len(), |out| query.body_into(out));
        let wrapped = format!(r#"{{"status":"0","result":[{sent}]}}"#);
        let back = TokenReply::scan(wrapped.as_bytes()).unwrap().into_token().unwrap();
        prop_assert_eq!(back.expose().collect::<Vec<_>>(), token.as_bytes());
    }

    #[test]
    fn every_ttl_is_renewed_before_its_end_and_not_at_once(ttl in 1u32..) {
        let body = token_reply(&format!(r#""token":"t","ttl":{ttl}"#));
        let renew = TokenReply::scan(body.as_bytes()).unwrap().renew_after();
        prop_assert!(renew > 0 && renew <= ttl && renew <= 3240, "{} of {}", renew, ttl);
    }
}

/// A reply with this token, escaped as some JSON writers do.
fn escaped_reply(token: &str) -> String {
    let escaped = token.replace('\\', r"\\").replace('"', "\\\"").replace('/', r"\/");
    token_reply(&format!(r#""token":"{escaped}""#))
}
