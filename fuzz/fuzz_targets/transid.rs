//! A transid: a parsed one can be split and rebuilt, and contains no byte of a length extension.
#![no_main]

use cmiot_signer::Transid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(transid) = Transid::parse_bytes(input) {
        assert_eq!(transid.as_bytes(), input);
        assert!(input.len() <= Transid::MAX_LEN && input.iter().all(u8::is_ascii_alphanumeric));
        let again = Transid::new(&transid.appid(), transid.stamp(), transid.sequence());
        assert_eq!(again, transid);
    }
});
