//! Purges: in one order on all nodes, complete when the command returns, and applied by a node that was away before it
//! shares again.

use cmiot_simulator::{Gate, Rule};
use serde_json::json;

use crate::harness::{Mode, Nodes};
use crate::support::{ICCID, IMSI, MSISDN, eventually, within};

/// A purge through a node; the status and the body of the response.
async fn purge(nodes: &Nodes, node: usize, request: serde_json::Value) -> (u16, serde_json::Value) {
    let request = request.to_string();
    let response = within("the purge", nodes[node].admin_post("/cache/purge", "", &request)).await;
    (response.status, response.json())
}

async fn nodes() -> Nodes {
    let nodes = Nodes::start_with(3, |setup, _| setup.set("fleet.replay", "local")).await;
    nodes.wait_for_members(3).await;
    nodes
}

#[tokio::test]
async fn after_a_purge_no_node_serves_what_was_cached_before() {
    let nodes = nodes().await;
    for round in 1..=5 {
        for node in nodes.iter() {
            node.look_up(&MSISDN).await.assert_normal();
            node.look_up(&ICCID).await.assert_normal();
        }
        let calls = nodes.carrier.count();
        let (status, body) = purge(&nodes, round % 3, json!({ "msisdn": MSISDN.number })).await;
        assert_eq!((status, &body["fleet"]["waiting"]), (200, &json!([])), "{body}");
        assert_eq!(body["fleet"]["purge"], round);
        for node in nodes.iter() {
            assert!(node.look_up(&ICCID).await.cache().starts_with("hit"), "another card stays");
        }
        assert_eq!(nodes.carrier.count(), calls);
        let again = nodes[(round + 1) % 3].look_up(&MSISDN).await;
        assert!(again.cache().starts_with("fwd=uri-miss"), "{again:?}");
        assert_eq!(nodes.carrier.count(), calls + 1);
    }
    assert_eq!(nodes.server.value("SELECT count(*) FROM fleet.purge WHERE sealed IS NULL").await, "0");
}

#[tokio::test]
async fn a_soft_purge_marks_entries_stale_on_all_nodes() {
    let nodes = nodes().await;
    for node in nodes.iter() {
        node.look_up(&MSISDN).await.assert_normal();
    }
    let (status, body) = purge(&nodes, 0, json!({ "all": true, "soft": true })).await;
    assert_eq!((status, &body["fleet"]["waiting"]), (200, &json!([])), "{body}");
    nodes.carrier.set_rules([Rule::any().code("71")]);
    for node in nodes.iter() {
        let stale = node.look_up(&MSISDN).await;
        // A negative `ttl` is stale, whether this node's call was refused (`fwd=stale`) or another's (`hit`).
        stale.assert_normal();
        assert!(stale.cache().contains("; ttl=-"), "{stale:?}");
    }
}

/// A call that began before a purge answers no lookup after it.
#[tokio::test]
async fn no_lookup_after_a_purge_follows_a_flight_from_before_it() {
    let nodes = nodes().await;
    let gate = Gate::new();
    nodes.carrier.set_rules([Rule::any().gate(&gate).times(1)]);
    let client = (*nodes[0]).clone();
    let first = tokio::spawn(async move { client.look_up(&MSISDN).await });
    eventually("the call", async || (nodes.carrier.count() == 1).then_some(())).await;
    let (status, body) = purge(&nodes, 1, json!({ "msisdn": MSISDN.number })).await;
    assert_eq!((status, &body["fleet"]["waiting"]), (200, &json!([])), "{body}");
    let after = nodes[2].look_up(&MSISDN).await;
    after.assert_normal();
    assert_eq!(nodes.carrier.count(), 2, "its own call");
    gate.open();
    within("the first lookup", first).await.unwrap().assert_normal();
    assert!(!nodes[0].look_up(&MSISDN).await.cache().contains("fwd"));
    assert_eq!(nodes.carrier.count(), 2);
}

