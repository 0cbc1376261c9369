//! The carrier's API v5: requests for a token and queries as texts, and the replies to both.
//!
//! No struct is kept between calls: a token is a text in the caller's buffer.

use core::ffi::c_char;
use core::mem::MaybeUninit;

use cmiot_signer::v5::{CardStatus, CtStatus, Query, Refusal, Reply, Token, TokenReply, TokenRequest};
use cmiot_signer::{AppId, Transid};

use crate::code::{
    self, CMIOT_E_APPID, CMIOT_E_BUFFER, CMIOT_E_NO_FIELD, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS,
    CMIOT_E_NO_TOKEN, CMIOT_E_PASSWORD, CMIOT_E_REFUSED, CMIOT_E_TOKEN, CMIOT_E_TOKEN_EXPIRED, credential,
    result,
};
use crate::memory::{CmiotText, Output, bytes, text_bytes};
use crate::reply::{CMIOT_STATUS_UNKNOWN, status_code};
use crate::sign::{CmiotCard, moment, parse_card};

/// A JSON body, for a POST of type application/json.
pub const CMIOT_V5_BODY: i32 = 0;
/// A query, for a GET. The URL then contains the password or the token.
pub const CMIOT_V5_QUERY: i32 = 1;

/// Buffer size that is enough for every token with its NUL.
pub const CMIOT_V5_TOKEN_SIZE: usize = 513;

const _: () = assert!(CMIOT_V5_TOKEN_SIZE == Token::MAX_LEN + 1);

/// A status of the newer platform (CT) is this plus its digit: 2001 awaiting activation, 2002 active, 2004 barred,
/// 2006 testing, 2007 in stock, 2008 pre-cancelled, 2009 cancelled.
pub const CMIOT_V5_CT: i32 = 2000;

/// Writes a request for a token, to be sent to /v5/ec/get/token. It contains the password: wipe `out` afterwards.
///
/// `form` is CMIOT_V5_BODY or CMIOT_V5_QUERY. `renew` is 0; 1 asks a carrier for a new token that returned the one that
/// it has just refused. `unix_seconds` and `sequence` are those of cmiot_sign. The password is 1 to 256 printable ASCII
/// characters.
///
/// Returns the length, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_PASSWORD, CMIOT_E_CLOCK_UNSET, CMIOT_E_CLOCK_LATE,
/// CMIOT_E_SEQUENCE, CMIOT_E_BUFFER; then nothing was written.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_v5_token_request(
    appid: CmiotText,
    password: CmiotText,
    unix_seconds: u64,
    sequence: u32,
    renew: i32,
    form: i32,
    out: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (appid, password, out) =
        unsafe { (text_bytes(appid), text_bytes(password), Output::new(out, capacity)) };
    result((|| {
        let transid = transid(appid?, unix_seconds, sequence)?;
        let request = TokenRequest::with_static_password(transid, password?).map_err(|_| CMIOT_E_PASSWORD)?;
        let request = if renew == 0 { request } else { request.renewing() };
        let mut out = out?;
        let written = if form == CMIOT_V5_QUERY {
            request.query_into(out.room(request.query_len())?)
        } else {
            request.body_into(out.room(request.body_len())?)
        };
        // A request is far shorter than 2 GiB.
        written.map(|len| len as i32).map_err(|_| CMIOT_E_BUFFER)
    })())
}

/// Reads the reply to a request for a token, and writes the token; CMIOT_V5_TOKEN_SIZE bytes are always enough. The token
/// is a secret. `renew_after`, unless it is NULL, gets the seconds after which to fetch the next one.
///
/// Returns the token's length, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it, CMIOT_E_REFUSED (see
/// cmiot_reply_scan of the same body), CMIOT_E_TOKEN_EXPIRED, CMIOT_E_NO_RESULT, CMIOT_E_NO_TOKEN, CMIOT_E_BUFFER; then
/// nothing was written.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_v5_token(
    body: *const u8,
    body_len: usize,
    token: *mut c_char,
    capacity: usize,
    renew_after: *mut u32,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (body, out, renew_after) =
        unsafe { (bytes(body, body_len), Output::new(token, capacity), renew_after.as_mut()) };
    result((|| {
        let reply = TokenReply::scan(body?).map_err(code::reply)?;
        let token = reply.into_token().map_err(refusal)?;
        let mut out = out?;
        let room = out.room(token.expose().count())?;
        let mut len = 0;
        for (slot, byte) in room.iter_mut().zip(token.expose()) {
            *slot = byte;
            len += 1;
        }
        if let Some(renew_after) = renew_after {
            *renew_after = reply.renew_after();
        }
        Ok(len)
    })())
}

