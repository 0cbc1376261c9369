//! Reading an answer: once, into a struct of the caller's; its parts are asked for afterwards.

use core::ffi::c_char;
use core::fmt::{self, Write};
use core::ptr;

use cmiot_signer::{Refusal, Reply, Status};

use crate::code::{
    self, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS, CMIOT_E_NULL, CMIOT_E_REFUSED, CMIOT_OK, result,
};
use crate::memory::{buffer, bytes, copy, put};

/// An answer that was read. Its fields are the library's own.
#[repr(C)]
pub struct CmiotReply {
    #[doc(hidden)]
    pub words: [usize; 16],
}

/// A STATUS that the carrier's page does not list: its text says which.
pub const CMIOT_STATUS_UNKNOWN: i32 = 1000;

/// What is in the words. Any bit pattern is one, but for the body's pointer.
struct Stored {
    /// The answer, to find its message in again.
    body: *const u8,
    body_len: usize,
    /// What `cmiot_reply_status` returns.
    status: i32,
    results: usize,
    code: Short,
    status_text: Short,
}

const _: () = assert!(size_of::<Stored>() <= size_of::<CmiotReply>());
const _: () = assert!(align_of::<Stored>() <= align_of::<CmiotReply>());

/// A text of up to 16 bytes.
#[derive(Clone, Copy)]
struct Short {
    bytes: [u8; 16],
    len: u8,
}

impl Short {
    fn new(text: &[u8]) -> Self {
        let mut bytes = [0; 16];
        copy(&mut bytes, text);
        Self { bytes, len: text.len().min(16) as u8 }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Reads an answer: the whole body of one HTTP response, and nothing else.
///
/// `body` must stay where it is, unchanged, until its message was asked for. On failure `reply` holds an answer
/// without anything in it.
///
/// Returns CMIOT_OK when it is an answer, whatever it says, or CMIOT_E_NULL, CMIOT_E_TRUNCATED and the codes below it.
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
            code: Short::new(found.code().as_bytes()),
            status_text: Short::new(found.status().as_ref().map_or("", Status::code).as_bytes()),
        },
        Err(error) => Stored {
            body: ptr::null(),
            body_len: 0,
            status: *error,
            results: 0,
            code: Short::new(b""),
            status_text: Short::new(b""),
        },
    };
    // SAFETY: not NULL, the caller's own, and large and aligned enough, as asserted above.
    unsafe { ptr::write(reply.cast(), stored) };
    result(read.map(|_| CMIOT_OK))
}

/// The card's status: 0 normal, 1 one-way barred, 2 barred, 3 pre-cancelled, 4 cancelled, 5 transferred, 6 dormant,
/// 7 awaiting activation, 99 no such number, or CMIOT_STATUS_UNKNOWN.
///
/// Returns it, or CMIOT_E_NULL, CMIOT_E_REFUSED, CMIOT_E_NO_RESULT, CMIOT_E_NO_STATUS, or what cmiot_reply_scan said.
///
/// # Safety
/// `reply` is NULL or was read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_status(reply: *const CmiotReply) -> i32 {
    // SAFETY: the C caller's promise.
    result(unsafe { stored(reply) }.map(|stored| stored.status))
}

/// How many results the answer has. Only the first is read.
///
/// Returns the number, or CMIOT_E_NULL.
///
/// # Safety
/// `reply` is NULL or was read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_reply_results(reply: *const CmiotReply) -> i32 {
    // SAFETY: the C caller's promise. An answer has at most 65536 bytes, and so fewer results.
    result(unsafe { stored(reply) }.map(|stored| stored.results as i32))
}

/// Writes the envelope's code: "0", "10", "01016". 17 bytes hold any.
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
    result(stored.and_then(|stored| put(out?, stored.code.as_bytes())))
}

/// Writes the card's STATUS as it came: "00", and up to 16 bytes of an unknown one; empty if there is none.
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
    result(stored.and_then(|stored| put(out?, stored.status_text.as_bytes())))
}

/// Writes the envelope's message, decoded to UTF-8, as far as whole characters fit; empty if there is none.
///
/// Returns the length written, or CMIOT_E_NULL, CMIOT_E_BUFFER when there is no room for the NUL.
///
/// # Safety
/// Pointers are NULL or as described, and the body that was read is still there.
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
        // SAFETY: NULL when nothing was read, else what `cmiot_reply_scan` was handed.
        if let Ok(body) = unsafe { bytes(stored.body, stored.body_len) }
            && let Ok(reply) = Reply::scan(body)
        {
            // It says no only to stop what does not fit.
            let _ = reply.message().write_to(&mut text);
        }
        Ok(text.len as i32)
    })())
}

/// What `cmiot_reply_status` will return.
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
/// `reply` is NULL or was read.
unsafe fn stored<'a>(reply: *const CmiotReply) -> Result<&'a Stored, i32> {
    // SAFETY: the caller's promise; the fields are valid whatever they hold.
    unsafe { reply.cast::<Stored>().as_ref() }.ok_or(CMIOT_E_NULL)
}

/// Takes whole characters while they fit.
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
