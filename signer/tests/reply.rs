//! Reading replies: every rule of a reader, for each reader that is compiled in. If both are, they must agree on
//! everything, errors included.
#![cfg(any(feature = "serde", feature = "scan"))]
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use cmiot_signer::{Refusal, Reply, ReplyError, Status};
use proptest::prelude::*;

/// Reads with every compiled reader.
fn read(body: &[u8]) -> Result<Reply<'_>, ReplyError> {
    #[cfg(all(feature = "serde", feature = "scan"))]
    {
        let (parsed, scanned) = (Reply::parse(body), Reply::scan(body));
        assert_eq!(parsed, scanned, "on {}", String::from_utf8_lossy(body));
        parsed
    }
    #[cfg(not(all(feature = "serde", feature = "scan")))]
    {
        #[cfg(feature = "serde")]
        return Reply::parse(body);
        #[cfg(feature = "scan")]
        Reply::scan(body)
    }
}

fn good(body: &str) -> Reply<'_> {
    read(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn bad(body: &str) -> ReplyError {
    match read(body.as_bytes()) {
        Ok(reply) => panic!("{reply:?} from {body}"),
        Err(error) => error,
    }
}

const NORMAL: &str = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;

#[test]
fn the_pages_own_answer() {
    let reply = good(NORMAL);
    assert!(reply.is_ok());
    assert_eq!((reply.code(), reply.results()), ("0", 1));
    assert_eq!(reply.message().to_string(), "正确");
    assert_eq!(reply.into_status(), Ok(Status::Normal));
}

#[test]
fn every_listed_status_and_any_other() {
    for (code, status) in [
        ("00", Status::Normal),
        ("01", Status::OneWayBarred),
        ("02", Status::Barred),
        ("03", Status::PreCancelled),
        ("04", Status::Cancelled),
        ("05", Status::Transferred),
        ("06", Status::Dormant),
        ("07", Status::AwaitingActivation),
        ("99", Status::NoSuchNumber),
    ] {
        let body = format!(r#"{{"status":"0","message":"","result":[{{"STATUS":"{code}"}}]}}"#);
        assert_eq!(good(&body).into_status(), Ok(status));
        assert_eq!((status.code(), Status::from_code(code)), (code, status));
    }
    for unknown in ["08", "0", "000", "", "停机", "A state of sixteen", "停机保号停机保号"] {
        let body = format!(r#"{{"status":"0","result":[{{"STATUS":"{unknown}"}}]}}"#);
        let status = good(&body).into_status().unwrap();
        assert!(matches!(status, Status::Unknown(_)), "{status:?}");
        assert!(unknown.starts_with(status.code()) && (unknown.len() > 16 || status.code() == unknown));
        assert_eq!(Status::from_code(unknown), status);
    }
}

#[test]
fn a_refusal_is_a_reply_with_code_and_message() {
    let reply = good(r#"{"status":"01016","message":"参数错误","result":[]}"#);
    assert!(!reply.is_ok());
    assert_eq!(reply.code(), "01016");
    let Err(Refusal::Refused { code, message }) = reply.into_status() else { panic!("{reply:?}") };
    assert_eq!((code.as_str(), message.to_string().as_str()), ("01016", "参数错误"));
}

#[test]
fn the_code_is_compared_decoded_and_may_be_a_number() {
    for zero in [r#""0""#, "0", r#""\u0030""#] {
        let body = format!(r#"{{"status":{zero},"result":[{{"STATUS":"00"}}]}}"#);
        assert_eq!(good(&body).into_status(), Ok(Status::Normal), "{zero}");
    }
    for (written, code) in
        [("10", "10"), (r#""007""#, "007"), ("-1", "-1"), ("0.0", "0.0"), (r#""00""#, "00")]
    {
        let body = format!(r#"{{"status": {written} ,"result":[{{"STATUS":"00"}}]}}"#);
        assert_eq!((good(&body).code(), good(&body).is_ok()), (code, false), "{written}");
    }
    for no_code in ["null", "true", "[]", "{}", r#""""#, r#""正确""#, r#""12345678901234567""#, r#"" 0""#] {
        assert_eq!(
            bad(&format!(r#"{{"status":{no_code},"result":[]}}"#)),
            ReplyError::NotEnvelope,
            "{no_code}"
        );
    }
    assert_eq!(bad("{}"), ReplyError::NotEnvelope);
    assert_eq!(bad(r#"{"STATUS":"0"}"#), ReplyError::NotEnvelope);
}

#[test]
fn a_numeric_status_of_a_card_is_kept() {
    let status = good(r#"{"status":0,"result":[{"STATUS":0}]}"#).into_status().unwrap();
    assert_eq!((status.code(), status.as_str()), ("0", "unknown"));
    for none in ["null", "true", "[]", r#"{"STATUS":"00"}"#] {
        let body = format!(r#"{{"status":"0","result":[{{"STATUS":{none}}}]}}"#);
        assert_eq!(good(&body).into_status(), Err(Refusal::NoStatus), "{none}");
    }
}

#[test]
fn no_message_costs_the_answer() {
    let long = "长".repeat(10_000);
    for (message, decoded) in [
        ("null", ""),
        ("17", ""),
        (r#"{"zh":"正确"}"#, ""),
        (r#""\u6b63\u786e""#, "正确"),
        (r#""\ud83d\ude00 \ud83d""#, "😀 \u{FFFD}"),
        (r#""a\"b\\""#, r#"a"b\"#),
        (&format!("\"{long}\""), &long),
    ] {
        let body = format!(r#"{{"message":{message},"status":"0","result":[{{"STATUS":"02"}}]}}"#);
        let reply = good(&body);
        assert_eq!(reply.message().to_string(), decoded);
        assert_eq!(reply.into_status(), Ok(Status::Barred));
    }
    assert!(good(r#"{"status":"0","result":[{"STATUS":"02"}]}"#).message().is_empty());
}

#[test]
fn gbk_does_not_cost_the_answer() {
    // 请求 in GBK; then a character whose second byte is a backslash, right before the closing quote.
    for message in [&b"\xC7\xEB\xC7\xF3"[..], b"\xD5\x5C", b"\xFF\xFE", b"\xE6\xAD"] {
        let mut body = br#"{"status":"0","message":""#.to_vec();
        body.extend(message);
        body.extend(br#"","other":""#);
        body.extend(message);
        body.extend(br#"","result":[{"STATUS":"06","NAME":""#);
        body.extend(message);
        body.extend(br#""}]}"#);
        let reply = read(&body).unwrap();
        assert_eq!(reply.message().raw(), message);
        assert_eq!(reply.into_status(), Ok(Status::Dormant));
    }
}

#[test]
fn a_refusal_needs_no_result_of_any_shape() {
    for rest in
        ["", r#","result":null"#, r#","result":"""#, r#","result":{}"#, r#","result":[]"#, r#","result":7"#]
    {
        let reply = format!(r#"{{"status":"10","message":"x"{rest}}}"#);
        assert!(matches!(good(&reply).into_status(), Err(Refusal::Refused { .. })), "{rest}");
        let reply = format!(r#"{{"status":"0","message":"x"{rest}}}"#);
        assert!(!good(&reply).is_ok());
        assert_eq!(good(&reply).into_status(), Err(Refusal::NoResult), "{rest}");
    }
    // An object is not a list of results, whatever its content.
    assert_eq!(good(r#"{"status":"0","result":{"a":{"STATUS":"00"}}}"#).results(), 0);
}

#[test]
fn further_results_are_counted_and_skipped() {
    let reply = good(r#"{"status":"0","result":[{"STATUS":"00"},{"STATUS":"02"},7,[{"STATUS":"04"}],null]}"#);
    assert_eq!((reply.results(), reply.status()), (5, Some(Status::Normal)));
    for first in ["null", "7", r#""STATUS""#, r#"[{"STATUS":"00"}]"#, r#"{"GPRSSTATUS":"01","IP":""}"#, "{}"]
    {
        let body = format!(r#"{{"status":"0","result":[{first},{{"STATUS":"02"}}]}}"#);
        let reply = good(&body);
        assert!(reply.is_ok(), "{first}");
        assert_eq!((reply.results(), reply.status()), (2, None), "{first}");
        assert_eq!(reply.into_status(), Err(Refusal::NoStatus));
    }
}

#[test]
fn any_order_any_space_any_unknown_field() {
    let body = "\u{FEFF} \r\n{ \"x\" : [ { \"status\" : [ ] , \"result\":[{\"STATUS\":\"04\"}] } , -1.5e+3 , true ] ,\t\
                \"result\" : [ { \"y\" : { \"STATUS\" : \"04\" } , \"STATUS\" : \"07\" , \"z\":null } ] ,\
                \"\\u0073tatus\":\"0\" } \n\0\0";
    assert_eq!(good(body).into_status(), Ok(Status::AwaitingActivation));
}

#[test]
fn unknown_fields_are_skipped_strictly() {
    for field in [
        "[,1]",
        "[1,]",
        "[1 2]",
        "{,}",
        r#"{"a":1,}"#,
        r#"{"a" 1}"#,
        r#"{a:1}"#,
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "--1",
        "nul",
        "nulL",
        "True",
        "'a'",
        "\"a\nb\"",
        r#""\x""#,
        r#""\u12g4""#,
        "[}",
        "{]",
        "\u{00A0}1",
        "x",
    ] {
        let body = format!(r#"{{"status":"0","x":{field},"result":[]}}"#);
        assert_eq!(bad(&body), ReplyError::Malformed, "{field}");
    }
}

#[test]
fn what_follows_the_answer_is_refused_except_space_and_nul() {
    for tail in ["x", "{}", ",", "]", "\0x", "\u{FEFF}"] {
        assert_eq!(bad(&format!("{NORMAL}{tail}")), ReplyError::Malformed, "{tail:?}");
    }
    assert!(good(&format!("{NORMAL} \t\r\n\0\0\n")).is_ok());
}

#[test]
fn a_key_that_counts_may_not_repeat() {
    for body in [
        r#"{"status":"0","status":"0","result":[]}"#,
        r#"{"status":"10","\u0073tatus":"0"}"#,
        r#"{"status":null,"status":"0"}"#,
        r#"{"status":"0","message":"","message":""}"#,
        r#"{"status":"0","result":[],"result":[{"STATUS":"00"}]}"#,
        r#"{"status":"0","result":null,"result":[{"STATUS":"00"}]}"#,
        r#"{"status":"0","result":[{"STATUS":"00","STATUS":"02"}]}"#,
    ] {
        assert_eq!(bad(body), ReplyError::DuplicateKey, "{body}");
    }
    // Keys that are not read may repeat.
    assert!(
        good(r#"{"status":"0","x":1,"x":2,"result":[{"STATUS":"00"},{"STATUS":"0","STATUS":"1"}]}"#).is_ok()
    );
}

#[test]
fn every_cut_is_truncated() {
    let body = r#" {"status":"0","message":"\u6b63确","n":[-1.5e+3,true,null],"result":[{"STATUS":"00"}]}"#
        .as_bytes();
    for end in 0..body.len() {
        assert_eq!(read(&body[..end]), Err(ReplyError::Truncated), "cut at {end}");
    }
    assert!(read(body).is_ok());
}

#[test]
fn a_body_that_is_not_json_has_its_own_error() {
    for body in
        ["<html><body>502 Bad Gateway</body></html>", "Service Unavailable", "[]", "0", "\"0\"", "null"]
    {
        assert_eq!(bad(body), ReplyError::NotJson, "{body}");
    }
    for empty in ["", " ", "\u{FEFF}", "\0\0"] {
        assert_eq!(bad(empty), ReplyError::Truncated, "{empty:?}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize, open: &str, close: &str| {
        format!(r#"{{"status":"0","x":{}0{}}}"#, open.repeat(levels), close.repeat(levels))
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        assert!(read(nested(Reply::MAX_DEPTH - 1, open, close).as_bytes()).is_ok());
        assert_eq!(bad(&nested(Reply::MAX_DEPTH, open, close)), ReplyError::TooDeep);
    }
    // The input that overwrote a chip's memory through recursion, and a longer one.
    assert_eq!(bad(&format!(r#"{{"x":{}"#, "[".repeat(400))), ReplyError::TooDeep);
    assert_eq!(bad(&format!(r#"{{"x":{}"#, "[".repeat(60_000))), ReplyError::TooDeep);
}

#[test]
fn length_is_bounded() {
    let longest = |len: usize| format!("{NORMAL}{}", " ".repeat(len - NORMAL.len()));
    assert!(good(&longest(Reply::MAX_LEN)).is_ok());
    assert_eq!(bad(&longest(Reply::MAX_LEN + 1)), ReplyError::TooLong);
}

#[test]
fn debug_shows_a_message_decoded() {
    let reply = good(r#"{"status":"0","message":"\u6b63\"\u0000","result":[]}"#);
    assert_eq!(format!("{:?}", reply.message()), r#""正\"\0""#);
}

/// Arbitrary JSON that contains the relevant keys.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        Just("0".to_string()),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,2})?([eE][+-]?[0-9])?",
        "\"([ -!#-\\[\\]-~正]|\\\\u[0-9a-f]{4}|\\\\[nt\"\\\\/bfr]){0,6}\"",
        Just(r#""0""#.to_string()),
        Just(r#""00""#.to_string()),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let key = prop_oneof![
            Just(r#""status""#),
            Just(r#""result""#),
            Just(r#""STATUS""#),
            Just(r#""message""#),
            Just(r#""x""#),
            Just(r#""\u0073tatus""#),
        ];
        let member = (key, inner.clone()).prop_map(|(key, value)| format!("{key} :{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(", "))),
        ]
    })
}

/// An envelope of the carrier's form, with arbitrary values.
fn envelope() -> impl Strategy<Value = String> {
    (json(), json(), json(), json()).prop_map(|(status, message, card, more)| {
        format!(r#"{{"x":{more},"status":{status},"message":{message},"result":[{{"y":{more},"STATUS":{card}}},{more}]}}"#)
    })
}

proptest! {
    #[test]
    fn readers_agree_on_any_bytes(body in any::<Vec<u8>>()) {
        let _ = read(&body);
    }

    #[test]
    fn readers_agree_on_any_json(body in json()) {
        let _ = read(body.as_bytes());
    }

    #[test]
    fn readers_agree_on_envelopes(body in envelope()) {
        let _ = read(body.as_bytes());
    }

    #[test]
    fn readers_agree_on_damaged_envelopes(
        body in envelope(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let mut body = body.into_bytes();
        let len = body.len();
        body[at.index(len)] = byte;
        let _ = read(&body);
        let _ = read(&body[..cut.index(len)]);
    }

    #[test]
    fn any_message_comes_through(message in any::<String>()) {
        let escaped: String = message.chars().map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if (c as u32) < 0x20 => format!("\\u{:04x}", c as u32),
            c => c.to_string(),
        }).collect();
        let body = format!(r#"{{"status":"10","message":"{escaped}"}}"#);
        prop_assert_eq!(good(&body).message().to_string(), message);
    }
}

/// Two characters of GBK, of which three bytes are one of UTF-8 and the fourth is a backslash.
#[test]
fn a_message_in_gbk_never_costs_the_status() {
    for (a, b, c) in [(0xE0, 0xA0, 0x81), (0xE6, 0xAD, 0xA3), (0xF0, 0x9F, 0x98)] {
        let mut body = br#"{"message":""#.to_vec();
        body.extend([a, b, c, 0x5C]);
        body.extend(br#"","status":"0","result":[{"STATUS":"02"}]}"#);
        let (scanned, parsed) = (Reply::scan(&body), Reply::parse(&body));
        assert_eq!(scanned, parsed);
        assert_eq!(scanned.map(Reply::into_status), Ok(Ok(Status::Barred)), "{a:x} {b:x} {c:x}");
        assert!(Reply::has_result_field(&body, "STATUS"));
        // The fault of a body that is neither is that of UTF-8.
        body.truncate(body.len() - 1);
        assert!(matches!(Reply::scan(&body), Err(ReplyError::Malformed | ReplyError::Truncated)));
    }
}

#[test]
fn in_place_is_the_same() {
    for body in [
        r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#,
        r#"{"status":"0","result":[{"STATUS":"A state"}]}"#,
        r#"{"status":"0","result":[{"STATUS":9}]}"#,
        r#"{"status":7}"#,
        r#"{"status":"12345678901234567"}"#,
        r#"{"status":"0","status":"0"}"#,
        "{}",
        "<html>",
    ] {
        let mut place = std::mem::MaybeUninit::uninit();
        assert_eq!(
            Reply::scan_into(body.as_bytes(), &mut place).copied(),
            Reply::scan(body.as_bytes()),
            "{body}"
        );
    }
}
