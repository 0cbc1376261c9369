//! Changes of the copy that are found, the rights of roles, and months that are removed.

use cmiot_proxy::store::fleet::migrate;

use super::{start, verify, wait_for_copy, work};
use crate::harness::{Partition, Postgres, fleet_setup, folder_of};
use crate::support::{Proxy, carrier, eventually, run};

/// The schema of before the copy.
const FIRST: &str = include_str!("../../../migrations/fleet/0001_fleet.sql");

#[tokio::test]
async fn a_change_of_a_copy_without_lookups_is_found() {
    find_changes("calls").await;
}

#[tokio::test]
async fn a_change_of_a_whole_copy_is_found() {
    find_changes("all").await;
}

/// Changes a copy in many ways; each must be found, and none after it was undone.
async fn find_changes(mode: &str) {
    let nodes = start(1, mode).await;
    work(&nodes, 0, 0).await;
    wait_for_copy(&nodes, 0).await;
    verify(&nodes[0]).await.success();
    let mut changes = vec![
        "UPDATE audit.call SET code = '1' WHERE id = (SELECT min(id) FROM audit.call)",
        "UPDATE audit.call SET body = NULL WHERE id = (SELECT max(id) FROM audit.call)",
        "DELETE FROM audit.call WHERE id = (SELECT min(id) FROM audit.call)",
        "INSERT INTO audit.note SELECT month, chain, id + 1000000, at, what, detail FROM audit.note LIMIT 1",
        "INSERT INTO audit.note SELECT month, chain, (SELECT min(id) FROM audit.call), at, what, detail
             FROM audit.note LIMIT 1",
        "UPDATE audit.note SET detail = detail || ' '",
        "UPDATE audit.refused SET count = count + 1; UPDATE audit.note SET at = at + 1",
        "DELETE FROM audit.batch WHERE last = (SELECT max(last) FROM audit.batch)",
        "DELETE FROM audit.batch WHERE last = (SELECT min(last) FROM audit.batch);
             DELETE FROM audit.note WHERE id <= (SELECT min(id) FROM audit.call)",
        "UPDATE audit.batch SET horizon = horizon + 1",
        "UPDATE audit.batch SET copied = copied - 1 WHERE last = (SELECT max(last) FROM audit.batch)",
        "DELETE FROM audit.segment",
        "UPDATE audit.segment SET previous = sha256('x')",
        "INSERT INTO audit.missing SELECT id, last, last, head FROM audit.chain",
        "UPDATE audit.chain SET last = last - 1",
        "UPDATE audit.chain SET head = sha256('x')",
        "UPDATE audit.chain SET digest = sha256('x')",
        "UPDATE audit.anchor SET head = sha256('x')",
        "UPDATE audit.chain SET base = base + 1",
        "UPDATE audit.chain SET store = 'x'",
        "UPDATE audit.chain SET store = sha256('x')",
        "UPDATE audit.note SET chain = 77",
    ];
    if mode == "all" {
        changes.push("UPDATE audit.record SET card = '14765004177'");
        changes.push("DELETE FROM audit.record WHERE id = (SELECT max(id) FROM audit.record)");
    }
    for change in changes {
        let connection = nodes.server.client().await;
        // Undone after the verification.
        connection
                .batch_execute(
                    "CREATE SCHEMA saved; DO $$ DECLARE t text; BEGIN
                     FOREACH t IN ARRAY ARRAY['chain', 'segment', 'missing', 'anchor', 'batch', 'record', 'call', 'refused',
                         'gap', 'note'] LOOP
                       EXECUTE format('CREATE TABLE saved.%I AS TABLE audit.%I', t, t); END LOOP; END $$",
                )
                .await
                .unwrap();
        connection.batch_execute(change).await.unwrap();
        let output = verify(&nodes[0]).await.failed(1, []);
        assert!(output.out.contains("DAMAGE "), "{mode}: {change}: {output:?}");
        connection
                .batch_execute(
                    "DO $$ DECLARE t text; BEGIN
                     FOREACH t IN ARRAY ARRAY['segment', 'missing', 'anchor', 'batch', 'record', 'call', 'refused', 'gap',
                         'note'] LOOP
                       EXECUTE format('DELETE FROM audit.%I', t);
                       EXECUTE format('INSERT INTO audit.%I SELECT * FROM saved.%I', t, t); END LOOP;
                       UPDATE audit.chain c SET store = s.store, base = s.base, last = s.last, head = s.head, digest = s.digest
                       FROM saved.chain s WHERE s.id = c.id; END $$;
                     DROP SCHEMA saved CASCADE",
                )
                .await
                .unwrap();
        verify(&nodes[0]).await.success();
    }
}

