//! The link to the database: what a request pays when the database stalls, and which connections are closed.
//!
//! The link runs inside the test, over a partition, so that statements and connections can be counted.

use std::sync::Arc;
use std::time::Duration;

use cmiot_proxy::store::fleet::{Link, LinkError};
use tokio::task::JoinSet;

use crate::harness::{Mode, Partition, Postgres, create_tables, lift_time_limits, link_of, own_address};
use crate::support::{eventually, within};

/// Connections of the pool.
const POOL: usize = 4;

/// A limit that a sound statement does not reach on a busy machine, where the test needs one that succeeds.
const LONG: Duration = Duration::from_secs(20);

/// Sessions of the link, as the server sees them.
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'cmiot-proxy/%'";

fn link_to(hosts: &[String], timeout: &str) -> Arc<Link> {
    link_of(7, hosts.to_vec(), timeout, POOL)
}

fn link(partition: &Partition, timeout: &str) -> Arc<Link> {
    link_to(&[partition.host()], timeout)
}

/// Opens all connections of the pool.
async fn warm(link: &Arc<Link>) {
    let mut all = JoinSet::new();
    for _ in 0..POOL {
        let link = Arc::clone(link);
        all.spawn(async move { link.probe("SELECT pg_sleep(0.1)", &[], LONG).await.map(drop) });
    }
    all.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
}

/// The numbers of results by kind: success, time-out, not sent, other.
async fn burst(link: &Arc<Link>, count: usize) -> [usize; 4] {
    let mut all = JoinSet::new();
    for _ in 0..count {
        let link = Arc::clone(link);
        all.spawn(async move { link.query("SELECT 1", &[]).await.map(drop) });
    }
    let mut kinds = [0; 4];
    for result in within("all requests", all.join_all()).await {
        kinds[match result {
            Ok(()) => 0,
            Err(LinkError::TimedOut(_)) => 1,
            Err(LinkError::Away) => 2,
            Err(_) => 3,
        }] += 1;
    }
    kinds
}

#[tokio::test]
async fn a_statement_of_a_stalled_database_times_out_and_its_connection_is_closed() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "300ms");
    link.probe("SELECT 1", &[], LONG).await.unwrap();
    partition.set(Mode::Stall);
    let error = link.query("SELECT 1", &[]).await.unwrap_err();
    assert!(matches!(error, LinkError::TimedOut(_)), "{error}");
    assert!(link.is_open());
    // A connection that stays in the pool, or whose task waits for the reply, would remain open now.
    partition.set(Mode::Pass);
    eventually("a closed connection", async || (partition.open() == 0).then_some(())).await;
    eventually("no session", async || (server.value(SESSIONS).await == "0").then_some(())).await;
}

#[tokio::test]
async fn when_the_database_stalls_at_most_as_many_requests_as_connections_pay_the_time_limit() {
    let server = Postgres::start().await;
    for is_warm in [true, false] {
        let partition = Partition::to(&server);
        let link = link(&partition, "300ms");
        if is_warm {
            warm(&link).await;
        }
        partition.set(Mode::Stall);
        let [succeeded, timed_out, not_sent, other] = burst(&link, 200).await;
        assert!((1..=POOL + 1).contains(&timed_out), "{timed_out} of 200 timed out, {is_warm}");
        assert_eq!((succeeded, not_sent, other), (0, 200 - timed_out, 0), "{is_warm}");
        assert_eq!(burst(&link, 200).await, [0, 0, 200, 0], "nothing is sent while the breaker is open");
        assert!(partition.accepted() <= POOL + 1, "{} connections", partition.accepted());
    }
}

#[tokio::test]
async fn only_a_probe_closes_the_breaker() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "300ms");
    warm(&link).await;
    server.pause();
    let [_, timed_out, ..] = burst(&link, 50).await;
    assert!((1..=POOL + 1).contains(&timed_out), "{timed_out}");
    server.resume();
    assert_eq!(burst(&link, 10).await, [0, 0, 10, 0]);
    link.probe("SELECT 1", &[], LONG).await.unwrap();
    assert!(!link.is_open());
    link.query("SELECT 1", &[]).await.unwrap();
}

#[tokio::test]
async fn a_request_continues_after_an_error_of_its_statement() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "20s");
    let error = link.query("SELECT 1 / 0", &[]).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
    assert!(error.to_string().contains("division by zero"), "{error}");
    link.query("SELECT 1", &[]).await.unwrap();
    assert_eq!(server.value(SESSIONS).await, "1", "the connection stays in the pool");
}

