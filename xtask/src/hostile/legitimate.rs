//! Legitimate gateways: a few that send requests throughout, over kept and new connections in turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use cmiot_signer::{AppId, Card, CardKind, Ebid, Password, Sequence, Signer, Stamp};

use super::environment::LEGITIMATE;
use crate::setup::{Credentials, EBID};

/// Number of gateways.
const GATEWAYS: u32 = 8;

/// Pause of a gateway between two requests.
const PAUSE: Duration = Duration::from_millis(40);

/// Results of the legitimate requests.
pub(super) struct Tally {
    pub(super) asked: usize,
    pub(super) answered: usize,
    pub(super) p99: Duration,
}

/// Sends requests for this duration.
pub(super) fn ask(to: SocketAddr, lasts: Duration) -> Result<Tally> {
    let gateways: Vec<_> =
        (0..GATEWAYS).map(|gateway| thread::spawn(move || one(to, gateway, lasts))).collect();
    let (mut asked, mut latencies) = (0, Vec::new());
    for gateway in gateways {
        let (of_this, answered) =
            gateway.join().map_err(|_| anyhow::anyhow!("a legitimate gateway panicked"))?;
        asked += of_this;
        latencies.extend(answered);
    }
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
    Ok(Tally { asked, answered: latencies.len(), p99 })
}

#[expect(clippy::disallowed_methods, reason = "measures latencies")]
fn one(to: SocketAddr, gateway: u32, lasts: Duration) -> (usize, Vec<Duration>) {
    let (began, mut asked, mut answered) = (Instant::now(), 0_usize, Vec::new());
    let mut connection = None;
    while began.elapsed() < lasts {
        asked += 1;
        let start = Instant::now();
        // The proxy may have closed a kept connection in between: then a new one is made.
        let kept = connection.take();
        let reused = kept.is_some();
        let mut reply = exchange(to, kept, gateway);
        if reply.is_err() && reused {
            reply = exchange(to, None, gateway);
        }
        match reply {
            Ok(stream) => {
                answered.push(start.elapsed());
                connection = Some(stream).filter(|_| !asked.is_multiple_of(4));
            }
            Err(error) => println!("a legitimate request failed: {error:#}"),
        }
        thread::sleep(PAUSE);
    }
    (asked, answered)
}

/// One lookup over this connection or a new one, which is returned.
fn exchange(to: SocketAddr, connection: Option<TcpStream>, gateway: u32) -> Result<TcpStream> {
    let mut stream = match connection {
        Some(stream) => stream,
        None => TcpStream::connect(to).context("connecting")?,
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(25)))?;
    stream.write_all(request(LEGITIMATE, gateway)?.as_bytes()).context("asking")?;
    let mut reader = BufReader::new(&stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let at = head.len();
        ensure!(reader.read_line(&mut head)? > 0, "closed after `{head}`");
        let line = head[at..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    ensure!(body.starts_with(r#"{"status":"0""#), "answered {body}");
    Ok(stream)
}

/// A signed request of a client, about one of a hundred cards.
#[expect(clippy::disallowed_methods, reason = "a gateway signs with its own clock")]
pub(super) fn request(Credentials { appid, password }: Credentials, card: u32) -> Result<String> {
    static SEQUENCE: AtomicU32 = AtomicU32::new(1);
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let (appid, ebid) = (AppId::parse(appid)?, Ebid::parse(EBID)?);
    let password = Password::new(password.as_bytes())?;
    let card = Card::parse(CardKind::Msisdn, &format!("1064{:07}", card % 100))?;
    // Another process may sign as the same client in the same second.
    let sequence = Sequence::new(sequence * 100 % 99_999_900 + std::process::id() % 99 + 1)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut request = String::from("GET ");
    Signer::new(&appid, &ebid, &password)
        .sign(Stamp::from_unix(now)?, sequence, &card)
        .write_target("/v2/userstatusrealsingle", &mut request)?;
    request.push_str(" HTTP/1.1\r\nHost: proxy\r\n\r\n");
    Ok(request)
}
