//! Gateways that asked once and stay connected, with TLS or without: how much the server grew for each.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cmiot_proxy::operation::USER_STATUS;
use cmiot_signer::{AppId, Ebid, Password, Sequence, Signer, Stamp};
use rustix::process::{Resource, Rlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::tls_client::{self, Connection};
use super::{APPID, EBID, PASSWORD, Result, card, resident};

/// Cards that are asked about; the store holds them.
const CARDS: u64 = 1_000;

/// Connects so many gateways to the server of this process number; each asks once. Prints what it grew by, in bytes.
pub(super) fn idle(server: u32, address: &str, gateways: u32, certificate: Option<&Path>) -> Result<()> {
    let files = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address: SocketAddr = address.parse()?;
        let tls = certificate.map(|file| tls_client::connector(file, b"http/1.1")).transpose()?;
        // Those with TLS may ask within a second of those without: their transids begin elsewhere.
        let first = if tls.is_some() { 10_000_000 } else { 0 };
        // What a server grows by at first only is no gateway's.
        drop(connect(address, tls.as_ref(), first).await?);
        let before = resident(&server.to_string())?;
        let mut held = Vec::new();
        for n in first + 1..=first + gateways {
            held.push(connect(address, tls.as_ref(), n).await?);
        }
        println!("RESULT {gateways} {}", resident(&server.to_string())?.saturating_sub(before));
        Ok(())
    })
}

/// Connects, asks about a card, and reads its answer.
async fn connect(address: SocketAddr, tls: Option<&TlsConnector>, n: u32) -> Result<Connection> {
    let mut line = tls_client::connect(address, tls).await?;
    line.write_all(request(n)?.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let read = tokio::time::timeout(Duration::from_secs(30), line.read_buf(&mut answer)).await??;
        if read == 0 {
            break;
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    if !answer.starts_with("HTTP/1.1 200") || !answer.contains(r#""status":"0""#) {
        return Err(format!("gateway {n} is answered {answer}").into());
    }
    Ok(line)
}

/// A lookup, signed now.
#[expect(clippy::disallowed_methods, reason = "a gateway stands outside the proxy and its clock")]
fn request(n: u32) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (appid, ebid) = (AppId::parse(APPID)?, Ebid::parse(EBID)?);
    let password = Password::new(PASSWORD.as_bytes())?;
    let mut target = String::new();
    Signer::new(&appid, &ebid, &password)
        .sign(Stamp::from_unix(now)?, Sequence::new(n + 1)?, &card(u64::from(n) % CARDS))
        .write_url("", USER_STATUS.path, &mut target)?;
    Ok(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}
