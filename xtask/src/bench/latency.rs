//! `cargo xtask bench latency`: latency of hits and misses at a steady rate.
//!
//! First wrk says what saturates the proxy under `power`; then each server is asked at half of that by a load that does
//! not wait for answers (`bench/examples/load.rs`), and, slowly, about cards that are not cached. The fsync that an
//! answer under `power` waits for is timed on the same disk in the same run. There is no proxy without an audit, so
//! `process`, whose commit waits for no disk, stands for one; it includes a batch's write.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::load::{PREFIX, Window};
use super::peers::{CARDS, wrk};
use super::servers::{BASELINE, Carrier, POWER, PROCESS, Server, Site, Spec};
use crate::run::{Run, root, target};
use crate::setup;
use crate::tools;

/// Connections, for both loads.
const CONNECTIONS: u32 = 256;

/// New cards per second: few enough that no two are in flight together.
const MISSES: f64 = 50.0;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds of each load
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// The proxy's executable, instead of a release build
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Lookups per second, instead of half of what saturates the proxy
    #[arg(long)]
    rate: Option<f64>,
}

/// Microseconds at 50, 99 and 99.9 %.
type Times = [u64; 3];

/// Measures and prints.
pub(crate) fn command(options: &Options) -> Result<()> {
    tools::peers()?;
    let ours = if options.program.is_none() { "--package cmiot-proxy --bins " } else { "" };
    Run::cargo(&format!("build --release {ours}--package cmiot-bench --example floor --example load"))
        .run()?;
    let folder = root().join("target/bench-latency");
    let _ = std::fs::remove_dir_all(&folder); // an earlier run's
    let carrier = Carrier::start(options.program.as_deref())?;
    let mut load = Load { seconds: options.seconds, sequence: 0, fresh: 0 };

    let saturated = || {
        let server = start(&POWER, &folder.join("saturated"), &carrier)?;
        wrk(&server.url(), CONNECTIONS, CARDS, 2, 0)?;
        let rate = wrk(&server.url(), CONNECTIONS, CARDS, options.seconds, 10_000_000)?.rate();
        println!("\n{rate:.0} lookups/s saturate power with {CONNECTIONS} connections");
        anyhow::Ok(rate)
    };
    let rate = options.rate.map_or_else(|| Ok(saturated()? / 2.0), anyhow::Ok)?;
    std::fs::create_dir_all(&folder)?;
    let fsync = fsync(&folder)?;
    println!("\nasked at {rate:.0}/s");
    println!("{:<24} {:>8} {:>8} {:>8}", "", "p50 µs", "p99 µs", "p99.9 µs");
    row("fsync of 16 KiB", fsync);
    let mut hits = Vec::new();
    for spec in [POWER, PROCESS, BASELINE] {
        let server = start(&spec, &folder.join(spec.name), &carrier)?;
        // Every card once, and what a server does at first only.
        load.hits(server.address(), rate.min(f64::from(CARDS.count)), 2)?;
        let hit = load.hits(server.address(), rate, options.seconds)?;
        row(&format!("hit, {}", spec.name), hit);
        if spec.is_ours {
            row(&format!("miss, {}", spec.name), load.misses(server.address())?);
        }
        hits.push(hit);
    }
    row("the carrier itself", load.misses(carrier.address)?);
    let [[_, power, _], [_, process, _]] = hits[..2] else { bail!("two servers of ours were asked") };
    println!(
        "p99 of a hit under power {} µs; under process and two fsync p99s {} µs",
        power,
        process + 2 * fsync[1]
    );
    Ok(())
}

fn start(spec: &Spec, place: &Path, carrier: &Carrier) -> Result<Server> {
    Server::start(spec, Site::on_one_processor(place, carrier)?)
}

fn row(what: &str, [p50, p99, p999]: Times) {
    println!("{what:<24} {p50:>8} {p99:>8} {p999:>8}");
}

/// The load, with the numbers used so far.
struct Load {
    seconds: u32,
    /// Sequence number of the next run's first transid.
    sequence: u32,
    /// Cards beyond the warm ones that were asked about.
    fresh: u64,
}

impl Load {
    /// Lookups of cached cards.
    fn hits(&mut self, address: SocketAddr, rate: f64, seconds: u32) -> Result<Times> {
        self.run(address, rate, seconds, CONNECTIONS, 14_765_000_000)
    }

    /// Lookups of new cards.
    fn misses(&mut self, address: SocketAddr) -> Result<Times> {
        self.fresh += u64::from(CARDS.count);
        self.run(address, MISSES, self.seconds, 8, 14_765_000_000 + self.fresh)
    }

    fn run(
        &mut self,
        address: SocketAddr,
        rate: f64,
        seconds: u32,
        connections: u32,
        first: u64,
    ) -> Result<Times> {
        self.sequence = (self.sequence + 5_000_000) % 90_000_000;
        let printed = Run::new("taskset")
            .args(["-c", "1"])
            .args([target().join("release/examples/load")])
            .args(["--address", &address.to_string(), "--account", &setup::account()])
            .args(["--rate", &rate.to_string(), "--seconds", &seconds.to_string()])
            .args(["--connections", &connections.to_string(), "--cards", &CARDS.count.to_string()])
            .args(["--first-card", &first.to_string(), "--first", &self.sequence.to_string()])
            .output()?;
        let line = printed
            .lines()
            .find_map(|line| line.strip_prefix(PREFIX))
            .context("the load printed no result")?;
        let Window { failed, times, .. } = Window::parse(line)?;
        ensure!(failed == 0, "{failed} lookups failed");
        Ok(times)
    }
}

/// Appends of a batch's size to a file of this folder, each synced.
#[expect(clippy::disallowed_methods, reason = "a bench's own times")]
fn fsync(folder: &Path) -> Result<Times> {
    let path = folder.join("fsync");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..1_000 {
        file.write_all(&[0x5a; 16 << 10])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    let at = |share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
    Ok([at(0.5), at(0.99), at(0.999)])
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
