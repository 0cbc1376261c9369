//! The statements of docs/fleet.md about the copy.

use super::{start, wait_for_copy, work};
use crate::harness::Nodes;
use crate::support::{Setup, card_number, eventually};

/// The statements of docs/fleet.md.
fn statements() -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fleet.md")).unwrap();
    let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// The statement that has this text.
fn documented(text: &str) -> String {
    let mut found: Vec<String> = statements().into_iter().filter(|one| one.contains(text)).collect();
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    found.remove(0)
}

#[tokio::test]
async fn every_documented_statement_runs_beside_proxies_that_serve() {
    let nodes = start(2, "all").await;
    work(&nodes, 0, 0).await;
    wait_for_copy(&nodes, 0).await;
    let mut rows = Vec::new();
    for statement in statements() {
        rows.push((nodes.server.sql(&statement).await.len(), statement));
    }
    let of = |text: &str| rows.iter().find(|(_, statement)| statement.contains(text)).expect(text).0;
    assert_eq!(of("array_agg"), 0, "no transid was accepted twice");
    assert!(of("json_build_object") > 0 && of("pg_stat_activity") >= 2 * 4 && of("pg_class") > 5, "{rows:?}");
    // A reader, whose right the page gives, reads the views while the nodes serve and copy.
    let auditor = nodes.server.try_client("cmiot_auditor").await.unwrap();
    work(&nodes, 1, 100).await;
    wait_for_copy(&nodes, 1).await;
    for (view, least) in [("lookup", 80), ("carrier_call", 40), ("noted", 2)] {
        let count: i64 = auditor
            .query_one(&format!("SELECT count(*) FROM audit.{view}"), &[])
            .await
            .unwrap_or_else(|error| panic!("{view}: {error:?}"))
            .get(0);
        assert!(count >= least, "{view}: {count}");
    }
    nodes[0].look_up(&card_number(0)).await.assert_normal();
}

#[tokio::test]
async fn the_documented_query_finds_what_two_nodes_have_accepted() {
    let local = |setup: Setup, _| setup.set("fleet.audit", "all").set("fleet.replay", "local");
    let nodes = Nodes::start_with(2, local).await;
    let mut twice = Vec::new();
    for number in 0..5 {
        let once = nodes[0].sign(&card_number(number));
        nodes[0].get(&once).await.assert_normal();
        nodes[0].get(&once).await.assert_refusal("7");
        let query = nodes[1].sign(&card_number(number));
        nodes[0].get(&query).await.assert_normal();
        nodes[1].get(&query).await.assert_normal();
        twice.push(query.transid().to_owned());
    }
    wait_for_copy(&nodes, 0).await;
    wait_for_copy(&nodes, 1).await;
    let rows = nodes.server.sql(&documented("array_agg")).await;
    let found: Vec<_> = rows.iter().map(|row| row[1].clone().unwrap()).collect();
    assert_eq!(found, twice);
    assert!(rows.iter().all(|row| row[2].as_deref() == Some("{1,2}")), "{rows:?}");
}

#[tokio::test]
async fn the_documented_anchors_verify_the_audit_of_the_node() {
    let mut nodes = start(1, "anchors").await;
    work(&nodes, 0, 0).await;
    nodes[0].restart().await;
    // Those of two starts, and of the stop between them.
    let is_copied = async || {
        let count = nodes.server.value("SELECT count(*) FROM audit.anchor").await;
        (count.parse::<usize>().unwrap() >= 3).then_some(())
    };
    eventually("anchors", is_copied).await;
    let rows = nodes.server.sql(&documented("json_build_object")).await;
    let lines: Vec<String> = rows.into_iter().flatten().flatten().collect();
    let file = nodes[0].data().join("elsewhere.log");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let key = std::fs::read_to_string(nodes[0].data().join("audit-anchor.pub")).unwrap();
    let words = ["audit", "verify", "--anchors", file.to_str().unwrap(), "--public-key", key.trim()];
    let output = nodes[0].command(&words).await.success();
    assert!(output.out.contains(&format!("{} anchors compared", lines.len())), "{output:?}");
    let words = ["fleet", "verify", "--user", "cmiot_owner", "--public-key"];
    nodes[0].command(&[&words[..], &[key.trim()]].concat()).await.success();
    nodes[0].command(&[&words[..], &["ab".repeat(32).as_str()]].concat()).await.failed(1, []);
}
