//! Reading the carrier's reply: one function reads it into the caller's struct, others return its parts.

use core::ffi::c_char;
use core::mem::MaybeUninit;

use cmiot_signer::{Refusal, Reply, Status};

use crate::code::{
    self, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS, CMIOT_E_NULL, CMIOT_E_REFUSED, CMIOT_E_UNFILLED, CMIOT_OK,
    result,
};
use crate::memory::{Output, bytes};

/// A reply. Its fields are private to the library.
#[repr(C)]
pub struct CmiotReply {
    #[doc(hidden)]
    pub words: [usize; 18],
}

/// A STATUS that the carrier's page does not list: see cmiot_reply_status_text.
pub const CMIOT_STATUS_UNKNOWN: i32 = 1000;

/// Content of the words.
struct Stored {
    /// [`FILLED`]; with any other value the rest is not initialised.
    mark: u32,
    /// The result of `cmiot_reply_scan`; if it is a failure, the reply is not initialised.
    scanned: i32,
    /// It borrows the body, which the caller leaves in its place.
    reply: MaybeUninit<Reply<'static>>,
}

/// A value that uninitialised memory is unlikely to contain.
const FILLED: u32 = 0xC310_4E91;

const _: () = assert!(size_of::<Stored>() <= size_of::<CmiotReply>());
const _: () = assert!(align_of::<Stored>() <= align_of::<CmiotReply>());

/// Reads a reply: the whole body of one HTTP response, and nothing else.
///
/// `body` must stay in its place, unchanged, until the last call of cmiot_reply_message.
///
/// Returns CMIOT_OK for a reply with any code, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it; then the other
/// functions return the same.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_scan(reply: *mut CmiotReply, body: *const u8, body_len: usize) -> i32 {
    // SAFETY: the C caller's promise; large and aligned enough, as asserted above.
    let stored = unsafe { reply.cast::<Stored>().as_mut() };
    let Some(stored) = stored else { return CMIOT_E_NULL };
    // SAFETY: the C caller's promise; the body stays in its place as long as the reply is used.
    let body: Result<&'static [u8], i32> = unsafe { bytes(body, body_len) };
    let read = body
        .and_then(|body| Reply::scan_into(body, &mut stored.reply).map(|_| CMIOT_OK).map_err(code::reply));
    stored.scanned = result(read);
    stored.mark = FILLED;
    stored.scanned
}

/// The card's status: 0 normal, 1 one-way barred, 2 barred, 3 pre-cancelled, 4 cancelled, 5 transferred, 6 dormant,
/// 7 awaiting activation, 99 no such number, or CMIOT_STATUS_UNKNOWN.
///
/// Returns it, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_REFUSED, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS, or the failure
/// of cmiot_reply_scan.
///
/// # Safety
/// `reply` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_status(reply: *const CmiotReply) -> i32 {
    // SAFETY: the C caller's promise.
    result(unsafe { stored(reply) }.map(status))
}

/// The number of results. Only the first is read.
///
/// Returns the number, or CMIOT_E_NULL, CMIOT_E_UNFILLED, or the failure of cmiot_reply_scan.
///
/// # Safety
/// `reply` is NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_results(reply: *const CmiotReply) -> i32 {
    // SAFETY: the C caller's promise. A reply has at most 65536 bytes, and so fewer results.
    result(unsafe { stored(reply) }.map(|reply| reply.results() as i32))
}

/// Writes the envelope code: "0", "10", "01016". 17 bytes are always enough.
///
/// Returns its length, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_BUFFER, or the failure of cmiot_reply_scan.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_code(
    reply: *const CmiotReply,
    out: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (stored, out) = unsafe { (stored(reply), Output::new(out, capacity)) };
    result(stored.and_then(|reply| out?.write(reply.code_bytes())))
}

/// Writes the card's STATUS as received: "00", or up to 16 bytes of an unknown one; empty if there is none.
///
/// Returns its length, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_BUFFER, or the failure of cmiot_reply_scan.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_status_text(
    reply: *const CmiotReply,
    out: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (stored, out) = unsafe { (stored(reply), Output::new(out, capacity)) };
    result(stored.and_then(|reply| out?.write(reply.status().as_ref().map_or(b"", Status::code_bytes))))
}

/// Writes the envelope's message, decoded to UTF-8, as far as whole characters fit; empty if there is none.
///
/// Returns the length written, or CMIOT_E_NULL, CMIOT_E_UNFILLED, CMIOT_E_BUFFER when there is no room for the NUL, or
/// the failure of cmiot_reply_scan.
///
/// # Safety
/// Pointers are NULL or as described, and the body that was read is still in its place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_message(
    reply: *const CmiotReply,
    out: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the C caller's promise.
    let (stored, out) = unsafe { (stored(reply), Output::new(out, capacity)) };
    result(stored.and_then(|reply| out?.write_truncated(|text| reply.message().write_to(text))))
}

/// The result of `cmiot_reply_status`.
fn status(reply: &Reply<'_>) -> i32 {
    match reply.into_status() {
        Ok(status) => status_code(status),
        Err(Refusal::Refused { .. }) => CMIOT_E_REFUSED,
        Err(Refusal::NoResult) => CMIOT_E_NO_RESULT,
        Err(Refusal::NoStatus) => CMIOT_E_NO_STATUS,
    }
}

/// The number of a status.
pub(crate) fn status_code(status: Status) -> i32 {
    match status {
        Status::Normal => 0,
        Status::OneWayBarred => 1,
        Status::Barred => 2,
        Status::PreCancelled => 3,
        Status::Cancelled => 4,
        Status::Transferred => 5,
        Status::Dormant => 6,
        Status::AwaitingActivation => 7,
        Status::NoSuchNumber => 99,
        Status::Unknown(_) => CMIOT_STATUS_UNKNOWN,
    }
}

/// A reply that was read.
///
/// # Safety
/// `reply` is NULL or as described.
unsafe fn stored<'a>(reply: *const CmiotReply) -> Result<&'a Reply<'a>, i32> {
    // SAFETY: the caller's promise; the fields are valid for every bit pattern.
    let stored = unsafe { reply.cast::<Stored>().as_ref() }.ok_or(CMIOT_E_NULL)?;
    match (stored.mark, stored.scanned) {
        // SAFETY: mark and result are written after the reply.
        (FILLED, CMIOT_OK) => Ok(unsafe { stored.reply.assume_init_ref() }),
        (FILLED, failure) => Err(failure),
        _ => Err(CMIOT_E_UNFILLED),
    }
}
