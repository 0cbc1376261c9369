//! A gateway's request: every target that hyper accepts, with any body.
//!
//! The first line of the input is the target, the rest the body.
#![no_main]

use std::sync::LazyLock;

use cmiot_proxy::config::file::Format;
use cmiot_proxy::operation::Operations;
use cmiot_proxy::wire::request::{Accepted, Claims, Hosts, Request, RequestParts, check_head};
use cmiot_proxy::wire::transid::SentTransid;
use hyper::{HeaderMap, Method, Uri, Version};
use libfuzzer_sys::fuzz_target;

static SERVED: LazyLock<Operations> = LazyLock::new(|| {
    let mut operations = Operations::of(Vec::new()).expect("no names, so no double ones");
    operations.serve(|_| true);
    operations
});

fuzz_target!(|input: &[u8]| {
    let (target, body) = match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[][..]),
    };
    let Ok(uri) = Uri::try_from(target) else { return };
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let hosts = Hosts::new(["localhost".to_owned()]);
        let _ = check_head(&Method::GET, &uri, version, &HeaderMap::new(), &hosts);
    }
    for format in [Format::Strict, Format::Lenient] {
        let mut claims = Claims::default();
        let parts = RequestParts { uri: &uri, headers: &HeaderMap::new(), body };
        let accepted = Accepted { operations: &SERVED, format };
        if let Ok(request) = Request::parse(parts, &accepted, &mut claims) {
            // The parsed transid may be signed: it contains no byte of a hash's padding.
            match &request.transid {
                SentTransid::Strict { transid, .. } => assert_eq!(transid.appid(), request.appid),
                SentTransid::Lenient(text) => {
                    assert!(
                        format == Format::Lenient
                            && text.len() <= 48
                            && text.bytes().all(|b| b.is_ascii_alphanumeric())
                    );
                }
            }
            assert_eq!(claims.card.as_ref(), Some(&request.card));
        }
    }
});
