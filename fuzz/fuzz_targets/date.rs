//! The `Date` header from which a gateway sets its clock: what is read is written back the same by another's code,
//! and what that code writes is read.
//!
//! The input is a header's value, and its first bytes are also a moment.
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
        // Outside of its span a stamp does not say on which side; the years below are the helper's own limit.
        match Stamp::from_http_date(written(moment).as_bytes()) {
            Ok(stamp) => assert_eq!(Stamp::from_unix(moment), Ok(stamp)),
            Err(_) => assert!(!(FIRST..=Stamp::LAST.to_unix()).contains(&moment)),
        }
    }
});

/// `Sat, 01 Jan 2000 00:00:00 GMT`, the first date that is read: eight hours into China's 2000.
const FIRST: u64 = 946_684_800;

/// A moment in Unix seconds as an IMF-fixdate.
fn written(moment: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(moment))
}