#[tokio::test]
async fn a_caller_that_stops_to_wait_leaves_no_statement_in_the_pipeline() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "20s");
    link.query("SELECT 1", &[]).await.unwrap();
    partition.set(Mode::StallResponses);
    let asking = tokio::spawn({
        let link = Arc::clone(&link);
        async move { link.query("SELECT 41", &[]).await.map(drop) }
    });
    let arrived = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT 41'";
    eventually("the statement", async || (server.value(arrived).await == "1").then_some(())).await;
    asking.abort();
    asking.await.unwrap_err();
    partition.set(Mode::Pass);
    link.query("SELECT 1", &[]).await.unwrap();
    assert_eq!(partition.accepted(), 2, "the next statement has another connection");
    eventually("a closed connection", async || (partition.open() == 1).then_some(())).await;
}

#[tokio::test]
async fn three_errors_in_a_row_open_the_breaker() {
    let server = Postgres::start().await;
    for mode in [Mode::Refuse, Mode::Reset] {
        let partition = Partition::to(&server);
        let link = link(&partition, "20s");
        link.query("SELECT 1", &[]).await.unwrap();
        partition.set(mode);
        for _ in 0..3 {
            let error = link.query("SELECT 1", &[]).await.unwrap_err();
            assert!(matches!(error, LinkError::Connect(_) | LinkError::Statement(_)), "{mode:?}: {error}");
        }
        assert!(matches!(link.query("SELECT 1", &[]).await, Err(LinkError::Away)), "{mode:?}");
        partition.set(Mode::Pass);
        // The partition listens again after a moment.
        eventually("the probe", async || link.probe("SELECT 1", &[], LONG).await.ok()).await;
        link.query("SELECT 1", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_path_costs_no_error_within_the_time_limit() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "20s");
    partition.set(Mode::Delay(Duration::from_millis(20)));
    assert_eq!(burst(&link, 20).await, [20, 0, 0, 0]);
    assert!(partition.accepted() <= POOL, "{}", partition.accepted());
}

#[tokio::test]
async fn a_server_that_restarts_is_used_again() {
    let mut server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "20s");
    warm(&link).await;
    server.kill();
    let [succeeded, ..] = burst(&link, 10).await;
    assert_eq!(succeeded, 0);
    assert!(link.is_open());
    server.start_again().await;
    link.probe("SELECT 1", &[], LONG).await.unwrap();
    assert_eq!(burst(&link, 10).await, [10, 0, 0, 0]);
}

#[tokio::test]
async fn a_dedicated_connection_does_not_wait_for_requests() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "20s");
    lift_time_limits(&link, POOL).await;
    server.sql("CREATE TABLE busy (n int); GRANT SELECT ON busy TO cmiot_node").await;
    let holder = server.client().await;
    holder.batch_execute("BEGIN; LOCK TABLE busy").await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..POOL {
        let link = Arc::clone(&link);
        waiting.spawn(async move { link.query("SELECT n FROM busy", &[]).await.map(drop) });
    }
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually("waiting requests", async || (server.value(waits).await == POOL.to_string()).then_some(()))
        .await;
    let accepted = partition.accepted();
    let mut heartbeat = link.dedicated("heartbeat", Duration::from_secs(1));
    heartbeat.query("SELECT 1", &[], LONG).await.unwrap();
    assert_eq!(partition.accepted(), accepted + 1, "a connection of its own");
    assert_eq!(server.value(waits).await, POOL.to_string(), "all of the pool still wait");
    holder.batch_execute("COMMIT").await.unwrap();
    waiting.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
}

#[tokio::test]
async fn a_host_that_accepts_and_answers_nothing_is_passed_over() {
    let server = Postgres::start().await;
    let (stalled, good) = (Partition::to(&server), Partition::to(&server));
    stalled.set(Mode::Stall);
    let link = link_to(&[stalled.host(), good.host()], "20s");
    let mut heartbeat = link.dedicated("heartbeat", Duration::from_secs(1));
    heartbeat.query("SELECT 1", &[], LONG).await.unwrap();
    let tried = stalled.accepted();
    link.query("SELECT 1", &[]).await.unwrap();
    assert_eq!(stalled.accepted(), tried, "requests go to the host that the heartbeat has found");
    // And back, once the other host stalls.
    stalled.set(Mode::Pass);
    good.set(Mode::Refuse);
    // The first statement finds that its connection was closed.
    within("the first host", async { while heartbeat.query("SELECT 1", &[], LONG).await.is_err() {} }).await;
    link.probe("SELECT 1", &[], LONG).await.unwrap();
}

