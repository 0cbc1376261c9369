//! Captured requests that are sent again to the other nodes, while the database is there, and while it is killed, stalled
//! or cut off.

use std::collections::{BTreeMap, BTreeSet};

use cmiot_simulator::{Account, Config, Operation, Simulator};
use rusqlite::{Connection, OpenFlags};
use tokio::task::JoinSet;

use crate::harness::{Mode, Nodes, Postgres};
use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, GatewayClient, MSISDN, Proxy, Query, Response, Setup, card_number,
    eventually, within,
};

const RESET: &str = "0001000000004";

#[tokio::test]
async fn a_captured_request_is_refused_at_each_node() {
    let nodes = Nodes::start(3).await;
    all_members(&nodes).await;
    for round in 0..6 {
        let query = nodes[round % 3].sign(&MSISDN);
        nodes[round % 3].get(&query).await.assert_normal();
        for node in nodes.iter() {
            node.get(&query).await.assert_refusal_for("7", "transid used before");
        }
    }
}

#[tokio::test]
async fn of_one_request_at_all_nodes_at_once_one_is_accepted() {
    let nodes = Nodes::start(3).await;
    all_members(&nodes).await;
    let queries: Vec<_> = (0..50).map(|number| nodes[0].sign(&card_number(number))).collect();
    assert_eq!(send_to_all(&nodes, &queries).await, queries.iter().map(|_| 1).collect::<Vec<_>>());
}

#[tokio::test]
async fn under_local_a_request_is_accepted_once_per_node_and_asks_no_database() {
    let nodes = Nodes::start_with(2, |setup, _| setup.set("fleet.replay", "local")).await;
    all_members(&nodes).await;
    let query = nodes[0].sign(&MSISDN);
    nodes[0].get(&query).await.assert_normal();
    nodes[1].get(&query).await.assert_normal();
    nodes[1].get(&query).await.assert_refusal("7");
    assert_eq!(nodes.server.value("SELECT count(*) FROM fleet.used_transid").await, "0");
}

#[tokio::test]
async fn a_retry_gets_its_response_again_at_the_same_node_only() {
    let nodes = Nodes::start_with(2, |setup, _| setup.set("client.0.replay", "same-answer")).await;
    all_members(&nodes).await;
    let query = nodes[0].sign(&MSISDN);
    for _ in 0..2 {
        nodes[0].get(&query).await.assert_normal();
        nodes[1].get(&query).await.assert_refusal_for("7", "transid used before");
    }
}

#[tokio::test]
async fn under_refuse_no_request_is_accepted_twice_whatever_happens_to_the_database() {
    let mut nodes = Nodes::start_with(3, |setup, _| setup.set("fleet.when_alone", "refuse")).await;
    all_members(&nodes).await;
    for fault in Fault::ALL {
        let before = queries(&nodes);
        let accepted = send_to_all(&nodes, &before).await;
        assert!(accepted.iter().all(|count| *count == 1), "{fault:?}: {accepted:?}");

        let during = queries(&nodes);
        let sending = tokio::spawn(send(clients(&nodes), during.clone()));
        fault.begin(&mut nodes).await;
        let mut accepted = within("the responses", sending).await.unwrap();
        assert!(send_to_all(&nodes, &before).await.iter().all(|count| *count == 0), "{fault:?}");
        let refused = nodes[0].sign(&MSISDN);
        let response = nodes[0].get(&refused).await;
        response.assert_refusal_for("73", "database of the fleet unavailable");
        assert_eq!(response.header("retry-after"), Some("5"));

        fault.end(&mut nodes).await;
        all_members(&nodes).await;
        for (sum, count) in accepted.iter_mut().zip(send_to_all(&nodes, &during).await) {
            *sum += count;
        }
        assert!(accepted.iter().all(|count| *count <= 1), "{fault:?}: {accepted:?}");
        assert!(send_to_all(&nodes, &before).await.iter().all(|count| *count == 0), "{fault:?}");
        // The same request as before, at the same node.
        nodes[0].get(&refused).await.assert_normal();
        for node in nodes.iter() {
            node.get(&refused).await.assert_refusal_for("7", "transid used before");
        }
    }
}

