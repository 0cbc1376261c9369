//! A load at a steady rate (open loop): lookups are due by the clock, whether or not earlier ones are answered, and a
//! latency counts from the moment when its lookup was due. wrk waits for answers and so hides a server's pauses.
//!
//! One thread that never sleeps: a timer's millisecond would be most of what is measured. The last line is
//! `RESULT requests errors p50 p99 p99.9`, times in microseconds.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use clap::Parser;
use cmiot_signer::{AppId, Card, CardKind, Ebid, PATH, Password, Sequence, Signer, Stamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, yield_now};

/// Loads one server.
#[derive(Parser)]
struct Load {
    /// Host and port
    #[arg(long)]
    address: SocketAddr,
    /// Lookups per second
    #[arg(long)]
    rate: f64,
    /// Duration
    #[arg(long)]
    seconds: f64,
    /// Connections, asked in turn
    #[arg(long)]
    connections: usize,
    /// Distinct cards, asked about in turn
    #[arg(long)]
    cards: u64,
    /// The first card's msisdn
    #[arg(long, default_value_t = 14_765_000_000)]
    first_card: u64,
    /// The first transid's sequence number; runs within a second of each other must not share any
    #[arg(long)]
    first: u32,
    /// Account that signs: APPID:EBID:PASSWORD
    #[arg(long)]
    account: String,
}

/// Results so far.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    errors: u64,
}

fn main() -> anyhow::Result<()> {
    let load = Load::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Sockets are looked at after each task's turn.
        .event_interval(1)
        .enable_io()
        .build()?;
    let seen = LocalSet::new().block_on(&runtime, run(&load))?;
    let mut times = seen.times;
    ensure!(!times.is_empty(), "no lookup was answered in full; {} failed", seen.errors);
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!("RESULT {} {} {} {} {}", times.len(), seen.errors, at(0.5), at(0.99), at(0.999));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a load generator stands outside the proxy and its clock")]
async fn run(load: &Load) -> anyhow::Result<Seen> {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let mut lines = Vec::new();
    let mut asking = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let (line, due) = mpsc::unbounded_channel();
        asking.push(tokio::task::spawn_local(ask(stream, due, Rc::clone(&seen))));
        lines.push(line);
    }
    let begun = Instant::now();
    for n in 0..(load.rate * load.seconds) as u32 {
        let due = begun + Duration::from_secs_f64(f64::from(n) / load.rate);
        let request = load.request(n)?;
        while Instant::now() < due {
            yield_now().await;
        }
        // A task whose connection broke counts its lookups as errors itself, so that the receiver is always there.
        let _ = lines[n as usize % lines.len()].send((due, request));
    }
    drop(lines);
    for asking in asking {
        asking.await?;
    }
    Ok(Rc::try_unwrap(seen).ok().context("every task has ended")?.into_inner())
}

/// One connection: sends what is due, one after another, and notes how long each took since.
async fn ask(
    mut stream: TcpStream,
    mut due: mpsc::UnboundedReceiver<(Instant, String)>,
    seen: Rc<RefCell<Seen>>,
) {
    let mut answer = Vec::with_capacity(4_096);
    while let Some((due, request)) = due.recv().await {
        match exchange(&mut stream, &request, &mut answer).await {
            Ok(true) => seen.borrow_mut().times.push(due.elapsed()),
            Ok(false) | Err(_) => seen.borrow_mut().errors += 1,
        }
    }
}

/// Whether it was answered with success.
async fn exchange(stream: &mut TcpStream, request: &str, answer: &mut Vec<u8>) -> std::io::Result<bool> {
    stream.write_all(request.as_bytes()).await?;
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end]).map_err(std::io::Error::other)?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, length)| length.trim().parse::<usize>().ok())
            .ok_or_else(|| std::io::Error::other("an answer without a length"))?;
        if answer.len() >= end + 4 + length {
            return Ok(memchr::memmem::find(&answer[end..], br#""status":"0""#).is_some());
        }
    }
}

impl Load {
    #[expect(clippy::disallowed_methods, reason = "a load generator stands outside the proxy and its clock")]
    fn request(&self, n: u32) -> anyhow::Result<String> {
        let [appid, ebid, password] = self.account.split(':').collect::<Vec<_>>()[..] else {
            anyhow::bail!("--account takes APPID:EBID:PASSWORD")
        };
        let (appid, ebid) = (AppId::parse(appid)?, Ebid::parse(ebid)?);
        let password = Password::new(password.as_bytes())?;
        let card = Card::parse(CardKind::Msisdn, &(self.first_card + u64::from(n) % self.cards).to_string())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let sequence = Sequence::new((self.first + n) % 99_999_999 + 1)?;
        let mut target = String::with_capacity(256);
        let signed = Signer::new(&appid, &ebid, &password).sign(Stamp::from_unix(now)?, sequence, &card);
        signed.write_url("", PATH, &mut target)?;
        Ok(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
    }
}
