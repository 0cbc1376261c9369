//! A transid: what is read comes apart and goes together again, and holds nothing that a hash could be extended with.
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
