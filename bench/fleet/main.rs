//! Three nodes of a fleet on one machine: the number of carrier calls, of requests that are accepted twice, of bytes, and
//! the time that each costs. Run by `cargo xtask bench fleet`.
//!
//! Proxies, PostgreSQL and faults are those of the fleet tests (`tests/fleet/harness`). Counts are compared with their
//! bounds; times are printed only.
#![allow(clippy::unwrap_used)] // A measurement that fails ends the bench.

// The path makes this folder the parent of the modules of the tests.
#[path = "../../tests"]
mod shared {
    #[allow(dead_code, unused_imports, reason = "the tests use the rest")]
    pub(crate) mod support;

    pub(crate) mod fleet {
        #[allow(dead_code, unused_imports, reason = "the tests use the rest")]
        pub(crate) mod harness;
        #[allow(dead_code, unused_imports, reason = "the tests use the rest")]
        pub(crate) mod schedule;
    }
}
use shared::fleet::{harness, schedule};
use shared::support;

mod copy;
mod flights;
mod hits;
mod limits;
mod load;
mod nodes;
mod outage;
mod purges;
mod replays;
mod tables;
#[path = "../wrk.rs"]
mod wrk;

use std::process::ExitCode;

use clap::Parser;

/// The measurements, in the order in which they run.
const ALL: [&str; 14] =
    ["M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8", "M9", "M10", "M11", "M12", "M13", "M14"];

/// Options of the measurement.
#[derive(Parser)]
struct Options {
    /// Only these, such as M1,M3
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Percent of the usual counts of requests, cards, rounds and seconds
    #[arg(long, default_value_t = 100)]
    scale: u32,
    /// Seconds of each load of M10
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Cargo's own
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// This share of a count, and at least `least`.
    fn scaled(&self, count: u32, least: u32) -> u32 {
        (u64::from(count) * u64::from(self.scale) / 100).try_into().unwrap_or(u32::MAX).max(least)
    }
}

/// A line of the report.
struct Line {
    what: String,
    bound: &'static str,
    seen: String,
    /// Whether a count is within its bound; none for what is printed only.
    met: Option<bool>,
}

impl Line {
    fn counted(what: impl Into<String>, bound: &'static str, seen: impl Into<String>, met: bool) -> Self {
        Self { what: what.into(), bound, seen: seen.into(), met: Some(met) }
    }

    fn printed(what: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { what: what.into(), bound: "", seen: seen.into(), met: None }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(unknown) = options.only.iter().find(|name| !ALL.contains(&name.as_str())) {
        eprintln!("{unknown}: no measurement; there are {}", ALL.join(", "));
        return ExitCode::from(2);
    }
    support::secrets::stop_checks();
    let mut report = Vec::new();
    for name in ALL {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        for line in measure(name, &options).await {
            print(name, &line);
            report.push((name, line));
        }
    }
    println!("\n| | | must be | seen |\n| --- | --- | --- | --- |");
    for (name, Line { what, bound, seen, .. }) in &report {
        println!("| {name} | {what} | {bound} | {seen} |");
    }
    let failed = report.iter().filter(|(_, line)| line.met == Some(false)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(name: &str, options: &Options) -> Vec<Line> {
    match name {
        "M1" => flights::one_call(options).await,
        "M2" => flights::one_failure(options).await,
        "M3" => flights::killed_leader(options).await,
        "M4" => replays::captured(options).await,
        "M5" => limits::day(options).await,
        "M6" => limits::rate(options).await,
        "M7" => purges::rounds(options).await,
        "M8" => copy::killed_server(options).await,
        "M9" => outage::stalled(options).await,
        "M10" => hits::compared(options).await,
        "M11" => nodes::one_number().await,
        "M12" => copy::lag(options).await,
        "M13" => tables::day(options).await,
        _ => tables::clear_text(options).await,
    }
}

fn print(name: &str, Line { what, bound, seen, met }: &Line) {
    let verdict = match met {
        Some(true) => ": met",
        Some(false) => ": NOT MET",
        None => "",
    };
    let bound = if bound.is_empty() { String::new() } else { format!(" (must be {bound}{verdict})") };
    println!("{name} {what}: {seen}{bound}");
}
