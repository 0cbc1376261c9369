//! One lookup over an async byte stream, as of Embassy: sign, send, read.
//!
//! ```sh
//! cargo build --example asynchronous --target thumbv7em-none-eabihf --no-default-features --features small,scan,http
//! ```
#![no_std]

use cmiot_signer::http::{Endpoint, exchange_async};
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
pub async fn look_up<IO, S>(io: &mut IO, sequences: &mut S, now: u64, msisdn: &str) -> Result<Status, Error>
where
    IO: embedded_io_async::Read + embedded_io_async::Write,
    S: SequenceSource,
    Error: From<S::Error>,
{
    let endpoint = Endpoint::new("192.168.1.10:8080", PATH)?;
    let card = Card::parse(CardKind::Msisdn, msisdn)?;
    let request = SIGNER.sign(Stamp::from_unix(now)?, sequences.next_sequence()?, &card);
    let mut body = [0; 512];
    let response = exchange_async(io, &endpoint, &request, &mut body).await?;
    Ok(Reply::scan(response.body)?.into_status()?)
}
