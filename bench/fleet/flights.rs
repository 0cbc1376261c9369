//! M1 to M3: one carrier call for all nodes, whatever becomes of it.

use std::time::Duration;

use cmiot_simulator::{Answer, Rule};

use crate::load::{Timed, at_once, millis, percentile, three};
use crate::support::{Card, card_number};
use crate::{Line, Options};

/// Latency of the carrier.
const CARRIER: Duration = Duration::from_millis(300);

/// Lookups at once.
const LOOKUPS: usize = 200;

/// M1: many lookups of one card.
pub(crate) async fn one_call(options: &Options) -> Vec<Line> {
    let fleet = three(|setup, _| setup).await;
    fleet.carrier.set_latency(CARRIER);
    let (mut calls, mut beyond) = (Vec::new(), Vec::new());
    for round in 0..options.scaled(20, 2) {
        let before = fleet.carrier.count();
        let timed = at_once(&fleet, LOOKUPS, &card_number(round)).await.join_all().await;
        let times: Vec<_> = timed.into_iter().flatten().map(|Timed { took, .. }| took).collect();
        assert_eq!(times.len(), LOOKUPS);
        calls.push(fleet.carrier.count() - before);
        beyond.push(percentile(times, 50).saturating_sub(CARRIER));
    }
    let what = format!("{LOOKUPS} lookups of one card at 3 nodes, {} rounds", calls.len());
    let most = calls.iter().max().unwrap();
    vec![
        Line::counted(format!("{what}: carrier calls of a round"), "1", format!("{most}"), *most == 1),
        Line::printed(
            format!("{what}: p50 beyond the carrier's 300 ms, median"),
            millis(percentile(beyond, 50)),
        ),
    ]
}

/// M2: the same, and the call fails.
pub(crate) async fn one_failure(options: &Options) -> Vec<Line> {
    let cases = [
        ("503", Rule::any().then(Answer::html(503)).latency(CARRIER), 1),
        ("hangs", Rule::any().then(Answer::Hang), 1),
        ("throttles (71)", Rule::any().code("71").latency(CARRIER), 1),
        ("busy (73), with its retry", Rule::any().code("73").latency(CARRIER), 2),
    ];
    let mut lines = Vec::new();
    for (what, rule, bound) in cases {
        let mut most = 0;
        for round in 0..options.scaled(3, 1) {
            // A breaker that opened prevents the calls of the next round.
            let fleet = three(|setup, _| setup.set("carrier.timeout", "3s")).await;
            fleet.carrier.set_rules([rule.clone()]);
            let card: Card<String> = card_number(round);
            let answered = at_once(&fleet, LOOKUPS, &card).await.join_all().await;
            assert!(answered.iter().all(Option::is_some));
            most = most.max(fleet.carrier.count());
        }
        let bound_text = if bound == 1 { "1" } else { "2" };
        lines.push(Line::counted(
            format!("the carrier {what}: calls of {LOOKUPS} lookups"),
            bound_text,
            most.to_string(),
            most <= bound,
        ));
    }
    lines
}

/// M3: the node that calls is killed.
pub(crate) async fn killed_leader(options: &Options) -> Vec<Line> {
    let (mut most, mut longest, mut others) = (0, Duration::ZERO, 0);
    for round in 0..options.scaled(5, 1) {
        let mut fleet = three(|setup, _| setup).await;
        fleet.carrier.set_latency(Duration::from_secs(1));
        let card = card_number(round);
        // The first lookup alone, so that its node leads.
        let leader = crate::load::client(&fleet[0]);
        let mut connection = leader.connect().await;
        let target = format!("/v2/userstatusrealsingle?{}", leader.sign(&card).text());
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        fleet.carrier.wait_for_calls(1).await;
        let mut waiting = at_once(&fleet, LOOKUPS, &card).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        fleet[0].kill9().await;
        let mut answered = 0;
        while let Some(one) = waiting.join_next().await {
            let Some(Timed { response, took }) = one.unwrap() else { continue };
            response.assert_normal();
            answered += 1;
            longest = longest.max(took);
        }
        others += answered;
        most = most.max(fleet.carrier.count());
        // Those of the two other nodes at least.
        assert!(answered >= LOOKUPS / 3 * 2, "{answered} of {LOOKUPS}");
    }
    vec![
        Line::counted(
            "the leader's node is killed at 100 ms: carrier calls",
            "≤ 2",
            most.to_string(),
            most <= 2,
        ),
        Line {
            bound: "≤ 8 s",
            ..Line::printed(
                format!("{others} lookups at the other nodes: longest (carrier 1 s)"),
                millis(longest),
            )
        },
    ]
}
