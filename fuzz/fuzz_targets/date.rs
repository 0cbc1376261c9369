//! The `Date` header from which a gateway sets its clock: another crate writes every parsed date back unchanged, and
//! every date written by it is parsed.
//!
//! The input is a header's value, and its first bytes are also a time.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use cmiot_signer::Stamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(stamp) = Stamp::from_http_date(input) {
        assert_eq!(written(stamp.to_unix()).as_bytes(), input);
    }
    if let Some(moment) = input.first_chunk::<4>() {
        let moment = u64::from(u32::from_le_bytes(*moment));
        // A stamp out of range does not show in which direction; the years below are the limit of `httpdate`.
        match Stamp::from_http_date(written(moment).as_bytes()) {
            Ok(stamp) => assert_eq!(Stamp::from_unix(moment), Ok(stamp)),
            Err(_) => assert!(!(FIRST..=Stamp::LAST.to_unix()).contains(&moment)),
        }
    }
});

/// `Sat, 01 Jan 2000 00:00:00 GMT`, the first valid date: 08:00 on the first day of 2000 in China.
const FIRST: u64 = 946_684_800;

/// A time in Unix seconds as an IMF-fixdate.
fn written(moment: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(moment))
}
