//! The measured workloads: signing a lookup, writing its query, and reading the response.
//!
//! As in a real firmware, credentials and card are constants in flash, checked at compile time; time and sequence are
//! known at run time only. The appid has 14 characters and the password 11, so that the token takes two blocks of
//! SHA-256. `black_box` prevents the compiler from computing values in advance.

use core::hint::black_box;

use cmiot_signer::http::{Decoder, Endpoint};
use cmiot_signer::v5;
use cmiot_signer::{
    AppId, Card, CardKind, Ebid, Leased, Node, PATH, Reply, Sequence, SequenceSource, Signer, Stamp, Status,
    Transid,
};

use crate::flash::FlashRegion;

/// Signs a lookup and writes its query into a buffer on the stack.
#[inline(never)]
pub fn sign() -> bool {
    let mut query = [0; QUERY_LEN];
    let (Ok(stamp), Ok(sequence)) =
        (Stamp::from_unix(black_box(1_709_136_000)), Sequence::new(black_box(80_000_001)))
    else {
        return false;
    };
    let written = black_box(&SIGNER).sign_into(stamp, sequence, black_box(&CARD), &mut query);
    black_box(&query);
    written == Ok(QUERY_LEN)
}

/// Reads the reply without serde.
#[inline(never)]
pub fn scan() -> bool {
    matches!(Reply::scan(black_box(REPLY)).map(Reply::into_status), Ok(Ok(Status::Normal)))
}

/// Reads the reply with serde-json-core.
#[inline(never)]
pub fn parse() -> bool {
    matches!(Reply::parse(black_box(REPLY)).map(Reply::into_status), Ok(Ok(Status::Normal)))
}

/// Signs a lookup, writes it as an HTTP request, and parses the response.
#[inline(never)]
pub fn http() -> bool {
    let (Ok(stamp), Ok(sequence)) =
        (Stamp::from_unix(black_box(1_709_136_000)), Sequence::new(black_box(80_000_001)))
    else {
        return false;
    };
    let mut buffer = [0; 320];
    let request = black_box(&SIGNER).sign(stamp, sequence, black_box(&CARD));
    let written = black_box(&ENDPOINT).write_into(&request, &mut buffer);
    black_box(&buffer);
    let mut decoder = Decoder::for_transid(request.transid());
    written.is_ok() && decoder.feed(black_box(RESPONSE), &mut buffer) == Ok(true)
}

/// Finds the mark in flash, leases a block and returns its first number.
#[inline(never)]
pub fn lease() -> bool {
    let sequences = Leased::mount(black_box(FlashRegion::new()), 0, black_box(Node::ONLY), 16);
    sequences.is_ok_and(|mut sequences| sequences.next_sequence().is_ok())
}

/// Requests a token of API v5, reads it, queries a status with it, and reads that.
#[inline(never)]
pub fn v5() -> bool {
    let (Ok(stamp), Ok(sequence)) =
        (Stamp::from_unix(black_box(1_709_136_000)), Sequence::new(black_box(80_000_001)))
    else {
        return false;
    };
    let mut body = [0; 192];
    let transid = Transid::new(black_box(&APPID), stamp, sequence);
    let fetch = v5::TokenRequest::with_static_password(transid, black_box(b"password-11"));
    let fetched = fetch.is_ok_and(|fetch| fetch.body_into(&mut body).is_ok());
    black_box(&body);
    let Ok(Ok(token)) = v5::TokenReply::scan(black_box(TOKEN_REPLY)).map(v5::TokenReply::into_token) else {
        return false;
    };
    let queried = v5::Query::new(transid, token, black_box(&CARD)).body_into(&mut body).is_ok();
    black_box(&body);
    let status = v5::Reply::scan(black_box(V5_REPLY)).map(v5::Reply::into_status);
    fetched && queried && matches!(status, Ok(Ok(v5::CardStatus::Ct(v5::CtStatus::Active))))
}

static APPID: AppId = match AppId::parse("KTTNJFBF5JXVLS") {
    Ok(appid) => appid,
    Err(_) => panic!("checked when compiled"),
};
static EBID: Ebid = match Ebid::parse("0001000000009") {
    Ok(ebid) => ebid,
    Err(_) => panic!("checked when compiled"),
};
static SIGNER: Signer<'static> = match Signer::with_static_password(&APPID, &EBID, b"password-11") {
    Ok(signer) => signer,
    Err(_) => panic!("checked when compiled"),
};
static CARD: Card = match Card::parse(CardKind::Msisdn, "1064765004176") {
    Ok(card) => card,
    Err(_) => panic!("checked when compiled"),
};
/// `appid=…&transid=…&ebid=…&token=…&msisdn=…`
const QUERY_LEN: usize = 6 + 14 + 9 + 36 + 6 + 13 + 7 + 64 + 8 + 13;
static REPLY: &[u8] = br#"{"status":"0","message":"\u6b63\u786e","result":[{"STATUS":"00"}]}"#;
static TOKEN_REPLY: &[u8] =
    br#"{"status":"0","message":"\u6b63\u786e","result":[{"token":"0123456789abcdef0123456789abcdef01234567","ttl":"3600"}]}"#;
static V5_REPLY: &[u8] =
    br#"{"status":"0","message":"\u6b63\u786e","result":[{"cardStatus":"2","lastChangeDate":"20240229000000"}]}"#;
static ENDPOINT: Endpoint<'static> = match Endpoint::new("192.168.1.10:8080", PATH) {
    Ok(endpoint) => endpoint,
    Err(_) => panic!("checked when compiled"),
};
static RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    cmiot-transid: KTTNJFBF5JXVLS2024022900000080000001\r\ncontent-length: 66\r\n\
    date: Thu, 29 Feb 2024 16:00:00 GMT\r\n\r\n\
    {\"status\":\"0\",\"message\":\"\\u6b63\\u786e\",\"result\":[{\"STATUS\":\"00\"}]}";