#[tokio::test]
async fn the_role_of_the_nodes_may_insert_and_reads_no_row() {
    let nodes = start(1, "all").await;
    work(&nodes, 0, 0).await;
    wait_for_copy(&nodes, 0).await;
    let role = nodes.server.try_client("cmiot_node").await.unwrap();
    let tables = ["segment", "manifest", "missing", "batch", "record", "call", "refused", "gap", "note"];
    for table in tables {
        for sql in ["SELECT 1 FROM audit.", "DELETE FROM audit.", "TRUNCATE audit."] {
            let error = role.batch_execute(&format!("{sql}{table}")).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "42501", "{sql}{table}");
        }
        let error = role.batch_execute(&format!("UPDATE audit.{table} SET chain = 1")).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "UPDATE {table}");
    }
    for sql in [
        "UPDATE audit.chain SET last = 1",
        "DELETE FROM audit.chain",
        "UPDATE audit.anchor SET at = 1",
        "DELETE FROM audit.anchor",
        "INSERT INTO audit.chain (node) VALUES (1)",
        "SELECT FROM audit.lookup",
        "SELECT FROM audit.carrier_call",
        "SELECT FROM audit.noted",
        "SELECT audit.drop_month(202001)",
        "INSERT INTO audit.dropped (month) VALUES (202001)",
        "SELECT audit.grant_reader('cmiot_node')",
        "CREATE TABLE audit.other ()",
        // The partitions are not named in a grant.
        "DO $$ BEGIN EXECUTE (SELECT 'SELECT FROM audit.' || relname FROM pg_class
         WHERE relname ~ '^record_[0-9]+$' AND relkind = 'r' LIMIT 1); END $$",
    ] {
        let error = role.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
    }
    nodes[0].command(&["fleet", "verify"]).await.failed(1, ["audit.grant_reader"]);
    // A position goes on from where it is, and not back.
    for wrong in ["last + 1, head, last + 2", "last, sha256('x'), last + 2", "last, head, last - 1"] {
        let sql = format!(
            "SELECT audit.advance(id, {wrong}, head, digest, signature, last) FROM audit.chain WHERE node = 1"
        );
        let error = role.batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "40001", "{wrong}");
    }
    // What a reader may do.
    nodes.server.sql("CREATE ROLE auditor LOGIN; SELECT audit.grant_reader('auditor')").await;
    nodes[0].command(&["fleet", "verify", "--user", "auditor"]).await.success();
    let auditor = nodes.server.try_client("auditor").await.unwrap();
    assert!(!auditor.query("SELECT card FROM audit.lookup", &[]).await.unwrap().is_empty());
    assert!(auditor.batch_execute("DELETE FROM audit.record").await.is_err());
}

#[tokio::test]
async fn a_month_that_was_removed_at_the_database_is_said_and_no_damage() {
    let nodes = start(1, "all").await;
    work(&nodes, 0, 0).await;
    wait_for_copy(&nodes, 0).await;
    let month = "SELECT month FROM audit.segment";
    let month = nodes.server.value(month).await;
    let client = nodes.server.client().await;
    assert!(
        client.batch_execute(&format!("SELECT audit.drop_month({month})")).await.is_err(),
        "it is not over"
    );
    // As if the month had ended.
    let later = "CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS 'SELECT clock_timestamp() + interval ''32 days'''";
    client.batch_execute(later).await.unwrap();
    client.batch_execute(&format!("SELECT audit.drop_month({month})")).await.unwrap();
    let output = verify(&nodes[0]).await.success();
    assert!(output.out.contains("audit.drop_month"), "{output:?}");
}

