//! An HTTP/1.1 response as a gateway's firmware parses it, `Date` included: the size of the pieces has no influence.
//!
//! The first byte of the input is the size of the pieces.
#![no_main]

use cmiot_signer::Reply;
use cmiot_signer::http::Decoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((size, input)) = input.split_first() else { return };
    let mut whole = ([0; 512], Decoder::new());
    let at_once = whole.1.feed(input, &mut whole.0);
    let mut pieces = ([0; 512], Decoder::new());
    let mut in_pieces = Ok(false);
    for piece in input.chunks(usize::from(*size).max(1)) {
        in_pieces = pieces.1.feed(piece, &mut pieces.0);
        if in_pieces.is_err() {
            break;
        }
    }
    assert_eq!(at_once, in_pieces);
    if at_once.is_ok() && (at_once == Ok(true) || whole.1.close().is_ok() && pieces.1.close().is_ok()) {
        let (one, other) = (whole.1.response(&whole.0), pieces.1.response(&pieces.0));
        assert_eq!((one.status, one.body, one.date), (other.status, other.body, other.date));
        let _ = Reply::scan(one.body);
    }
});
