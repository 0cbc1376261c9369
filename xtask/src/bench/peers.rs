//! `cargo xtask bench peers`: a cached lookup, ours against HAProxy, nginx, Varnish and a bare hyper server.
//!
//! wrk signs every request (`bench/peers/sign.lua`). The servers run in turn, A B C A B C, on one processor, the load
//! and the simulated carrier on another, so that what drifts drifts for all. CPU is the kernel's own accounting of
//! the server's process group. The proxy also checks the signature, refuses replays and commits an audit record.
//! With `--before` two executables of ours are compared instead: see [`before`].

mod before;
mod instructions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use self::before::quartiles;
use super::servers::{self, BASELINE, Carrier, POWER, Server, Site, Spec, V5};
use crate::run::{Run, root};
use crate::setup::{self, Certificate};
use crate::tools;

/// Distinct cards, all warm.
pub(super) const CARDS: Cards = Cards { count: 10_000, stride: 1 };

/// More cards than a run has lookups, so that no card is asked about twice.
const NEW_CARDS: Cards = Cards { count: 900_000_000, stride: 1 };

/// Work of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// Cached cards
    Hits,
    /// Cached cards over TLS, connections kept open
    Tls,
    /// New cards, which the simulated carrier answers at once
    Misses,
    /// Cached cards of an account of the carrier's API v5, compared with one of v2
    V5,
}

impl Work {
    fn specs(self) -> Vec<Spec> {
        match self {
            Self::Hits => servers::ALL.into(),
            // Varnish has no TLS.
            Self::Tls => servers::ALL.into_iter().filter(|spec| spec.name != "Varnish").collect(),
            // The floor asks no carrier.
            Self::Misses => servers::ALL.into_iter().filter(|spec| spec.name != BASELINE.name).collect(),
            Self::V5 => vec![V5, POWER],
        }
    }

    fn cards(self) -> Cards {
        if self == Self::Misses { NEW_CARDS } else { CARDS }
    }
}

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds a server is loaded in each round
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Rounds through all servers [default: 3, and 15 with --before, which is the least for a verdict]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Work of the servers
    #[arg(long, value_enum, default_value_t = Work::Hits, conflicts_with = "before")]
    work: Work,
    /// Connections kept open
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    connections: Vec<u32>,
    /// The proxy's executable, as `cargo xtask release` leaves one, instead of a release build
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Another executable of the proxy: it and ours alone are loaded in turn, A B, B A, ..., with the same configuration
    /// and load. Prints the median of the rounds' ratios of CPU a hit (ours / FILE) with its quartiles, and the
    /// instructions a hit of both as callgrind counts them (each in three short runs of its own)
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
}

/// Cards of a load: their number, and the distance from one to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cards {
    pub(super) count: u32,
    pub(super) stride: u32,
}

/// Result of one run of wrk, and CPU time of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) requests: u64,
    seconds: f64,
    errors: u64,
    /// Microseconds at 50, 99 and 99.9 %.
    latency: [u64; 3],
    cpu: Duration,
}

impl Sample {
    /// Requests per second.
    pub(super) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// CPU time of the server per request, in microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }
}

/// Runs all servers and prints the table and the ratios.
pub(crate) fn command(options: &Options) -> Result<()> {
    tools::peers()?;
    let ours = if options.program.is_none() { "--package cmiot-proxy --bins " } else { "" };
    if options.before.is_none() || options.program.is_none() {
        Run::cargo(&format!("build --release {ours}--package cmiot-bench --example floor")).run()?;
    }
    let folder = root().join("target/bench-peers");
    let _ = std::fs::remove_dir_all(&folder); // an earlier run's
    std::fs::create_dir_all(&folder)?;
    let carrier = Carrier::start(options.program.as_deref())?;

    if let Some(before) = &options.before {
        return before::compare(options, before, &folder, &carrier);
    }
    let specs = options.work.specs();
    let tls = if options.work == Work::Tls { Some(Certificate::make(&folder)?) } else { None };
    let v5 = match options.work {
        Work::V5 => Some(Carrier::start_v5(options.program.as_deref())?),
        _ => None,
    };
    let mut sequence = 0;
    for &connections in &options.connections {
        let mut samples: Vec<Vec<Sample>> = specs.iter().map(|_| Vec::new()).collect();
        for round in 0..options.rounds.unwrap_or(3) {
            for (spec, samples) in specs.iter().zip(&mut samples) {
                let site_folder = folder.join(format!("{}-{connections}-{round}", spec.name));
                let carrier = v5.as_ref().filter(|_| spec.name == V5.name).unwrap_or(&carrier);
                let mut site = site(&site_folder, carrier, &carrier.program)?;
                site.tls.clone_from(&tls);
                let server = Server::start(spec, site)?;
                let cards = options.work.cards();
                samples.push(measure(&server, connections, cards, options.seconds, &mut sequence)?);
                drop(server);
                // Its databases are as large as its load was long.
                std::fs::remove_dir_all(&site_folder)?;
            }
        }
        print(connections, options.work, &specs, &samples);
    }
    Ok(())
}

