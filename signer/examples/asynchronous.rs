//! One lookup over an async byte stream, as of Embassy: sign, send, read.
//!
//! ```sh
//! cargo build --example asynchronous --target thumbv7em-none-eabihf --no-default-features \
//!     --features small,scan,http,flash
//! ```
#![no_std]

use cmiot_signer::http::{Endpoint, exchange_async};
use cmiot_signer::{
    AppId, Card, CardKind, Ebid, Error, LeasedAsync, Node, PATH, Reply, Signer, Stamp, Status,
};
use embedded_storage_async::nor_flash::NorFlash;

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

/// Continues the sequences of device 17 of 10,000, in the two pages at the beginning of the flash, 64 per write.
///
/// # Errors
/// When the flash cannot be read.
pub async fn sequences<F: NorFlash>(flash: F) -> Result<LeasedAsync<F>, Error> {
    Ok(LeasedAsync::mount(flash, 0, Node::new(4, 17)?, 64).await?)
}

/// Looks up a card's status. `now` is the time in Unix seconds.
///
/// # Errors
/// When the clock is not set, no sequence is left, the connection fails, or the carrier refuses.
pub async fn look_up<IO, F>(
    io: &mut IO,
    sequences: &mut LeasedAsync<F>,
    now: u64,
    msisdn: &str,
) -> Result<Status, Error>
where
    IO: embedded_io_async::Read + embedded_io_async::Write,
    F: NorFlash,
{
    let endpoint = Endpoint::new("192.168.1.10:8080", PATH)?;
    let card = Card::parse(CardKind::Msisdn, msisdn)?;
    let request = SIGNER.sign(Stamp::from_unix(now)?, sequences.next_sequence().await?, &card);
    let mut body = [0; 512];
    let response = exchange_async(io, &endpoint, &request, &mut body).await?;
    Ok(Reply::scan(response.body)?.into_status()?)
}