#[tokio::test]
async fn a_node_that_was_away_applies_the_purges_before_it_shares() {
    let nodes = nodes().await;
    for node in nodes.iter() {
        node.look_up(&MSISDN).await.assert_normal();
    }
    nodes[2].partition.set(Mode::Stall);
    eventually("the lease of the third node has ended", async || {
        let live = "SELECT count(*) FROM fleet.life WHERE NOT gone AND until > fleet.now()";
        (nodes.server.value(live).await == "2").then_some(())
    })
    .await;
    let (status, body) = purge(&nodes, 0, json!({ "msisdn": MSISDN.number })).await;
    assert_eq!((status, &body["fleet"]["waiting"]), (200, &json!([])), "{body}");
    assert_eq!(body["fleet"]["away"], json!([3]), "{body}");
    assert!(nodes[2].look_up(&MSISDN).await.cache().starts_with("hit"), "it is alone");
    let (status, body) = purge(&nodes, 2, json!({ "msisdn": MSISDN.number })).await;
    assert_eq!(status, 503, "{body}");
    assert!(body["error"].as_str().unwrap().contains("local"), "{body}");
    nodes[2].partition.set(Mode::Pass);
    nodes[2].wait_until_shared().await;
    let miss = nodes[2].look_up(&MSISDN).await;
    assert!(miss.cache().starts_with("fwd=uri-miss"), "{miss:?}");
}

#[tokio::test]
async fn a_live_node_that_does_not_answer_is_listed() {
    let nodes = nodes().await;
    nodes[1].look_up(&MSISDN).await.assert_normal();
    nodes[1].pause();
    // Its lease would end while the purge waits.
    nodes
        .server
        .sql("UPDATE fleet.life SET until = fleet.now() + interval '1 hour' WHERE node = 2 AND NOT gone")
        .await;
    let (status, body) = purge(&nodes, 0, json!({ "all": true })).await;
    assert_eq!((status, &body["fleet"]["waiting"]), (200, &json!([2])), "{body}");
    // The command names it, too.
    let command = nodes[0].command(&["cache", "purge", "--all", "--yes"]).await;
    command.failed(1, ["these nodes have not applied the purge yet", "they do: 2"]);
    nodes[1].resume();
    nodes.wait_for_members(3).await;
    eventually("the purge on the paused node", async || {
        let applied = "SELECT min(applied) FROM fleet.life WHERE NOT gone AND until > fleet.now()";
        (nodes.server.value(applied).await == "2").then_some(())
    })
    .await;
    nodes[0].command(&["cache", "purge", "--all", "--yes"]).await.success();
    let command = nodes[0].command(&["fleet", "status", "--format", "json"]).await.success();
    assert!(command.out.contains("\"purge\": 3"), "{command:?}");
}

#[tokio::test]
async fn a_node_that_was_down_during_purges_applies_all_of_them_at_its_next_start() {
    let mut nodes = nodes().await;
    for card in [&MSISDN, &ICCID, &IMSI] {
        nodes[1].look_up(card).await.assert_normal();
    }
    nodes[1].kill9().await;
    for card in [&MSISDN, &ICCID] {
        let (status, body) = purge(&nodes, 0, json!({ (card.kind): card.number })).await;
        assert_eq!(status, 200, "{body}");
    }
    nodes[1].start_again().await;
    nodes[1].wait_until_shared().await;
    let calls = nodes.carrier.count();
    for card in [&MSISDN, &ICCID] {
        let miss = nodes[1].look_up(card).await;
        assert!(miss.cache().starts_with("fwd=uri-miss"), "{miss:?}");
    }
    assert!(nodes[1].look_up(&IMSI).await.cache().starts_with("hit"), "another card stays");
    assert_eq!(nodes.carrier.count(), calls + 2);
}

/// A failover may lose the numbers of purges that nodes have applied: the same numbers are then given to others.
#[tokio::test]
async fn a_node_that_is_ahead_of_the_database_empties_its_cache() {
    let nodes = nodes().await;
    for _ in 0..2 {
        let (status, body) = purge(&nodes, 0, json!({ "msisdn": MSISDN.number })).await;
        assert_eq!((status, &body["fleet"]["waiting"]), (200, &json!([])), "{body}");
    }
    nodes[1].look_up(&ICCID).await.assert_normal();
    let kept = async || nodes.server.value("SELECT count(*) FROM fleet.answer").await;
    eventually("the answer", async || (kept().await == "1").then_some(())).await;
    let calls = nodes.carrier.count();
    nodes.server.sql("DELETE FROM fleet.purge; DELETE FROM fleet.answer; DELETE FROM fleet.flight").await;
    eventually("a miss", async || {
        nodes[1].look_up(&ICCID).await.assert_normal();
        (nodes.carrier.count() > calls).then_some(())
    })
    .await;
}
