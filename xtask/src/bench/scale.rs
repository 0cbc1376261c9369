//! `cargo xtask bench scale`: what many cards, a long replay window and many idle gateways cost the proxy.
//!
//! Cards: `cache.db` of a fleet is made, the real executable started over it and asked about one card; each card is
//! taken into memory by a process of its own (`bench/benches/scale.rs`); then all are asked about over the wire. Window: the
//! same start over an audit whose last minutes hold so many transids. Idle: connections that asked once and wait, ours
//! and a bare hyper server's. Nothing here is asserted but that it works.

mod hit;
mod idle;
mod started;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::started::Started;
use crate::run::{Run, root, target};
use crate::tools;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Sizes of the cache, in cards
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    cards: Vec<u32>,
    /// Transids in the replay window at the start
    #[arg(long, default_value_t = 1_000_000)]
    window: u64,
    /// Gateways that are connected and idle
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Seconds for which all cards are asked about, in each of three rounds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
}

/// Runs all of it and prints.
pub(crate) fn command(options: &Options) -> Result<()> {
    tools::peers()?;
    Run::cargo("build --release --package cmiot-proxy --package cmiot-bench --bins --example floor").run()?;
    Run::cargo("bench --package cmiot-proxy --package cmiot-bench --bench scale --no-run").run()?;
    let folder = root().join("target/bench-scale");
    let _ = std::fs::remove_dir_all(&folder); // an earlier run's
    std::fs::create_dir_all(&folder)?;
    cards(&folder, options)?;
    window(&folder.join("window"), options.window)?;
    idle::measure(&folder.join("idle"), options.idle)
}

fn cards(folder: &Path, options: &Options) -> Result<()> {
    let mut rows = Vec::new();
    for &cards in &options.cards {
        let site_folder = folder.join(format!("cards-{cards}"));
        make(&["fill", path(&site_folder.join("data"))?, &cards.to_string()])?;
        let config = started::configure(&site_folder, cards, None)?;
        let size = std::fs::metadata(site_folder.join("data/cache.db"))?.len() as f64 / 1_048_576.0;
        let first = Started::start(&site_folder)?.first_answer.as_secs_f64() * 1e3;
        let [held, bytes, ns] = numbers(&make(&["memory", path(&config)?, &cards.to_string()])?)?;
        let row =
            format!("| {cards} | {size:.1} | {first:.0} | {} ({held} held) | {ns} |", bytes / held.max(1));
        rows.push((cards, site_folder, row));
    }
    let stores: Vec<_> = rows.iter().map(|(cards, site_folder, _)| (*cards, site_folder.as_path())).collect();
    let cpu = hit::cpu(&stores, options.seconds, 3)?;
    println!(
        "\n| cards | cache.db, MiB | start to first answer, ms | in memory, bytes per card | found again, ns \
         | a hit over the wire, CPU µs | of the first |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for ((_, _, row), us) in rows.iter().zip(&cpu) {
        println!("{row} {us:.1} | {:.2} |", us / cpu[0]);
    }
    for (_, site_folder, _) in &rows {
        std::fs::remove_dir_all(site_folder)?;
    }
    Ok(())
}

fn window(site_folder: &Path, records: u64) -> Result<()> {
    make(&["window", path(&site_folder.join("data"))?, &records.to_string()])?;
    started::configure(site_folder, 0, None)?;
    let started = Started::start(site_folder)?;
    println!(
        "\nreplay window of {records} transids: start to first answer {:.0} ms, resident {:.1} MiB",
        started.first_answer.as_secs_f64() * 1e3,
        started.process.resident()? as f64 / 1_048_576.0
    );
    Ok(())
}

/// Runs the bench's own program in one of its modes, and returns what it printed.
pub(super) fn make(arguments: &[&str]) -> Result<String> {
    Run::cargo("bench --quiet --package cmiot-proxy --package cmiot-bench --bench scale --")
        .args(arguments)
        .output()
}

/// The numbers of its `RESULT` line.
fn numbers<const N: usize>(printed: &str) -> Result<[u64; N]> {
    let line = printed.lines().find_map(|line| line.strip_prefix("RESULT ")).context("no RESULT line")?;
    super::numbers(line)
}

/// The path as an argument.
pub(super) fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the workspace's path is not UTF-8")
}

/// Folder of release builds.
fn release() -> PathBuf {
    target().join("release")
}
