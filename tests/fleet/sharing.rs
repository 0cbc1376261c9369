//! Shared responses and flights: lookups of one card at several nodes cost one call, whatever becomes of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cmiot_simulator::{Account, Answer, Gate, Rule};
use tokio::task::JoinSet;

use crate::harness::{Mode, Nodes};
use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, Card, EBID, ICCID, IMSI, LookupRow, MSISDN, Response, Setup,
    card_number, eventually, within,
};

/// Three nodes whose clients are pinned to them. Each has a connection to the database that a lookup has used.
async fn nodes(configure: impl Fn(Setup, usize) -> Setup) -> Nodes {
    let nodes =
        Nodes::start_with(3, |setup, number| configure(setup.set("fleet.replay", "local"), number)).await;
    nodes.wait_for_members(3).await;
    let next = AtomicU32::new(900_000);
    for index in 0..3 {
        eventually("a lookup that asks the fleet", async || {
            let before = counted(&nodes, "alone").await;
            nodes[index].look_up(&card_number(next.fetch_add(1, Ordering::Relaxed))).await;
            (counted(&nodes, "alone").await == before).then_some(())
        })
        .await;
    }
    let in_flight = "SELECT count(*) FROM fleet.flight WHERE landed_at IS NULL";
    eventually("landings", async || (nodes.server.value(in_flight).await == "0").then_some(())).await;
    nodes.server.sql("DELETE FROM fleet.flight; DELETE FROM fleet.answer").await;
    nodes.carrier.reset_counts();
    nodes
}

/// The records of all nodes about one card.
fn records(nodes: &Nodes, card: &str) -> Vec<LookupRow> {
    let rows = nodes.iter().flat_map(|node| node.audit());
    rows.filter(|row| row.card.as_deref().is_some_and(|one| one.ends_with(card))).collect()
}

/// Starts lookups of one card, spread over the nodes, and returns once all of them wait.
async fn ask_everywhere(nodes: &Nodes, lookups: usize) -> JoinSet<Response> {
    let mut asking = JoinSet::new();
    for (index, node) in nodes.iter().enumerate() {
        for _ in (index..lookups).step_by(nodes.iter().count()) {
            let client = (**node).clone();
            asking.spawn(async move { client.look_up(&MSISDN).await });
        }
    }
    eventually("lookups that wait", async || {
        let mut waiting = 0.0;
        for node in nodes.iter() {
            waiting += node.metrics().await.value("cmiot_waiters", []).unwrap();
        }
        (waiting >= lookups as f64).then_some(())
    })
    .await;
    let others = nodes.iter().count() - 1;
    eventually("nodes that follow", async || (counted(nodes, "follow").await == others as f64).then_some(()))
        .await;
    asking
}

/// Misses of a node that asked the fleet, with this result.
async fn counted(nodes: &Nodes, result: &str) -> f64 {
    let mut counted = 0.0;
    for node in nodes.iter() {
        let metrics = node.metrics().await;
        counted += metrics.value("cmiot_fleet_lookups_total", [("result", result)]).unwrap();
    }
    counted
}

/// Waits until the fleet has so many answers.
async fn kept(nodes: &Nodes, answers: usize) {
    let count = "SELECT count(*) FROM fleet.answer";
    eventually("answers", async || (nodes.server.value(count).await == answers.to_string()).then_some(()))
        .await;
}