/// A folder of a server's own, and the proxy's executable.
fn site(folder: &Path, carrier: &Carrier, program: &Path) -> Result<Site> {
    let mut site = Site::on_one_processor(folder, carrier)?;
    program.clone_into(&mut site.program);
    Ok(site)
}

fn measure(
    server: &Server,
    connections: u32,
    cards: Cards,
    seconds: u32,
    sequence: &mut u64,
) -> Result<Sample> {
    // Warm: every card once, and what a server does at first only.
    *sequence += 10_000_000;
    wrk(&server.url(), connections, cards, 2, *sequence)?;
    *sequence += 10_000_000;
    cost(server, connections, cards, seconds, *sequence)
}

/// Loads a server from processor 1, with transids from this number on.
pub(super) fn wrk(url: &str, connections: u32, cards: Cards, seconds: u32, first: u64) -> Result<Sample> {
    let out = Run::new("taskset")
        .args([
            "-c",
            "1",
            "wrk",
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{seconds}s"),
            "--timeout",
            "10s",
        ])
        .args(["-s", "bench/peers/sign.lua", url])
        .env("APPID", setup::APPID)
        .env("PASSWORD", setup::PASSWORD)
        .env("EBID", setup::EBID)
        .env("CARDS", &cards.count.to_string())
        .env("STRIDE", &cards.stride.to_string())
        .env("FIRST", &first.to_string())
        .output()?;
    let line = out.lines().find_map(|line| line.strip_prefix("RESULT ")).context("wrk printed no result")?;
    let fields: Vec<u64> =
        line.split(' ').map(str::parse).collect::<Result<_, _>>().context(line.to_owned())?;
    let [requests, micros, errors, p50, p99, p999] = fields[..] else { bail!("wrk printed {line}") };
    ensure!(requests > 0, "wrk got no answer from {url}");
    Ok(Sample {
        requests,
        seconds: micros as f64 / 1e6,
        errors,
        latency: [p50, p99, p999],
        cpu: Duration::ZERO,
    })
}

/// The same, and what CPU it took the server. No request may fail.
pub(super) fn cost(
    server: &Server,
    connections: u32,
    cards: Cards,
    seconds: u32,
    first: u64,
) -> Result<Sample> {
    let before = server.cpu()?;
    let mut sample = wrk(&server.url(), connections, cards, seconds, first)?;
    sample.cpu = server.cpu()?.saturating_sub(before);
    ensure!(sample.errors == 0, "{}: {} errors", server.address(), sample.errors);
    Ok(sample)
}

fn print(connections: u32, work: Work, specs: &[Spec], samples: &[Vec<Sample>]) {
    let name = work.to_possible_value().map_or_else(String::new, |work| work.get_name().to_owned());
    let cards = match work {
        Work::Misses => "new cards".to_owned(),
        Work::Hits | Work::Tls | Work::V5 => format!("{} cards", CARDS.count),
    };
    println!("\n{name}: {connections} connections, {cards}, medians of {} rounds", samples[0].len());
    println!(
        "{:<24} {:>10} {:>8} {:>8} {:>8} {:>10}",
        "server", "requests/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/req"
    );
    for (spec, samples) in specs.iter().zip(samples) {
        println!(
            "{:<24} {:>10.0} {:>8.0} {:>8.0} {:>8.0} {:>10.2}",
            spec.name,
            median(samples, Sample::rate),
            median(samples, |s| s.latency[0] as f64),
            median(samples, |s| s.latency[1] as f64),
            median(samples, |s| s.latency[2] as f64),
            median(samples, Sample::cpu_us),
        );
    }
    // Round by round, so that a machine that slows down slows both sides of a ratio.
    let is_compared = |spec: &Spec| !spec.is_ours || (work == Work::V5 && spec.name == POWER.name);
    for ours in specs.iter().enumerate().filter(|(_, spec)| !is_compared(spec)) {
        for peer in specs.iter().enumerate().filter(|(_, spec)| is_compared(spec)) {
            let ratios = samples[ours.0].iter().zip(&samples[peer.0]).map(|(a, b)| a.cpu_us() / b.cpu_us());
            let [lower, median, upper] = quartiles(ratios.collect());
            println!(
                "CPU a request, {} / {}: {median:.3}, quartiles {lower:.3} to {upper:.3}",
                ours.1.name, peer.1.name
            );
        }
    }
}

fn median(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    middle(samples.iter().map(figure).collect())
}

/// The median.
pub(super) fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