#[tokio::test]
async fn under_serve_what_two_nodes_accept_is_marked_and_one_query_finds_it() {
    let mut nodes = Nodes::start(3).await;
    all_members(&nodes).await;
    let mut twice = BTreeSet::new();
    for fault in Fault::ALL {
        let queries = queries(&nodes);
        fault.begin(&mut nodes).await;
        let accepted = send_to_all(&nodes, &queries).await;
        assert!(accepted.iter().all(|count| *count >= 1), "{fault:?}: {accepted:?}");
        let found = queries.iter().zip(&accepted).filter(|(_, count)| **count > 1);
        twice.extend(found.map(|(query, _)| query.transid().to_owned()));
        // At each node its own cache refuses them.
        assert!(send_to_all(&nodes, &queries).await.iter().all(|count| *count == 0), "{fault:?}");
        fault.end(&mut nodes).await;
        all_members(&nodes).await;
        assert!(
            send_to_all(&nodes, &self::queries(&nodes)).await.iter().all(|count| *count == 1),
            "{fault:?}"
        );
    }
    assert!(!twice.is_empty());
    // What two nodes accepted: one row at least for each, and no other transid.
    let found = "SELECT DISTINCT to_char(to_timestamp((number >> 27) + 946656000) AT TIME ZONE 'Asia/Shanghai', \
                 'YYYYMMDDHH24MISS') || lpad((number & 134217727)::text, 8, '0'), appid FROM fleet.accepted_twice";
    eventually("all of them in the table", async || {
        let found = nodes.server.sql(found).await;
        let text = |value: &Option<String>| value.clone().unwrap();
        let found: BTreeSet<_> =
            found.iter().map(|row| format!("{}{}", text(&row[1]), text(&row[0]))).collect();
        (found == twice).then_some(())
    })
    .await;
    // Each was accepted by a node that was alone, and noted that before.
    let mut marked: BTreeMap<String, usize> = BTreeMap::new();
    for node in nodes.iter() {
        let first = first_alone_note(node);
        for (id, transid) in accepted_alone(node) {
            assert!(first.is_some_and(|first| first < id));
            *marked.entry(transid).or_default() += 1;
        }
    }
    assert!(twice.iter().all(|transid| marked.contains_key(transid)));
}

#[tokio::test]
async fn a_node_that_is_killed_while_alone_shares_its_transids_after_its_next_start() {
    // Also if its clock is ahead, so that it would not accept them now.
    for ahead in [0, 3_600] {
        let mut nodes = Nodes::start_with_clocks(2, |setup, _| setup).await;
        all_members(&nodes).await;
        nodes[0].set_clock_offset(ahead);
        nodes[0].partition.set(Mode::Refuse);
        let query = eventually("a request that is accepted alone", async || {
            let query = nodes[0].sign(&MSISDN);
            nodes[0].get(&query).await.assert_normal();
            let alone = accepted_alone(&nodes[0]);
            alone.iter().any(|(_, transid)| transid == query.transid()).then_some(query)
        })
        .await;
        nodes[0].kill9().await;
        nodes[0].partition.set(Mode::Pass);
        nodes[0].start_again().await;
        let shared =
            format!("SELECT count(*) FROM fleet.used_transid WHERE node = 1 AND {}", number_of(&query));
        eventually("a shared transid", async || (nodes.server.value(&shared).await == "1").then_some(()))
            .await;
        nodes[1].get(&query).await.assert_refusal_for("7", "transid used before");
    }
}

#[tokio::test]
async fn an_action_is_executed_once_in_the_fleet_and_never_without_the_database() {
    for (replay, when_alone) in [("shared", "serve"), ("local", "serve"), ("shared", "refuse")] {
        let account =
            Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD).with_ebid(Operation::SmsReset, RESET);
        let carrier = Simulator::start_local(Config::new([account])).await.unwrap();
        let configure = |own: Setup, _| {
            own.set("account.0.ebids.smsstatusreset", RESET)
                .set("client.0.operations", vec!["userstatusrealsingle", "smsstatusreset"])
                .set("fleet.replay", replay)
                .set("fleet.when_alone", when_alone)
        };
        let nodes = Nodes::start_over(Postgres::start().await, carrier, 2, configure).await;
        all_members(&nodes).await;
        let queries: Vec<_> = (0..20).map(|_| nodes[0].sign(&MSISDN).with("ebid", RESET)).collect();
        let calls = nodes.carrier.count();
        let mut sent = JoinSet::new();
        for query in &queries {
            for node in nodes.iter() {
                sent.spawn(act(client(node), query.clone()));
            }
        }
        let codes: Vec<_> =
            within("the responses", sent.join_all()).await.iter().map(Response::code).collect();
        assert_eq!(codes.iter().filter(|code| *code == "0").count(), 20, "{codes:?}");
        assert_eq!(codes.iter().filter(|code| *code == "7").count(), 20, "{codes:?}");
        assert_eq!(nodes.carrier.count() - calls, 20);

        let query = nodes[0].sign(&MSISDN).with("ebid", RESET);
        nodes[0].partition.set(Mode::Stall);
        for _ in 0..3 {
            let response = act(client(&nodes[0]), query.clone()).await;
            response.assert_refusal_for("73", "database of the fleet unavailable");
        }
        assert_eq!(nodes.carrier.count() - calls, 20);
        nodes[0].partition.cut().await;
        all_members(&nodes).await;
        assert_eq!(act(client(&nodes[0]), query.clone()).await.code(), "0");
        for node in nodes.iter() {
            act(client(node), query.clone()).await.assert_refusal("7");
        }
        assert_eq!(nodes.carrier.count() - calls, 21);
    }
}

