//! C pointers as slices and references, with NULL as an error; and texts written with their NUL.

use core::ffi::c_char;
use core::slice;

use crate::code::{CMIOT_E_BUFFER, CMIOT_E_NULL};

/// A text of `len` bytes, which needs no NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CmiotText {
    /// The first byte.
    pub ptr: *const c_char,
    /// The number of bytes.
    pub len: usize,
}

/// The bytes at a pointer.
///
/// # Safety
/// `data` is NULL or points to `len` bytes that do not change during the slice's lifetime.
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: usize) -> Result<&'a [u8], i32> {
    if data.is_null() {
        return Err(CMIOT_E_NULL);
    }
    // SAFETY: not NULL, and the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// The text at a pointer; empty if it is not ASCII.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(text: CmiotText) -> Result<&'a str, i32> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(text.ptr.cast(), text.len) }?;
    // Every valid text is ASCII, so another one becomes empty, which is invalid. General UTF-8 validation would link
    // core's tables.
    if !bytes.iter().all(u8::is_ascii) {
        return Ok("");
    }
    // SAFETY: ASCII is UTF-8.
    Ok(unsafe { core::str::from_utf8_unchecked(bytes) })
}

/// A buffer to write to. It need not be initialised, so it is cleared.
///
/// # Safety
/// `data` is NULL or points to `capacity` bytes that are not used elsewhere during the slice's lifetime.
pub(crate) unsafe fn buffer<'a>(data: *mut c_char, capacity: usize) -> Result<&'a mut [u8], i32> {
    if data.is_null() {
        return Err(CMIOT_E_NULL);
    }
    let data = data.cast::<u8>();
    for at in 0..capacity {
        // SAFETY: inside the buffer, by the caller's promise.
        unsafe { data.add(at).write(0) };
    }
    // SAFETY: not NULL, initialised just now, and the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(data, capacity) })
}

/// Writes a text and its NUL, and returns the text's length.
pub(crate) fn write_text(out: &mut [u8], text: &[u8]) -> Result<i32, i32> {
    // The buffer was cleared, so the NUL exists if there is room for it.
    let (room, nul) = out.split_at_mut_checked(text.len()).ok_or(CMIOT_E_BUFFER)?;
    if nul.is_empty() {
        return Err(CMIOT_E_BUFFER);
    }
    copy(room, text);
    Ok(text.len() as i32)
}

/// Copies as much as fits, one byte at a time: unequal lengths would link a panic, and `memcpy` takes 700 B of flash.
pub(crate) fn copy(out: &mut [u8], bytes: &[u8]) {
    for (slot, &byte) in out.iter_mut().zip(bytes) {
        *slot = byte;
    }
}
