//! One lookup over HTTP/1.1 and any byte stream: the request is written as a whole, the response read in pieces.

use core::ffi::c_char;
use core::mem::MaybeUninit;
use core::{ptr, slice};

use cmiot_signer::http::{Decoder, Endpoint, HttpError, Response};

use crate::account::{CmiotAccount, signer};
use crate::code::{
    CMIOT_E_BUFFER, CMIOT_E_DATE, CMIOT_E_HTTP, CMIOT_E_HTTP_CLOSED, CMIOT_E_HTTP_LONG, CMIOT_E_NULL,
    CMIOT_E_URL, CMIOT_OK, result,
};
use crate::memory::{CmiotText, buffer, bytes, text};
use crate::sign::{CmiotCard, lookup};

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
    pub words: [usize; 32],
}

/// Content of the words.
struct Stored {
    /// [`INITIALIZED`]; with any other value the rest is not initialised.
    mark: u32,
    exchange: MaybeUninit<Exchange>,
}

struct Exchange {
    decoder: Decoder,
    body: *mut u8,
    capacity: usize,
}

/// A value that uninitialised memory is unlikely to contain.
const INITIALIZED: u32 = 0xC310_7B36;

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
    let (signer, number, endpoint, out) =
        unsafe { (signer(account), text(card.number), endpoint.as_ref(), buffer(request, capacity)) };
    result((|| {
        let endpoint = endpoint.ok_or(CMIOT_E_NULL)?;
        // SAFETY: the C caller's promise.
        let (host, path) = unsafe { (text(endpoint.host)?, text(endpoint.path)?) };
        let keep_alive = endpoint.keep_alive != 0;
        let endpoint = Endpoint::new(host, path).map_err(|_| CMIOT_E_URL)?.keep_alive(keep_alive);
        let (stamp, sequence, card) = lookup(unix_seconds, sequence, card.kind, number?)?;
        // The last byte stays zero.
        let (_, room) = out?.split_last_mut().ok_or(CMIOT_E_BUFFER)?;
        let len =
            endpoint.write_into(&signer?.sign(stamp, sequence, &card), room).map_err(|_| CMIOT_E_BUFFER)?;
        Ok(len as i32)
    })())
}

/// Prepares to read a response, whose body is written to `body`. The buffer must stay in its place until it was read.
///
/// Returns CMIOT_OK or CMIOT_E_NULL.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_begin(http: *mut CmiotHttp, body: *mut u8, body_capacity: usize) -> i32 {
    // SAFETY: the C caller's promise.
    let cleared = unsafe { buffer(body.cast(), body_capacity) };
    if http.is_null() || cleared.is_err() {
        return CMIOT_E_NULL;
    }
    let exchange = Exchange { decoder: Decoder::new(), body, capacity: body_capacity };
    let stored = Stored { mark: INITIALIZED, exchange: MaybeUninit::new(exchange) };
    // SAFETY: not NULL, the caller's own, and large and aligned enough, as asserted above.
    unsafe { ptr::write(http.cast(), stored) };
    CMIOT_OK
}

/// Reads a piece of the response, of any size.
///
/// Returns 1 when the response is complete, 0 when more is missing, or CMIOT_E_NULL, CMIOT_E_HTTP, CMIOT_E_HTTP_LONG;
/// then call cmiot_http_begin again, on a new connection.
///
/// # Safety
/// Pointers are NULL or as described; `http` was prepared by cmiot_http_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_feed(http: *mut CmiotHttp, piece: *const u8, piece_len: usize) -> i32 {
    // SAFETY: the C caller's promise.
    let (exchange, piece) = unsafe { (exchange(http), bytes(piece, piece_len)) };
    result((|| {
        let exchange = exchange?;
        // SAFETY: the buffer of cmiot_http_begin, which cleared it.
        let body = unsafe { slice::from_raw_parts_mut(exchange.body, exchange.capacity) };
        Ok(i32::from(exchange.decoder.feed(piece?, body).map_err(code)?))
    })())
}

/// Reports that the connection was closed, which ends a response without a declared length.
///
/// Returns 1 when the response is complete, or CMIOT_E_NULL, CMIOT_E_HTTP_CLOSED.
///
/// # Safety
/// `http` is NULL or was prepared by cmiot_http_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_close(http: *mut CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let exchange = unsafe { exchange(http) };
    result((|| exchange?.decoder.close().map(|()| 1).map_err(code))())
}

/// The length of the body, once the response is complete.
///
/// Returns it, or CMIOT_E_NULL.
///
/// # Safety
/// `http` is NULL or was prepared by cmiot_http_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_body_len(http: *mut CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let response = unsafe { response(http) };
    result(response.map(|response| response.body.len() as i32))
}

/// The response's HTTP status. Proxy and carrier send 200 even for a refusal.
///
/// Returns it, 0 before it was read, or CMIOT_E_NULL.
///
/// # Safety
/// `http` is NULL or was prepared by cmiot_http_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_status(http: *mut CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let response = unsafe { response(http) };
    result(response.map(|response| i32::from(response.status)))
}

/// Whether the connection can carry another lookup after this response.
///
/// Returns 1 if so, 0 if not, or CMIOT_E_NULL.
///
/// # Safety
/// `http` is NULL or was prepared by cmiot_http_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_reusable(http: *mut CmiotHttp) -> i32 {
    // SAFETY: the C caller's promise.
    let response = unsafe { response(http) };
    result(response.map(|response| i32::from(response.reusable)))
}

/// The server's clock in seconds since 1970, UTC, from the response's Date header: for a device without a clock.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, or CMIOT_E_DATE if there is none.
///
/// # Safety
/// Pointers are NULL or as described; `http` was prepared by cmiot_http_begin.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_http_date(http: *mut CmiotHttp, unix_seconds: *mut u64) -> i32 {
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

/// # Safety
/// As for [`exchange`].
unsafe fn response<'a>(http: *mut CmiotHttp) -> Result<Response<'a>, i32> {
    // SAFETY: the caller's promise.
    let exchange = unsafe { exchange(http) }?;
    // SAFETY: the buffer of cmiot_http_begin, which cleared it.
    let body = unsafe { slice::from_raw_parts(exchange.body, exchange.capacity) };
    Ok(exchange.decoder.response(body))
}

/// # Safety
/// `http` is NULL or points to a `CmiotHttp` that is not used elsewhere.
unsafe fn exchange<'a>(http: *mut CmiotHttp) -> Result<&'a mut Exchange, i32> {
    // SAFETY: the caller's promise; the mark is valid for every bit pattern.
    let stored = unsafe { http.cast::<Stored>().as_mut() }.ok_or(CMIOT_E_NULL)?;
    if stored.mark != INITIALIZED {
        return Err(CMIOT_E_NULL);
    }
    // SAFETY: mark and exchange are written together.
    Ok(unsafe { stored.exchange.assume_init_mut() })
}

fn code(error: HttpError) -> i32 {
    match error {
        HttpError::Truncated => CMIOT_E_HTTP_CLOSED,
        HttpError::HeadTooLong | HttpError::BodyTooLong => CMIOT_E_HTTP_LONG,
        HttpError::Malformed | HttpError::BadHost | HttpError::BadPath => CMIOT_E_HTTP,
    }
}
