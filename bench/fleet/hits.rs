//! M10: a hit with `replay = "local"`, with `replay = "shared"`, and without a fleet.
//!
//! The proxies have processor 0, all of them the whole time, and are loaded in turn by wrk on processor 1 (`bench/wrk.rs`).

use std::time::Duration;

use crate::harness::{Partition, Postgres, create_tables, fleet_setup, folder_of};
use crate::load::{millis, percentile};
use crate::support::{Setup, carrier, eventually};
use crate::wrk::{CARDS, Sample, middle, sample, start};
use crate::{Line, Options};

/// Loads before the first round, at most, and their seconds.
const WARM_LOADS: u32 = 12;
const WARM_SECONDS: u32 = 5;

/// Rounds through the proxies, each as long as the option says.
const ROUNDS: u32 = 9;

/// Measures the proxies in turn.
pub(crate) async fn compared(options: &Options) -> Vec<Line> {
    let server = Postgres::start().await;
    create_tables(&server).await;
    let carrier = carrier().await;
    let mut proxies = Vec::new();
    let mut partitions = Vec::new();
    let plain = Setup::with_carrier(&carrier);
    proxies.push(("without [fleet]", start(folder_of(&plain), plain).await));
    for (name, replay, number) in [("replay = \"local\"", "local", 1), ("replay = \"shared\"", "shared", 2)] {
        let partition = Partition::to(&server);
        let setup = fleet_setup(&carrier, &partition, number, 3).set("fleet.replay", replay);
        // Directly: the partition is part of this process.
        let setup = setup.set("fleet.hosts", vec![format!("unix:{}", server.socket_folder().display())]);
        let proxy = start(folder_of(&setup), setup).await;
        eventually("a member", async || {
            (proxy.metrics().await.value("cmiot_fleet_alone", []) == Some(0.0)).then_some(())
        })
        .await;
        proxies.push((name, proxy));
        partitions.push(partition);
    }
    let mut sequence = 0;
    for (name, proxy) in &proxies {
        // Misses of a fleet are slow: until a load has asked for every card several times.
        let is_warm = |sample: &Sample| sample.rate * f64::from(WARM_SECONDS) >= f64::from(5 * CARDS);
        let warm = (0..WARM_LOADS).any(|_| is_warm(&sample(proxy, WARM_SECONDS, &mut sequence)));
        assert!(warm, "{name}: not all cards are cached after {WARM_LOADS} loads");
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