#[tokio::test]
async fn two_hundred_lookups_at_three_nodes_cost_one_call() {
    let nodes = nodes(|setup, _| setup).await;
    let gate = Gate::new();
    nodes.carrier.set_rules([Rule::any().gate(&gate)]);
    let before = (counted(&nodes, "lead").await, counted(&nodes, "alone").await);
    let lookups = ask_everywhere(&nodes, 200).await;
    gate.open();
    let responses = within("all responses", lookups.join_all()).await;
    let handled = |how: &str| responses.iter().filter(|response| response.cache() == how).count();
    assert_eq!(handled("fwd=uri-miss; stored"), 1);
    assert_eq!(handled("fwd=uri-miss; stored; collapsed"), 199);
    responses.iter().for_each(Response::assert_normal);
    assert_eq!(nodes.carrier.count(), 1);
    assert_eq!((counted(&nodes, "lead").await, counted(&nodes, "alone").await), (before.0 + 1.0, before.1));
    // Every record names the call, also those of nodes that did not make it.
    let rows = records(&nodes, MSISDN.number);
    assert_eq!(rows.len(), 200);
    let call = rows.iter().find(|row| row.outcome == "miss").unwrap();
    assert!(call.carrier_transid.is_some());
    for row in &rows {
        assert_eq!((&row.account, &row.carrier_transid), (&call.account, &call.carrier_transid), "{row:?}");
    }
    // Each node has the response in memory.
    for node in nodes.iter() {
        let hit = node.look_up(&MSISDN).await;
        assert!(hit.cache().starts_with("hit; ttl=") && !hit.cache().contains("detail"), "{hit:?}");
    }
    assert_eq!(nodes.carrier.count(), 1);
}

#[tokio::test]
async fn a_response_of_one_node_is_a_hit_at_another() {
    let nodes = nodes(|setup, _| setup).await;
    nodes[0].look_up(&MSISDN).await.assert_normal();
    kept(&nodes, 1).await;
    let hit = nodes[1].look_up(&MSISDN).await;
    hit.assert_normal();
    assert!(hit.cache().starts_with("hit; ttl=") && hit.cache().ends_with("; detail=fleet"), "{hit:?}");
    // From now on it is in the memory of this node.
    assert!(!nodes[1].look_up(&MSISDN).await.cache().contains("detail"));
    assert_eq!(records(&nodes, MSISDN.number).iter().filter(|row| row.outcome == "hit").count(), 2);
    // A card without a record at the carrier has its own word.
    nodes.carrier.set_rules([Rule::any().code("12")]);
    assert_eq!(nodes[0].look_up(&ICCID).await.code(), "12");
    kept(&nodes, 2).await;
    let negative = nodes[1].look_up(&ICCID).await;
    assert!(negative.cache().ends_with("detail=negative"), "{negative:?}");
    assert_eq!(nodes.carrier.count(), 2);
}

#[tokio::test]
async fn a_failure_is_one_call_for_all_nodes() {
    // No time limit of the carrier ends in this test, but for the carrier that hangs.
    for (rule, code, calls, timeout) in [
        (Rule::any().code("73"), "73", 2, "20s"), // busy: one retry
        (Rule::any().code("71"), "71", 1, "20s"),
        (Rule::any().code("103"), "103", 1, "20s"),
        (Rule::any().then(Answer::html(503)), "73", 1, "20s"),
        (Rule::any().then(Answer::Truncate(5)), "73", 1, "20s"),
        (Rule::any().then(Answer::Hang), "73", 1, "3s"),
    ] {
        let nodes = nodes(|setup, _| setup.set("carrier.timeout", timeout)).await;
        let gate = Gate::new();
        nodes.carrier.set_rules([rule.gate(&gate)]);
        let lookups = ask_everywhere(&nodes, 30).await;
        gate.open();
        for response in within("all responses", lookups.join_all()).await {
            assert_eq!(response.code(), code, "{response:?}");
        }
        assert_eq!(nodes.carrier.count(), calls, "{code}");
        // The call is named in the record of each lookup.
        let rows = records(&nodes, MSISDN.number);
        assert_eq!(rows.len(), 30);
        assert!(rows.iter().all(|row| row.carrier_transid == rows[0].carrier_transid), "{rows:?}");
    }
}

