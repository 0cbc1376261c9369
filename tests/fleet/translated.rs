//! Replies of accounts of API v5 at nodes that did not make the call: what the carrier wrote is known there, too.

use cmiot_simulator::{Account, Config, Gate, Rule, Simulator, v5};

use crate::harness::{Nodes, Postgres};
use crate::support::{ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, MSISDN, Response, Setup, eventually, within};

/// Credentials of API v5 that the carrier issued.
const APPID: &str = "200001";
const PASSWORD: &str = "the-carriers-side-of-v5";

/// The note about a card state that v2 does not have.
const NOTE: &str = "cmiot-proxy; details=\"carrier cardStatus 6\"";

/// Two nodes with an account of each API, that of v2 first, at a carrier that has the cards on the newer platform, in state 6.
async fn nodes() -> Nodes {
    let older = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    let config = Config { v5_accounts: vec![v5::Account::new(APPID, PASSWORD)], ..Config::new([older]) };
    let carrier = Simulator::start_local(config).await.unwrap();
    carrier.set_rules([Rule::any().appid(ACCOUNT_APPID).code("12"), Rule::any().status("6")]);
    let newer = format!(
        "name='newer'\ngroup='fleet'\napi='v5'\nappid='{APPID}'\npassword='{PASSWORD}'\nfallback='not-found'"
    );
    let configure = |setup: Setup, _| setup.add("account", &newer).set("cache.max_age_floor", "0s");
    let nodes = Nodes::start_over(Postgres::start().await, carrier, 2, configure).await;
    nodes.wait_for_members(2).await;
    for node in nodes.iter() {
        node.wait_until_shared().await;
    }
    nodes
}

fn assert_noted(response: &Response) {
    assert_eq!((response.code().as_str(), response.header("proxy-status")), ("81", Some(NOTE)));
}

#[tokio::test]
async fn a_state_that_v2_does_not_have_is_noted_by_the_node_that_gets_the_answer() {
    let nodes = nodes().await;
    assert_noted(&nodes[0].look_up(&MSISDN).await);
    eventually("an answer", async || {
        (nodes.server.value("SELECT count(*) FROM fleet.answer").await == "1").then_some(())
    })
    .await;
    for _ in 0..2 {
        assert_noted(&nodes[1].look_up(&MSISDN).await);
    }
    assert_eq!(nodes.carrier.count_for(MSISDN.number), 2, "one call to each account");
    // The state says which account has the card.
    let asked = nodes[1].get_with(&nodes[1].sign(&MSISDN), "Cache-Control: max-age=0\r\n").await;
    assert_noted(&asked);
    assert_eq!(nodes.carrier.count_for(MSISDN.number), 3, "the one that has the card is called first");
}

#[tokio::test]
async fn a_state_that_v2_does_not_have_is_noted_by_a_node_that_follows_the_call() {
    let nodes = nodes().await;
    let gate = Gate::new();
    nodes
        .carrier
        .set_rules([Rule::any().appid(ACCOUNT_APPID).code("12").gate(&gate), Rule::any().status("6")]);
    let lookup = |index: usize| {
        let client = (*nodes[index]).clone();
        tokio::spawn(async move { client.look_up(&MSISDN).await })
    };
    let leader = lookup(0);
    eventually("the call", async || (nodes.carrier.count_for(MSISDN.number) == 1).then_some(())).await;
    let follower = lookup(1);
    eventually("a node that follows", async || {
        let metrics = nodes[1].metrics().await;
        (metrics.value("cmiot_fleet_lookups_total", [("result", "follow")]) == Some(1.0)).then_some(())
    })
    .await;
    gate.open();
    for response in [leader, follower] {
        assert_noted(&within("a response", response).await.unwrap());
    }
    assert_eq!(nodes.carrier.count_for(MSISDN.number), 2, "one call to each account");
}
