//! `cargo xtask soak`: the proxy under load and under the work of operators, for an hour or as long as named.
//!
//! Lookups of warm cards arrive over TLS at a third of the saturating rate, whether or not earlier ones are answered
//! (`bench/examples/load.rs`). Half of the connections are closed and opened again all the time. Entries are fresh for
//! [`FRESH`], so that refreshes ahead and revalidations never pause. Meanwhile configurations are reloaded, entries
//! purged and shown, and the audit verified and exported ([`operations`]). The proxy has one processor, which the
//! operators' commands share at the lowest priority; load and carrier have the other.
//!
//! The command fails if a lookup was lost or failed, an operation failed, an answer has no record, or a quantity has
//! grown ([`growth`]). Times are printed and drawn ([`chart`]), and decide nothing.

mod chart;
mod growth;
mod operations;
mod samples;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};

use self::chart::Minute;
use self::operations::Operations;
use self::samples::{Sample, Sampler};
use super::load::{self, PREFIX, Window};
use super::peers::{CARDS, wrk};
use super::servers::{self, Carrier, Server, Site, Spec};
use crate::run::{Run, root};
use crate::server_process::ServerProcess;
use crate::setup::{self, Certificate};
use crate::tools;

/// The first card.
const FIRST_CARD: u64 = 14_765_000_000;

/// The time for which an entry is fresh: each second 1/20 of the cards is fetched again.
const FRESH: &str = "20s";

/// Lookups after which a churned connection is opened again: some seconds' worth.
const RECONNECT: u32 = 500;

/// Lookups per second that fill the cache: within the account's budget.
const WARM_RATE: u32 = 2_500;

/// The proxy of the soak.
///
/// A twentieth of the budget is for refreshes ahead: some half of the calls that the freshness causes. The others are
/// revalidations. The replay table keeps 30 s of transids instead of 5 minutes of them, so that it is full before the
/// first minute that counts.
const SOAK: Spec = Spec {
    name: "cmiot-proxy soak",
    is_ours: true,
    command: |site| {
        let settings = format!(
            "audit.durability = \"power\"\nfreshness.normal = \"{FRESH}\"\nfreshness.barred = \"{FRESH}\"\n\
             cache.refresh_ahead_percent = 5\ngateway.clock_skew = \"30s\"\n{}",
            operations::FIRST_SETTING
        );
        servers::ours(site, &settings, "calls_per_second = 5000")
    },
};

/// Options of the soak.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Minutes that count, after a warm-up of a tenth of them, at least one
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes: u32,
    /// Lookups per second, instead of a third of what saturates the proxy
    #[arg(long)]
    rate: Option<f64>,
    /// Connections, of which half are closed and opened again
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..))]
    connections: u32,
    /// The proxy's executable, as `cargo xtask release` leaves one, instead of a release build
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// File for the chart of p99 and memory per minute
    #[arg(long, value_name = "FILE", default_value = "docs/soak.svg")]
    svg: PathBuf,
}

impl Options {
    /// Minutes before those that count.
    fn warm_up(&self) -> u32 {
        self.minutes.div_ceil(10)
    }
}