/// A fault of the database or of one node's link to it.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Paused,
    /// All partitions are stalled.
    Stalled,
    Refused,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Killed, Self::Paused, Self::Stalled, Self::Refused];

    async fn begin(self, nodes: &mut Nodes) {
        match self {
            Self::Killed => nodes.server.kill(),
            Self::Paused => nodes.server.pause(),
            Self::Stalled => nodes.iter().for_each(|node| node.partition.set(Mode::Stall)),
            Self::Refused => nodes.iter().for_each(|node| node.partition.set(Mode::Refuse)),
        }
    }

    async fn end(self, nodes: &mut Nodes) {
        match self {
            Self::Killed => nodes.server.start_again().await,
            Self::Paused => nodes.server.resume(),
            Self::Stalled | Self::Refused => nodes.iter().for_each(|node| node.partition.set(Mode::Pass)),
        }
    }
}

/// New requests for different cards.
fn queries(nodes: &Nodes) -> Vec<Query> {
    (0..20).map(|number| nodes[0].sign(&card_number(number))).collect()
}

/// Sends each request to all nodes at once. Returns the number of nodes that accepted each.
async fn send_to_all(nodes: &Nodes, queries: &[Query]) -> Vec<usize> {
    within("the responses", send(clients(nodes), queries.to_vec())).await
}

async fn send(clients: Vec<GatewayClient>, queries: Vec<Query>) -> Vec<usize> {
    let mut sent = JoinSet::new();
    for (index, query) in queries.iter().enumerate() {
        for client in &clients {
            let (client, query) = (client.clone(), query.clone());
            sent.spawn(async move { (index, client.get(&query).await.code()) });
        }
    }
    let mut accepted = vec![0; queries.len()];
    for (index, code) in sent.join_all().await {
        assert!(["0", "7", "73"].contains(&code.as_str()), "{code}");
        accepted[index] += usize::from(code == "0");
    }
    accepted
}

/// Waits until no node is alone.
async fn all_members(nodes: &Nodes) {
    for node in nodes.iter() {
        eventually("a member", async || {
            (node.metrics().await.value("cmiot_fleet_alone", []) == Some(0.0)).then_some(())
        })
        .await;
    }
}

fn client(node: &Proxy) -> GatewayClient {
    GatewayClient { address: node.address, gateway: node.gateway.clone() }
}

fn clients(nodes: &Nodes) -> Vec<GatewayClient> {
    nodes.iter().map(|node| client(node)).collect()
}

async fn act(client: GatewayClient, query: Query) -> Response {
    client.get_target(&format!("/v2/smsstatusreset?{}", query.text()), "").await
}

/// The condition on the number of a request's transid.
fn number_of(query: &Query) -> String {
    let sequence: u32 = query.transid()[query.transid().len() - 8..].parse().unwrap();
    format!("number & 134217727 = {sequence}")
}

/// Row and transid of the lookups that a node answered while it was alone.
fn accepted_alone(node: &Proxy) -> Vec<(i64, String)> {
    select(node, "SELECT id, transid FROM lookup WHERE reason = 'alone' AND outcome <> 'failed'")
}

/// The row of the first note that a node is alone.
fn first_alone_note(node: &Proxy) -> Option<i64> {
    let notes = select(
        node,
        "SELECT note.id, detail FROM note JOIN name ON name.id = what WHERE name.text = 'alone' ORDER BY note.id",
    );
    notes.into_iter().find(|(_, detail)| detail.starts_with("begins")).map(|(id, _)| id)
}

fn select(node: &Proxy, sql: &str) -> Vec<(i64, String)> {
    let segment = Connection::open_with_flags(node.audit_file(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut select = segment.prepare(sql).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}
