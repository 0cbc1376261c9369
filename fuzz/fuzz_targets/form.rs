//! A form body after a signed target: a body that contradicts the target is refused.
#![no_main]

use std::sync::LazyLock;

use cmiot_proxy::config::file::Format;
use cmiot_proxy::operation::Operations;
use cmiot_proxy::wire::request::{Accepted, Claims, Request, RequestParts};
use hyper::HeaderMap;
use libfuzzer_sys::fuzz_target;

const TARGET: &str =
    "/v2/userstatusrealsingle?appid=100001&transid=1000012014101615303080000001&ebid=1&token=t";

static SERVED: LazyLock<Operations> = LazyLock::new(|| {
    let mut operations = Operations::of(Vec::new()).expect("no names, so no double ones");
    operations.serve(|_| true);
    operations
});

fuzz_target!(|body: &[u8]| {
    let uri = TARGET.parse().expect("a target");
    let parts = RequestParts { uri: &uri, headers: &HeaderMap::new(), body };
    let accepted = Accepted { operations: &SERVED, format: Format::Lenient };
    if let Ok(request) = Request::parse(parts, &accepted, &mut Claims::default()) {
        assert_eq!(request.appid.as_str(), "100001");
        assert_eq!(request.token.expose(), "t");
        assert_eq!(request.ebid.as_deref(), Some("1"));
    }
});