/// Loads, prints a line per minute, writes the chart, and prints the verdicts; an error if one of them is bad.
pub(crate) fn command(options: &Options) -> Result<()> {
    tools::wrk()?;
    tools::sqlite()?;
    let ours = if options.program.is_none() { "--package cmiot-proxy --bins " } else { "" };
    Run::cargo(&format!("build --release {ours}--package cmiot-bench --example load")).run()?;
    let folder = root().join("target/soak");
    let _ = fs::remove_dir_all(&folder); // an earlier run's
    fs::create_dir_all(&folder)?;
    let tls = Certificate::make(&folder)?;
    let carrier = Carrier::start_with(options.program.as_deref(), simulate)?;
    let start = |name| -> Result<Server> {
        let mut site = Site::on_one_processor(&folder.join(name), &carrier)?;
        site.tls = Some(tls.clone());
        Server::start(&SOAK, site)
    };
    let rate = match options.rate {
        Some(rate) => rate,
        None => saturated(&start("saturated")?, options.connections)? / 3.0,
    };
    let server = start("served")?;
    let load = Load { server: &server, tls: &tls, connections: options.connections };
    let warm = load.warm()?;
    println!("{rate:.0} lookups/s over TLS, {} connections, half of them churned", options.connections);
    let seen = soak(options, &load, rate)?;
    let (commit, day) = (commit(), Run::new("date").args(["-u", "+%F"]).output()?);
    let title =
        format!("{} min at {rate:.0} lookups per second over TLS, {}{commit}", options.minutes, day.trim());
    fs::write(root().join(&options.svg), chart::draw(&title, &seen.minutes))
        .with_context(|| options.svg.display().to_string())?;
    let is_good = verdict(&seen, warm);
    drop(server);
    ensure!(is_good, "the soak failed: see above; its folder is {}", folder.display());
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The simulated carrier: a hundred cards are barred, so that a purge of that status is no storm of misses.
fn simulate(command: &mut Command) -> &mut Command {
    setup::simulate(command).args(["--rule", "prefix=147650000 status=02"])
}

/// Lookups per second that saturate the proxy over TLS.
fn saturated(server: &Server, connections: u32) -> Result<f64> {
    wrk(&server.url(), connections, CARDS, 5, 0)?;
    let rate = wrk(&server.url(), connections, CARDS, 10, 10_000_000)?.rate();
    println!("{rate:.0} lookups/s over TLS saturate the proxy with {connections} connections");
    Ok(rate)
}

/// The commit of the workspace, for the title of the chart; empty without git.
fn commit() -> String {
    let commit = Run::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    commit.map_or_else(|_| String::new(), |commit| format!(", commit {}", commit.trim()))
}

/// The load.
struct Load<'a> {
    server: &'a Server,
    tls: &'a Certificate,
    connections: u32,
}

impl Load<'_> {
    /// Starts a load of this duration, with a window per minute. `first` is as in [`load::command`].
    fn start(&self, rate: f64, seconds: u32, first: u32) -> Result<ServerProcess> {
        let mut command = load::command(self.server.address(), rate, self.connections, first);
        command.arg("--tls").arg(&self.tls.chain).args(["--first-card", &FIRST_CARD.to_string()]);
        command.args(["--seconds", &seconds.to_string(), "--every", "60"]);
        command.args(["--reconnect", &RECONNECT.to_string()]);
        command.args(["--churned", &(self.connections / 2).to_string()]);
        ServerProcess::start(&mut command)
    }

    /// Looks every card up, and returns the number of answers.
    fn warm(&self) -> Result<u64> {
        let seconds = CARDS.count.div_ceil(WARM_RATE);
        let mut load = self.start(f64::from(WARM_RATE), seconds, 50_000_000)?;
        let Window { answered, failed, .. } = Window::parse(&load.wait_for_line(PREFIX)?)?;
        ensure!(failed == 0, "{failed} lookups of cards that were not cached failed");
        Ok(answered)
    }
}

/// Results of the soak.
struct Seen {
    /// The minutes that count.
    minutes: Vec<Minute>,
    /// Samples of these minutes.
    samples: Vec<Sample>,
    /// Lookups that were due, answered, and failed; connections opened; in the warm-up too.
    totals: [u64; 4],
    /// Whether each operation succeeded each time.
    operations_succeeded: bool,
    /// The audit has this many records of lookups.
    records: u64,
}