/// Writes a query about a card, to be sent to the path of its operation, such as /v5/ec/query/sim-status. It contains
/// the token.
///
/// `appid` is that of the token, `form` CMIOT_V5_BODY or CMIOT_V5_QUERY; `unix_seconds` and `sequence` are those of
/// cmiot_sign.
///
/// Returns the length, or CMIOT_E_NULL, CMIOT_E_APPID, CMIOT_E_TOKEN, CMIOT_E_CARD, CMIOT_E_CLOCK_UNSET,
/// CMIOT_E_CLOCK_LATE, CMIOT_E_SEQUENCE, CMIOT_E_BUFFER; then nothing was written.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_v5_query(
    appid: CmiotText,
    token: CmiotText,
    unix_seconds: u64,
    sequence: u32,
    card: CmiotCard,
    form: i32,
    out: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (appid, token, number, out) = unsafe {
        (text_bytes(appid), text_bytes(token), text_bytes(card.number), Output::new(out, capacity))
    };
    let mut place = MaybeUninit::uninit();
    result((|| {
        let transid = transid(appid?, unix_seconds, sequence)?;
        let token = Token::parse(token?).map_err(|_| CMIOT_E_TOKEN)?;
        let query = Query::new(transid, token, parse_card(card.kind, number?, &mut place)?);
        let mut out = out?;
        let written = if form == CMIOT_V5_QUERY {
            query.query_into(out.room(query.query_len())?)
        } else {
            query.body_into(out.room(query.body_len())?)
        };
        // A query is far shorter than 2 GiB.
        written.map(|len| len as i32).map_err(|_| CMIOT_E_BUFFER)
    })())
}

/// The card's status in the reply to /v5/ec/query/sim-status. Of the older platform (PB) it is a result of
/// cmiot_reply_status, 0 to 7 or 99; of the newer one (CT) it is CMIOT_V5_CT plus its digit. The two are never mixed: 2
/// is barred, and 2002 active. Any other value, and every JSON number, is CMIOT_STATUS_UNKNOWN: see cmiot_v5_field.
///
/// Returns it, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it, CMIOT_E_TOKEN_EXPIRED (fetch a token, and repeat
/// the query once), CMIOT_E_REFUSED (see cmiot_reply_scan of the same body), CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS.
///
/// # Safety
/// `body` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_v5_status(body: *const u8, body_len: usize) -> i32 {
    // SAFETY: the C caller's promise.
    let body = unsafe { bytes(body, body_len) };
    result((|| {
        let status = Reply::scan(body?).map_err(code::reply)?.into_status().map_err(refusal)?;
        Ok(match status {
            CardStatus::Pb(status) => status_code(status),
            CardStatus::Ct(status) => CMIOT_V5_CT + digit(status),
            CardStatus::Unknown(_) => CMIOT_STATUS_UNKNOWN,
        })
    })())
}

/// The STATUS of API v2 with the same meaning as a result of cmiot_v5_status: 0 to 7 or 99. CMIOT_STATUS_UNKNOWN if there
/// is none, as for 2006 (testing) and 2007 (in stock); a failure is returned as it is.
#[unsafe(no_mangle)]
pub extern "C" fn cmiot_v5_status_as_v2(status: i32) -> i32 {
    match status {
        ..=7 | 99 => status,
        2001 => 7,
        2002 => 0,
        2004 => 2,
        2008 => 3,
        2009 => 4,
        _ => CMIOT_STATUS_UNKNOWN,
    }
}

/// Writes the text or number that the first result of a reply has under a name, such as "dataAmount" or "cardStatus",
/// decoded to UTF-8, as far as whole characters fit.
///
/// Returns the length written, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it, CMIOT_E_TOKEN_EXPIRED,
/// CMIOT_E_REFUSED, CMIOT_E_NO_RESULT, CMIOT_E_NO_FIELD, or CMIOT_E_BUFFER when there is no room for the NUL.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_v5_field(
    body: *const u8,
    body_len: usize,
    name: CmiotText,
    out: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (body, name, out) = unsafe { (bytes(body, body_len), text_bytes(name), Output::new(out, capacity)) };
    result((|| {
        let reply = Reply::scan_field(body?, name?).map_err(code::reply)?;
        let field = reply.into_field().map_err(refusal)?;
        out?.write_truncated(|text| field.write_to(text))
    })())
}

fn transid(appid: &[u8], unix_seconds: u64, sequence: u32) -> Result<Transid, i32> {
    let mut place = MaybeUninit::uninit();
    let appid = AppId::parse_into(appid, &mut place).map_err(credential(CMIOT_E_APPID))?;
    let (stamp, sequence) = moment(unix_seconds, sequence)?;
    Ok(Transid::new(appid, stamp, sequence))
}

fn refusal(refusal: Refusal<'_>) -> i32 {
    match refusal {
        Refusal::TokenExpired => CMIOT_E_TOKEN_EXPIRED,
        Refusal::Refused { .. } => CMIOT_E_REFUSED,
        Refusal::NoResult => CMIOT_E_NO_RESULT,
        Refusal::NoToken => CMIOT_E_NO_TOKEN,
        Refusal::NoStatus => CMIOT_E_NO_STATUS,
        Refusal::NoField => CMIOT_E_NO_FIELD,
    }
}

fn digit(status: CtStatus) -> i32 {
    match status {
        CtStatus::AwaitingActivation => 1,
        CtStatus::Active => 2,
        CtStatus::Barred => 4,
        CtStatus::Testing => 6,
        CtStatus::InStock => 7,
        CtStatus::PreCancelled => 8,
        CtStatus::Cancelled => 9,
    }
}
