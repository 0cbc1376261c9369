//! The CPU of a hit while viewers watch the live page, compared with none. Run by `cargo xtask bench page`.
//!
//! One proxy is loaded in turn with and without viewers, in paired rounds whose order alternates (`bench/wrk.rs`). A viewer
//! reads the stream of the live page, without a filter, as fast as it comes.
#![allow(clippy::unwrap_used)] // A measurement that fails ends the bench.

// The path makes this folder the parent of the modules of the tests.
#[path = "../../tests"]
mod shared {
    #[allow(dead_code, unused_imports, reason = "the tests use the rest")]
    pub(crate) mod support;
}
#[path = "../wrk.rs"]
mod wrk;
use shared::support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use support::{Proxy, Setup, carrier};
use wrk::{Sample, middle};

/// The bound of the ratio.
const BOUND: f64 = 1.02;

/// Options of the measurement.
#[derive(Parser)]
struct Options {
    /// Viewers of the live page
    #[arg(long, default_value_t = 10)]
    viewers: u32,
    /// Seconds of each load
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Rounds, of two loads each
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// Cargo's own
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    support::secrets::stop_checks();
    let setup = Setup::with_carrier(&carrier().await);
    let proxy = wrk::start(tempfile::tempdir().unwrap(), setup).await;
    let mut sequence = 0;
    // Every card once, and what a proxy does at first only.
    wrk::sample(&proxy, 5, &mut sequence);
    let (mut alone, mut watched): (Vec<Sample>, Vec<Sample>) = Default::default();
    let mut bytes = 0;
    for round in 0..options.rounds {
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                alone.push(wrk::sample(&proxy, options.seconds, &mut sequence));
                continue;
            }
            let viewers = Viewers::start(&proxy, options.viewers).await;
            watched.push(wrk::sample(&proxy, options.seconds, &mut sequence));
            bytes += viewers.end().await;
        }
    }
    print("without viewers", &alone);
    print(&format!("with {} viewers", options.viewers), &watched);
    let ratios = watched.iter().zip(&alone).map(|(watched, alone)| watched.cpu_us / alone.cpu_us);
    let ratio = middle(ratios.collect());
    println!("{bytes} bytes of rows were read by the viewers");
    println!(
        "CPU of a hit, with / without viewers, median of {} paired ratios: {ratio:.3} (must be <= {BOUND})",
        options.rounds
    );
    if ratio <= BOUND { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(what: &str, samples: &[Sample]) {
    let of = |figure: fn(&Sample) -> f64| middle(samples.iter().map(figure).collect());
    println!(
        "{what}: CPU {:.1} us, {:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        of(|sample| sample.cpu_us),
        of(|sample| sample.rate),
        of(|sample| sample.p50.as_secs_f64() * 1e3),
        of(|sample| sample.p99.as_secs_f64() * 1e3)
    );
}

/// Connections that read the stream of the live page.
struct Viewers {
    tasks: JoinSet<()>,
    /// The bytes that each has read.
    read: Vec<Arc<AtomicU64>>,
}

impl Viewers {
    /// Opens the streams; returns when each has started.
    async fn start(proxy: &Proxy, count: u32) -> Self {
        let token = proxy.generated_token().expect("a generated token");
        let address = proxy.admin_address();
        let (mut tasks, mut read) = (JoinSet::new(), Vec::new());
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!(
                "GET /page/live/stream HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut buffer = vec![0; 64 << 10];
            let mut head = Vec::new();
            while !head.windows(7).any(|window| window == b"started") {
                let length = stream.read(&mut buffer).await.unwrap();
                assert_ne!(length, 0, "{}", String::from_utf8_lossy(&head));
                head.extend_from_slice(&buffer[..length]);
            }
            assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
            let bytes = Arc::new(AtomicU64::new(0));
            read.push(Arc::clone(&bytes));
            tasks.spawn(async move {
                // The stream goes on until the task is ended.
                while let Ok(length) = stream.read(&mut buffer).await {
                    assert_ne!(length, 0, "the stream has ended");
                    bytes.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
        Self { tasks, read }
    }

    /// Ends the streams. Returns the bytes that all have read; each has read some.
    async fn end(mut self) -> u64 {
        let read: Vec<_> = self.read.iter().map(|bytes| bytes.load(Ordering::Relaxed)).collect();
        assert!(read.iter().all(|bytes| *bytes > 0), "a viewer without rows: {read:?}");
        assert!(self.tasks.try_join_next().is_none(), "a stream has ended");
        self.tasks.shutdown().await;
        read.into_iter().sum()
    }
}
