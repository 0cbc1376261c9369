//! One lookup over HTTP/1.1 and any byte stream: the request is written as a whole, the response read in pieces.

use core::ffi::c_char;
use core::mem::MaybeUninit;

use cmiot_signer::http::{Decoder, Endpoint, HttpError, Response};

use crate::account::{CmiotAccount, signer};
use crate::code::{
    CMIOT_E_BUFFER, CMIOT_E_DATE, CMIOT_E_HTTP, CMIOT_E_HTTP_CLOSED, CMIOT_E_HTTP_LONG, CMIOT_E_NOT_HTTP,
    CMIOT_E_NULL, CMIOT_E_OTHER_REQUEST, CMIOT_E_UNFILLED, CMIOT_E_URL, CMIOT_OK, result,
};
use crate::memory::{CmiotText, Output, text, text_bytes};
use crate::sign::{CmiotCard, moment, parse_card};

/// The destination of lookups over HTTP.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CmiotEndpoint {
    /// The value of the Host header, the proxy's name or address and port: `192.168.1.10:8080`.
    pub host: CmiotText,
    /// The path of the operation, such as `/v2/userstatusrealsingle`.
    pub path: CmiotText,
    /// With 0 the connection carries one lookup; otherwise the request asks to keep it for further ones.
    pub keep_alive: i32,
}

/// Parser of an HTTP response. Its fields are private to the library.
#[repr(C)]
pub struct CmiotHttp {
    #[doc(hidden)]
    pub words: [usize; 40],
}

/// Content of the words.
struct Stored {
    /// [`BEGUN`]; with any other value the rest is not initialised.
    mark: u32,
    exchange: MaybeUninit<Exchange>,
}

struct Exchange {
    decoder: Decoder,
    body: *mut u8,
    capacity: usize,
}

/// A value that uninitialised memory is unlikely to contain.
const BEGUN: u32 = 0xC310_7B36;

const _: () = assert!(size_of::<Stored>() <= size_of::<CmiotHttp>());
const _: () = assert!(align_of::<Stored>() <= align_of::<CmiotHttp>());

/// Signs a lookup of a card, as cmiot_sign does, and writes it as a whole HTTP request: GET, Host, Connection.
///
/// Returns the request's length, or CMIOT_E_URL, or a code of cmiot_sign; then nothing was written.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_request(
    account: *const CmiotAccount,
    unix_seconds: u64,
    sequence: u32,
    card: CmiotCard,
    endpoint: *const CmiotEndpoint,
    request: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (signer, number, endpoint, out) = unsafe {
        (signer(account), text_bytes(card.number), endpoint.as_ref(), Output::new(request, capacity))
    };
    let mut place = MaybeUninit::uninit();
    result((|| {
        let (signer, endpoint) = (signer?, endpoint.ok_or(CMIOT_E_NULL)?);
        // SAFETY: the C caller's promise.
        let (host, path) = unsafe { (text(endpoint.host)?, text(endpoint.path)?) };
        let keep_alive = endpoint.keep_alive != 0;
        let endpoint = Endpoint::new(host, path).map_err(|_| CMIOT_E_URL)?.keep_alive(keep_alive);
        let (stamp, sequence) = moment(unix_seconds, sequence)?;
        let card = parse_card(card.kind, number?, &mut place)?;
        let mut out = out?;
        let room = out.room(endpoint.signed_len(&signer, card))?;
        let len = endpoint.sign_into(&signer, stamp, sequence, card, room).map_err(|_| CMIOT_E_BUFFER)?;
        Ok(len as i32)
    })())
}

/// Prepares to read the response to the request with this time and sequence, as passed to cmiot_http_request. The body
/// is written to `body`, which must stay in its place until it was read. Nothing is written yet.
///
/// The proxy names the request in each response. cmiot_http_feed refuses the response to another request, which came
/// late; the carrier's responses name none. A sequence of 0 accepts the response to any request.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_CLOCK_UNSET, CMIOT_E_CLOCK_LATE, CMIOT_E_SEQUENCE.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_begin(
    http: *mut CmiotHttp,
    unix_seconds: u64,
    sequence: u32,
    body: *mut u8,
    body_capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise; large and aligned enough, as asserted above.
    let stored = unsafe { http.cast::<Stored>().as_mut() };
    result((|| {
        let stored = stored.ok_or(CMIOT_E_NULL)?;
        stored.mark = 0;
        if body.is_null() {
            return Err(CMIOT_E_NULL);
        }
        let request = if sequence == 0 { None } else { Some(moment(unix_seconds, sequence)?) };
        stored.exchange.write(Exchange {
            decoder: Decoder::for_parts(request),
            body,
            capacity: body_capacity,
        });
        stored.mark = BEGUN;
        Ok(CMIOT_OK)
    })())
}

