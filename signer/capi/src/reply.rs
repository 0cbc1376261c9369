//! Reading the carrier's reply: one function reads it into the caller's struct, others return its parts.

use core::ffi::c_char;
use core::fmt::{self, Write};
use core::ptr;

use cmiot_signer::{Refusal, Reply, Status};

use crate::code::{
    self, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS, CMIOT_E_NULL, CMIOT_E_REFUSED, CMIOT_OK, result,
};
use crate::memory::{buffer, bytes, copy, write_text};

/// A reply. Its fields are private to the library.
#[repr(C)]
pub struct CmiotReply {
    #[doc(hidden)]
    pub words: [usize; 16],
}

/// A STATUS that the carrier's page does not list: see cmiot_reply_status_text.
pub const CMIOT_STATUS_UNKNOWN: i32 = 1000;

/// Content of the words. Every bit pattern is valid, except for the body's pointer.
struct Stored {
    /// The body, from which the message is read again.
    body: *const u8,
    body_len: usize,
    /// The result of `cmiot_reply_status`.
    status: i32,
    results: usize,
    code: ShortText,
    status_text: ShortText,
}

const _: () = assert!(size_of::<Stored>() <= size_of::<CmiotReply>());
const _: () = assert!(align_of::<Stored>() <= align_of::<CmiotReply>());

/// A text of up to 16 bytes.
#[derive(Clone, Copy)]
struct ShortText {
    bytes: [u8; 16],
    len: u8,
}

impl ShortText {
    fn new(text: &[u8]) -> Self {
        let mut bytes = [0; 16];
        copy(&mut bytes, text);
        Self { bytes, len: text.len().min(16) as u8 }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Reads a reply: the whole body of one HTTP response, and nothing else.
///
/// `body` must stay in its place, unchanged, until the last call of cmiot_reply_message. On failure `reply` is empty.
///
/// Returns CMIOT_OK for a reply with any code, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes after it.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_scan(reply: *mut CmiotReply, body: *const u8, body_len: usize) -> i32 {
    if reply.is_null() {
        return CMIOT_E_NULL;
    }
    // SAFETY: the C caller's promise.
    let read = unsafe { bytes(body, body_len) }.and_then(|body| Reply::scan(body).map_err(code::reply));
    let stored = match &read {
        Ok(found) => Stored {
            body,
            body_len,
            status: status(found),
            results: found.results(),
            code: ShortText::new(found.code().as_bytes()),
            status_text: ShortText::new(found.status().as_ref().map_or("", Status::code).as_bytes()),
        },
        Err(error) => Stored {
            body: ptr::null(),
            body_len: 0,
            status: *error,
            results: 0,
            code: ShortText::new(b""),
            status_text: ShortText::new(b""),
        },
    };
    // SAFETY: not NULL, the caller's own, and large and aligned enough, as asserted above.
    unsafe { ptr::write(reply.cast(), stored) };
    result(read.map(|_| CMIOT_OK))
}

/// The card's status: 0 normal, 1 one-way barred, 2 barred, 3 pre-cancelled, 4 cancelled, 5 transferred, 6 dormant,
/// 7 awaiting activation, 99 no such number, or CMIOT_STATUS_UNKNOWN.
///
/// Returns it, or CMIOT_E_NULL, CMIOT_E_REFUSED, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS, or the result of
/// cmiot_reply_scan.
///
/// # Safety
/// `reply` is NULL or was read by cmiot_reply_scan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_status(reply: *const CmiotReply) -> i32 {
    // SAFETY: the C caller's promise.
    result(unsafe { stored(reply) }.map(|stored| stored.status))
}

/// The number of results. Only the first is read.
///
/// Returns the number, or CMIOT_E_NULL.
///
/// # Safety
/// `reply` is NULL or was read by cmiot_reply_scan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_results(reply: *const CmiotReply) -> i32 {
    // SAFETY: the C caller's promise. A reply has at most 65536 bytes, and so fewer results.
    result(unsafe { stored(reply) }.map(|stored| stored.results as i32))
}

/// Writes the envelope code: "0", "10", "01016". 17 bytes are always enough.
///
/// Returns its length, or CMIOT_E_NULL, CMIOT_E_BUFFER.
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
    let (stored, out) = unsafe { (stored(reply), buffer(out, capacity)) };
    result(stored.and_then(|stored| write_text(out?, stored.code.as_bytes())))
}

/// Writes the card's STATUS as received: "00", or up to 16 bytes of an unknown one; empty if there is none.
///
/// Returns its length, or CMIOT_E_NULL, CMIOT_E_BUFFER.
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
    let (stored, out) = unsafe { (stored(reply), buffer(out, capacity)) };
    result(stored.and_then(|stored| write_text(out?, stored.status_text.as_bytes())))
}

/// Writes the envelope's message, decoded to UTF-8, as far as whole characters fit; empty if there is none.
///
/// Returns the length written, or CMIOT_E_NULL, CMIOT_E_BUFFER when there is no room for the NUL.
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
    let (stored, out) = unsafe { (stored(reply), buffer(out, capacity)) };
    result((|| {
        let stored = stored?;
        // The last byte stays zero.
        let (_, room) = out?.split_last_mut().ok_or(code::CMIOT_E_BUFFER)?;
        let mut text = Truncated { room, len: 0 };
        // SAFETY: NULL if nothing was read, else the body that was passed to `cmiot_reply_scan`.
        if let Ok(body) = unsafe { bytes(stored.body, stored.body_len) }
            && let Ok(reply) = Reply::scan(body)
        {
            // The only error is a character that does not fit.
            let _ = reply.message().write_to(&mut text);
        }
        Ok(text.len as i32)
    })())
}

/// The result of `cmiot_reply_status`.
fn status(reply: &Reply<'_>) -> i32 {
    match reply.into_status() {
        Ok(Status::Normal) => 0,
        Ok(Status::OneWayBarred) => 1,
        Ok(Status::Barred) => 2,
        Ok(Status::PreCancelled) => 3,
        Ok(Status::Cancelled) => 4,
        Ok(Status::Transferred) => 5,
        Ok(Status::Dormant) => 6,
        Ok(Status::AwaitingActivation) => 7,
        Ok(Status::NoSuchNumber) => 99,
        Ok(Status::Unknown(_)) => CMIOT_STATUS_UNKNOWN,
        Err(Refusal::Refused { .. }) => CMIOT_E_REFUSED,
        Err(Refusal::NoResult) => CMIOT_E_NO_RESULT,
        Err(Refusal::NoStatus) => CMIOT_E_NO_STATUS,
    }
}

/// # Safety
/// `reply` is NULL or was read by cmiot_reply_scan.
unsafe fn stored<'a>(reply: *const CmiotReply) -> Result<&'a Stored, i32> {
    // SAFETY: the caller's promise; the fields are valid for every bit pattern.
    unsafe { reply.cast::<Stored>().as_ref() }.ok_or(CMIOT_E_NULL)
}

/// A writer that accepts whole characters while they fit.
struct Truncated<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl Write for Truncated<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        let mut utf8 = [0; 4];
        let utf8 = c.encode_utf8(&mut utf8).as_bytes();
        let room = self.room.get_mut(self.len..self.len + utf8.len()).ok_or(fmt::Error)?;
        copy(room, utf8);
        self.len += utf8.len();
        Ok(())
    }
}
