//! The rules of reading a reply, one body per row, for both readers, which must agree on every row.

use cmiot_signer::{Refusal, Reply, ReplyError, Status};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("reply::good_answers", good_answers),
    ("reply::every_listed_status", every_listed_status),
    ("reply::refusals_keep_code_and_message", refusals_keep_code_and_message),
    ("reply::success_needs_a_result", success_needs_a_result),
    ("reply::what_is_no_answer", what_is_no_answer),
    ("reply::every_cut_is_truncated", every_cut_is_truncated),
    ("reply::no_single_byte_breaks_a_reader", no_single_byte_breaks_a_reader),
];

const NORMAL: &str = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;

fn good_answers() {
    for (body, status) in [
        (NORMAL.as_bytes(), Status::Normal),
        (br#"{"result":[{"x":{"STATUS":"04"},"STATUS":"01"}],"status":"0"}"#, Status::OneWayBarred),
        (br#"{"status":0,"result":[{"STATUS":"02"},7,null]}"#, Status::Barred),
        (br#"{"status":"\u0030","result":[{"STATUS":"\u00303"}]}"#, Status::PreCancelled),
        (br#"{"\u0073tatus":"0","message":null,"result":[{"STATUS":"04"}]}"#, Status::Cancelled),
        (
            b"\xEF\xBB\xBF \r\n{\"status\" : \"0\" ,\t\"result\":[{\"STATUS\":\"05\"}]} \n\0\0",
            Status::Transferred,
        ),
        // "请求" in GBK; then a character whose second byte is a backslash, right before the closing quote.
        (
            b"{\"status\":\"0\",\"message\":\"\xC7\xEB\xC7\xF3\",\"result\":[{\"STATUS\":\"06\"}]}",
            Status::Dormant,
        ),
        (
            b"{\"status\":\"0\",\"message\":\"\xD5\x5C\",\"result\":[{\"STATUS\":\"07\"}]}",
            Status::AwaitingActivation,
        ),
        (br#"{"status":"0","x":[{"y":[-1.5e+3,true]}],"result":[{"STATUS":"99"}]}"#, Status::NoSuchNumber),
    ] {
        let reply = read(body).unwrap_or_else(|error| panic!("{error}"));
        assert!(reply.is_ok());
        assert_eq!(reply.into_status(), Ok(status));
    }
}

fn every_listed_status() {
    let listed = ["00", "01", "02", "03", "04", "05", "06", "07", "99"];
    for code in listed.into_iter().chain(["08", "0", "000", "A state of sixteen"]) {
        let mut body = [b' '; 96];
        let parts = [br#"{"status":"0","result":[{"STATUS":""#.as_slice(), code.as_bytes(), br#""}]}"#];
        let mut at = 0;
        for part in parts {
            body[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let status = read(&body).ok().and_then(|reply| reply.status()).expect("a status");
        assert_eq!(status, Status::from_code(code));
        assert!(code.starts_with(status.code()));
        assert_eq!(matches!(status, Status::Unknown(_)), !listed.contains(&code));
    }
}

fn refusals_keep_code_and_message() {
    for (body, code, message) in [
        (r#"{"status":"01016","message":"\u53c2\u6570","result":[]}"#, "01016", "参数"),
        (r#"{"status":72,"message":"a\"b\\\n"}"#, "72", "a\"b\\\n"),
        (r#"{"status":"7","message":"\ud83d\ude00 \ud83d"}"#, "7", "😀 \u{FFFD}"),
        (r#"{"status":"-1","message":{"zh":1},"result":{}}"#, "-1", ""),
        (r#"{"status":"00","result":[{"STATUS":"00"}]}"#, "00", ""),
    ] {
        let reply = read(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert!(!reply.is_ok());
        let Err(Refusal::Refused { code: found, message: words }) = reply.into_status() else {
            panic!("{body}")
        };
        assert_eq!(found.as_str(), code);
        let mut decoded = heapless::String::<32>::new();
        words.write_to(&mut decoded).expect("it fits");
        assert_eq!(decoded, message);
    }
}

fn success_needs_a_result() {
    for rest in ["", r#","result":null"#, r#","result":"""#, r#","result":{}"#, r#","result":[]"#] {
        let mut body = heapless::String::<64>::new();
        core::fmt::write(&mut body, format_args!(r#"{{"status":"0"{rest}}}"#)).expect("it fits");
        let reply = read(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!((reply.is_ok(), reply.into_status()), (false, Err(Refusal::NoResult)), "{body}");
    }
    let other = read(br#"{"status":"0","result":[{"GPRSSTATUS":"01"}]}"#).map(Reply::into_status);
    assert_eq!(other, Ok(Err(Refusal::NoStatus)));
}

fn what_is_no_answer() {
    for (body, error) in [
        ("", ReplyError::Truncated),
        (" ", ReplyError::Truncated),
        ("<html>502 Bad Gateway</html>", ReplyError::NotJson),
        ("[]", ReplyError::NotJson),
        ("{}", ReplyError::NotEnvelope),
        (r#"{"STATUS":"0"}"#, ReplyError::NotEnvelope),
        (r#"{"status":null,"result":[]}"#, ReplyError::NotEnvelope),
        (r#"{"status":"12345678901234567"}"#, ReplyError::NotEnvelope),
        (r#"{"status":"0"}x"#, ReplyError::Malformed),
        (r#"{"status":"0"}{}"#, ReplyError::Malformed),
        (r#"{"status":"0","x":[,1]}"#, ReplyError::Malformed),
        (r#"{"status":"0","x":01}"#, ReplyError::Malformed),
        (r#"{"status":"0","x":nul}"#, ReplyError::Malformed),
        (r#"{"status":"0","x":"\x"}"#, ReplyError::Malformed),
        ("{\"status\":\"0\",\"x\":\"a\nb\"}", ReplyError::Malformed),
        (r#"{"status":"10","\u0073tatus":"0"}"#, ReplyError::DuplicateKey),
        (r#"{"status":"0","result":[{"STATUS":"00","STATUS":"02"}]}"#, ReplyError::DuplicateKey),
    ] {
        assert_eq!(read(body.as_bytes()), Err(error), "{body}");
    }
}

fn every_cut_is_truncated() {
    let body = r#" {"status":"0","message":"\u6b63确","n":[-1.5e+3,true,null],"result":[{"STATUS":"00"}]}"#;
    for end in 0..body.len() {
        assert_eq!(read(&body.as_bytes()[..end]), Err(ReplyError::Truncated), "cut at {end}");
    }
}

fn no_single_byte_breaks_a_reader() {
    let mut body = [0; NORMAL.len()];
    for at in 0..body.len() {
        for byte in [0, b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', b'0', b'e', 0x80, 0xFF] {
            body.copy_from_slice(NORMAL.as_bytes());
            body[at] = byte;
            // That the readers agree and return is the test.
            let _ = read(&body);
        }
    }
}

/// Reads with both readers.
fn read(body: &[u8]) -> Result<Reply<'_>, ReplyError> {
    let (parsed, scanned) = (Reply::parse(body), Reply::scan(body));
    assert_eq!(parsed, scanned);
    scanned
}
