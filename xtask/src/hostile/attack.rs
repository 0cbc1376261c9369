//! The attacks. Each runs in its own process (this program, started again): the number of open files per process is
//! limited, and the attack must not share a runtime with the measurement.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::environment::{EXCESSIVE, LEGITIMATE};
use super::legitimate::request;
use crate::setup::Credentials;

/// The kinds of attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Attack {
    /// 2,000 connections that send a head byte by byte
    Slowloris,
    /// 10,000 connections opened at once
    Storm,
    /// Targets, headers and bodies beyond every limit
    Oversized,
    /// Pipelined bytes that are not HTTP, and some that nearly are
    Garbage,
    /// Wrong tokens at full speed
    BadTokens,
    /// Genuine requests at full speed, each with a transid of its own
    Transids,
}

/// A running attack.
pub(super) struct Attacker(Child);

impl Attack {
    pub(super) fn start(self, to: SocketAddr, lasts: Duration) -> Result<Attacker> {
        let name = self.to_possible_value().context("every attack has a name")?;
        let child = Command::new(std::env::current_exe()?)
            .args(["attack", name.get_name(), &to.to_string(), &lasts.as_secs().to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Attacker(child))
    }

    /// Attacks, and prints its counts in one line.
    pub(crate) fn run(self, to: SocketAddr, seconds: u64) -> Result<()> {
        let counts = Arc::new(Counts::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(async {
            for n in 0..self.attackers() {
                tokio::spawn(self.attacker(n, to, Arc::clone(&counts)));
                if n % 500 == 499 {
                    tokio::task::yield_now().await;
                }
            }
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            counts.line()
        });
        println!("{ended}");
        runtime.shutdown_background();
        Ok(())
    }

    fn attackers(self) -> u32 {
        match self {
            Self::Slowloris => 2_000,
            Self::Storm => 10_000,
            Self::Oversized | Self::Garbage | Self::BadTokens | Self::Transids => 16,
        }
    }

    async fn attacker(self, n: u32, to: SocketAddr, counts: Arc<Counts>) {
        loop {
            let Ok(mut stream) = connect(n, to).await else {
                Counts::add(&counts.refused);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            Counts::add(&counts.connected);
            let _ = self.exchange(n, &mut stream, &counts).await; // the proxy is expected to close it
            if matches!(self, Self::Storm) {
                // Ten thousand at once, not ten thousand a second.
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn exchange(self, n: u32, stream: &mut TcpStream, counts: &Counts) -> std::io::Result<()> {
        let mut some = vec![0; 4_096];
        match self {
            Self::Slowloris => {
                for byte in b"GET /v2/userstatusrealsingle?appid=".iter().cycle() {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(Duration::from_millis(900)).await;
                }
            }
            Self::Storm => drop(stream.read(&mut some).await?),
            Self::Oversized => {
                let long = "x".repeat(1 << 20);
                let head = "POST /v2/userstatusrealsingle HTTP/1.1\r\nHost: x\r\n";
                let sent = match n % 4 {
                    0 => format!("GET /{long} HTTP/1.1\r\n\r\n"),
                    1 => format!("{head}X: {long}\r\n\r\n"),
                    2 => format!("{head}{}\r\n", "X: y\r\n".repeat(10_000)),
                    _ => format!("{head}Content-Length: {}\r\n\r\n{long}", long.len()),
                };
                stream.write_all(sent.as_bytes()).await?;
                counts.answered(stream.read(&mut some).await?);
            }
            Self::Garbage => {
                let sent = match n % 3 {
                    0 => "garbage\r\n\r\n".repeat(1_000),
                    1 => "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100) + "\0\x01\x02",
                    _ => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned() + &"\u{7f}".repeat(4_000),
                };
                stream.write_all(sent.as_bytes()).await?;
                counts.answered(stream.read(&mut some).await?);
            }
            Self::BadTokens => loop {
                let wrong = Credentials { password: "a-wrong-password", ..LEGITIMATE };
                let wrong = request(wrong, n).map_err(std::io::Error::other)?;
                stream.write_all(wrong.as_bytes()).await?;
                counts.answered(stream.read(&mut some).await?);
            },
            Self::Transids => loop {
                let genuine = request(EXCESSIVE, n).map_err(std::io::Error::other)?;
                stream.write_all(genuine.as_bytes()).await?;
                counts.answered(stream.read(&mut some).await?);
            },
        }
        Ok(())
    }
}

impl Attacker {
    /// Its counts, in one line.
    pub(super) fn wait(self) -> Result<String> {
        let output = self.0.wait_with_output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Connects from one of 16 addresses, so that their limits do not apply to the legitimate gateways.
async fn connect(n: u32, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = 16 + u8::try_from(n % 16).unwrap_or_default();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0))?;
    socket.connect(to).await
}

#[derive(Default)]
struct Counts {
    connected: AtomicU64,
    refused: AtomicU64,
    answers: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self, bytes: usize) {
        if bytes > 0 {
            Self::add(&self.answers);
        }
    }

    fn line(&self) -> String {
        let [connected, refused, answers] =
            [&self.connected, &self.refused, &self.answers].map(|count| count.load(Ordering::Relaxed));
        format!("{connected} connections, {refused} refused, {answers} answers")
    }
}
