//! One lookup over a blocking byte stream, such as a UART with a modem in transparent mode: sign, send, read.
//!
//! ```sh
//! cargo build --example blocking --target thumbv7em-none-eabihf --no-default-features --features small,scan,http
//! ```
#![no_std]

use cmiot_signer::http::{Endpoint, exchange};
use cmiot_signer::{AppId, Card, CardKind, Ebid, Error, PATH, Reply, SequenceSource, Signer, Stamp, Status};

// The credentials that the carrier issued, in flash; the compiler checks them.
static APPID: AppId = match AppId::parse("100001") {
    Ok(appid) => appid,
    Err(_) => panic!("checked when compiled"),
};
static EBID: Ebid = match Ebid::parse("0001000000009") {
    Ok(ebid) => ebid,
    Err(_) => panic!("checked when compiled"),
};
static SIGNER: Signer<'static> = match Signer::with_static_password(&APPID, &EBID, b"example-password") {
    Ok(signer) => signer,
    Err(_) => panic!("checked when compiled"),
};

/// Looks up a card's status. `now` is the time in Unix seconds; `sequences` is a `Counter`, or a `Leased` one in flash.
///
/// # Errors
/// When the clock is not set, no sequence is left, the connection fails, or the carrier refuses.
pub fn look_up<IO, S>(io: &mut IO, sequences: &mut S, now: u64, msisdn: &str) -> Result<Status, Error>
where
    IO: embedded_io::Read + embedded_io::Write,
    S: SequenceSource,
    Error: From<S::Error>,
{
    let endpoint = Endpoint::new("192.168.1.10:8080", PATH)?;
    let card = Card::parse(CardKind::Msisdn, msisdn)?;
    let request = SIGNER.sign(Stamp::from_unix(now)?, sequences.next_sequence()?, &card);
    let mut body = [0; 512];
    let response = exchange(io, &endpoint, &request, &mut body)?;
    Ok(Reply::scan(response.body)?.into_status()?)
}
