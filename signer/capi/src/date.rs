//! Setting a clock from a response: every response carries the time, a refusal included.

use cmiot_signer::{DateLimits, Stamp};

use crate::code::{CMIOT_E_DATE_LIMITS, CMIOT_E_NULL, CMIOT_OK, result, stamp};
use crate::memory::{CmiotText, text_bytes};

/// Reads the value of an HTTP `Date` header, such as `Sun, 29 Nov 2026 10:00:00 GMT`, into seconds since 1970, UTC.
/// A device without a clock sends a lookup, which is refused for its stamp, and sets its clock from the refusal, if
/// cmiot_date_check permits.
///
/// Returns CMIOT_OK, or CMIOT_E_NULL, CMIOT_E_DATE, CMIOT_E_CLOCK_LATE.
///
/// # Safety
/// Pointers are NULL or as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cmiot_date_to_unix(date: CmiotText, unix_seconds: *mut u64) -> i32 {
    // SAFETY: the C caller's promise.
    let date = unsafe { text_bytes(date) };
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

/// Whether `date`, from a response, may set a clock that reads `clock` (0 if it was never set). All times are seconds
/// since 1970, UTC; `built` is the time of the firmware's build, and `largest_step` a number of seconds (86400 if 0).
///
/// A date before `built` or 20 years after it sets no clock. A clock that reads such a time cannot be right, and any
/// other date sets it; otherwise the step is limited. Plain HTTP protects no header: an attacker on the path can send
/// any date, and record lookups that are signed for that time.
///
/// Returns CMIOT_OK, or CMIOT_E_DATE_LIMITS, or CMIOT_E_CLOCK_UNSET, CMIOT_E_CLOCK_LATE for `date` or `built`.
#[unsafe(no_mangle)]
pub extern "C" fn cmiot_date_check(clock: u64, date: u64, built: u64, largest_step: u32) -> i32 {
    result((|| {
        let mut limits = DateLimits::new(Stamp::from_unix(built).map_err(stamp)?);
        if largest_step > 0 {
            limits = limits.step(largest_step);
        }
        let date = Stamp::from_unix(date).map_err(stamp)?;
        limits.check(clock, date).map(|()| CMIOT_OK).map_err(|_| CMIOT_E_DATE_LIMITS)
    })())
}
