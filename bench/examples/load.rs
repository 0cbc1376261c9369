//! A load at a steady rate (open loop): lookups are due by the clock, whether or not earlier ones are answered, and a
//! latency counts from the moment when its lookup was due. wrk waits for answers and so hides a server's pauses.
//!
//! One thread that never sleeps: a timer's millisecond would be most of what is measured. The last line is
//! `RESULT requests errors p50 p99 p99.9`, times in microseconds. With `--windows` there is one such line per window: a
//! line on standard input ends a window, and the end of standard input ends the load. A lookup belongs to the window in
//! which it was due.

#[path = "../tls_client.rs"]
mod tls_client;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Parser;
use cmiot_signer::{AppId, Card, CardKind, Ebid, PATH, Password, Sequence, Signer, Stamp};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet, spawn_local, yield_now};
use tokio_rustls::TlsConnector;

use tls_client::{Connection, NAME};

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
    #[arg(long, required_unless_present = "windows")]
    seconds: Option<f64>,
    /// Load until standard input ends, with results per window
    #[arg(long, conflicts_with = "seconds")]
    windows: bool,
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
    /// Connect over TLS to the server with this certificate
    #[arg(long, value_name = "FILE")]
    tls: Option<PathBuf>,
    /// Lookups after which a connection is opened again; 0 is never
    #[arg(long, default_value_t = 0)]
    reconnect: u32,
    /// Send each connection's lookups as they are due, by HTTP/2, in up to 100 streams
    #[arg(long, conflicts_with = "reconnect")]
    http2: bool,
    /// Account that signs: APPID:EBID:PASSWORD
    #[arg(long)]
    account: String,
}

/// Results so far: windows in order.
#[derive(Default)]
struct Seen(Vec<Window>);

/// Results of the lookups that were due in one window.
#[derive(Default)]
struct Window {
    /// Microseconds per lookup.
    times: Vec<u32>,
    errors: u64,
}

/// A lookup to send.
struct Due {
    at: Instant,
    /// The number of its window.
    window: usize,
    target: String,
}

impl Seen {
    fn window(&mut self, number: usize) -> &mut Window {
        if self.0.len() <= number {
            self.0.resize_with(number + 1, Window::default);
        }
        &mut self.0[number]
    }

    /// Takes the result of a lookup.
    fn add(&mut self, due: &Due, is_success: bool) {
        let window = self.window(due.window);
        match is_success {
            true => window.times.push(u32::try_from(due.at.elapsed().as_micros()).unwrap_or(u32::MAX)),
            false => window.errors += 1,
        }
    }
}

impl Window {
    /// The line of its results; percentiles are 0 if no lookup was answered.
    fn line(&mut self) -> String {
        self.times.sort_unstable();
        let last = self.times.len().saturating_sub(1);
        let at = |share: f64| self.times.get((last as f64 * share) as usize).copied().unwrap_or(0);
        format!("RESULT {} {} {} {} {}", self.times.len(), self.errors, at(0.5), at(0.99), at(0.999))
    }
}

/// The end of a load.
enum End {
    /// After so many lookups.
    Count(u32),
    /// With standard input.
    Input(Arc<Input>),
}

/// Standard input so far.
#[derive(Default)]
struct Input {
    lines: AtomicUsize,
    has_ended: AtomicBool,
}

impl Input {
    /// Starts to read it, in a thread of its own.
    fn read() -> Arc<Self> {
        let input = Arc::new(Self::default());
        let read = Arc::clone(&input);
        std::thread::spawn(move || {
            for _ in std::io::stdin().lines().map_while(Result::ok) {
                read.lines.fetch_add(1, Ordering::Release);
            }
            read.has_ended.store(true, Ordering::Release);
        });
        input
    }
}

impl End {
    fn of(load: &Load) -> Self {
        match load.seconds {
            Some(seconds) => Self::Count((load.rate * seconds) as u32),
            None => Self::Input(Input::read()),
        }
    }

    /// The window of the next lookup; none after the end.
    fn window(&self, sent: u32) -> Option<usize> {
        match self {
            Self::Count(count) => (sent < *count).then_some(0),
            Self::Input(input) => {
                (!input.has_ended.load(Ordering::Acquire)).then(|| input.lines.load(Ordering::Acquire))
            }
        }
    }
}