/// Runs load, operations and sampler, each in a thread or process of its own, and prints a line per minute.
fn soak(options: &Options, load: &Load<'_>, rate: f64) -> Result<Seen> {
    let minutes = options.warm_up() + options.minutes;
    let stop = AtomicBool::new(false);
    let sampler = Sampler::new(load.server)?;
    let operations = Operations::new(load.server, &stop, sampler.is_at_rest())?;
    let mut process = load.start(rate, minutes * 60, 0)?;
    let mut totals = [(rate * f64::from(minutes * 60)) as u64, 0, 0, 0];
    let (counted, first) = thread::scope(|scope| -> Result<_> {
        let stopped = StopOnDrop(&stop);
        scope.spawn(|| operations.few_seconds());
        scope.spawn(|| operations.audit());
        scope.spawn(|| sampler.run(&stop));
        print_head();
        let (mut counted, mut first, mut from) = (Vec::new(), 0, 0);
        for minute in 1..=minutes {
            let lookups = Window::parse(&process.wait_for_line(PREFIX)?)?;
            totals[1] += lookups.answered;
            totals[2] += lookups.failed;
            totals[3] += lookups.opened;
            let samples = sampler.since(from)?;
            from += samples.len();
            let last = *samples.last().context("a minute without a sample")?;
            let line = Minute { lookups, last };
            let number = minute.checked_sub(options.warm_up()).filter(|number| *number > 0);
            print(number, &line, &samples);
            match number {
                Some(_) => counted.push(line),
                None => first = from,
            }
        }
        drop(stopped);
        Ok((counted, first))
    })?;
    let records = sampler.records()?;
    operations.last_verify();
    let operations_succeeded = operations.print()?;
    Ok(Seen { minutes: counted, samples: sampler.since(first)?, totals, operations_succeeded, records })
}

/// Sets the flag when it is dropped, after an error too, so that the other threads end.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn print_head() {
    println!(
        "{:>7} {:>9} {:>6} {:>7} {:>7} {:>8} {:>6} {:>6} {:>7} {:>7} {:>7} {:>9} {:>10}",
        "minute",
        "answered",
        "failed",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "MiB",
        "files",
        "threads",
        "WAL MiB",
        "highest",
        "index lag",
        "rows"
    );
}

/// Prints a minute, without a number one of the warm-up, and the WAL's greatest size in it.
fn print(number: Option<u32>, minute: &Minute, samples: &[Sample]) {
    let (last, mib) = (&minute.last, |bytes: u64| bytes as f64 / f64::from(1 << 20));
    let wal = samples.iter().map(|sample| sample.wal).max().unwrap_or(0);
    let Window { answered, failed, times: [p50, p99, p999], .. } = minute.lookups;
    println!(
        "{:>7} {answered:>9} {failed:>6} {p50:>7} {p99:>7} {p999:>8} {:>6.1} {:>6} {:>7} {:>7.1} {:>7.1} {:>9} {:>10}",
        number.map_or_else(|| "warm-up".to_owned(), |number| number.to_string()),
        mib(last.memory),
        last.descriptors,
        last.threads,
        mib(last.wal),
        mib(wal),
        last.index_lag,
        last.rows,
    );
}

/// Prints a verdict per condition; whether all are good. `warm` is the number of answers before the soak.
fn verdict(seen: &Seen, warm: u64) -> bool {
    let [due, answered, failed, opened] = seen.totals;
    let lost = due.saturating_sub(answered + failed);
    println!("\n{due} lookups: {answered} answered, {failed} failed, {lost} lost; {opened} connections");
    println!("{} records in the audit, {} answers", seen.records, warm + answered);
    let growth = growth::of(&seen.samples);
    for quantity in &growth {
        println!("{quantity}");
    }
    let conditions = [
        ("each lookup was answered", failed == 0 && lost == 0),
        ("each answer has a record", seen.records >= warm + answered),
        ("each operation succeeded", seen.operations_succeeded),
        ("nothing has grown", growth.iter().all(growth::Growth::is_flat)),
    ];
    for (condition, holds) in conditions {
        println!("{condition}: {}", if holds { "yes" } else { "NO" });
    }
    conditions.iter().all(|(_, holds)| *holds)
}
