//! `cargo xtask bench collapse`: what a cache costs the carrier, ours against nginx, Varnish and Squid.
//!
//! One simulated carrier, the same scenarios for each server, a new folder and an empty cache for each scenario. The
//! peers are configured as well as their manuals allow (`bench/peers/collapse/`). Calls are the simulator's own
//! count; times are the clients', and comparable within one run only.

mod load;
mod servers;

use std::time::Duration;

use anyhow::{Context, Result};
use cmiot_simulator::{Account, Answer, Config, Rule, Simulator, Throttle};
use tokio::time::{Instant, sleep, sleep_until};

use self::load::{Asked, ask, p50, send_concurrently};
use super::servers::{Server, Site, Spec};
use crate::run::{Run, root, target};
use crate::setup::{APPID, EBID, PASSWORD};
use crate::tools;

/// Latency of the carrier in the first three scenarios.
const CARRIER: Duration = Duration::from_millis(300);
/// Simultaneous requests in the first scenario.
const CONCURRENT: u32 = 200;
/// A gateway's timeout in the last one: a tenth of the vendor's 25 s, as every duration there.
const TIMEOUT: Duration = Duration::from_millis(2_500);

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Cards that expire in the same second
    #[arg(long, default_value_t = 10_000)]
    cards: u32,
    /// Only these servers, by their names in the table
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these scenarios, by their row in the table (1 to 6)
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=6), default_values_t = 1..=6)]
    rows: Vec<u8>,
    /// Seconds for which the carrier refuses, and then resets
    #[arg(long, default_value_t = 5)]
    outage: u64,
    /// Seconds for which it then hangs, before the restart and again after it
    #[arg(long, default_value_t = 30)]
    hang: u64,
}

/// Plays all scenarios with all servers and prints the table.
pub(crate) fn command(options: &Options) -> Result<()> {
    tools::peers()?;
    let specs: Vec<Spec> = servers::ALL
        .into_iter()
        .filter(|spec| options.only.is_empty() || options.only.iter().any(|name| name == spec.name))
        .collect();
    if specs.iter().any(|spec| spec.is_ours) {
        // As the other benches build it: with other features all would be compiled again.
        Run::cargo("build --release --package cmiot-proxy --package cmiot-bench --bins --example floor")
            .run()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(all(&specs, options))
}

async fn all(specs: &[Spec], options: &Options) -> Result<()> {
    let mut columns = Vec::new();
    println!("{}", without_a_cache().await?);
    for spec in specs {
        columns.push(play(spec, options).await.with_context(|| spec.name.to_owned())?);
    }
    println!("\n| scenario | {} |", specs.iter().map(|spec| spec.name).collect::<Vec<_>>().join(" | "));
    println!("|{}", " --- |".repeat(specs.len() + 1));
    let rows = [
        format!("{CONCURRENT} at once, one card: carrier calls, p50"),
        "leader leaves at 100 ms, 50 waiting since 50 ms: calls, p50".to_owned(),
        "carrier answers 503, 50 at once: calls, p50".to_owned(),
        "error inside HTTP 200 asked twice: answered from cache as good".to_owned(),
        format!(
            "{} cards stale at once, asked twice at 2,000/s, carrier limited to 200/s: gateway failures; calls over the limit",
            options.cards
        ),
        "carrier refuses, resets, hangs, restart in the middle: failures for known cards".to_owned(),
    ];
    for (index, row) in options.rows.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| column[index].as_str()).collect();
        println!("| {} | {} |", rows[usize::from(*row) - 1], cells.join(" | "));
    }
    Ok(())
}

/// The carrier's own time, for a call alone and for the first scenario's requests: what the load sees with nothing in
/// between.
async fn without_a_cache() -> Result<String> {
    let carrier = Simulator::start_local(Config::new([Account::new(APPID, EBID, PASSWORD)])).await?;
    carrier.set_latency(CARRIER);
    let alone = send_concurrently(carrier.addr(), 1, 0).await;
    let concurrent = send_concurrently(carrier.addr(), CONCURRENT, 0).await;
    Ok(format!(
        "the carrier itself, p50: {:.0} ms asked once, {:.0} ms asked by {CONCURRENT} at once",
        p50(&alone),
        p50(&concurrent)
    ))
}

