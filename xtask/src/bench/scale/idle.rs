//! Idle connections after one request: memory per connection of the proxy and of a bare hyper server.
//!
//! Without TLS and with it. The gateways are a process of their own (`bench/benches/scale.rs`), which has rustls.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::started::{self, configure};
use super::{make, numbers, path, release};
use crate::server_process::ServerProcess;
use crate::setup::{Certificate, LISTEN};

/// Cards that they ask about, all known.
const CARDS: u32 = 1_000;

/// Measures both, twice, and prints.
pub(super) fn measure(folder: &Path, gateways: usize) -> Result<()> {
    make(&["fill", path(&folder.join("data"))?, &CARDS.to_string()])?;
    let Certificate { chain, key, .. } = Certificate::make(folder)?;
    let files = [path(&chain)?, path(&key)?];
    println!();
    for tls in [None, Some(files)] {
        configure(folder, CARDS, tls)?;
        let (process, address) = started::serve(folder)?;
        let ours = growth(&process, &address, gateways, tls)?;
        drop(process);
        let mut floor = Command::new(release().join("examples/floor"));
        floor.arg(LISTEN).args(tls.into_iter().flatten());
        let mut floor = ServerProcess::start(&mut floor)?;
        let address = floor.wait_for_line("gateway http://")?;
        let bare = growth(&floor, &address, gateways, tls)?;
        println!(
            "{gateways} idle gateways{}: {:.1} KiB each, bare hyper {:.1} KiB, {:.2} of it",
            if tls.is_some() { " over TLS" } else { "" },
            ours / 1_024.0,
            bare / 1_024.0,
            ours / bare
        );
    }
    Ok(())
}

/// Memory growth of a server per idle connection, in bytes.
fn growth(server: &ServerProcess, address: &str, gateways: usize, tls: Option<[&str; 2]>) -> Result<f64> {
    let (process, count) = (server.id().to_string(), gateways.to_string());
    let mut arguments = vec!["idle", &process, address, &count];
    arguments.extend(tls.map(|[certificate, _]| certificate));
    let [held, grown] = numbers(&make(&arguments)?)?;
    Ok(grown as f64 / held as f64)
}
