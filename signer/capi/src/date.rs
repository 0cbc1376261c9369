//! Setting a clock from a response: every response carries the time, a refusal included.

use cmiot_signer::Stamp;

use crate::code::{CMIOT_E_NULL, CMIOT_OK, result, stamp};
use crate::memory::{CmiotText, bytes};

/// Reads the value of an HTTP `Date` header, such as `Sun, 06 Nov 1994 08:49:37 GMT`, into seconds since 1970, UTC.
/// A device without a clock sends a lookup, which is refused for its stamp, and sets its clock from the refusal.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_DATE, CMIOT_E_CLOCK_LATE.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_date_to_unix(date: CmiotText, unix_seconds: *mut u64) -> i32 {
    // SAFETY: the C caller's promise.
    let date = unsafe { bytes(date.ptr.cast(), date.len) };
    result((|| {
        let seconds = Stamp::from_http_date(date?).map_err(stamp)?.to_unix();
        if unix_seconds.is_null() {
            return Err(CMIOT_E_NULL);
        }
        // SAFETY: not NULL, and the C caller's promise.
        unsafe { unix_seconds.write(seconds) };
        Ok(CMIOT_OK)
    })())
}
