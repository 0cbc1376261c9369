//! An HTTP/1.1 response as a gateway's firmware parses it, `Date` and `cmiot-transid` included: the size of the pieces has
//! no influence, and the comparison with the request only refuses responses that name another one.
//!
//! The first byte of the input is the size of the pieces.
#![no_main]

use cmiot_signer::http::{Decoder, HttpError};
use cmiot_signer::{Reply, Sequence, Stamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((size, input)) = input.split_first() else { return };
    let size = usize::from(*size).max(1);
    let any = read(Decoder::new(), input, size);
    let (Ok(stamp), Ok(sequence)) = (Stamp::parse("20141016153030"), Sequence::new(80_000_001)) else {
        unreachable!("the example of the carrier's page")
    };
    let own = read(Decoder::for_parts(Some((stamp, sequence))), input, size);
    let contains = |text: &[u8]| input.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text));
    match own {
        Err(HttpError::OtherRequest) => assert!(contains(b"cmiot-transid")),
        Ok(Some(Read { named: true, .. })) => {
            assert!(contains(b"2014101615303080000001"));
            assert_eq!(own.map(|read| read.map(|read| Read { named: false, ..read })), any);
        }
        other => assert_eq!(other, any),
    }
});

/// A complete response.
#[derive(Debug, PartialEq)]
struct Read {
    status: u16,
    body: Vec<u8>,
    date: Option<Stamp>,
    named: bool,
}

/// Reads a response at once and in pieces, and ends it; `None` if it is incomplete.
fn read(decoder: Decoder, input: &[u8], size: usize) -> Result<Option<Read>, HttpError> {
    let mut whole = ([0; 512], decoder.clone());
    let at_once = whole.1.feed(input, &mut whole.0);
    let mut pieces = ([0; 512], decoder);
    let mut in_pieces = pieces.1.feed(&[], &mut pieces.0);
    for piece in input.chunks(size) {
        in_pieces = pieces.1.feed(piece, &mut pieces.0);
        if in_pieces.is_err() {
            break;
        }
    }
    assert_eq!(at_once, in_pieces);
    if !at_once? && (whole.1.close().is_err() || pieces.1.close().is_err()) {
        return Ok(None);
    }
    let (one, other) = (whole.1.response(&whole.0), pieces.1.response(&pieces.0));
    assert_eq!(
        (one.status, one.body, one.date, one.named),
        (other.status, other.body, other.date, other.named)
    );
    let _ = Reply::scan(one.body);
    Ok(Some(Read { status: one.status, body: one.body.to_vec(), date: one.date, named: one.named }))
}
