//! Collapsing: concurrent lookups of one card share one carrier call, whichever lookup leaves and whatever fails.

use cmiot_simulator::{Gate, Rule, Simulator};
use tokio::task::JoinSet;

use crate::support::{
    GatewayClient, ICCID, MSISDN, Proxy, Response, STATUS_PATH, Setup, card_number, carrier, eventually,
    within,
};

/// Number of lookups above the limit of waiters. Their refusal shows that all others wait.
const BEYOND: usize = 5;

/// A proxy with this limit of waiters per card.
async fn proxy_for(carrier: &Simulator, waiters: usize) -> Proxy {
    let waiters = i64::try_from(waiters).unwrap();
    Setup::with_carrier(carrier).set("carrier.max_waiters_per_card", waiters).start().await
}

/// Starts lookups of one card up to the limit of waiters; returns once all of them wait.
async fn fill(client: &GatewayClient, lookups: usize) -> JoinSet<Response> {
    let mut asking = JoinSet::new();
    for _ in 0..lookups + BEYOND {
        let client = client.clone();
        asking.spawn(async move { client.look_up(&MSISDN).await });
    }
    for _ in 0..BEYOND {
        let refused = within("a refusal", asking.join_next()).await.unwrap().unwrap();
        refused.assert_refusal_for("73", "connection_limit_reached");
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(asking.len(), lookups);
    asking
}

#[tokio::test]
async fn a_hundred_lookups_cost_one_call() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = proxy_for(&carrier, 100).await;
    let lookups = fill(&proxy, 100).await;
    gate.open();
    let responses = within("a hundred responses", lookups.join_all()).await;
    let handled = |how: &str| responses.iter().filter(|response| response.cache() == how).count();
    assert_eq!(handled("fwd=uri-miss; stored"), 1);
    assert_eq!(handled("fwd=uri-miss; stored; collapsed"), 99);
    for response in &responses {
        response.assert_normal();
    }
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_hundred_cards_are_a_hundred_calls() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut lookups = JoinSet::new();
    for n in 0..100 {
        let client = proxy.clone();
        lookups.spawn(async move { client.look_up(&card_number(n)).await });
    }
    carrier.wait_for_calls(100).await; // no lookup waits for another card's flight
    gate.open();
    for response in within("a hundred responses", lookups.join_all()).await {
        response.assert_normal();
        assert_eq!(response.cache(), "fwd=uri-miss; stored");
    }
}

#[tokio::test]
async fn a_leader_that_hangs_up_costs_no_second_call() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = proxy_for(&carrier, 21).await;

    let mut leader = proxy.connect().await;
    leader.send(get(&proxy)).await;
    carrier.wait_for_calls(1).await;
    let followers = fill(&proxy, 20).await;
    leader.reset();
    gate.open();
    for response in within("the responses", followers.join_all()).await {
        response.assert_normal();
        assert_eq!(response.cache(), "fwd=uri-miss; stored; collapsed");
    }
    assert_eq!(carrier.count(), 1);
    assert_eq!(carrier.counts().abandoned, 0, "the call was not cancelled");
}

#[tokio::test]
async fn what_everybody_left_is_kept_all_the_same() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut only = proxy.connect().await;
    only.send(get(&proxy)).await;
    carrier.wait_for_calls(1).await;
    only.reset();
    gate.open();
    carrier.wait_until_idle().await;
    eventually("a hit", || async {
        let response = proxy.look_up(&MSISDN).await;
        response.assert_normal();
        response.cache().starts_with("hit").then_some(())
    })
    .await;
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn fifty_lookups_of_a_failing_carrier_cost_one_call() {
    for (failure, code, calls) in [
        ("code=73", "73", 2), // busy: one retry
        ("code=71", "71", 1),
        ("code=7", "73", 1),
        ("http=503", "73", 1),
        ("truncate=5", "73", 1),
        ("close", "73", 2), // no byte of a response: one retry with a new transid
    ] {
        let carrier = carrier().await;
        let gate = Gate::new();
        carrier.set_rules([Rule::parse(failure).unwrap().gate(&gate)]);
        let proxy = proxy_for(&carrier, 50).await;
        let lookups = fill(&proxy, 50).await;
        gate.open();
        for response in within("fifty responses", lookups.join_all()).await {
            assert_eq!(response.code(), code, "{failure}");
        }
        assert_eq!(carrier.count(), calls, "{failure}");
        assert_eq!(carrier.duplicates(), []);
    }
}

#[tokio::test]
async fn flights_are_capped() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Setup::with_carrier(&carrier).set("carrier.max_flights", 1).start().await;
    let client = proxy.clone();
    let first = tokio::spawn(async move { client.look_up(&MSISDN).await });
    carrier.wait_for_calls(1).await;
    proxy.look_up(&ICCID).await.assert_refusal_for("73", "connection_limit_reached");
    gate.open();
    within("the first", first).await.unwrap().assert_normal();
    proxy.look_up(&ICCID).await.assert_normal();
}

fn get(client: &GatewayClient) -> String {
    format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", client.sign(&MSISDN).text())
}
