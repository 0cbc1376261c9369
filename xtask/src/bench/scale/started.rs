//! The proxy, started over a folder that was made before, with a lookup at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cmiot_signer::{AppId, Card, CardKind, Ebid, PATH, Password, Sequence, Signer, Stamp};

use super::release;
use crate::server_process::ServerProcess;
use crate::setup::{self, APPID, EBID, PASSWORD};

/// Writes the configuration into a folder whose `data` is the store; returns its path. The memory tier has room for each
/// card. With the files of a certificate and its key, gateways connect over TLS.
pub(super) fn configure(folder: &Path, cards: u32, tls: Option<[&str; 2]>) -> Result<PathBuf> {
    let config = folder.join("cmiot-proxy.toml");
    let tls = tls.map_or_else(String::new, |[certificate, key]| {
        format!("gateway.tls.cert_file = \"{certificate}\"\ngateway.tls.key_file = \"{key}\"\n")
    });
    crate::run::write_private(
        &config,
        &setup::config(
            "http://127.0.0.1:9",
            &format!(
                "store.dir = \"data\"\ngateway.max_connections = 20000\ngateway.max_connections_per_peer = 20000\n\
                 cache.memory_entries = {}\nfreshness.normal = \"2h\"\n{tls}",
                cards.max(100_000)
            ),
        ),
    )?;
    Ok(config)
}

/// A running proxy; ended when dropped.
pub(super) struct Started {
    pub(super) process: ServerProcess,
    /// Time from the start of the process to the end of its first response.
    pub(super) first_answer: Duration,
}

impl Started {
    /// Starts it over a folder, and looks up the first card of the fleet.
    #[expect(clippy::disallowed_methods, reason = "times another process")]
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let start = Instant::now();
        let (process, address) = serve(folder)?;
        let answer = exchange(&address, &first()?)?;
        let first_answer = start.elapsed();
        ensure!(answer.starts_with("HTTP/1.1 200"), "the first answer is {answer}");
        Ok(Self { process, first_answer })
    }
}

/// Starts the proxy over a folder; returns the address for gateways too.
pub(super) fn serve(folder: &Path) -> Result<(ServerProcess, String)> {
    let mut process = ServerProcess::start(
        Command::new(release().join("cmiot-proxy"))
            .args(["serve", "--config"])
            .arg(folder.join("cmiot-proxy.toml"))
            .env("RUST_LOG", "error"),
    )?;
    // `http` or, over TLS, `https`.
    let line = process.wait_for_line("gateway ")?;
    let address = line.split_once("://").context("an address")?.1.to_owned();
    Ok((process, address))
}

/// A lookup of the first card, signed now.
#[expect(clippy::disallowed_methods, reason = "a load generator stands outside the proxy and its clock")]
fn first() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let (appid, ebid) = (AppId::parse(APPID)?, Ebid::parse(EBID)?);
    let password = Password::new(PASSWORD.as_bytes())?;
    let card = Card::parse(CardKind::Msisdn, "14765000000")?;
    let mut target = String::new();
    Signer::new(&appid, &ebid, &password)
        .sign(Stamp::from_unix(now)?, Sequence::new(90_000_001)?, &card)
        .write_url("", PATH, &mut target)?;
    Ok(format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
}

fn exchange(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
