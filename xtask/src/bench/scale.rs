//! `cargo xtask bench scale`: what many cards, a long replay window and many idle gateways cost the proxy.
//!
//! Cards: `cache.db` of a fleet is made, the real executable started over it and asked about one card; then each card is
//! taken into memory by a process of its own (`benches/scale.rs`). Window: the same start over an audit whose last
//! minutes hold so many transids. Idle: connections that asked once and wait, ours and a bare hyper server's. Nothing here is asserted but that it works.

mod idle;
mod started;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::started::Started;
use crate::run::{Run, root, target};

/// How to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Sizes of the cache, in cards
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    cards: Vec<u64>,
    /// Transids in the replay window at the start
    #[arg(long, default_value_t = 1_000_000)]
    window: u64,
    /// Gateways that are connected and idle
    #[arg(long, default_value_t = 8_000)]
    idle: usize,
}

/// Runs all of it and prints.
pub(crate) fn command(options: &Options) -> Result<()> {
    Run::cargo("build --release --package cmiot-proxy --bins --example floor").run()?;
    Run::cargo("bench --package cmiot-proxy --bench scale --no-run").run()?;
    let folder = root().join("target/bench-scale");
    let _ = std::fs::remove_dir_all(&folder); // an earlier run's
    std::fs::create_dir_all(&folder)?;

    println!(
        "\n| cards | cache.db, MiB | start to first answer, ms | in memory, bytes a card | found again, ns |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for &cards in &options.cards {
        let place = folder.join(format!("cards-{cards}"));
        make(&["fill", path(&place.join("data"))?, &cards.to_string()])?;
        let config = started::configure(&place, cards)?;
        let size = std::fs::metadata(place.join("data/cache.db"))?.len() as f64 / 1_048_576.0;
        let started = Started::start(&place)?;
        let first = started.first_answer.as_secs_f64() * 1e3;
        drop(started);
        let printed = make(&["memory", path(&config)?, &cards.to_string()])?;
        let [held, bytes, ns] = numbers(&printed)?;
        println!("| {cards} | {size:.1} | {first:.0} | {} ({held} held) | {ns} |", bytes / held.max(1));
        std::fs::remove_dir_all(&place)?;
    }

    let place = folder.join("window");
    make(&["window", path(&place.join("data"))?, &options.window.to_string()])?;
    started::configure(&place, 0)?;
    let started = Started::start(&place)?;
    println!(
        "\nreplay window of {} transids: start to first answer {:.0} ms, resident {:.1} MiB",
        options.window,
        started.first_answer.as_secs_f64() * 1e3,
        started.process.resident()? as f64 / 1_048_576.0
    );
    drop(started);
    let place = folder.join("idle");
    make(&["fill", path(&place.join("data"))?, &idle::CARDS.to_string()])?;
    started::configure(&place, idle::CARDS)?;
    idle::measure(&place, options.idle)
}

/// Runs the bench's own program in one of its modes, and returns what it printed.
fn make(arguments: &[&str]) -> Result<String> {
    Run::cargo("bench --quiet --package cmiot-proxy --bench scale --").args(arguments).output()
}

/// The three numbers of its `RESULT` line.
fn numbers(printed: &str) -> Result<[u64; 3]> {
    let line = printed.lines().find_map(|line| line.strip_prefix("RESULT ")).context("no RESULT line")?;
    let numbers: Vec<u64> =
        line.split(' ').map(str::parse).collect::<Result<_, _>>().context(line.to_owned())?;
    match numbers[..] {
        [a, b, c] => Ok([a, b, c]),
        _ => bail!("`{line}` is not three numbers"),
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the workspace's path is not UTF-8")
}

/// Where cargo puts what it builds.
fn release() -> PathBuf {
    target().join("release")
}
