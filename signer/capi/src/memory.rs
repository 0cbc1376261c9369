//! C pointers as slices, with NULL as an error; and texts written with their NUL.

use core::ffi::c_char;
use core::fmt;
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

/// The bytes of a text.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text_bytes<'a>(text: CmiotText) -> Result<&'a [u8], i32> {
    // SAFETY: the caller's promise.
    unsafe { bytes(text.ptr.cast(), text.len) }
}

/// The text at a pointer; empty if it is not ASCII.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(text: CmiotText) -> Result<&'a str, i32> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { text_bytes(text) }?;
    // Every valid text is ASCII, so another one becomes empty, which is invalid. General UTF-8 validation would link
    // core's tables.
    if !bytes.iter().all(u8::is_ascii) {
        return Ok("");
    }
    // SAFETY: ASCII is UTF-8.
    Ok(unsafe { core::str::from_utf8_unchecked(bytes) })
}

/// The caller's buffer for a text and its NUL. Nothing is written before the text is complete and known to fit.
pub(crate) struct Output {
    data: *mut u8,
    capacity: usize,
}

impl Output {
    /// # Safety
    /// `data` is NULL or points to `capacity` bytes that are not used elsewhere during the value's lifetime.
    pub(crate) unsafe fn new(data: *mut c_char, capacity: usize) -> Result<Self, i32> {
        if data.is_null() {
            return Err(CMIOT_E_NULL);
        }
        Ok(Self { data: data.cast(), capacity })
    }

    /// Memory for a text of `len` bytes, with a NUL after it.
    pub(crate) fn room(&mut self, len: usize) -> Result<&mut [u8], i32> {
        if len >= self.capacity {
            return Err(CMIOT_E_BUFFER);
        }
        // The caller's memory need not be initialised, which a slice must be.
        for at in 0..=len {
            // SAFETY: inside the buffer, as just checked.
            unsafe { self.data.add(at).write(0) };
        }
        // SAFETY: inside the buffer, initialised just now, and borrowed from `self`.
        Ok(unsafe { slice::from_raw_parts_mut(self.data, len) })
    }

    /// Writes a text and its NUL, and returns the text's length.
    pub(crate) fn write(mut self, text: &[u8]) -> Result<i32, i32> {
        let room = self.room(text.len())?;
        for (slot, &byte) in room.iter_mut().zip(text) {
            *slot = byte;
        }
        Ok(text.len() as i32)
    }

    /// Writes as many whole characters as fit, and the NUL; returns the text's length.
    pub(crate) fn write_truncated(
        self,
        text: impl FnOnce(&mut Truncated) -> fmt::Result,
    ) -> Result<i32, i32> {
        let Some(room) = self.capacity.checked_sub(1) else { return Err(CMIOT_E_BUFFER) };
        let mut truncated = Truncated { data: self.data, room, len: 0 };
        // The only error is a character that does not fit.
        let _ = text(&mut truncated);
        // SAFETY: `len` is at most `room`, which is below the capacity.
        unsafe { truncated.data.add(truncated.len).write(0) };
        Ok(truncated.len as i32)
    }
}

/// A writer that accepts whole characters while they fit.
pub(crate) struct Truncated {
    data: *mut u8,
    /// Bytes of the buffer without the NUL.
    room: usize,
    len: usize,
}

impl fmt::Write for Truncated {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        let mut utf8 = [0; 4];
        let utf8 = c.encode_utf8(&mut utf8).as_bytes();
        if utf8.len() > self.room - self.len {
            return Err(fmt::Error);
        }
        for &byte in utf8 {
            // SAFETY: below `room`, as just checked.
            unsafe { self.data.add(self.len).write(byte) };
            self.len += 1;
        }
        Ok(())
    }
}

/// Copies as much as fits, one byte at a time: unequal lengths would link a panic, and `memcpy` takes 700 B of flash.
pub(crate) fn copy(out: &mut [u8], bytes: &[u8]) {
    for (slot, &byte) in out.iter_mut().zip(bytes) {
        *slot = byte;
    }
}
