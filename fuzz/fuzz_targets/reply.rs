//! The carrier's answer, as the signer reads it and as the proxy judges it.
#![no_main]

use cmiot_proxy::carrier::verdict::Verdict;
use cmiot_signer::Reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = Reply::parse(body);
    let _ = Verdict::read(body, "STATUS");
});
