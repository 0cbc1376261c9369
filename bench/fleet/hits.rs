//! M10: a hit with `replay = "local"`, with `replay = "shared"`, and without a fleet.
//!
//! wrk signs each request (`bench/peers/sign.lua`) on processor 1; the proxies have processor 0, all of them the whole time,
//! and are loaded in turn. CPU is the kernel's accounting of the process.

use std::process::Command;
use std::time::Duration;

use crate::harness::{Partition, Postgres, create_tables, fleet_setup, folder_of};
use crate::load::{millis, percentile};
use crate::support::{EBID, GATEWAY_APPID, GATEWAY_PASSWORD, Machine, Proxy, Setup, carrier, eventually};
use crate::{Line, Options};

/// Connections of wrk.
const CONNECTIONS: u32 = 64;

/// Warm cards.
const CARDS: u32 = 10_000;

/// Rounds through the proxies, each as long as the option says.
const ROUNDS: u32 = 9;

/// One load of one proxy.
struct Sample {
    rate: f64,
    cpu_us: f64,
    p50: Duration,
    p99: Duration,
}

/// Measures the proxies in turn.
pub(crate) async fn compared(options: &Options) -> Vec<Line> {
    let server = Postgres::start().await;
    create_tables(&server).await;
    let carrier = carrier().await;
    let mut proxies = Vec::new();
    let mut partitions = Vec::new();
    let plain = Setup::with_carrier(&carrier);
    proxies.push(("without [fleet]", start(plain).await));
    for (name, replay, number) in [("replay = \"local\"", "local", 1), ("replay = \"shared\"", "shared", 2)] {
        let partition = Partition::to(&server);
        let setup = fleet_setup(&carrier, &partition, number, 3).set("fleet.replay", replay);
        // Directly: the partition is part of this process.
        let setup = setup.set("fleet.hosts", vec![format!("unix:{}", server.socket_folder().display())]);
        let proxy = start(setup).await;
        eventually("a member", async || {
            (proxy.metrics().await.value("cmiot_fleet_alone", []) == Some(0.0)).then_some(())
        })
        .await;
        proxies.push((name, proxy));
        partitions.push(partition);
    }
    let mut sequence = 0;
    for (_, proxy) in &proxies {
        sample(proxy, 5, &mut sequence);
    }
    let rounds = options.scaled(ROUNDS, 1);
    let mut samples: Vec<Vec<Sample>> = proxies.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for turn in 0..proxies.len() {
            let which = (round + turn) % proxies.len();
            samples[which].push(sample(&proxies[which].1, options.seconds, &mut sequence));
        }
    }
    let mut lines: Vec<_> =
        proxies.iter().zip(&samples).map(|((name, _), samples)| figures(name, samples)).collect();
    for (index, name) in [(1, "local"), (2, "shared")] {
        let ratios = samples[index].iter().zip(&samples[0]).map(|(one, plain)| one.cpu_us / plain.cpu_us);
        let ratio = middle(ratios.collect());
        let what = format!("CPU of a hit, {name} / without [fleet], median of {rounds} paired ratios");
        let bound = if index == 1 { "≤ 1.02" } else { "" };
        lines.push(Line { bound, ..Line::printed(what, format!("{ratio:.3}")) });
    }
    lines
}

fn figures(name: &str, samples: &[Sample]) -> Line {
    let of = |figure: fn(&Sample) -> f64| middle(samples.iter().map(figure).collect());
    let time = |figure: fn(&Sample) -> Duration| millis(percentile(samples.iter().map(figure).collect(), 50));
    Line::printed(
        format!("a hit {name}: CPU, requests/s, p50, p99"),
        format!(
            "{:.1} µs, {:.0}/s, {}, {}",
            of(|sample| sample.cpu_us),
            of(|sample| sample.rate),
            time(|sample| sample.p50),
            time(|sample| sample.p99)
        ),
    )
}

/// Starts a proxy on processor 0.
async fn start(setup: Setup) -> Proxy {
    let setup = setup.set("gateway.max_requests_per_connection", 1_000_000_000);
    let machine = Machine::wrapped_by(["taskset", "-c", "0"]);
    Proxy::start_on_machine(folder_of(&setup), setup, machine).await
}

/// Loads a proxy for so many seconds.
fn sample(proxy: &Proxy, seconds: u32, sequence: &mut u64) -> Sample {
    *sequence += 3_000_000;
    let before = cpu(proxy);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/peers/sign.lua");
    let wrk = Command::new("taskset")
        .args([
            "-c",
            "1",
            "wrk",
            "-t1",
            &format!("-c{CONNECTIONS}"),
            &format!("-d{seconds}s"),
            "--timeout",
            "10s",
        ])
        .args(["-s", script, &format!("http://{}", proxy.address)])
        .envs([("APPID", GATEWAY_APPID), ("PASSWORD", GATEWAY_PASSWORD), ("EBID", EBID), ("STRIDE", "1")])
        .envs([("CARDS", CARDS.to_string()), ("FIRST", sequence.to_string())])
        .output()
        .expect("wrk: Debian's package");
    let spent = cpu(proxy).saturating_sub(before);
    let printed = String::from_utf8_lossy(&wrk.stdout).into_owned();
    let line = printed.lines().find_map(|line| line.strip_prefix("RESULT ")).expect("a result of sign.lua");
    let fields: Vec<u64> = line.split(' ').map(|field| field.parse().unwrap()).collect();
    let [requests, micros, errors, p50, p99, _] = fields[..] else { panic!("{line}") };
    assert_eq!(errors, 0, "{printed}");
    Sample {
        rate: requests as f64 / (micros as f64 / 1e6),
        cpu_us: spent.as_secs_f64() * 1e6 / requests as f64,
        p50: Duration::from_micros(p50),
        p99: Duration::from_micros(p99),
    }
}

/// CPU time of a proxy so far, user and system.
fn cpu(proxy: &Proxy) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
    // proc(5): after the name in parentheses; utime and stime are fields 14 and 15, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
