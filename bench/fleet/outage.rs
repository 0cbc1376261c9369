//! M9: the database stalls: which requests wait for it, and for how long.

use std::time::Duration;

use cmiot_proxy::clock::Clock;
use tokio::task::JoinSet;

use crate::harness::{Mode, Nodes};
use crate::load::{Timed, all_members, client, millis, once, percentile};
use crate::support::{GatewayClient, Setup, card_number};
use crate::{Line, Options};

/// The default of `[fleet] pool`.
const POOL: f64 = 4.0;

/// Lookups of a node per second: hits, whose transids are checked in the database.
const RATE: u32 = 30;

/// Three nodes whose database stalls, next to a proxy without a fleet under the same load.
pub(crate) async fn stalled(options: &Options) -> Vec<Line> {
    let fleet = Nodes::start_with(3, |setup, _| setup.set("fleet.timeout", "100ms")).await;
    let lone = Setup::with_carrier(&fleet.carrier).start().await;
    all_members(&fleet).await;
    let seconds = options.scaled(60, 5);
    let mut warm = JoinSet::new();
    for node in fleet.iter().map(|node| client(node)).chain([client(&lone)]) {
        warm.spawn(load(node, 3));
    }
    warm.join_all().await;
    all_members(&fleet).await;
    let before = unanswered(&fleet).await;
    for node in fleet.iter() {
        node.partition.set(Mode::Stall);
    }
    let mut loads = JoinSet::new();
    for node in fleet.iter() {
        loads.spawn(load(client(node), seconds));
    }
    let lone = tokio::spawn(load(client(&lone), seconds));
    let stalled = loads.join_all().await;
    let lone = lone.await.unwrap();
    let paid: Vec<_> =
        unanswered(&fleet).await.iter().zip(&before).map(|(now, before)| now - before).collect();
    let later = |times: &[(Duration, Duration)]| -> Vec<Duration> {
        times.iter().filter(|(at, _)| *at > Duration::from_secs(1)).map(|(_, took)| *took).collect()
    };
    let all: Vec<_> = stalled.iter().flat_map(|times| later(times)).collect();
    let lone = later(&lone);
    let what = format!("the database is stalled for {seconds} s");
    vec![
        Line::counted(
            format!(
                "{what}, {RATE} lookups per second at each node: lookups of each that waited for its timeout"
            ),
            "≤ 5",
            format!("{paid:?}"),
            paid.iter().all(|paid| *paid <= POOL + 1.0),
        ),
        Line::printed(
            format!("{what}: p50, p99 after the first second"),
            format!("{}, {}", millis(percentile(all.clone(), 50)), millis(percentile(all, 99))),
        ),
        Line::printed(
            "a proxy without a fleet at the same time: p50, p99",
            format!("{}, {}", millis(percentile(lone.clone(), 50)), millis(percentile(lone, 99))),
        ),
    ]
}

/// Lookups of each node that waited for the database and got no reply.
async fn unanswered(fleet: &Nodes) -> Vec<f64> {
    let mut counts = Vec::new();
    for node in fleet.iter() {
        let metrics = node.metrics().await;
        counts.push(metrics.value("cmiot_fleet_transids_total", [("result", "alone")]).unwrap());
    }
    counts
}

/// Lookups at a steady rate, whatever their responses take: when each was sent, and its time.
async fn load(node: GatewayClient, seconds: u32) -> Vec<(Duration, Duration)> {
    let clock = Clock::system();
    let start = clock.monotonic();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut lookups = JoinSet::new();
    for lookup in 0..seconds * RATE {
        ticks.tick().await;
        let (node, at) = (node.clone(), clock.monotonic().saturating_sub(start));
        lookups.spawn(async move {
            let Timed { response, took } = once(node, card_number(lookup % 20)).await;
            response.assert_normal();
            (at, took)
        });
    }
    lookups.join_all().await
}