#[tokio::test]
async fn a_leader_that_is_killed_is_replaced() {
    let mut nodes = nodes(|setup, _| setup).await;
    let gate = Gate::new();
    nodes.carrier.set_rules([Rule::any().gate(&gate)]);
    let mut abandoned = nodes[0].connect().await;
    let target = format!("/v2/userstatusrealsingle?{}", nodes[0].sign(&MSISDN).text());
    abandoned.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    nodes.carrier.wait_for_calls(1).await;
    let mut followers = JoinSet::new();
    for node in [&nodes[1], &nodes[2]] {
        for _ in 0..50 {
            let client = (**node).clone();
            followers.spawn(async move { client.look_up(&MSISDN).await });
        }
    }
    eventually("nodes that follow", async || (counted(&nodes, "follow").await == 2.0).then_some(())).await;
    nodes[0].kill9().await;
    gate.open();
    for response in within("all responses", followers.join_all()).await {
        response.assert_normal();
    }
    assert!(nodes.carrier.count() <= 2, "{}", nodes.carrier.count());
}

#[tokio::test]
async fn a_node_without_the_database_makes_its_own_call() {
    let nodes = nodes(|setup, _| setup).await;
    for (number, mode) in [(1, Mode::Stall), (2, Mode::Reset)] {
        let card = card_number(number);
        nodes[0].look_up(&card).await.assert_normal();
        nodes[1].partition.set(mode);
        let response = nodes[1].look_up(&card).await;
        response.assert_normal();
        assert_eq!(response.cache(), "fwd=uri-miss; stored", "{mode:?}");
        assert_eq!(nodes.carrier.count_for(card.number.as_ref()), 2, "{mode:?}");
        nodes[1].partition.set(Mode::Pass);
        nodes.wait_for_members(3).await;
        nodes[1].wait_until_shared().await;
    }
}

#[tokio::test]
async fn a_lost_notification_costs_time_and_no_response() {
    let nodes = nodes(|setup, _| setup).await;
    let gate = Gate::new();
    nodes.carrier.set_rules([Rule::any().gate(&gate)]);
    let lookups = ask_everywhere(&nodes, 30).await;
    let ended = nodes
        .server
        .value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE '%listen'")
        .await;
    assert_eq!(ended, "3");
    gate.open();
    for response in within("all responses", lookups.join_all()).await {
        response.assert_normal();
    }
    assert_eq!(nodes.carrier.count(), 1);
}

#[tokio::test]
async fn a_leader_that_may_not_call_gives_the_lead_to_another_node() {
    // Nothing listens at the HTTP proxy of node 1.
    let nodes = nodes(|setup, number| match number {
        1 => setup.set("carrier.proxy", "http://127.0.0.1:9"),
        _ => setup,
    })
    .await;
    let own = nodes[0].look_up(&MSISDN).await;
    own.assert_refusal("73");
    let other = nodes[1].look_up(&MSISDN).await;
    other.assert_normal();
    assert_eq!(other.cache(), "fwd=uri-miss; stored");
    kept(&nodes, 1).await;
    assert!(nodes[0].look_up(&MSISDN).await.cache().ends_with("detail=fleet"));
    assert_eq!(nodes.carrier.count(), 1);
}

