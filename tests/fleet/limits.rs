//! Proxies that share the limits of an account: the calls of a day, the rate, and what one of them has met.

use std::time::Duration;

use cmiot_simulator::{Gate, Rule};
use tokio::task::JoinSet;

use crate::harness::{Mode, Nodes};
use crate::support::{Response, card_number, eventually, within};

/// Looks up these cards at these nodes, one after another at each node.
async fn look_up(fleet: &Nodes, nodes: &[usize], cards: std::ops::Range<u32>) -> Vec<Response> {
    let mut lookups = JoinSet::new();
    for (position, index) in nodes.iter().enumerate() {
        let client = (**fleet[*index]).clone();
        let cards: Vec<_> = cards.clone().skip(position).step_by(nodes.len()).collect();
        lookups.spawn(async move {
            let mut responses = Vec::new();
            for card in cards {
                responses.push(client.look_up(&card_number(card)).await);
            }
            responses
        });
    }
    within("all responses", lookups.join_all()).await.into_iter().flatten().collect()
}

/// Waits until each node has sent two beats, so that it knows what the database knew before.
async fn beats(fleet: &Nodes, count: usize) {
    let beats = "SELECT count(*) FROM fleet.pacer WHERE until > fleet.now()";
    eventually("all nodes to be pacers", async || {
        (fleet.server.value(beats).await == count.to_string()).then_some(())
    })
    .await;
    for _ in 0..2 {
        let before = fleet.server.value("SELECT max(until) FROM fleet.pacer").await;
        eventually("a beat of each node", async || {
            let later = format!("SELECT count(*) FROM fleet.pacer WHERE until > '{before}'");
            (fleet.server.value(&later).await == count.to_string()).then_some(())
        })
        .await;
    }
}

