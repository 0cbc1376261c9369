//! The copy of the audit at the database: what each mode copies, that nothing is left out or copied twice, and that a change of
//! the copy is found.

// Changes of the copy, rights, and months that are removed.
mod changes;
// The statements of docs/fleet.md.
mod documented;

use std::path::Path;

use cmiot_simulator::{Account, Config, Simulator};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::harness::{Mode, Node, Nodes, Postgres};
use crate::support::{
    ACCOUNT_APPID, ACCOUNT_PASSWORD, EBID, MSISDN, Output, card_number, eventually, segments, within,
};

/// The tables of rows.
const TABLES: [&str; 5] = ["record", "call", "refused", "gap", "note"];

/// Starts nodes that copy `mode`.
async fn start(count: usize, mode: &str) -> Nodes {
    Nodes::start_with(count, |setup, _| setup.set("fleet.audit", mode)).await
}

/// A number from all segments of a node.
fn local(node: &Node, sql: &str) -> i64 {
    let sum = |segment: &Path| -> i64 {
        let connection = Connection::open_with_flags(segment, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    segments(&node.data()).iter().map(|segment| sum(segment)).sum()
}

/// The last row of a node's audit.
fn last(node: &Node) -> i64 {
    let segment = segments(&node.data()).pop().expect("a segment");
    let connection = Connection::open_with_flags(segment, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.query_row("SELECT coalesce(max(last), 0) FROM batch", [], |row| row.get(0)).unwrap()
}

/// Waits until the copy has reached the last row of a node.
async fn wait_for_copy(nodes: &Nodes, index: usize) {
    let position = format!(
        "SELECT coalesce((SELECT last FROM audit.chain WHERE node = {} ORDER BY id DESC LIMIT 1), -1)",
        index + 1
    );
    eventually("the copy", async || {
        let last = last(&nodes[index]).to_string();
        (nodes.server.value(&position).await == last).then_some(())
    })
    .await;
}

async fn count(nodes: &Nodes, table: &str, node: usize) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM audit.{table} r JOIN audit.chain c ON c.id = r.chain WHERE c.node = {node}"
    );
    nodes.server.value(&sql).await.parse().unwrap()
}

async fn verify(node: &Node) -> Output {
    node.command(&["fleet", "verify", "--user", "cmiot_owner"]).await
}

async fn verified(node: &Node) -> Value {
    let output = node.command(&["fleet", "verify", "--user", "cmiot_owner", "--format", "json"]).await;
    serde_json::from_str(&output.success().out).expect("JSON")
}

/// Makes rows of several tables: lookups, calls, refusals and a note.
async fn work(nodes: &Nodes, index: usize, first: u32) {
    for number in first..first + 20 {
        nodes[index].look_up(&card_number(number)).await.assert_normal();
        nodes[index].look_up(&card_number(number)).await.assert_normal();
    }
    let used = nodes[index].sign(&MSISDN);
    nodes[index].get(&used).await.assert_normal();
    nodes[index].get(&used).await.assert_refusal("7");
    nodes[index].command(&["cache", "purge", "--local", "--all"]).await.success();
}

#[tokio::test]
async fn each_mode_copies_what_it_says() {
    for mode in ["none", "anchors", "calls", "all"] {
        let nodes = start(1, mode).await;
        work(&nodes, 0, 0).await;
        if matches!(mode, "calls" | "all") {
            wait_for_copy(&nodes, 0).await;
        }
        let anchors = "SELECT count(*) > 0 FROM audit.anchor WHERE node = 1";
        let has_anchors = async || (nodes.server.value(anchors).await == "t").then_some(());
        if mode == "none" {
            assert!(has_anchors().await.is_none());
            verify(&nodes[0]).await.failed(1, []);
        } else {
            eventually("anchors", has_anchors).await;
            verify(&nodes[0]).await.success();
        }
        for table in TABLES {
            let copied = match (mode, table) {
                ("none" | "anchors", _) | ("calls", "record") => 0,
                _ => local(&nodes[0], &format!("SELECT count(*) FROM {table}")),
            };
            assert_eq!(count(&nodes, table, 1).await, copied, "{mode}: {table}");
        }
        let calls = count(&nodes, "call", 1).await;
        assert_eq!(calls > 0, matches!(mode, "calls" | "all"), "{mode}");
        let connections = nodes
            .server
            .value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cmiot-proxy/1 copy'")
            .await;
        assert_eq!(connections == "1", mode != "none", "{mode}");
    }
}

#[tokio::test]
async fn every_copied_value_is_the_one_of_the_node() {
    let nodes = start(1, "all").await;
    work(&nodes, 0, 0).await;
    wait_for_copy(&nodes, 0).await;
    let report = verified(&nodes[0]).await;
    let chain = &report["chains"][0];
    assert_eq!(chain["hashed"], chain["batches"], "{report}");
    assert_eq!(chain["uncopied"], 0, "{report}");
    let last = nodes.server.value("SELECT last::text || ' ' || encode(head, 'hex') FROM audit.chain").await;
    let head = nodes[0].command(&["audit", "verify"]).await.success().out;
    let (last, hash) = last.split_once(' ').unwrap();
    assert!(head.contains(&format!("row {last}, {hash}")), "{head}");
}

#[tokio::test]
async fn what_is_copied_is_what_the_nodes_have_when_the_database_is_killed_under_load() {
    let account = Account::new(ACCOUNT_APPID, EBID, ACCOUNT_PASSWORD);
    let carrier = Simulator::start_local(Config::new([account])).await.unwrap();
    let mut nodes =
        Nodes::start_over(Postgres::start().await, carrier, 2, |setup, _| setup.set("fleet.audit", "all"))
            .await;
    for round in 0..5_u32 {
        let clients = [nodes[0].clone(), nodes[1].clone()];
        let load = tokio::spawn(async move {
            for number in 0..150 {
                let card = card_number(round * 1_000 + number);
                for client in &clients {
                    client.look_up(&card).await.assert_normal();
                }
            }
        });
        nodes.server.kill();
        nodes.server.start_again().await;
        within("the load", load).await.unwrap();
    }
    for index in 0..2 {
        wait_for_copy(&nodes, index).await;
        for table in TABLES {
            let local = local(&nodes[index], &format!("SELECT count(*) FROM {table}"));
            assert_eq!(count(&nodes, table, index + 1).await, local, "{table}");
        }
    }
    assert_eq!(nodes.server.value("SELECT count(*) FROM audit.chain").await, "2");
    let report = verified(&nodes[0]).await;
    for chain in report["chains"].as_array().unwrap() {
        assert_eq!(chain["hashed"], chain["batches"], "{report}");
    }
}

#[tokio::test]
async fn a_node_that_was_alone_copies_afterwards_and_both_notes_are_there() {
    let nodes = start(2, "calls").await;
    wait_for_copy(&nodes, 0).await;
    for mode in [Mode::Stall, Mode::Refuse] {
        nodes[0].partition.set(mode);
        eventually("alone", async || {
            nodes[0].admin("/ready", "").await.text().contains("alarm: alone").then_some(())
        })
        .await;
        work(&nodes, 0, 0).await;
        let metrics = nodes[0].metrics().await;
        assert!(metrics.value("cmiot_fleet_audit_lag_seconds", []).unwrap() > 0.0);
        nodes[0].partition.cut().await;
        let alone = async || (!nodes[0].admin("/ready", "").await.text().contains("alone")).then_some(());
        eventually("a member", alone).await;
    }
    wait_for_copy(&nodes, 0).await;
    eventually("no lag", async || {
        let metrics = nodes[0].metrics().await;
        (metrics.value("cmiot_fleet_audit_rows_behind", []) == Some(0.0)).then_some(())
    })
    .await;
    let notes =
        "SELECT split_part(detail, ' ', 1) FROM audit.noted WHERE what = 'alone' AND node = 1 ORDER BY id";
    // The note of the end is written, and copied, a moment after the end.
    eventually("the notes", async || {
        let notes: Vec<String> = nodes.server.sql(notes).await.into_iter().flatten().flatten().collect();
        (notes == ["begins", "ends", "begins", "ends"]).then_some(())
    })
    .await;
    eventually("all rows", async || {
        for table in &TABLES[1..] {
            let local = local(&nodes[0], &format!("SELECT count(*) FROM {table}"));
            (count(&nodes, table, 1).await == local).then_some(())?;
        }
        Some(())
    })
    .await;
    verify(&nodes[0]).await.success();
}

#[tokio::test]
async fn a_restart_copies_nothing_twice_and_leaves_nothing_out() {
    let mut nodes = start(1, "all").await;
    for round in 0..4 {
        work(&nodes, 0, round * 100).await;
        if round % 2 == 0 {
            nodes[0].restart().await;
        } else {
            nodes[0].kill9().await;
            nodes[0].start_again().await;
        }
    }
    wait_for_copy(&nodes, 0).await;
    for table in TABLES {
        let local = local(&nodes[0], &format!("SELECT count(*) FROM {table}"));
        assert_eq!(count(&nodes, table, 1).await, local, "{table}");
    }
    let report = verified(&nodes[0]).await;
    assert_eq!(report["chains"].as_array().unwrap().len(), 1, "{report}");
    let anchors = &report["anchors"][0];
    assert_eq!(anchors["signed"], anchors["compared"], "{report}");
}

#[tokio::test]
async fn a_change_of_the_mode_applies_to_later_rows() {
    let mut nodes = start(1, "calls").await;
    work(&nodes, 0, 0).await;
    wait_for_copy(&nodes, 0).await;
    assert_eq!(count(&nodes, "record", 1).await, 0);
    let before = local(&nodes[0], "SELECT count(*) FROM record");
    let text = nodes[0].setup().clone().set("fleet.audit", "all").text();
    crate::support::write_config(&nodes[0].config(), &text);
    nodes[0].restart().await;
    work(&nodes, 0, 100).await;
    wait_for_copy(&nodes, 0).await;
    let after = local(&nodes[0], "SELECT count(*) FROM record");
    assert_eq!(count(&nodes, "record", 1).await, after - before);
    let report = verified(&nodes[0]).await;
    assert_eq!(report["chains"][0]["uncopied"], before, "{report}");
}

#[tokio::test]
async fn an_audit_that_was_set_back_begins_another_chain_which_is_damage_without_a_note() {
    let mut nodes = start(1, "all").await;
    work(&nodes, 0, 0).await;
    nodes[0].signal("TERM").await;
    nodes[0].ended().await;
    let (data, saved) = (nodes[0].data(), tempfile::tempdir().unwrap());
    copy(&data, saved.path());
    nodes[0].start_again().await;
    work(&nodes, 0, 100).await;
    wait_for_copy(&nodes, 0).await;
    nodes[0].signal("TERM").await;
    nodes[0].ended().await;
    let first = nodes.server.value("SELECT last FROM audit.chain").await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(saved.path(), &data);
    nodes[0].start_again().await;
    work(&nodes, 0, 200).await;
    wait_for_copy(&nodes, 0).await;
    assert_eq!(nodes.server.value("SELECT count(*) FROM audit.chain").await, "2");
    assert_eq!(nodes.server.value("SELECT last FROM audit.chain WHERE id = 1").await, first, "it stays");
    let output = verify(&nodes[0]).await.failed(1, []);
    assert!(output.out.contains("does not continue the chain before"), "{output:?}");
    let twice =
        "SELECT count(*) FROM audit.record r JOIN audit.chain c ON c.parent = r.chain WHERE r.id <= c.base";
    let shared: i64 = nodes.server.value(twice).await.parse().unwrap();
    let all = local(&nodes[0], "SELECT count(*) FROM record");
    let own = "SELECT count(*) FROM audit.record WHERE chain = 2";
    assert_eq!(nodes.server.value(own).await, (all - shared).to_string(), "no row of before is there twice");
}

#[tokio::test]
async fn a_restored_audit_begins_another_chain_whose_note_says_why() {
    let mut nodes = start(1, "calls").await;
    work(&nodes, 0, 0).await;
    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("copy");
    let path = backup.to_str().unwrap();
    nodes[0].command(&["backup", path, "--keys"]).await.success();
    work(&nodes, 0, 100).await;
    wait_for_copy(&nodes, 0).await;
    nodes[0].kill9().await;
    let data = nodes[0].data();
    std::fs::remove_dir_all(&data).unwrap();
    nodes[0].command(&["restore", path]).await.success();
    nodes[0].start_again().await;
    nodes[0].command(&["audit", "acknowledge"]).await.success();
    eventually("a lookup", async || (nodes[0].look_up(&MSISDN).await.code() == "0").then_some(())).await;
    work(&nodes, 0, 200).await;
    wait_for_copy(&nodes, 0).await;
    let report = verified(&nodes[0]).await;
    let chains = report["chains"].as_array().unwrap();
    assert_eq!(chains.len(), 2, "{report}");
    assert!(chains[1]["note"].as_str().unwrap().starts_with("restored: "), "{report}");
}

#[tokio::test]
async fn the_status_shows_the_copy() {
    let nodes = start(1, "calls").await;
    work(&nodes, 0, 0).await;
    wait_for_copy(&nodes, 0).await;
    let last = last(&nodes[0]);
    let status = nodes[0].command(&["fleet", "status", "--format", "json"]).await.success();
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["nodes"][0]["audit"]["row"], last, "{status}");
    assert_eq!(status["nodes"][0]["audit"]["behind"], 0, "{status}");
    let status = nodes[0].command(&["fleet", "status", "--wide"]).await.success();
    assert!(status.out.contains(&format!("row {last}")), "{status:?}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
