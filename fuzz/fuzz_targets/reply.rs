//! The carrier's answer: both of the signer's readers say the same of every body, and the proxy judges it.
//!
//! `Reply::parse` and `Reply::scan` accept the same grammar, so there is nothing that only one of them may take: replies
//! and errors are equal on every input.
#![no_main]

use cmiot_proxy::carrier::verdict::Verdict;
use cmiot_signer::Reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let (parsed, scanned) = (Reply::parse(body), Reply::scan(body));
    assert_eq!(parsed, scanned);
    if let Ok(reply) = parsed {
        // Decoding is deferred, and must bear whatever the readers let through.
        let _ = (reply.message().to_string(), reply.into_status());
    }
    let _ = Verdict::read(body, "STATUS");
});
