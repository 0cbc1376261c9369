//! The harness does what its documentation says: a test that relies on it proves nothing otherwise.

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::harness::{DATABASE, Mode, Nodes, Partition, Postgres, own_address};
use crate::support::{MSISDN, eventually, within};

/// A wait for what must not happen. A longer one would find more faults of the harness; none fails a sound one.
const A_WHILE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_server_has_the_database_its_owner_and_its_user() {
    let server = Postgres::start().await;
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()";
    assert_eq!(server.value(owner).await, "cmiot_owner");
    server.try_client("cmiot_owner").await.unwrap();
    server.try_client("cmiot_node").await.unwrap();
    server.try_client("nobody").await.expect_err("no such role");
    let rows = server.sql("SELECT 1, NULL; SELECT 'two', 2").await;
    assert_eq!(rows, [[Some("1".into()), None], [Some("two".into()), Some("2".into())]]);
}

#[tokio::test]
async fn servers_are_apart_and_listen_where_they_are_told() {
    let address = own_address().to_string();
    let (one, other) =
        (Postgres::start_with(&[("listen_addresses", &address)]).await, Postgres::start().await);
    one.sql("CREATE TABLE seen ()").await;
    assert_eq!(other.value("SELECT count(*) FROM pg_class WHERE relname = 'seen'").await, "0");
    let partition = Partition::tcp_to(&one);
    let connection = "SELECT host(inet_server_addr())";
    let client = connect(&partition).await.unwrap();
    assert_eq!(client.query_one(connection, &[]).await.unwrap().get::<_, String>(0), address);
}

#[tokio::test]
async fn a_server_reads_its_files_again() {
    let server = Postgres::start().await;
    server.write("pg_hba.conf", "local all postgres trust\nlocal all all reject\n");
    server.try_client("cmiot_node").await.unwrap();
    server.reload();
    eventually("a rejected role", async || server.try_client("cmiot_node").await.err()).await;
    server.sql("SELECT 1").await;
}

#[tokio::test]
async fn a_killed_server_starts_again_with_what_was_committed_and_empty_unlogged_tables() {
    let mut server = Postgres::start().await;
    server.sql("CREATE TABLE kept (n int); CREATE UNLOGGED TABLE lost (n int)").await;
    server.sql("INSERT INTO kept VALUES (1); INSERT INTO lost VALUES (1)").await;
    let client = server.client().await;
    server.kill();
    within("the end of the connection", client.simple_query("SELECT 1")).await.unwrap_err();
    assert!(server.try_client("postgres").await.is_err());
    server.start_again().await;
    assert_eq!(server.value("SELECT count(*) FROM kept").await, "1");
    assert_eq!(server.value("SELECT count(*) FROM lost").await, "0");
}

