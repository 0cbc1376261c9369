//! Gateways: each lookup has its own connection and its own transid.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cmiot_signer::{AppId, Card, CardKind, Ebid, PATH, Password, Sequence, Signer, Stamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::setup::{APPID, EBID, PASSWORD};

/// Result of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Success of the carrier, within the timeout.
    pub(super) good: bool,
    /// Duration.
    pub(super) took: Duration,
}

/// Looks up the card of this number.
pub(super) async fn ask(address: SocketAddr, card: u32, limit: Duration) -> Asked {
    send(address, &target(card), limit).await
}

async fn send(address: SocketAddr, target: &str, limit: Duration) -> Asked {
    let start = Instant::now();
    let answer = timeout(limit, exchange(address, target)).await;
    let good = matches!(answer, Ok(Ok(text)) if text.starts_with("HTTP/1.1 200") && text.contains(r#""status":"0""#));
    Asked { good, took: start.elapsed() }
}

/// Simultaneous lookups of one card, signed beforehand so that signing is not timed.
pub(super) async fn send_concurrently(address: SocketAddr, requests: u32, card: u32) -> Vec<Asked> {
    let targets: Vec<String> = (0..requests).map(|_| target(card)).collect();
    let mut asking = JoinSet::new();
    for target in targets {
        asking.spawn(async move { send(address, &target, Duration::from_secs(25)).await });
    }
    asking.join_all().await
}

/// The median time in milliseconds.
pub(super) fn p50(asked: &[Asked]) -> f64 {
    let mut took: Vec<Duration> = asked.iter().map(|asked| asked.took).collect();
    took.sort();
    took.get(took.len() / 2).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

async fn exchange(address: SocketAddr, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[expect(clippy::disallowed_methods, reason = "a load generator stands outside the proxy and its clock")]
fn target(card: u32) -> String {
    static SEQUENCE: AtomicU32 = AtomicU32::new(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let credentials = (|| {
        let card = Card::parse(CardKind::Msisdn, &format!("1064{card:07}")).ok()?;
        let sequence = Sequence::new(SEQUENCE.fetch_add(1, Ordering::Relaxed)).ok()?;
        let (appid, ebid) = (AppId::parse(APPID).ok()?, Ebid::parse(EBID).ok()?);
        let password = Password::new(PASSWORD.as_bytes()).ok()?;
        let mut target = String::new();
        let signed = Signer::new(&appid, &ebid, &password).sign(Stamp::from_unix(now).ok()?, sequence, &card);
        signed.write_url("", PATH, &mut target).ok()?;
        Some(target)
    })();
    credentials
        .expect("constant credentials, a card of eleven digits and a clock of this century make a lookup")
}