/// Waits until both nodes call the carrier again.
async fn both_call_again(fleet: &Nodes) {
    for index in [1, 0] {
        eventually("calls again", async || {
            let response = fleet[index].look_up(&card_number(3 + index as u32)).await;
            response.text().contains("\"status\":\"0\"").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_calls_of_a_day_are_spent_once_by_three_nodes() {
    let fleet = Nodes::start_with(3, |setup, _| setup.set("account.0.calls_per_day", 300)).await;
    beats(&fleet, 3).await;
    let responses = look_up(&fleet, &[0, 1, 2], 0..330).await;
    let calls = fleet.carrier.count();
    assert!((270..=300).contains(&calls), "{calls} calls");
    let answered = responses.iter().filter(|response| response.text().contains("\"status\":\"0\"")).count();
    assert_eq!(answered as u64, calls);
    responses.last().unwrap().assert_refusal_for("72", "budget");
}

#[tokio::test]
async fn nodes_that_are_cut_off_and_killed_never_exceed_the_calls_of_a_day() {
    let mut fleet = Nodes::start_with(3, |setup, _| setup.set("account.0.calls_per_day", 300)).await;
    beats(&fleet, 3).await;
    let modes = [Mode::Refuse, Mode::Stall, Mode::Reset, Mode::StallResponses];
    for (round, mode) in (0_u32..).zip(modes) {
        let cut = round as usize % 3;
        fleet[cut].partition.set(mode);
        look_up(&fleet, &[0, 1, 2], round * 100..round * 100 + 60).await;
        fleet[cut].partition.cut().await;
        let killed = (cut + 1) % 3;
        fleet[killed].kill9().await;
        fleet[killed].start_again().await;
        look_up(&fleet, &[0, 1, 2], round * 100 + 60..round * 100 + 100).await;
        let calls = fleet.carrier.count();
        assert!(calls <= 300, "{calls} calls after round {round}");
    }
    let calls = fleet.carrier.count();
    assert!(calls >= 200, "{calls} calls: most of the day is not lost");
}

#[tokio::test]
async fn a_node_that_is_cut_off_spends_its_reserve_and_no_more() {
    let fleet = Nodes::start_with(3, |setup, _| setup.set("account.0.calls_per_day", 300)).await;
    eventually("the reserves", async || {
        let reserved = "SELECT count(*) FROM fleet.quota WHERE reserved = 18";
        (fleet.server.value(reserved).await == "8").then_some(())
    })
    .await;
    beats(&fleet, 3).await;
    fleet[0].partition.set(Mode::Refuse);
    let responses = look_up(&fleet, &[0], 0..20).await;
    assert_eq!(fleet.carrier.count(), 6, "2 percent of 300");
    responses.last().unwrap().assert_refusal_for("72", "budget");
    fleet[0].partition.set(Mode::Pass);
    eventually("calls of the fleet", async || {
        look_up(&fleet, &[0], 20..21).await;
        (fleet.carrier.count() > 6).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reserve_is_used_although_the_day_of_the_fleet_is_spent() {
    let fleet = Nodes::start_with(3, |setup, _| setup.set("account.0.calls_per_day", 300)).await;
    beats(&fleet, 3).await;
    let responses = look_up(&fleet, &[0, 1, 2], 0..330).await;
    responses.last().unwrap().assert_refusal_for("72", "budget");
    let before = fleet.carrier.count();
    fleet[0].partition.set(Mode::Refuse);
    look_up(&fleet, &[0], 400..420).await;
    assert_eq!(fleet.carrier.count(), before + 6, "2 percent of 300");
}

#[tokio::test]
async fn three_nodes_keep_to_the_rate_of_the_account() {
    let fleet = Nodes::start_with(3, |setup, _| {
        setup
            .set("account.0.calls_per_second", 20)
            .set("carrier.max_queued_calls", 200)
            .set("carrier.queue_timeout", "15s")
    })
    .await;
    beats(&fleet, 3).await;
    let mut lookups = JoinSet::new();
    for card in 0..120 {
        let client = (**fleet[card as usize % 3]).clone();
        lookups.spawn(async move { client.look_up(&card_number(card)).await });
    }
    for response in within("all responses", lookups.join_all()).await {
        response.assert_normal();
    }
    let at: Vec<_> = fleet.carrier.calls().iter().map(|call| call.at).collect();
    assert_eq!(at.len(), 120);
    // The first 20 may leave at once. Calls that are late at the carrier make the time longer, never shorter.
    let took = *at.iter().max().unwrap() - *at.iter().min().unwrap();
    assert!(took >= Duration::from_secs(100 / 20), "120 calls within {took:?} at 20 per second");
    // Calls that are up to half a second late meet those of the next half.
    let most = most_within(at, Duration::from_secs(1));
    assert!(most <= 30, "{most} calls within a second at 20 per second");
}

/// The most of these times within a period.
fn most_within(mut times: Vec<Duration>, period: Duration) -> usize {
    times.sort();
    let within = |first: &Duration| times.iter().filter(|at| (*first..*first + period).contains(*at)).count();
    times.iter().map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn each_node_has_its_share_of_the_calls_at_once() {
    let fleet = Nodes::start_with(3, |setup, _| {
        setup.set("account.0.max_concurrent_calls", 6).set("carrier.queue_timeout", "15s")
    })
    .await;
    beats(&fleet, 3).await;
    let gate = Gate::new();
    fleet.carrier.set_rules([Rule::any().gate(&gate)]);
    let mut lookups = JoinSet::new();
    for card in 0..12 {
        let client = (**fleet[card as usize % 3]).clone();
        lookups.spawn(async move { client.look_up(&card_number(card)).await });
    }
    for node in fleet.iter() {
        eventually("two lookups that wait for a permit", async || {
            (node.metrics().await.value("cmiot_budget_waiting", [("account", "fleet")]) == Some(2.0))
                .then_some(())
        })
        .await;
    }
    eventually("two calls of each node", async || (fleet.carrier.count() >= 6).then_some(())).await;
    assert_eq!(fleet.carrier.count(), 6);
    gate.open();
    for response in within("all responses", lookups.join_all()).await {
        response.assert_normal();
    }
}

#[tokio::test]
async fn credentials_that_are_refused_at_one_node_are_not_tried_by_the_others() {
    let fleet = Nodes::start_with(2, |setup, _| setup.set("breaker.cool_down", "60s")).await;
    beats(&fleet, 2).await;
    fleet.carrier.set_rules([Rule::any().code("7")]);
    fleet[0].look_up(&card_number(0)).await.assert_refusal("73");
    let met = fleet.carrier.count();
    eventually("the rest", async || {
        let credentials = "SELECT count(*) FROM fleet.rest WHERE what = 'credentials'";
        (fleet.server.value(credentials).await == "1").then_some(())
    })
    .await;
    beats(&fleet, 2).await;
    fleet[1].look_up(&card_number(1)).await.assert_refusal("73");
    assert_eq!(fleet.carrier.count(), met, "the other node makes no call");
    // The carrier accepts them again, and a check at one node ends the rest of both.
    fleet.carrier.set_rules([]);
    fleet[1].admin_post("/accounts/check", "", "{}").await;
    both_call_again(&fleet).await;
}

/// A database that lost commits may grant a block twice, and the calls of it that were made are not in it.
#[tokio::test]
async fn no_calls_are_granted_for_a_while_by_a_database_that_lost_commits() {
    let fleet = Nodes::start_with(1, |setup, _| setup.set("account.0.calls_per_day", 300)).await;
    beats(&fleet, 1).await;
    let leased = async || fleet.server.value("SELECT coalesce(sum(leased), 0) FROM fleet.quota").await;
    let mut card = 0..;
    let mut look_up = async || fleet[0].look_up(&card_number(card.next().unwrap())).await;
    look_up().await.assert_normal();
    // A machine that is busy may let the pause of ten seconds pass before all of them: then again.
    for _ in 0..5 {
        let life = async || fleet.server.value("SELECT max(id) FROM fleet.life").await;
        let lost = life().await;
        fleet.server.sql("UPDATE fleet.life SET beats = 0").await;
        eventually("another life", async || (life().await != lost).then_some(())).await;
        let noticed = std::time::Instant::now();
        let before = leased().await;
        for _ in 0..3 {
            look_up().await;
        }
        let after = leased().await;
        if noticed.elapsed() < Duration::from_secs(5) {
            assert_eq!(after, before);
            return;
        }
    }
    panic!("the machine is too busy");
}

#[tokio::test]
async fn a_cool_down_that_one_node_meets_prevents_the_calls_of_all() {
    let fleet = Nodes::start_with(2, |setup, _| setup.set("breaker.cool_down", "60s")).await;
    beats(&fleet, 2).await;
    fleet.carrier.set_rules([Rule::any().code("72")]);
    fleet[0].look_up(&card_number(0)).await;
    let met = fleet.carrier.count();
    eventually("the rest", async || {
        (fleet.server.value("SELECT count(*) FROM fleet.rest").await == "1").then_some(())
    })
    .await;
    beats(&fleet, 2).await;
    fleet[1].look_up(&card_number(1)).await;
    assert_eq!(fleet.carrier.count(), met, "the other node makes no call");
    // An operator's check at the other node ends it for both.
    fleet.carrier.set_rules([]);
    fleet[1].admin_post("/accounts/check", "", "{}").await;
    both_call_again(&fleet).await;
}
