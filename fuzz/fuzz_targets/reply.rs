//! The carrier's reply: both readers of the signer agree on every body, and the proxy classifies it.
//!
//! `Reply::parse` and `Reply::scan` accept the same grammar, so replies and errors must be equal on
//! every input.
#![no_main]

use cmiot_proxy::carrier::dialect::read_gateway_form;
use cmiot_signer::Reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let (parsed, scanned) = (Reply::parse(body), Reply::scan(body));
    assert_eq!(parsed, scanned);
    if let Ok(reply) = parsed {
        // Decoding is deferred, and must accept everything that the readers accept.
        let _ = (reply.message().to_string(), reply.into_status());
    }
    let _ = read_gateway_form(body, "STATUS");
});
