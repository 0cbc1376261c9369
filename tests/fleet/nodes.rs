//! Nodes and their lives: numbers that are bound to stores, the heartbeat, and the times when a node is alone.

use std::path::Path;

use cmiot_simulator::{Gate, Rule};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::harness::{Mode, Node, Nodes, Partition, Postgres, config_in, fleet_setup, folder_of};
use crate::support::{MSISDN, NORMAL, Proxy, carrier, eventually, run, segments, within, write_config};

/// The lives that are renewed.
const LIVES: &str = "SELECT count(*) FROM fleet.life WHERE NOT gone AND until > fleet.now()";

/// The details of the notes of a kind, oldest first.
fn notes(node: &Node, what: &str) -> Vec<String> {
    let segment = segments(&node.data()).pop().expect("a segment");
    let connection = Connection::open_with_flags(segment, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut all = connection
        .prepare("SELECT detail FROM note JOIN name ON name.id = what WHERE text = ?1 ORDER BY note.id")
        .unwrap();
    all.query_map([what], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// The text of `/ready`, which must be 200.
async fn ready(node: &Node) -> String {
    let response = node.admin("/ready", "").await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.text().to_owned()
}

async fn wait_for_alarm(node: &Node, words: &str) -> String {
    eventually(words, async || Some(ready(node).await).filter(|text| text.contains(words))).await
}

async fn wait_for_member(node: &Node) {
    let is_member = async || (!ready(node).await.contains("alarm: alone")).then_some(());
    eventually("a member", is_member).await;
}

/// The life of node 1.
async fn life(nodes: &Nodes) -> String {
    nodes.server.value("SELECT max(id) FROM fleet.life WHERE node = 1").await
}

/// Makes the lease of node 1 end, as if it had been cut off for longer.
async fn end_lease(nodes: &Nodes) {
    nodes.server.sql("UPDATE fleet.life SET until = fleet.now() - interval '1s' WHERE node = 1").await;
}

/// Starts a proxy that must end by itself; its log.
async fn serve_and_fail<const N: usize>(folder: &TempDir, texts: [&str; N]) {
    let config = config_in(folder);
    let arguments = ["serve", "--config", config.to_str().unwrap()];
    run(folder.path(), &arguments, &[]).await.failed(1, texts);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_node_has_one_life_from_its_start_until_its_drain() {
    let nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    assert_eq!(nodes.server.value(LIVES).await, "1");
    let beats = "SELECT beats FROM fleet.life WHERE node = 1 AND beats >= 2 AND NOT gone";
    eventually("heartbeats", async || nodes.server.sql(beats).await.pop()).await;
    // The lead of a node that dies is free after the rest of its lease.
    let lease = "SELECT until - fleet.now() <= interval '6 seconds' FROM fleet.life WHERE node = 1";
    assert_eq!(nodes.server.value(lease).await, "t");
    let metrics = nodes[0].metrics().await;
    assert_eq!(metrics.value("cmiot_fleet_alone", []), Some(0.0));
    assert!(metrics.value("cmiot_fleet_last_heartbeat_timestamp_seconds", []).unwrap() > 1_700_000_000.0);
    assert!(metrics.value("cmiot_fleet_clock_offset_seconds", []).unwrap().abs() < 1.0);
    assert_eq!(notes(&nodes[0], "alone"), [""; 0], "it was never alone");
    nodes[0].signal("TERM").await;
    let gone = "SELECT count(*) FROM fleet.life WHERE gone AND until > fleet.now()";
    eventually("the end of the life", async || (nodes.server.value(gone).await == "1").then_some(())).await;
}

#[tokio::test]
async fn a_second_store_with_the_same_number_does_not_start_and_says_whose_it_is() {
    let nodes = Nodes::start(1).await;
    let partition = Partition::to(&nodes.server);
    let folder = folder_of(&fleet_setup(&nodes.carrier, &partition, 1, 1));
    let key = std::fs::read_to_string(nodes[0].data().join("audit-anchor.pub")).unwrap();
    let place = nodes[0].data().canonicalize().unwrap();
    let words = ["node 1 of the fleet", key.trim(), place.to_str().unwrap(), "release-node 1"];
    serve_and_fail(&folder, words).await;
    // Also when the first one is down: the number stays with its store.
    nodes[0].signal("TERM").await;
    serve_and_fail(&folder, words).await;
}

#[tokio::test]
async fn a_released_number_is_free_for_another_store() {
    let mut nodes = Nodes::start(1).await;
    nodes[0].signal("TERM").await;
    nodes[0].ended().await;
    nodes[0].command(&["fleet", "release-node", "1"]).await.success();
    let partition = Partition::to(&nodes.server);
    let setup = fleet_setup(&nodes.carrier, &partition, 1, 1);
    let _other = Proxy::start_in(folder_of(&setup), setup).await;
    assert_eq!(nodes.server.value(LIVES).await, "1");
    nodes[0].command(&["serve"]).await.failed(1, ["belongs to another store"]);
}

#[tokio::test]
async fn the_number_of_a_running_node_is_not_freed() {
    let nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    nodes[0].command(&["fleet", "release-node", "1"]).await.failed(1, ["node 1 runs: stop it first"]);
    nodes[0].command(&["fleet", "release-node", "2"]).await.failed(1, ["no store has the number 2"]);
    assert_eq!(nodes.server.value("SELECT count(*) FROM fleet.node").await, "1");
}

#[tokio::test]
async fn a_role_that_may_not_create_the_schema_gets_the_sql_of_it() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let folder = folder_of(&fleet_setup(&carrier().await, &partition, 1, 1));
    let config = config_in(&folder);
    let fleet = async |words: &[&str]| {
        let arguments = [&["fleet"], words, &["--config", config.to_str().unwrap()]].concat();
        run(folder.path(), &arguments, &[]).await
    };
    let printed = fleet(&["migrate"]).await;
    let printed = printed.failed(1, ["may not change the schema"]);
    assert!(printed.out.contains("CREATE SCHEMA IF NOT EXISTS fleet"), "{printed:?}");
    fleet(&["status"]).await.failed(1, ["run `cmiot-proxy fleet migrate` first"]);
    // The printed statements are what an owner has to run.
    let owner = server.try_client("cmiot_owner").await.unwrap();
    owner.batch_execute(&printed.out).await.unwrap();
    fleet(&["status"]).await.success();
    fleet(&["migrate"]).await.success();
}

#[tokio::test]
async fn two_migrations_at_once_are_one() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let folder = folder_of(&fleet_setup(&carrier().await, &partition, 1, 1));
    let config = config_in(&folder);
    let arguments = ["fleet", "migrate", "--user", "cmiot_owner", "--config", config.to_str().unwrap()];
    let both = tokio::join!(run(folder.path(), &arguments, &[]), run(folder.path(), &arguments, &[]));
    let said = [both.0.success().out, both.1.success().out];
    assert_eq!(said.iter().filter(|one| one.contains("(was 0)")).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|one| one.contains("already")).count(), 1, "{said:?}");
}

#[tokio::test]
async fn check_live_names_what_a_node_cannot_work_with() {
    let nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    let check = async || nodes[0].command(&["check", "--live"]).await;
    let fine = check().await.success();
    assert!(fine.out.contains("fleet: PostgreSQL "), "{fine:?}");
    for (change, undo, said) in [
        (
            "REVOKE USAGE ON SEQUENCE fleet.fence FROM cmiot_node",
            "GRANT USAGE ON SEQUENCE fleet.fence TO cmiot_node",
            "lacks rights: fleet.fence (USAGE)",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION audit.head_at FROM cmiot_node",
            "GRANT EXECUTE ON FUNCTION audit.head_at TO cmiot_node",
            "lacks rights: audit.head_at (EXECUTE)",
        ),
        (
            "UPDATE fleet.about SET version = version + 7, oldest = oldest + 7",
            "UPDATE fleet.about SET version = version - 7, oldest = oldest - 7",
            "this executable needs schema",
        ),
    ] {
        nodes.server.sql(change).await;
        let checked = check().await;
        assert!(checked.failed(1, []).out.contains(said), "{said}");
        nodes.server.sql(undo).await;
    }
    check().await.success();
    nodes[0].partition.set(Mode::Refuse);
    assert!(check().await.failed(1, []).out.contains("fleet: "));
}

#[tokio::test]
async fn a_copy_of_a_running_store_does_not_start() {
    let mut nodes = Nodes::start(1).await;
    nodes[0].signal("TERM").await;
    nodes[0].ended().await;
    let partition = Partition::to(&nodes.server);
    let setup = fleet_setup(&nodes.carrier, &partition, 1, 1);
    let folder = folder_of(&setup);
    copy(&nodes[0].data(), &folder.path().join("data"));
    nodes[0].start_again().await;
    let place = nodes[0].data().canonicalize().unwrap();
    serve_and_fail(&folder, ["with a copy of this store", place.to_str().unwrap()]).await;
    assert_eq!(notes(&nodes[0], "alone"), [""; 0], "the first one goes on");
    // Once the first one has ended, the copy is a move to another host.
    nodes[0].signal("TERM").await;
    nodes[0].ended().await;
    let _moved = Proxy::start_in(folder, setup).await;
    assert_eq!(nodes.server.value(LIVES).await, "1");
}

#[tokio::test]
async fn a_node_whose_life_another_process_took_stays_alone_and_says_where_that_runs() {
    let nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    nodes
        .server
        .sql(
            "BEGIN; UPDATE fleet.life SET gone = true WHERE node = 1;
             INSERT INTO fleet.life (node, folder, place, until)
             VALUES (1, 'x', 'other-host:/data', fleet.now() + interval '1 day'); COMMIT",
        )
        .await;
    let text = wait_for_alarm(&nodes[0], "runs at other-host:/data").await;
    assert!(text.contains("alarm: alone: alone since "), "{text}");
    let json = nodes[0].admin("/ready?format=json", "").await.text().to_owned();
    assert!(json.contains(r#""severity":"error""#), "{json}");
    assert_eq!(nodes[0].look_up(&MSISDN).await.text(), NORMAL, "it serves alone");
    // The other process has ended.
    nodes.server.sql("UPDATE fleet.life SET gone = true WHERE node = 1").await;
    wait_for_member(&nodes[0]).await;
}

#[tokio::test]
async fn a_killed_node_starts_again_at_once_with_another_life() {
    let mut nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    nodes[0].kill9().await;
    // If the start waited for the lease, it would not return.
    nodes.server.sql("UPDATE fleet.life SET until = fleet.now() + interval '1 hour'").await;
    let before = life(&nodes).await;
    nodes[0].start_again().await;
    assert_ne!(life(&nodes).await, before);
    assert_eq!(nodes.server.value(LIVES).await, "1");
}

#[tokio::test]
async fn a_node_starts_without_the_database_and_joins_when_it_is_there() {
    let nodes = Nodes::start(1).await;
    for mode in [Mode::Refuse, Mode::Stall] {
        let partition = Partition::to(&nodes.server);
        partition.set(mode);
        let setup = fleet_setup(&nodes.carrier, &partition, 2, 2);
        let proxy = Proxy::start_in(folder_of(&setup), setup).await;
        let text = proxy.admin("/ready", "").await.text().to_owned();
        assert!(text.contains("alarm: alone: alone since "), "{mode:?}: {text}");
        assert_eq!(proxy.metrics().await.value("cmiot_fleet_alone", []), Some(1.0));
        assert_eq!(proxy.look_up(&MSISDN).await.text(), NORMAL);
        partition.set(Mode::Pass);
        eventually("a member", async || (nodes.server.value(LIVES).await == "2").then_some(())).await;
        let is_member = async || (!proxy.admin("/ready", "").await.text().contains("alone")).then_some(());
        eventually("the end of the alarm", is_member).await;
        drop(proxy);
        nodes.server.sql("DELETE FROM fleet.node WHERE node = 2").await;
    }
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_alone_and_notes_when_it_begins_and_ends() {
    let nodes = Nodes::start(2).await;
    wait_for_member(&nodes[0]).await;
    for mode in [Mode::Stall, Mode::Reset] {
        nodes[0].partition.set(mode);
        wait_for_alarm(&nodes[0], "alarm: alone: alone since ").await;
        assert_eq!(nodes[0].metrics().await.value("cmiot_fleet_alone", []), Some(1.0));
        assert!(!ready(&nodes[1]).await.contains("alone"), "the other one is not");
        nodes[0].partition.cut().await;
        wait_for_member(&nodes[0]).await;
    }
    let found =
        eventually("the notes", async || Some(notes(&nodes[0], "alone")).filter(|all| all.len() == 4)).await;
    for pair in found.chunks(2) {
        assert!(pair[0].starts_with("begins node=1 life=") && pair[0].contains(" cause="), "{found:?}");
        assert!(pair[1].starts_with("ends node=1 life="), "{found:?}");
    }
    assert_eq!(notes(&nodes[1], "alone"), [""; 0]);
}

#[tokio::test]
async fn a_time_alone_ends_with_the_process_whether_it_drains_or_crashes() {
    let mut nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    nodes[0].partition.set(Mode::Refuse);
    wait_for_alarm(&nodes[0], "alarm: alone: alone since ").await;
    nodes[0].restart().await;
    wait_for_alarm(&nodes[0], "alarm: alone: alone since ").await;
    eventually("the note of the second begin", async || (notes(&nodes[0], "alone").len() == 3).then_some(()))
        .await;
    nodes[0].kill9().await;
    nodes[0].partition.set(Mode::Pass);
    nodes[0].start_again().await;
    wait_for_member(&nodes[0]).await;
    let words = ["begins", "ends node=1 cause=drain", "begins", "ends node=1 cause=restart"];
    let found = eventually("the notes", async || {
        Some(notes(&nodes[0], "alone")).filter(|all| all.len() >= words.len())
    })
    .await;
    assert!(found.iter().zip(words).all(|(note, words)| note.starts_with(words)), "{found:?}");
    assert_eq!(found.len(), words.len(), "{found:?}");
}

#[tokio::test]
async fn more_nodes_than_the_configuration_allows_for_are_an_alarm() {
    let mut nodes = Nodes::start_with(2, |setup, _| setup.set("fleet.nodes", 2)).await;
    wait_for_member(&nodes[1]).await;
    assert!(!ready(&nodes[0]).await.contains("fleet-nodes"));
    nodes.add(3, 2, |setup, _| setup).await;
    for index in 0..3 {
        wait_for_alarm(
            &nodes[index],
            "alarm: fleet-nodes: 3 nodes of the fleet are alive, and [fleet] nodes is 2",
        )
        .await;
    }
    nodes[2].signal("TERM").await;
    eventually("the end of the alarm", async || {
        (!ready(&nodes[0]).await.contains("fleet-nodes")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_life_whose_lease_has_ended_does_not_return() {
    let nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    let before = life(&nodes).await;
    end_lease(&nodes).await;
    eventually("another life", async || (life(&nodes).await != before).then_some(())).await;
    wait_for_member(&nodes[0]).await;
    assert_eq!(nodes.server.value(LIVES).await, "1");
    let gone = format!("SELECT gone FROM fleet.life WHERE id = {before}");
    assert_eq!(nodes.server.value(&gone).await, "t");
}

#[tokio::test]
async fn a_database_that_lost_commits_is_noticed() {
    for lost in ["UPDATE fleet.life SET beats = 0", "DELETE FROM fleet.life"] {
        let nodes = Nodes::start(1).await;
        wait_for_member(&nodes[0]).await;
        let beats = "SELECT beats FROM fleet.life WHERE beats >= 2";
        eventually("heartbeats", async || nodes.server.sql(beats).await.pop()).await;
        let before = life(&nodes).await;
        nodes.server.sql(lost).await;
        wait_for_alarm(&nodes[0], "alarm: fleet-lost: ").await;
        eventually("another life", async || {
            let rows =
                nodes.server.sql(&format!("SELECT FROM fleet.life WHERE id > {before} AND NOT gone")).await;
            (!rows.is_empty()).then_some(())
        })
        .await;
        wait_for_member(&nodes[0]).await;
        eventually("the note", async || (notes(&nodes[0], "fleet-lost") == ["node=1"]).then_some(())).await;
    }
}

#[tokio::test]
async fn a_node_out_of_the_range_of_the_schema_is_alone_and_says_so() {
    let mut nodes = Nodes::start(1).await;
    for (change, words) in [
        ("UPDATE fleet.about SET version = 0", "and this proxy needs"),
        ("UPDATE fleet.about SET version = 99, oldest = 98", "upgrade this proxy"),
    ] {
        let before = nodes.server.value("SELECT version FROM fleet.about").await;
        // While it runs, and at its start.
        nodes.server.sql(change).await;
        wait_for_alarm(&nodes[0], words).await;
        nodes[0].restart().await;
        wait_for_alarm(&nodes[0], words).await;
        nodes.server.sql(&format!("UPDATE fleet.about SET version = {before}, oldest = 1")).await;
        wait_for_member(&nodes[0]).await;
    }
    nodes.server.sql("ALTER SCHEMA fleet RENAME TO moved").await;
    nodes[0].restart().await;
    wait_for_alarm(&nodes[0], "run `cmiot-proxy fleet migrate").await;
}

#[tokio::test]
async fn the_database_of_another_fleet_is_not_used() {
    let mut nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    nodes.server.sql("UPDATE fleet.about SET fleet = gen_random_uuid()").await;
    wait_for_alarm(&nodes[0], "belongs to another fleet").await;
    nodes[0].restart().await;
    wait_for_member(&nodes[0]).await;
}

#[tokio::test]
async fn a_clock_that_differs_from_the_database_is_an_alarm() {
    let nodes = Nodes::start(1).await;
    let ahead = |by: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE \
             AS 'SELECT clock_timestamp() + interval ''{by}'''"
        )
    };
    nodes.server.sql(&ahead("100s")).await;
    wait_for_alarm(&nodes[0], "alarm: fleet-clock: ").await;
    let offset = nodes[0].metrics().await.value("cmiot_fleet_clock_offset_seconds", []).unwrap();
    assert!((95.0..=105.0).contains(&offset), "{offset}");
    nodes.server.sql(&ahead("0s")).await;
    eventually("the end", async || (!ready(&nodes[0]).await.contains("fleet-clock")).then_some(())).await;
}

#[tokio::test]
async fn a_drain_ends_the_life_after_the_last_flight() {
    let mut nodes = Nodes::start(1).await;
    wait_for_member(&nodes[0]).await;
    let gate = Gate::new();
    nodes.carrier.set_rules([Rule::any().gate(&gate)]);
    let (client, query) = (nodes[0].clone(), nodes[0].sign(&MSISDN));
    let asking = tokio::spawn(async move { client.get(&query).await });
    nodes.carrier.wait_for_calls(1).await;
    nodes[0].signal("TERM").await;
    assert_eq!(nodes.server.value(LIVES).await, "1");
    gate.open();
    asking.await.unwrap().assert_normal();
    within("the drain", nodes[0].ended()).await;
    assert_eq!(nodes.server.value(LIVES).await, "0");
}

#[tokio::test]
async fn changed_keys_of_the_fleet_take_effect_at_the_next_start() {
    let nodes = Nodes::start(1).await;
    let text = nodes[0].setup().clone().set("fleet.nodes", 9).text();
    write_config(&nodes[0].config(), &text);
    wait_for_alarm(&nodes[0], "[fleet] nodes").await;
    crate::support::write_secret(&nodes[0].config().with_file_name("fleet.key"), &"ab".repeat(32));
    wait_for_alarm(&nodes[0], "[fleet] key_file, [fleet] nodes").await;
}

#[tokio::test]
async fn the_operators_page_shows_all_nodes_and_the_node_that_has_read_them() {
    let nodes = Nodes::start_with(2, |setup, _| setup.set("account.0.calls_per_day", 1_000)).await;
    nodes.wait_for_members(2).await;
    nodes[0].look_up(&MSISDN).await.assert_normal();
    let page = async |path: &str, text: &str| {
        eventually(text, async || {
            Some(nodes[1].admin(path, "").await.text().to_owned()).filter(|page| page.contains(text))
        })
        .await
    };
    let overview = page("/", "as node 2 read it from the database").await;
    assert_eq!(overview.matches("badge good\">alive").count(), 2, "{overview}");
    assert!(overview.contains("figures and charts of this page are those of this node alone"), "{overview}");
    page("/page/accounts", "/ 1000, reserves").await;
    page("/page/accounts?format=csv&table=fleet", "account,calls_today,calls_per_day,reserves\r\nfleet,")
        .await;
    page("/page/clients", "<td>GW0001</td><td>1</td>").await;
    page("/page/clients?format=csv&table=fleet", "appid,node,transids\r\nGW0001,1,1\r\n").await;
}
