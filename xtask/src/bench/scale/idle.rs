//! Gateways that asked once and stay connected: what each holds of the proxy's memory, beside a bare hyper server's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::release;
use super::started::{Started, request, resident};

/// Cards that they ask about, all known.
pub(super) const CARDS: u64 = 1_000;

/// Measures both and prints.
pub(super) fn measure(place: &Path, gateways: usize) -> Result<()> {
    let ours = Started::start(place)?;
    let ours = grown(&ours.address, gateways, || ours.resident())?;

    let mut floor = Floor::start()?;
    let id = floor.0.id();
    let address = floor.address()?;
    let bare = grown(&address, gateways, || resident(id))?;
    println!(
        "\n{gateways} idle gateways: {:.1} KiB each, bare hyper {:.1} KiB, {:.2} of it",
        ours / 1_024.0,
        bare / 1_024.0,
        ours / bare
    );
    Ok(())
}

/// How much a server grows for each connection that has asked once and stays, in bytes.
fn grown(address: &str, gateways: usize, resident: impl Fn() -> Result<u64>) -> Result<f64> {
    let before = resident()?;
    let mut held = Vec::with_capacity(gateways);
    for n in 0..gateways {
        let mut stream = TcpStream::connect(address).with_context(|| format!("connection {n}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let asked = request(n as u64 % CARDS)?.replace("Connection: close\r\n", "");
        stream.write_all(asked.as_bytes())?;
        let mut begun = [0; 12];
        stream.read_exact(&mut begun)?;
        ensure!(begun == *b"HTTP/1.1 200", "connection {n} is answered {}", String::from_utf8_lossy(&begun));
        held.push(stream);
    }
    let after = resident()?;
    drop(held);
    Ok(after.saturating_sub(before) as f64 / gateways as f64)
}

/// The bare server.
struct Floor(Child);

impl Floor {
    fn start() -> Result<Self> {
        let program = release().join("examples/floor");
        Ok(Self(Command::new(program).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("floor")?))
    }

    fn address(&mut self) -> Result<String> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().context("a pipe")?).read_line(&mut line)?;
        Ok(line.trim().rsplit('/').next().unwrap_or_default().to_owned())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
