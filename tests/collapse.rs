//! Many askers of one card, one call: whoever leaves, whatever fails.

use cmiot_simulator::{Gate, Rule, Simulator};
use tokio::task::JoinSet;

use crate::support::{
    Answer, Door, ICCID, MSISDN, Proxy, STATUS_PATH, Setup, card_number, carrier, soon, until,
};

/// How many are asked beyond those that may wait: they are turned away, which shows that all others wait.
const BEYOND: usize = 5;

/// A proxy in which `waiters` may wait for one card.
async fn proxy_for(carrier: &Simulator, waiters: usize) -> Proxy {
    let waiters = i64::try_from(waiters).unwrap();
    Setup::before(carrier).set("carrier.max_waiters_per_card", waiters).start().await
}

/// Lets so many ask about one card that its waiting room is full, and returns once it is.
async fn fill(door: &Door, askers: usize) -> JoinSet<Answer> {
    let mut asking = JoinSet::new();
    for _ in 0..askers + BEYOND {
        let door = door.clone();
        asking.spawn(async move { door.ask(&MSISDN).await });
    }
    for _ in 0..BEYOND {
        let turned_away = soon("one turned away", asking.join_next()).await.unwrap().unwrap();
        turned_away.is_refusal_since("73", "connection_limit_reached");
        assert!(turned_away.header("retry-after").is_some());
    }
    assert_eq!(asking.len(), askers);
    asking
}

#[tokio::test]
async fn a_hundred_askers_cost_one_call() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = proxy_for(&carrier, 100).await;
    let askers = fill(&proxy, 100).await;
    gate.open();
    let answers = soon("a hundred answers", askers.join_all()).await;
    let handled = |how: &str| answers.iter().filter(|answer| answer.cache() == how).count();
    assert_eq!(handled("fwd=uri-miss; stored"), 1);
    assert_eq!(handled("fwd=uri-miss; stored; collapsed"), 99);
    for answer in &answers {
        answer.is_normal();
    }
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_hundred_cards_are_a_hundred_calls() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Proxy::before(&carrier).await;
    let mut askers = JoinSet::new();
    for n in 0..100 {
        let door = proxy.clone();
        askers.spawn(async move { door.ask(&card_number(n)).await });
    }
    carrier.wait_for_calls(100).await; // nobody waits for another's card
    gate.open();
    for answer in soon("a hundred answers", askers.join_all()).await {
        answer.is_normal();
        assert_eq!(answer.cache(), "fwd=uri-miss; stored");
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
    leader.hang_up();
    gate.open();
    for answer in soon("answers", followers.join_all()).await {
        answer.is_normal();
        assert_eq!(answer.cache(), "fwd=uri-miss; stored; collapsed");
    }
    assert_eq!(carrier.count(), 1);
    assert_eq!(carrier.counts().abandoned, 0, "the call itself was not broken off");
}

#[tokio::test]
async fn what_everybody_left_is_kept_all_the_same() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Proxy::before(&carrier).await;
    let mut only = proxy.connect().await;
    only.send(get(&proxy)).await;
    carrier.wait_for_calls(1).await;
    only.hang_up();
    gate.open();
    carrier.wait_until_idle().await;
    until("a hit", || async {
        let answer = proxy.ask(&MSISDN).await;
        answer.is_normal();
        answer.cache().starts_with("hit").then_some(())
    })
    .await;
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn fifty_askers_of_a_failing_carrier_cost_one_call() {
    for (failure, code, calls) in [
        ("code=73", "73", 2), // busy: asked once more
        ("code=71", "71", 1),
        ("code=7", "73", 1),
        ("http=503", "73", 1),
        ("truncate=5", "73", 1),
        ("close", "73", 2), // nothing was answered yet: tried once more, with a transid of its own
    ] {
        let carrier = carrier().await;
        let gate = Gate::new();
        carrier.set_rules([Rule::parse(failure).unwrap().gate(&gate)]);
        let proxy = proxy_for(&carrier, 50).await;
        let askers = fill(&proxy, 50).await;
        gate.open();
        for answer in soon("fifty answers", askers.join_all()).await {
            assert_eq!(answer.code(), code, "{failure}");
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
    let proxy = Setup::before(&carrier).set("carrier.max_flights", 1).start().await;
    let door = proxy.clone();
    let first = tokio::spawn(async move { door.ask(&MSISDN).await });
    carrier.wait_for_calls(1).await;
    proxy.ask(&ICCID).await.is_refusal_since("73", "connection_limit_reached");
    gate.open();
    soon("the first", first).await.unwrap().is_normal();
    proxy.ask(&ICCID).await.is_normal();
}

fn get(door: &Door) -> String {
    format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", door.sign(&MSISDN).text())
}