#[tokio::test]
async fn a_stopped_server_keeps_unlogged_tables() {
    let mut server = Postgres::start().await;
    server.sql("CREATE UNLOGGED TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
    server.stop();
    server.start_again().await;
    assert_eq!(server.value("SELECT count(*) FROM kept").await, "1");
}

#[tokio::test]
async fn a_killed_backend_ends_all_connections_and_empties_unlogged_tables() {
    let mut server = Postgres::start().await;
    server.sql("CREATE UNLOGGED TABLE lost (n int); INSERT INTO lost VALUES (1)").await;
    let (client, other) = (server.client().await, server.client().await);
    let id: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    server.kill_backend(id.try_into().unwrap());
    for client in [client, other] {
        within("the end of the connection", client.simple_query("SELECT 1")).await.unwrap_err();
    }
    server.ready().await;
    assert_eq!(server.value("SELECT count(*) FROM lost").await, "0");
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_continues() {
    let server = Postgres::start().await;
    let client = server.client().await;
    server.pause();
    let mut asked = Box::pin(client.simple_query("SELECT 1"));
    let mut connecting = Box::pin(server.try_client("postgres"));
    tokio::time::timeout(A_WHILE, &mut asked).await.expect_err("no answer");
    assert!(tokio::time::timeout(A_WHILE, &mut connecting).await.is_err(), "no further connection");
    server.resume();
    within("the answer", asked).await.unwrap();
    within("the connection", connecting).await.unwrap();
}

#[tokio::test]
async fn a_server_ends_with_its_test_even_when_paused_or_when_the_test_is_killed() {
    let ways: [fn(Postgres); 3] = [
        drop,
        |server| {
            server.pause();
            drop(server);
        },
        |server| {
            server.pause();
            server.abandon();
        },
    ];
    for end in ways {
        let server = Postgres::start().await;
        let _client = server.client().await;
        let folder = server.socket_folder().to_owned();
        let ids = server.processes();
        assert!(ids.len() > 3, "postmaster, checkpointer, WAL writer and more: {ids:?}");
        end(server);
        assert!(!folder.exists());
        for id in ids {
            // A process whose parent has not waited for it has the state Z.
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
            assert!(stat.map_or(true, |stat| stat.contains(") Z ")), "{id} still runs");
        }
    }
}

#[tokio::test]
async fn a_stalled_partition_holds_open_and_further_connections_until_it_passes() {
    let server = Postgres::start().await;
    for partition in [Partition::to(&server), Partition::tcp_to(&server)] {
        let client = connect(&partition).await.unwrap();
        partition.set(Mode::Stall);
        let mut asked = Box::pin(client.query_one("SELECT 1", &[]));
        let mut connecting = Box::pin(connect(&partition));
        tokio::time::timeout(A_WHILE, &mut asked).await.expect_err("no answer");
        assert!(tokio::time::timeout(A_WHILE, &mut connecting).await.is_err(), "no further connection");
        assert_eq!((partition.accepted(), partition.open()), (2, 2));
        partition.set(Mode::Pass);
        assert_eq!(within("the answer", asked).await.unwrap().get::<_, i32>(0), 1);
        within("the connection", connecting).await.unwrap();
    }
}

#[tokio::test]
async fn with_responses_stalled_a_commit_reaches_the_server_and_its_confirmation_waits() {
    let server = Postgres::start().await;
    server.sql("CREATE TABLE written (n int); GRANT INSERT ON written TO cmiot_node").await;
    let partition = Partition::to(&server);
    let client = connect(&partition).await.unwrap();
    partition.set(Mode::StallResponses);
    let mut asked = Box::pin(client.batch_execute("INSERT INTO written VALUES (1)"));
    tokio::time::timeout(A_WHILE, &mut asked).await.expect_err("no confirmation");
    let count = async || (server.value("SELECT count(*) FROM written").await == "1").then_some(());
    eventually("the row", count).await;
    partition.set(Mode::Pass);
    within("the confirmation", asked).await.unwrap();
}

#[tokio::test]
async fn a_reset_ends_open_and_further_connections() {
    let server = Postgres::start().await;
    for partition in [Partition::to(&server), Partition::tcp_to(&server)] {
        let client = connect(&partition).await.unwrap();
        partition.set(Mode::Reset);
        within("the end", client.simple_query("SELECT 1")).await.unwrap_err();
        assert!(within("the end", connect(&partition)).await.is_err());
        assert_eq!(partition.accepted(), 2);
        partition.set(Mode::Pass);
        let client = connect(&partition).await.unwrap();
        partition.cut().await;
        within("the end", client.simple_query("SELECT 1")).await.unwrap_err();
        connect(&partition).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusing_partition_accepts_nothing_until_it_passes_at_the_same_address() {
    let server = Postgres::start().await;
    for partition in [Partition::to(&server), Partition::tcp_to(&server)] {
        let client = connect(&partition).await.unwrap();
        partition.set(Mode::Refuse);
        within("the end", client.simple_query("SELECT 1")).await.unwrap_err();
        let accepted = partition.accepted();
        eventually("a refused connection", async || connect(&partition).await.err()).await;
        partition.set(Mode::Pass);
        eventually("a connection", async || connect(&partition).await.ok()).await;
        assert!(partition.accepted() > accepted);
    }
}

#[tokio::test]
async fn a_delay_holds_each_message_and_loses_none() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let client = connect(&partition).await.unwrap();
    partition.set(Mode::Delay(A_WHILE));
    let mut asked = Box::pin(client.query_one("SELECT 1", &[]));
    tokio::time::timeout(A_WHILE / 2, &mut asked).await.expect_err("no answer yet");
    assert_eq!(within("the answer", asked).await.unwrap().get::<_, i32>(0), 1);
    partition.set(Mode::Pass);
    // More than a socket's buffer.
    let text: String = client.query_one("SELECT repeat('x', 3000000)", &[]).await.unwrap().get(0);
    assert_eq!(text.len(), 3_000_000);
}

#[tokio::test]
async fn nodes_answer_are_killed_paused_and_started_again_each_for_itself() {
    let mut nodes = Nodes::start(3).await;
    for node in nodes.iter() {
        node.look_up(&MSISDN).await.assert_normal();
    }
    nodes[0].kill9().await;
    nodes[1].pause();
    let mut asked = Box::pin(nodes[1].look_up(&MSISDN));
    tokio::time::timeout(A_WHILE, &mut asked).await.expect_err("no answer");
    nodes[2].look_up(&MSISDN).await.assert_normal();
    nodes[1].resume();
    asked.await.assert_normal();
    nodes[0].start_again().await;
    nodes[0].look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn a_node_reaches_the_server_through_its_own_partition_alone() {
    let nodes = Nodes::start(2).await;
    let status = || nodes[0].command(&["fleet", "status"]);
    status().await.success();
    nodes[0].partition.set(Mode::Refuse);
    status().await.failed(1, []);
    nodes[1].command(&["fleet", "status"]).await.success();
}

/// A connection to the database through a partition.
async fn connect(partition: &Partition) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    match partition.host().strip_prefix("unix:") {
        Some(folder) => config.host_path(folder),
        None => config.host(partition.address().ip().to_string()).port(partition.address().port()),
    };
    let (client, connection) = config.user("cmiot_node").dbname(DATABASE).connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
