//! A load at a steady rate (open loop): lookups are due by the clock, whether or not earlier ones are answered, and a
//! latency counts from the moment when its lookup was due. wrk waits for answers and so hides a server's pauses.
//!
//! One thread that never sleeps: a timer's millisecond would be most of what is measured.
//!
//! Results are of windows. A load of `--seconds` is one window, or several of `--every` so many seconds. With
//! `--windows` a line on standard input ends a window, and the end of standard input ends the load. A lookup belongs to
//! the window in which it was due. A window is printed when it has ended and each of its lookups was answered or
//! failed, as `RESULT answered failed p50 p99 p99.9 opened`: times in microseconds, then the connections opened.

#[path = "../tls_client.rs"]
mod tls_client;

use std::cell::RefCell;
use std::collections::VecDeque;
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
    /// Duration of a window [default: all]
    #[arg(long, value_name = "SECONDS", conflicts_with = "windows")]
    every: Option<f64>,
    /// Load until standard input ends; each line of it ends a window
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
    /// Connections that are opened again; the others stay open [default: all]
    #[arg(long, value_name = "CONNECTIONS", requires = "reconnect")]
    churned: Option<usize>,
    /// Send each connection's lookups as they are due, by HTTP/2, in up to 100 streams
    #[arg(long, conflicts_with = "reconnect")]
    http2: bool,
    /// Account that signs: APPID:EBID:PASSWORD
    #[arg(long)]
    account: String,
}

/// The windows that are not printed yet, in order; only the last one has not ended.
#[derive(Default)]
struct Windows {
    kept: VecDeque<Window>,
    /// Number of windows before these.
    printed: usize,
    /// Whether any lookup was answered.
    is_answered: bool,
}

/// Results of the lookups that were due in one window.
#[derive(Default)]
struct Window {
    /// Microseconds per lookup that was answered.
    times: Vec<u32>,
    failed: u64,
    /// Lookups that have no result yet.
    pending: u64,
    /// Connections opened.
    opened: u64,
}

/// A lookup to send.
struct Due {
    at: Instant,
    /// The number of its window.
    window: usize,
    target: String,
}

impl Windows {
    /// The window with this number, which is not printed yet; those before it have ended.
    fn window(&mut self, number: usize) -> &mut Window {
        let index = number - self.printed;
        if self.kept.len() <= index {
            self.kept.resize_with(index + 1, Window::default);
        }
        &mut self.kept[index]
    }

    /// Takes a lookup that is sent.
    fn send(&mut self, due: &Due) {
        self.window(due.window).pending += 1;
        self.print_ended();
    }

    /// Takes the result of a lookup.
    fn add(&mut self, due: &Due, is_success: bool) {
        let window = self.window(due.window);
        window.pending -= 1;
        match is_success {
            true => window.times.push(u32::try_from(due.at.elapsed().as_micros()).unwrap_or(u32::MAX)),
            false => window.failed += 1,
        }
        self.is_answered |= is_success;
        self.print_ended();
    }

    fn print_ended(&mut self) {
        while self.kept.len() > 1 && self.kept[0].pending == 0 {
            self.print_first();
        }
    }

    fn print_first(&mut self) {
        if let Some(window) = self.kept.pop_front() {
            self.printed += 1;
            println!("{}", window.line());
        }
    }

    /// Prints the last window too.
    fn end(mut self) -> anyhow::Result<()> {
        while !self.kept.is_empty() {
            self.print_first();
        }
        ensure!(self.is_answered, "no lookup was answered in full");
        Ok(())
    }
}

impl Window {
    /// The line of its results; percentiles are 0 if no lookup was answered.
    fn line(self) -> String {
        let Self { mut times, failed, opened, .. } = self;
        let answered = times.len();
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| {
            let index = (answered.saturating_sub(1) as f64 * share) as usize;
            // Less work than a sort, during which no lookup would be sent.
            if answered == 0 { 0 } else { *times.select_nth_unstable(index).1 }
        });
        format!("RESULT {answered} {failed} {p50} {p99} {p999} {opened}")
    }
}