/// One server through all scenarios: a cell of the table each.
async fn play(spec: &Spec, options: &Options) -> Result<Vec<String>> {
    let folder = root().join("target/bench-collapse").join(spec.name);
    let _ = std::fs::remove_dir_all(&folder); // an earlier run's
    let mut cells = Vec::new();
    for scenario in &options.rows {
        let carrier = Simulator::start_local(Config::new([Account::new(APPID, EBID, PASSWORD)])).await?;
        let site_folder = folder.join(scenario.to_string());
        let program = target().join("release/cmiot-proxy");
        let site = Site::new(&site_folder, carrier.addr(), &program, servers::fresh(spec))?;
        let mut server = Server::start(spec, site)?;
        let cell = match scenario {
            1 => many(&server, &carrier).await,
            2 => disconnecting(&server, &carrier).await,
            3 => failing(&server, &carrier).await,
            4 => error_inside(&server, &carrier).await,
            5 => expiry(&server, &carrier, options.cards).await?,
            _ => outage(&mut server, &carrier, options).await?,
        };
        println!("{}, scenario {scenario}: {cell}", spec.name);
        cells.push(cell);
    }
    Ok(cells)
}

fn calls_and_p50(carrier: &Simulator, asked: &[Asked]) -> String {
    format!("{}, {:.0} ms", carrier.count(), p50(asked))
}

async fn many(server: &Server, carrier: &Simulator) -> String {
    carrier.set_latency(CARRIER);
    let asked = send_concurrently(server.address(), CONCURRENT, 0).await;
    calls_and_p50(carrier, &asked)
}

async fn disconnecting(server: &Server, carrier: &Simulator) -> String {
    carrier.set_latency(CARRIER);
    let address = server.address();
    let leader = tokio::spawn(async move { ask(address, 0, TIMEOUT).await });
    carrier.wait_for_calls(1).await;
    sleep(Duration::from_millis(50)).await;
    let waiting = tokio::spawn(async move { send_concurrently(address, 50, 0).await });
    sleep(Duration::from_millis(50)).await;
    leader.abort(); // its socket closes
    let asked = waiting.await.unwrap_or_default();
    calls_and_p50(carrier, &asked)
}

async fn failing(server: &Server, carrier: &Simulator) -> String {
    carrier.set_rules([Rule::any().then(Answer::html(503)).latency(CARRIER)]);
    let asked = send_concurrently(server.address(), 50, 0).await;
    calls_and_p50(carrier, &asked)
}

async fn error_inside(server: &Server, carrier: &Simulator) -> String {
    carrier.set_rules([Rule::any().code("20")]);
    for _ in 0..2 {
        ask(server.address(), 0, TIMEOUT).await;
    }
    if carrier.count() == 1 { "yes" } else { "no" }.to_owned()
}

async fn expiry(server: &Server, carrier: &Simulator, cards: u32) -> Result<String> {
    warm(server, cards).await;
    sleep(Duration::from_secs(server.site().fresh + 1)).await;
    carrier.reset_counts();
    carrier.set_throttle(Throttle::per_second(200));
    servers::limit_calls(server).await?;
    let mut asking = tokio::task::JoinSet::new();
    let start = Instant::now();
    for n in 0..2 * cards {
        sleep_until(start + Duration::from_secs(1) / 2_000 * n).await;
        let address = server.address();
        asking.spawn(async move { ask(address, n % cards, Duration::from_secs(25)).await });
    }
    let asked = asking.join_all().await;
    let failures = asked.iter().filter(|asked| !asked.good).count();
    Ok(format!("{failures} of {}; {}", asked.len(), carrier.count_code("72")))
}

async fn outage(server: &mut Server, carrier: &Simulator, options: &Options) -> Result<String> {
    const CARDS: u32 = 100;
    warm(server, CARDS).await;
    sleep(Duration::from_secs(server.site().fresh + 1)).await;
    let (mut failures, mut asked) = (0, 0);
    let mut during = async |server: &Server, seconds: u64| {
        let mut asking = tokio::task::JoinSet::new();
        let start = Instant::now();
        for n in 0..u32::try_from(seconds).unwrap_or(1) * 100 {
            sleep_until(start + Duration::from_millis(10) * n).await;
            let address = server.address();
            asking.spawn(async move { ask(address, n % CARDS, TIMEOUT).await });
        }
        for one in asking.join_all().await {
            asked += 1;
            failures += u32::from(!one.good);
        }
    };
    carrier.kill().await; // refuses
    during(server, options.outage).await;
    carrier.restart().await?;
    carrier.set_rules([Rule::any().then(Answer::Reset)]);
    during(server, options.outage).await;
    carrier.set_rules([Rule::any().then(Answer::Hang)]);
    during(server, options.hang).await;
    server.restart()?;
    during(server, options.hang).await;
    Ok(format!("{failures} of {asked}"))
}

/// Every card once, so many at a time.
async fn warm(server: &Server, cards: u32) {
    let mut asking = tokio::task::JoinSet::new();
    for card in 0..cards {
        if asking.len() >= 64 {
            asking.join_next().await;
        }
        let address = server.address();
        asking.spawn(async move { ask(address, card, Duration::from_secs(25)).await });
    }
    asking.join_all().await;
}