#[tokio::test]
async fn a_server_that_became_read_only_is_left() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "20s");
    server.sql("CREATE TABLE written (n int); GRANT INSERT ON written TO cmiot_node").await;
    link.query("INSERT INTO written VALUES (1)", &[]).await.unwrap();
    server.sql("ALTER SYSTEM SET default_transaction_read_only = on").await;
    server.reload();
    let error =
        eventually("a refusal", async || link.query("INSERT INTO written VALUES (1)", &[]).await.err());
    assert_eq!(error.await.sqlstate(), Some("25006"));
    let error = link.query("SELECT 1", &[]).await.unwrap_err();
    assert!(
        matches!(error, LinkError::Connect(_)),
        "no connection to a server that takes no writes: {error}"
    );
}

#[tokio::test]
async fn the_server_ends_statements_too_and_shows_the_node() {
    let server = Postgres::start().await;
    let partition = Partition::to(&server);
    let link = link(&partition, "20s");
    let shown = "SELECT current_setting('statement_timeout'), current_setting('application_name')";
    let rows = link.query(shown, &[]).await.unwrap();
    assert_eq!([rows[0].get::<_, &str>(0), rows[0].get(1)], ["1s", "cmiot-proxy/7"]);
    let mut shipper = link.dedicated("shipper", Duration::from_secs(30));
    let rows = shipper.query(shown, &[], LONG).await.unwrap();
    assert_eq!([rows[0].get::<_, &str>(0), rows[0].get(1)], ["30s", "cmiot-proxy/7 shipper"]);
    let others =
        "SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')";
    let rows = link.query(others, &[]).await.unwrap();
    assert_eq!([rows[0].get::<_, &str>(0), rows[0].get(1)], ["500ms", "5s"]);
    let prepared = link.query("SELECT FROM pg_prepared_statements", &[]).await.unwrap();
    assert!(prepared.is_empty(), "PgBouncer shares a connection among sessions");
}

#[tokio::test]
async fn a_slow_look_for_purges_neither_opens_nor_closes_the_breaker() {
    let server = Postgres::start().await;
    create_tables(&server).await;
    let partition = Partition::to(&server);
    let link = link(&partition, "10s");
    warm(&link).await;
    partition.set(Mode::StallResponses);
    let slow = link.purges_after(0, Duration::from_millis(200)).await;
    assert!(matches!(slow, Err(LinkError::TimedOut(_))) && !link.is_open(), "{slow:?}");
    partition.set(Mode::Pass);
    // One that was sent before the breaker opened, and succeeds afterwards.
    lift_time_limits(&link, POOL).await;
    let holder = server.client().await;
    holder.batch_execute("BEGIN; LOCK fleet.purge").await.unwrap();
    let of = Arc::clone(&link);
    let looking = tokio::spawn(async move { of.purges_after(0, LONG).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    eventually("the look", async || (server.value(waits).await == "1").then_some(())).await;
    link.trip();
    holder.batch_execute("COMMIT").await.unwrap();
    within("the look", looking).await.unwrap().unwrap();
    assert!(link.is_open(), "only the heartbeat closes it");
    assert!(matches!(link.purges_after(0, LONG).await, Err(LinkError::Away)));
    link.probe("SELECT 1", &[], LONG).await.unwrap();
    link.purges_after(0, LONG).await.unwrap();
}

#[tokio::test]
async fn a_dedicated_session_receives_notifications_and_is_closed_when_dropped() {
    let address = own_address().to_string();
    let server = Postgres::start_with(&[("listen_addresses", &address)]).await;
    let partition = Partition::tcp_to(&server);
    let mut listener = link(&partition, "20s").dedicated("listener", Duration::from_secs(1));
    let session = listener.session().await.unwrap();
    session.client.batch_execute("LISTEN hints").await.unwrap();
    server.sql("NOTIFY hints, 'landed'").await;
    let hint = within("the notification", session.notifications.recv()).await.unwrap();
    assert_eq!(hint.payload(), "landed");
    // With a statement that does not end.
    let statement = session.client.query_typed("SELECT pg_sleep(60)", &[]);
    tokio::time::timeout(Duration::from_millis(100), statement).await.unwrap_err();
    listener.close();
    eventually("a closed connection", async || (partition.open() == 0).then_some(())).await;
}