#[tokio::test]
async fn a_group_with_other_accounts_is_not_shared_and_all_alarm() {
    const OTHER: &str = "100002";
    let nodes = Nodes::start_with(3, |setup, number| match number {
        3 => setup.set("fleet.replay", "local").set("account.0.appid", OTHER),
        _ => setup.set("fleet.replay", "local"),
    })
    .await;
    nodes.wait_for_members(3).await;
    nodes.carrier.set_accounts([
        Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD),
        Account::new(OTHER, EBID, ACCOUNT_PASSWORD),
    ]);
    nodes[0].look_up(&MSISDN).await.assert_normal();
    let own = nodes[2].look_up(&MSISDN).await;
    own.assert_normal();
    assert_eq!(own.cache(), "fwd=uri-miss; stored");
    kept(&nodes, 2).await;
    assert!(nodes[1].look_up(&MSISDN).await.cache().contains("detail=fleet"));
    for node in [&nodes[0], &nodes[2]] {
        eventually("the alarm", async || {
            let value = node.metrics().await.value("cmiot_alarm", [("alarm", "fleet-groups")]);
            (value == Some(1.0)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn nodes_with_another_carrier_or_other_aliases_alarm_and_share_nothing_of_another_carrier() {
    let folder = tempfile::tempdir().unwrap();
    let aliases = folder.path().join("aliases");
    std::fs::write(&aliases, format!("msisdn:{},iccid:{}\n", MSISDN.number, ICCID.number)).unwrap();
    let nodes = nodes(|setup, number| match number {
        2 => setup.set("cache.alias_file", aliases.to_str().unwrap()),
        // The same simulator under another name.
        3 => {
            let text = setup.text();
            let url = text.lines().find_map(|line| line.strip_prefix("base_url = ")).unwrap();
            let other = url.trim_matches('"').replace("127.0.0.1", "0.0.0.0");
            setup.set("carrier.base_url", other)
        }
        _ => setup,
    })
    .await;
    for (node, said) in [
        (0, ["node 2 of the fleet has other aliases", "node 3 of the fleet calls another carrier"]),
        (1, ["node 1 of the fleet has other aliases", "node 3 of the fleet calls another carrier"]),
        (2, ["node 1 of the fleet calls another carrier", "node 2 of the fleet has other aliases"]),
    ] {
        eventually("the alarm", async || {
            let ready = nodes[node].admin("/ready", "").await.text().to_owned();
            (ready.contains("alarm: fleet-settings: ") && said.iter().all(|said| ready.contains(said)))
                .then_some(())
        })
        .await;
        let groups = nodes[node].metrics().await.value("cmiot_alarm", [("alarm", "fleet-groups")]);
        assert_eq!(groups, Some(0.0), "the difference is named once");
    }
    nodes[0].look_up(&IMSI).await.assert_normal();
    kept(&nodes, 1).await;
    assert!(nodes[1].look_up(&IMSI).await.cache().contains("detail=fleet"));
    assert_eq!(nodes[2].look_up(&IMSI).await.cache(), "fwd=uri-miss; stored");
}

#[tokio::test]
async fn no_card_number_is_in_a_shared_table() {
    let nodes = nodes(|setup, _| setup).await;
    const CARDS: [Card; 3] = [MSISDN, ICCID, IMSI];
    for node in nodes.iter() {
        for card in CARDS {
            node.look_up(&card).await;
        }
    }
    kept(&nodes, 3).await;
    for card in CARDS {
        let purge = format!("{{\"{}\": \"{}\", \"soft\": true}}", card.kind, card.number);
        let response = within("the purge", nodes[0].admin_post("/cache/purge", "", &purge)).await;
        assert_eq!(response.status, 200, "{response:?}");
    }
    assert_eq!(nodes.server.value("SELECT count(*) FROM fleet.purge").await, "3");
    let tables = nodes
        .server
        .sql("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'fleet'")
        .await;
    assert!(tables.len() >= 8, "{tables:?}");
    for table in tables.into_iter().flatten().flatten() {
        let rows = nodes.server.sql(&format!("SELECT t::text FROM {table} t")).await;
        for row in rows.into_iter().flatten().flatten() {
            for card in CARDS {
                let hexadecimal: String = card.number.bytes().map(|byte| format!("{byte:02x}")).collect();
                assert!(!row.contains(card.number) && !row.contains(&hexadecimal), "{table}: {row}");
            }
        }
    }
}

/// The time for which a lookup waits for a leader whose node is paused is its own, and the paused one lands late.
#[tokio::test]
async fn a_leader_that_is_paused_lands_late_and_changes_nothing() {
    let nodes = nodes(|setup, _| setup).await;
    let gate = Gate::new();
    nodes.carrier.set_rules([Rule::any().gate(&gate).times(1)]);
    let client = (*nodes[0]).clone();
    let first = tokio::spawn(async move { client.look_up(&MSISDN).await });
    nodes.carrier.wait_for_calls(1).await;
    let client = (*nodes[1]).clone();
    let second = tokio::spawn(async move { client.look_up(&MSISDN).await });
    eventually("a follower", async || {
        let metrics = nodes[1].metrics().await;
        (metrics.value("cmiot_fleet_lookups_total", [("result", "follow")]) == Some(1.0)).then_some(())
    })
    .await;
    nodes[0].pause();
    within("a response", second).await.unwrap().assert_normal();
    assert_eq!(nodes.carrier.count(), 2);
    let landed = "SELECT life || ' ' || fence FROM fleet.flight WHERE landed_at IS NOT NULL";
    let before = eventually("the landing", async || nodes.server.sql(landed).await.pop()).await;
    gate.open();
    nodes[0].resume();
    within("the late response", first).await.unwrap().assert_normal();
    tokio::time::sleep(Duration::from_millis(200)).await; // for a landing that must not happen
    assert_eq!(nodes.server.sql(landed).await, [before]);
}

#[tokio::test]
async fn a_request_that_requires_a_fresher_response_makes_a_call() {
    let nodes = nodes(|setup, _| setup.set("cache.max_age_floor", "0s")).await;
    nodes[0].look_up(&MSISDN).await.assert_normal();
    kept(&nodes, 1).await;
    let fresher = nodes[1].get_with(&nodes[1].sign(&MSISDN), "Cache-Control: no-cache\r\n").await;
    fresher.assert_normal();
    assert_eq!(fresher.cache(), "fwd=uri-miss; stored");
    assert_eq!(nodes.carrier.count(), 2);
    let older = nodes[2].get_with(&nodes[2].sign(&MSISDN), "Cache-Control: max-age=3600\r\n").await;
    assert!(older.cache().ends_with("detail=fleet"), "{older:?}");
    assert_eq!(nodes.carrier.count(), 2);
}

#[tokio::test]
async fn a_lead_whose_reply_was_lost_is_given_up() {
    let nodes = nodes(|setup, _| setup).await;
    nodes[0].partition.set(Mode::StallResponses);
    let client = (*nodes[0]).clone();
    let lookup = tokio::spawn(async move { client.look_up(&MSISDN).await });
    let led = "SELECT count(*) FROM fleet.flight WHERE landed_at IS NULL";
    // Seen before its time-out: the statement that gives it up passes, too.
    eventually("a lead", async || (nodes.server.value(led).await == "1").then_some(())).await;
    within("the response", lookup).await.unwrap().assert_normal();
    nodes[0].partition.set(Mode::Pass);
    nodes[0].wait_until_shared().await;
    eventually("the end of the flight", async || (nodes.server.value(led).await == "0").then_some(())).await;
    nodes[1].look_up(&MSISDN).await.assert_normal();
    assert_eq!(nodes.carrier.count(), 2);
}

/// The answers of the fleet are the shared list: the cards that one node has warmed are fresh for the other.
#[tokio::test]
async fn two_nodes_that_warm_the_same_cards_call_once_per_card() {
    let nodes = nodes(|setup, _| setup).await;
    let cards: String = (0..40).map(|n| format!("{}\n", card_number(n).number)).collect();
    let warm = async |index: usize| {
        let file = nodes[index].config().with_file_name("cards.csv");
        std::fs::write(&file, &cards).unwrap();
        nodes[index].command(&["cache", "warm", "--file", file.to_str().unwrap()]).await.success()
    };
    let both = tokio::join!(warm(0), warm(1));
    assert!(both.0.out.contains("40 cards") && both.1.out.contains("40 cards"), "{both:?}");
    assert_eq!(nodes.carrier.count(), 40);
    // A later one calls for none.
    warm(2).await;
    assert_eq!(nodes.carrier.count(), 40);
}
