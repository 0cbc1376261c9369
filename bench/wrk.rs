//! Loads a proxy of the tests' harness with hits, and accounts for its CPU.
//!
//! wrk signs each request (`bench/peers/sign.lua`) on processor 1; the proxy has processor 0.

use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{EBID, GATEWAY_APPID, GATEWAY_PASSWORD, Machine, Proxy, Setup};

/// Connections of wrk.
const CONNECTIONS: u32 = 64;

/// Warm cards.
pub(crate) const CARDS: u32 = 10_000;

/// One load of one proxy.
pub(crate) struct Sample {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Microseconds of CPU per request, by the kernel's accounting of the process.
    pub(crate) cpu_us: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Starts a proxy on processor 0.
pub(crate) async fn start(folder: TempDir, setup: Setup) -> Proxy {
    let setup = setup
        .set("gateway.max_requests_per_connection", 1_000_000_000)
        // A client of a whole load; its transids are remembered for five minutes.
        .set("gateway.max_transids", 40_000_000)
        .set("gateway.max_transids_per_client", 30_000_000);
    let machine = Machine::wrapped_by(["taskset", "-c", "0"]);
    Proxy::start_on_machine(folder, setup, machine).await
}

/// Loads a proxy for so many seconds.
pub(crate) fn sample(proxy: &Proxy, seconds: u32, sequence: &mut u64) -> Sample {
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

/// The median; the greater of the two in the middle.
pub(crate) fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
