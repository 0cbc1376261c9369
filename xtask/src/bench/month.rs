//! `cargo xtask bench month`: the time of queries, verification, backup and exports of a month, and of hits meanwhile.
//!
//! `bench/benches/scale.rs` writes the month, and the real executable starts over it. Each operation is timed twice:
//! alone, on all processors; then on the server's processor, while warm cards are asked about at a steady rate by a
//! load that does not wait for answers (`bench/examples/load.rs`). The load has the other processor to itself, so that
//! its clock is right. A short operation is repeated, and its median is printed. Nothing is asserted but that each
//! operation succeeds with a plausible result.

mod load;
mod operations;

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::load::Load;
use self::operations::{OPERATIONS, Operation, Operations, Timed};
use super::load::Window;
use super::peers::CARDS;
use super::scale::{make, path};
use super::servers::{Carrier, Server, Site, Spec, ours};
use crate::run::{Run, root};

/// The proxy. Its cached responses outlast the measurement.
const SERVER: Spec = Spec {
    name: "cmiot-proxy",
    is_ours: true,
    command: |site| ours(site, "freshness.normal = \"2h\"\naudit.durability = \"power\"", ""),
};

/// The longest pause after an operation, in seconds: the proxy catches up with checkpoints and the card index.
const PAUSE: u64 = 2;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rows of the month: lookups and carrier calls
    #[arg(long, default_value_t = 30_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    rows: u64,
    /// Rows that are given to the audit's writer together: the most in a batch of its chain
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Hits per second; more than 9,000 would fill the client's share of the replay table
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    rate: u32,
    /// Seconds for which an operation is repeated; 0 is once
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Processors of an operation while there are hits, as taskset reads them: 0 is the server's, 1 the load's
    #[arg(long, value_name = "LIST", default_value = "0")]
    processors: String,
    /// The proxy's executable, instead of a release build
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// The month that was written.
struct Month {
    rows: u64,
    /// Such as 2026-01.
    name: String,
    /// A whole day of it, and the day after: such as 2026-01-15.
    day: [String; 2],
    /// Number of its cards.
    cards: u64,
}

/// Measures and prints.
pub(crate) fn command(options: &Options) -> Result<()> {
    let ours = if options.program.is_none() { "--package cmiot-proxy --bins " } else { "" };
    Run::cargo(&format!("build --release {ours}--package cmiot-bench --example load")).run()?;
    Run::cargo("bench --package cmiot-proxy --package cmiot-bench --bench scale --no-run").run()?;
    let folder = root().join("target/bench-month");
    let _ = std::fs::remove_dir_all(&folder); // an earlier run's
    std::fs::create_dir_all(&folder)?;

    let month = Month::write(&folder.join("data"), options)?;
    let carrier = Carrier::start(options.program.as_deref())?;
    let server = Server::start(&SERVER, Site::on_one_processor(&folder, &carrier)?)?;
    let least = Duration::from_secs(options.seconds);
    let mut operations = Operations::new(&carrier.program, &folder, month, least)?;
    let mut alone = Vec::new();
    for operation in OPERATIONS {
        let is_measured = operation != Operation::Nothing;
        alone.push(if is_measured { Some(operations.repeat(operation, None)?) } else { None });
        operations.clean_up()?;
    }
    let pause = Duration::from_secs(options.seconds.min(PAUSE));
    let mut with_hits = Vec::new();
    let mut load = Load::start(server.address(), options.rate)?;
    // Every card once.
    sleep(Duration::from_secs(u64::from(CARDS.count / options.rate) + 1) + pause);
    for operation in OPERATIONS {
        load.next_window()?;
        with_hits.push(operations.repeat(operation, Some(&options.processors))?);
        load.next_window()?;
        operations.clean_up()?;
        sleep(pause);
    }
    // A window before the operations, one per operation, and one after each.
    let windows: Vec<Window> = load.finish()?.into_iter().skip(1).step_by(2).collect();
    ensure!(windows.len() == OPERATIONS.len(), "the load printed {} windows", windows.len());

    println!("\n{}", operations.verified);
    println!("{} hits/s; operations meanwhile on processors {}\n", options.rate, options.processors);
    println!(
        "| operation | alone, s | rows/s | with hits, s | rows/s | a hit's p50, µs | p99 | p99.9 | failed hits |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (((operation, alone), timed), hits) in OPERATIONS.iter().zip(alone).zip(&with_hits).zip(&windows) {
        println!("{}", row(*operation, alone.as_ref(), timed, hits));
    }
    drop(server);
    Ok(std::fs::remove_dir_all(&folder)?)
}

impl Month {
    fn write(store: &Path, options: &Options) -> Result<Self> {
        let (rows, batch) = (options.rows, options.batch);
        let printed = make(&["month", path(store)?, &rows.to_string(), &batch.to_string()])?;
        let (said, result) = printed.split_once("RESULT ").context("no RESULT line")?;
        print!("{said}");
        let [name, day, next, cards] = result.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("`{result}` is not a month, two days and a number")
        };
        let day = [day, next].map(str::to_owned);
        Ok(Self { rows, name: name.to_owned(), day, cards: cards.parse()? })
    }
}

/// A line of the table.
fn row(operation: Operation, alone: Option<&Timed>, with_hits: &Timed, hits: &Window) -> String {
    let cells = |timed: Option<&Timed>| {
        let seconds = timed.map_or_else(String::new, |timed| format!("{:.3}", timed.seconds));
        let rate = timed.and_then(|timed| Some(timed.rows? as f64 / timed.seconds));
        format!("{seconds} | {}", rate.map_or_else(String::new, |rate| format!("{rate:.0}")))
    };
    let (name, [p50, p99, p999]) = (operation.name(), hits.times);
    let (alone, with_hits) = (cells(alone), cells(Some(with_hits)));
    format!("| {name} | {alone} | {with_hits} | {p50} | {p99} | {p999} | {} |", hits.failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_shown_where_rows_are_read() {
        let hits = Window { times: [1, 2, 3], ..Window::default() };
        let timed = |rows| Timed { seconds: 0.5, rows };
        assert_eq!(
            row(Operation::Nothing, None, &timed(None), &hits),
            "| nothing |  |  | 0.500 |  | 1 | 2 | 3 | 0 |"
        );
        assert_eq!(
            row(Operation::Verify, Some(&timed(Some(10))), &timed(Some(5)), &hits),
            "| `audit verify` | 0.500 | 20 | 0.500 | 10 | 1 | 2 | 3 | 0 |"
        );
    }
}
