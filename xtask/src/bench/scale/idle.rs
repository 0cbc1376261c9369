//! Gateways that asked once and stay connected: what each holds of the proxy's memory, beside a bare hyper server's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::release;
use super::started::{Started, request};
use crate::serving::Serving;

/// Cards that they ask about, all known.
pub(super) const CARDS: u64 = 1_000;

/// Measures both and prints.
pub(super) fn measure(place: &Path, gateways: usize) -> Result<()> {
    let ours = Started::start(place)?;
    let ours = grown(&ours.process, &ours.address, gateways)?;

    let mut floor = Serving::start(&mut Command::new(release().join("examples/floor")))?;
    let address = floor.told("gateway http://")?;
    let bare = grown(&floor, &address, gateways)?;
    println!(
        "\n{gateways} idle gateways: {:.1} KiB each, bare hyper {:.1} KiB, {:.2} of it",
        ours / 1_024.0,
        bare / 1_024.0,
        ours / bare
    );
    Ok(())
}

/// How much a server grows for each connection that has asked once and stays, in bytes.
fn grown(server: &Serving, address: &str, gateways: usize) -> Result<f64> {
    let before = server.resident()?;
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
    let after = server.resident()?;
    drop(held);
    Ok(after.saturating_sub(before) as f64 / gateways as f64)
}