fn main() -> anyhow::Result<()> {
    let load = Load::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Sockets are looked at after each task's turn.
        .event_interval(1)
        .enable_io()
        .build()?;
    let Seen(mut windows) = LocalSet::new().block_on(&runtime, run(&load))?;
    let failed: u64 = windows.iter().map(|window| window.errors).sum();
    let is_answered = windows.iter().any(|window| !window.times.is_empty());
    ensure!(is_answered, "no lookup was answered in full; {failed} failed");
    for window in &mut windows {
        println!("{}", window.line());
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a load generator stands outside the proxy and its clock")]
async fn run(load: &Load) -> anyhow::Result<Seen> {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let mut lines = Vec::new();
    let mut asking = Vec::new();
    let server = Server::of(load)?;
    for _ in 0..load.connections {
        let stream = server.connect().await?;
        let (line, due) = mpsc::unbounded_channel();
        let seen = Rc::clone(&seen);
        asking.push(match load.http2 {
            true => spawn_local(multiplex(stream, due, seen)),
            false => spawn_local(ask(server.clone(), stream, load.reconnect, due, seen)),
        });
        lines.push(line);
    }
    let end = End::of(load);
    let begun = Instant::now();
    let mut n = 0;
    while let Some(window) = end.window(n) {
        let due = begun + Duration::from_secs_f64(f64::from(n) / load.rate);
        let target = load.target(n)?;
        while Instant::now() < due {
            yield_now().await;
        }
        // A task whose connection broke counts its lookups as errors itself, so that the receiver is always there.
        let _ = lines[n as usize % lines.len()].send(Due { at: due, window, target });
        n += 1;
    }
    // A window without a lookup has results too.
    if let End::Input(input) = &end {
        seen.borrow_mut().window(input.lines.load(Ordering::Acquire));
    }
    drop(lines);
    for asking in asking {
        asking.await?;
    }
    Ok(Rc::try_unwrap(seen).ok().context("every task has ended")?.into_inner())
}

/// The server that is loaded.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Server {
    fn of(load: &Load) -> anyhow::Result<Self> {
        let protocol: &[u8] = if load.http2 { b"h2" } else { b"http/1.1" };
        let tls = load.tls.as_deref().map(|file| tls_client::connector(file, protocol)).transpose()?;
        Ok(Self { address: load.address, tls })
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        tls_client::connect(self.address, self.tls.as_ref()).await
    }
}

/// One connection: sends what is due, one after another, and notes how long each took since.
async fn ask(
    server: Server,
    mut stream: Connection,
    reconnect: u32,
    mut due: mpsc::UnboundedReceiver<Due>,
    seen: Rc<RefCell<Seen>>,
) {
    let mut answer = Vec::with_capacity(4_096);
    let mut asked = 0;
    while let Some(due) = due.recv().await {
        if reconnect > 0 && asked == reconnect {
            asked = 0;
            match server.connect().await {
                Ok(another) => stream = another,
                Err(_) => {
                    seen.borrow_mut().add(&due, false);
                    continue;
                }
            }
        }
        asked += 1;
        let request = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", due.target);
        let is_success = exchange(&mut stream, &request, &mut answer).await.unwrap_or(false);
        seen.borrow_mut().add(&due, is_success);
    }
}

/// Streams per connection of HTTP/2.
const STREAMS: usize = 100;

/// One connection of HTTP/2: sends what is due, while up to [`STREAMS`] lookups are not answered.
async fn multiplex(stream: Connection, mut due: mpsc::UnboundedReceiver<Due>, seen: Rc<RefCell<Seen>>) {
    let Ok((sender, connection)) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await else {
        while let Some(due) = due.recv().await {
            seen.borrow_mut().add(&due, false);
        }
        return;
    };
    spawn_local(async move {
        let _ = connection.await; // What fails, fails at its lookups.
    });
    let mut lookups = JoinSet::new();
    while let Some(due) = due.recv().await {
        while lookups.try_join_next().is_some() {}
        if lookups.len() >= STREAMS {
            lookups.join_next().await;
        }
        let (mut sender, seen) = (sender.clone(), Rc::clone(&seen));
        lookups.spawn_local(async move {
            let is_success = stream_of(&mut sender, &due.target).await.unwrap_or(false);
            seen.borrow_mut().add(&due, is_success);
        });
    }
    lookups.join_all().await;
}

/// Whether it was answered with success.
async fn stream_of(sender: &mut http2::SendRequest<Empty<Bytes>>, target: &str) -> anyhow::Result<bool> {
    sender.ready().await?;
    let request = Request::get(format!("https://{NAME}{target}")).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let is_ok = response.status() == StatusCode::OK;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(is_ok && is_success(&body))
}

fn is_success(body: &[u8]) -> bool {
    memchr::memmem::find(body, br#""status":"0""#).is_some()
}

/// Whether it was answered with success.
async fn exchange(stream: &mut Connection, request: &str, answer: &mut Vec<u8>) -> std::io::Result<bool> {
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
            return Ok(is_success(&answer[end..]));
        }
    }
}

impl Load {
    #[expect(clippy::disallowed_methods, reason = "a load generator stands outside the proxy and its clock")]
    fn target(&self, n: u32) -> anyhow::Result<String> {
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
        Ok(target)
    }
}