#[tokio::test]
async fn a_role_without_a_right_is_named_and_an_alarm_until_it_has_it() {
    let nodes = start(1, "calls").await;
    wait_for_copy(&nodes, 0).await;
    nodes.server.sql("REVOKE INSERT ON audit.call FROM cmiot_node").await;
    let checked = nodes[0].command(&["check", "--live"]).await;
    assert!(checked.failed(1, []).out.contains("lacks rights: audit.call (INSERT)"));
    work(&nodes, 0, 0).await;
    let ready = async |has: bool| {
        let text = nodes[0].admin("/ready", "").await.text().to_owned();
        (text.contains("alarm: fleet-audit: ") == has).then_some(())
    };
    eventually("the alarm", async || ready(true).await).await;
    let output = nodes[0].command(&["fleet", "migrate", "--user", "cmiot_owner"]).await.success();
    assert!(output.out.contains(&format!("version {} already", migrate::version())), "{output:?}");
    eventually("the end of the alarm", async || ready(false).await).await;
    wait_for_copy(&nodes, 0).await;
    verify(&nodes[0]).await.success();
    nodes[0].command(&["check", "--live"]).await.success();
}

#[tokio::test]
async fn a_store_whose_proxy_gets_another_number_keeps_its_chain_under_that_number() {
    let mut nodes = start(1, "all").await;
    work(&nodes, 0, 0).await;
    wait_for_copy(&nodes, 0).await;
    let text = nodes[0].setup().clone().set("carrier.node", 5).text();
    crate::support::write_config(&nodes[0].config(), &text);
    nodes[0].restart().await;
    work(&nodes, 0, 100).await;
    let chains = "SELECT string_agg(node::text, ' ') FROM audit.chain";
    eventually("the number", async || (nodes.server.value(chains).await == "5").then_some(())).await;
    let copied = "SELECT max(last) FROM audit.chain";
    eventually("the copy", async || {
        (nodes.server.value(copied).await == super::last(&nodes[0]).to_string()).then_some(())
    })
    .await;
    let verified = nodes[0].command(&["fleet", "verify", "--user", "cmiot_owner", "--node", "5"]).await;
    verified.success();
}

#[tokio::test]
async fn a_schema_of_before_the_copy_is_extended_while_a_node_waits() {
    let server = Postgres::start().await;
    let owner = server.try_client("cmiot_owner").await.unwrap();
    owner.batch_execute(FIRST).await.unwrap();
    owner.batch_execute("SELECT fleet.grant_node('cmiot_node')").await.unwrap();
    let (carrier, partition) = (carrier().await, Partition::to(&server));
    let setup = fleet_setup(&carrier, &partition, 1, 1);
    let proxy = Proxy::start_in(folder_of(&setup), setup).await;
    let config = proxy.config();
    let config = config.to_str().unwrap();
    let ready = proxy.admin("/ready", "").await.text().to_owned();
    let needed = migrate::version();
    assert!(ready.contains(&format!("has version 1, and this proxy needs {needed}")), "{ready}");
    let fleet = async |words: &[&str]| {
        let words = [&["fleet"], words, &["--config", config]].concat();
        run(proxy.config().parent().unwrap(), &words, &[]).await
    };
    fleet(&["status"]).await.success();
    fleet(&["verify", "--user", "cmiot_owner"]).await.failed(1, ["fleet migrate"]);
    let output = fleet(&["migrate", "--user", "cmiot_owner"]).await.success();
    assert!(output.out.contains(&format!("version {needed} (was 1)")), "{output:?}");
    // Nodes of the former version may go on.
    assert_eq!(server.value("SELECT oldest FROM fleet.about").await, "1");
    let copies = "SELECT count(*) FROM audit.note WHERE what = 'alone'";
    eventually("the notes about the wait", async || (server.value(copies).await == "2").then_some(())).await;
    fleet(&["verify", "--user", "cmiot_owner"]).await.success();
    // The printed SQL gives the same.
    let printed = fleet(&["migrate", "--print"]).await.success().out;
    let other = Postgres::start().await;
    other.try_client("cmiot_owner").await.unwrap().batch_execute(&printed).await.unwrap();
    let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
                  WHERE relnamespace = 'audit'::regnamespace AND NOT relispartition AND relkind IN ('r', 'p', 'v')";
    assert_eq!(server.value(tables).await, other.value(tables).await);
}