/// The end of each window, and of the load.
enum End {
    /// A window has so many lookups, and the load has so many.
    Count { window: f64, load: u32 },
    /// With a line on standard input, and with the end of it.
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
            Some(seconds) => Self::Count {
                window: load.every.map_or(f64::INFINITY, |every| load.rate * every),
                load: (load.rate * seconds) as u32,
            },
            None => Self::Input(Input::read()),
        }
    }

    /// The window of the next lookup; none after the end.
    fn window(&self, sent: u32) -> Option<usize> {
        match self {
            Self::Count { window, load } => (sent < *load).then(|| (f64::from(sent) / window) as usize),
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
    LocalSet::new().block_on(&runtime, run(&load))?.end()
}

#[expect(clippy::disallowed_methods, reason = "a load generator stands outside the proxy and its clock")]
async fn run(load: &Load) -> anyhow::Result<Windows> {
    let windows = Rc::new(RefCell::new(Windows::default()));
    let mut lines = Vec::new();
    let mut asking = Vec::new();
    let server = Server::of(load)?;
    for index in 0..load.connections {
        let stream = server.connect().await?;
        windows.borrow_mut().window(0).opened += 1;
        let (line, due) = mpsc::unbounded_channel();
        let windows = Rc::clone(&windows);
        asking.push(match load.http2 {
            true => spawn_local(multiplex(stream, due, windows)),
            false => spawn_local(ask(server.clone(), stream, load.churn(index), due, windows)),
        });
        lines.push(line);
    }
    let end = End::of(load);
    let begun = Instant::now();
    let mut n = 0;
    while let Some(window) = end.window(n) {
        let at = begun + Duration::from_secs_f64(f64::from(n) / load.rate);
        let due = Due { at, window, target: load.target(n)? };
        while Instant::now() < at {
            yield_now().await;
        }
        windows.borrow_mut().send(&due);
        // A task whose connection broke counts its lookups as errors itself, so that the receiver is always there.
        let _ = lines[n as usize % lines.len()].send(due);
        n += 1;
    }
    // A window without a lookup has results too.
    if let End::Input(input) = &end {
        windows.borrow_mut().window(input.lines.load(Ordering::Acquire));
    }
    drop(lines);
    for asking in asking {
        asking.await?;
    }
    Ok(Rc::try_unwrap(windows).ok().context("every task has ended")?.into_inner())
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

/// The lookups after which a connection is opened again.
#[derive(Clone, Copy)]
struct Churn {
    /// None: the connection stays open.
    every: Option<u32>,
    /// Lookups that count as sent at the start, so that the connections are not all opened again at once.
    at_start: u32,
}

/// One connection: sends what is due, one after another, and notes how long each took since. A connection that failed
/// or was closed is opened again.
async fn ask(
    server: Server,
    mut stream: Connection,
    churn: Churn,
    mut due: mpsc::UnboundedReceiver<Due>,
    windows: Rc<RefCell<Windows>>,
) {
    let mut answer = Vec::with_capacity(4_096);
    let (mut asked, mut is_open) = (churn.at_start, true);
    while let Some(due) = due.recv().await {
        if !is_open || churn.every.is_some_and(|every| asked >= every) {
            asked = 0;
            let Ok(another) = server.connect().await else {
                is_open = false;
                windows.borrow_mut().add(&due, false);
                continue;
            };
            stream = another;
            windows.borrow_mut().window(due.window).opened += 1;
        }
        asked += 1;
        let request = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", due.target);
        let exchanged = exchange(&mut stream, &request, &mut answer).await;
        is_open = exchanged.as_ref().is_ok_and(|answer| !answer.closes);
        windows.borrow_mut().add(&due, exchanged.is_ok_and(|answer| answer.is_success));
    }
}

/// Streams per connection of HTTP/2.
const STREAMS: usize = 100;

/// One connection of HTTP/2: sends what is due, while up to [`STREAMS`] lookups are not answered.
async fn multiplex(stream: Connection, mut due: mpsc::UnboundedReceiver<Due>, windows: Rc<RefCell<Windows>>) {
    let Ok((sender, connection)) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await else {
        while let Some(due) = due.recv().await {
            windows.borrow_mut().add(&due, false);
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
        let (mut sender, windows) = (sender.clone(), Rc::clone(&windows));
        lookups.spawn_local(async move {
            let is_success = stream_of(&mut sender, &due.target).await.unwrap_or(false);
            windows.borrow_mut().add(&due, is_success);
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

/// A complete response.
struct Answer {
    is_success: bool,
    /// Whether the server closes the connection after it.
    closes: bool,
}

/// Sends a request and reads its response.
async fn exchange(stream: &mut Connection, request: &str, answer: &mut Vec<u8>) -> std::io::Result<Answer> {
    stream.write_all(request.as_bytes()).await?;
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end]).map_err(std::io::Error::other)?;
        let header = |wanted: &str| {
            let mut headers = head.lines().filter_map(|line| line.split_once(':'));
            headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
        };
        let length = header("content-length")
            .and_then(|length| length.parse::<usize>().ok())
            .ok_or_else(|| std::io::Error::other("an answer without a length"))?;
        if answer.len() >= end + 4 + length {
            let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            return Ok(Answer { is_success: is_success(&answer[end..]), closes });
        }
    }
}

impl Load {
    /// The churn of the connection with this index.
    fn churn(&self, index: usize) -> Churn {
        let churned = self.churned.unwrap_or(self.connections);
        let every = (index < churned && self.reconnect > 0).then_some(self.reconnect);
        let part = index as f64 / churned.max(1) as f64;
        Churn { every, at_start: (part * f64::from(self.reconnect)) as u32 }
    }

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