/// Reads a piece of the response, of any size. The piece may be in the body's buffer, from its beginning on: each byte
/// is read before one is written to its place.
///
/// Returns 1 when the response is complete, 0 when more is missing, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_HTTP,
/// CMIOT_E_NOT_HTTP, CMIOT_E_HTTP_LONG, CMIOT_E_OTHER_REQUEST; then every call returns the same until cmiot_http_begin
/// is called again. After any failure, a time-out included, the rest of the response may still come and must not be
/// taken for the next one's: hang up and dial again, or discard what comes until the line is silent.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_feed(http: *mut CmiotHttp, piece: *const u8, piece_len: usize) -> i32 {
    // SAFETY: the C caller's promise.
    let exchange = unsafe { exchange(http) };
    result((|| {
        let Exchange { decoder, body, capacity } = exchange?;
        if piece.is_null() {
            return Err(CMIOT_E_NULL);
        }
        let mut complete = decoder.feed_to(&[], |_| false);
        for at in 0..piece_len {
            // SAFETY: the C caller's promise. Through pointers, since the piece may be in the body's buffer.
            let byte = unsafe { piece.add(at).read() };
            let body_len = decoder.body_len();
            complete = decoder.feed_to(&[byte], |byte| {
                let fits = body_len < *capacity;
                if fits {
                    // SAFETY: inside the buffer of cmiot_http_begin.
                    unsafe { body.add(body_len).write(byte) };
                }
                fits
            });
        }
        complete.map(i32::from).map_err(code)
    })())
}

/// Reports that the connection was closed, which ends a response without a declared length.
///
/// Returns 1 when the response is complete, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_HTTP_CLOSED, or the failure of
/// cmiot_http_feed.
///
/// # Safety
/// `http` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_close(http: *mut CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let exchange = unsafe { exchange(http) };
    result((|| exchange?.decoder.close().map(|()| 1).map_err(code))())
}

/// The length of the body, once the response is complete.
///
/// Returns it, or CMIOT_E_NULL, CMIOT_E_UNFILLED, or the failure of cmiot_http_feed.
///
/// # Safety
/// `http` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_body_len(http: *const CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let decoder = unsafe { decoder(http) };
    result(decoder.and_then(|decoder| match decoder.is_complete() {
        Ok(true) => Ok(decoder.body_len() as i32),
        Ok(false) => Err(CMIOT_E_UNFILLED),
        Err(error) => Err(code(error)),
    }))
}

/// The response's HTTP status. Proxy and carrier send 200 even for a refusal.
///
/// Returns it, 0 before it was read, or CMIOT_E_NULL, CMIOT_E_UNFILLED.
///
/// # Safety
/// `http` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_status(http: *const CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let response = unsafe { response(http) };
    result(response.map(|response| i32::from(response.status)))
}

/// Whether the response names the request of cmiot_http_begin, as the proxy's do. One that does not, after a request
/// without a response on the same connection, may answer that.
///
/// Returns 1 if so, 0 if not, or CMIOT_E_NULL, CMIOT_E_UNFILLED.
///
/// # Safety
/// `http` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_named(http: *const CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let response = unsafe { response(http) };
    result(response.map(|response| i32::from(response.named)))
}

/// Whether the connection can carry another lookup after this response.
///
/// Returns 1 if so, 0 if not, or CMIOT_E_NULL, CMIOT_E_UNFILLED.
///
/// # Safety
/// `http` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_reusable(http: *const CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let response = unsafe { response(http) };
    result(response.map(|response| i32::from(response.reusable)))
}

/// The server's clock in seconds since 1970, UTC, from the response's Date header: for a device without a clock. See
/// cmiot_date_check before it sets a clock.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_UNFILLED, or CMIOT_E_DATE if there is none.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_date(http: *const CmiotHttp, unix_seconds: *mut u64) -> i32 {
    // SAFETY: the C caller's promise.
    let response = unsafe { response(http) };
    result((|| {
        let date = response?.date.ok_or(CMIOT_E_DATE)?;
        if unix_seconds.is_null() {
            return Err(CMIOT_E_NULL);
        }
        // SAFETY: not NULL, and the C caller's promise.
        unsafe { unix_seconds.write(date.to_unix()) };
        Ok(CMIOT_OK)
    })())
}

/// The response, without its body.
///
/// # Safety
/// As for [`decoder`].
unsafe fn response<'a>(http: *const CmiotHttp) -> Result<Response<'a>, i32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { decoder(http) }?.response(&[]))
}

/// # Safety
/// `http` is NULL or points to a `CmiotHttp` that does not change while the result is used.
unsafe fn decoder<'a>(http: *const CmiotHttp) -> Result<&'a Decoder, i32> {
    // SAFETY: the caller's promise; the mark is valid for every bit pattern.
    let stored = unsafe { http.cast::<Stored>().as_ref() }.ok_or(CMIOT_E_NULL)?;
    if stored.mark != BEGUN {
        return Err(CMIOT_E_UNFILLED);
    }
    // SAFETY: the mark is written after the exchange.
    Ok(unsafe { &stored.exchange.assume_init_ref().decoder })
}

/// # Safety
/// `http` is NULL or points to a `CmiotHttp` that is not used elsewhere.
unsafe fn exchange<'a>(http: *mut CmiotHttp) -> Result<&'a mut Exchange, i32> {
    // SAFETY: the caller's promise; the mark is valid for every bit pattern.
    let stored = unsafe { http.cast::<Stored>().as_mut() }.ok_or(CMIOT_E_NULL)?;
    if stored.mark != BEGUN {
        return Err(CMIOT_E_UNFILLED);
    }
    // SAFETY: the mark is written after the exchange.
    Ok(unsafe { stored.exchange.assume_init_mut() })
}

fn code(error: HttpError) -> i32 {
    match error {
        HttpError::Truncated => CMIOT_E_HTTP_CLOSED,
        HttpError::HeadTooLong | HttpError::BodyTooLong => CMIOT_E_HTTP_LONG,
        HttpError::NotHttp => CMIOT_E_NOT_HTTP,
        HttpError::OtherRequest => CMIOT_E_OTHER_REQUEST,
        HttpError::Malformed | HttpError::BadHost | HttpError::BadPath => CMIOT_E_HTTP,
    }
}
