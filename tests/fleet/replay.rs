//! A transid is accepted once by all nodes together: the statement and its batches, over links that stall, break and lose
//! replies.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cmiot_proxy::app::open_store;
use cmiot_proxy::clock::{Clock, ManualClock, Time};
use cmiot_proxy::config::Config;
use cmiot_proxy::fleet::replay::{AloneReport, BATCH, SharedReplay, UsedTransid, Verdict};
use cmiot_proxy::fleet::{Fleet, Local};
use cmiot_proxy::metrics::Metrics;
use cmiot_proxy::store::Store;
use cmiot_proxy::store::fleet::nodes::Identity;
use cmiot_proxy::wire::transid::TransidKey;
use cmiot_signer::{AppId, Sequence, Stamp, Transid};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::harness::{Mode, Partition, Postgres, configuration, create_tables};
use crate::support::{eventually, within};

/// The time at which the tests begin, in Unix seconds.
const START: u64 = 1_768_449_600;

/// The window of the clients.
const WINDOW: Duration = Duration::from_secs(300);

#[tokio::test]
async fn of_three_nodes_one_accepts_each_of_10_000_transids() {
    let server = Postgres::start().await;
    let nodes = nodes(&server, 3).await;
    let all: Vec<_> = (1..=10_000).map(transid).collect();
    let mut checks = JoinSet::new();
    for (node, shift) in nodes.iter().zip([0, 3_000, 7_000]) {
        // Another order at each node.
        for transid in all[shift..].iter().chain(&all[..shift]).copied() {
            let shared = Arc::clone(&node.shared);
            checks.spawn(async move { (transid, shared.check(transid).verdict().await) });
        }
    }
    let mut accepted = HashMap::new();
    for (transid, verdict) in within("the verdicts", checks.join_all()).await {
        assert!(matches!(verdict, Verdict::New | Verdict::Used), "{verdict:?}");
        *accepted.entry(transid).or_insert(0) += usize::from(verdict == Verdict::New);
    }
    assert_eq!(accepted.len(), all.len());
    assert!(accepted.values().all(|count| *count == 1));
    assert_eq!(server.value("SELECT count(*) FROM fleet.used_transid").await, "10000");
}

#[tokio::test]
async fn two_clients_may_use_one_stamp_and_sequence() {
    let server = Postgres::start().await;
    let [one, other] = two(&server).await;
    let transid = transid(1);
    let of_another = UsedTransid { client: AppId::parse("GW0002").unwrap(), ..transid };
    assert_eq!(one.check(transid).await, Verdict::New);
    assert_eq!(other.check(of_another).await, Verdict::New);
    assert_eq!(other.check(transid).await, Verdict::Used);
}

#[tokio::test]
async fn a_process_may_repeat_its_insertion_and_the_next_one_may_not() {
    let server = Postgres::start().await;
    let [node, _] = two(&server).await;
    let transid = transid(1);
    for _ in 0..2 {
        assert_eq!(node.check(transid).await, Verdict::New);
    }
    let restarted = Node::start(&server, 1);
    assert_eq!(restarted.check(transid).await, Verdict::Used);
}

#[tokio::test]
async fn while_the_database_stalls_each_request_is_alone_and_may_be_sent_again() {
    let server = Postgres::start().await;
    let [node, other] = two(&server).await;
    assert_eq!(node.check(transid(0)).await, Verdict::New);
    node.partition.set(Mode::Stall);
    let all = (1..=100).map(transid);
    assert_eq!(node.check_all(all.clone()).await, [(Verdict::Alone, 100)].into());
    assert!(node.shared.fleet().link.is_open());
    // What waited in the stalled socket was never read.
    node.partition.cut().await;
    assert_eq!(node.settle(all.clone()).await, [(Verdict::New, 100)].into());
    assert_eq!(other.settle(all).await, [(Verdict::Used, 100)].into());
}

#[tokio::test]
async fn a_lost_reply_refuses_the_transid_elsewhere_and_accepts_it_here() {
    let server = Postgres::start().await;
    let [node, other] = two(&server).await;
    assert_eq!(node.check(transid(0)).await, Verdict::New);
    node.partition.set(Mode::StallResponses);
    assert_eq!(node.check_all([transid(1)].into_iter()).await, [(Verdict::Alone, 1)].into());
    node.partition.cut().await;
    let rows = "SELECT count(*) FROM fleet.used_transid";
    eventually("its row", async || (server.value(rows).await == "2").then_some(())).await;
    assert_eq!(other.check(transid(1)).await, Verdict::Used);
    assert_eq!(node.check(transid(1)).await, Verdict::New);
}

#[tokio::test]
async fn connections_that_break_under_load_lose_no_transid_and_accept_none_twice() {
    let server = Postgres::start().await;
    let [node, other] = two(&server).await;
    for round in 0..5 {
        let all = (round * 1_000..(round + 1) * 1_000).map(transid);
        let (checked, ()) = tokio::join!(node.settle(all.clone()), node.partition.cut());
        assert_eq!(checked, [(Verdict::New, 1_000)].into());
        assert_eq!(other.settle(all).await, [(Verdict::Used, 1_000)].into());
    }
}

#[tokio::test]
async fn a_killed_database_forgets_no_transid() {
    let mut server = Postgres::start().await;
    let [node, other] = two(&server).await;
    assert_eq!(node.check(transid(0)).await, Verdict::New);
    server.kill();
    assert_eq!(node.check_all((1..=100).map(transid)).await, [(Verdict::Alone, 100)].into());
    server.start_again().await;
    assert_eq!(other.check(transid(0)).await, Verdict::Used);
    assert_eq!(node.settle((1..=100).map(transid)).await, [(Verdict::New, 100)].into());
}

#[tokio::test]
async fn what_a_node_accepted_alone_is_refused_elsewhere_afterwards_and_counted_if_it_came_too_late() {
    let server = Postgres::start().await;
    let [node, other] = two(&server).await;
    let count = i32::try_from(BATCH).unwrap() * 2 + 500;
    let (replayed, rest) = (1..=count / 2, count / 2 + 1..=count);
    (1..=count).map(transid).for_each(|transid| node.shared.accept_alone(transid));
    let [expected, unseen] = [&replayed, &rest].map(|range| range.clone().count());
    assert_eq!(other.settle(replayed.map(transid)).await, [(Verdict::New, expected)].into());
    node.partition.set(Mode::Refuse);
    within("an error", node.shared.insert_alone()).await.unwrap_err();
    assert_eq!(node.shared.alone_count(), count as usize, "nothing is lost by an error");
    node.partition.set(Mode::Pass);
    let report = AloneReport { inserted: unseen, twice: expected, unlisted: 0 };
    assert_eq!(node.insert_alone().await, Some(report));
    assert_eq!(node.insert_alone().await, None);
    assert_eq!(other.settle(rest.map(transid)).await, [(Verdict::Used, unseen)].into());
    let found = "SELECT count(*) FROM fleet.accepted_twice WHERE node = 1 AND other = 2";
    assert_eq!(server.value(found).await, expected.to_string());

    // A restarted node lists them again.
    let restarted = Node::start(&server, 1);
    (1..=count).map(transid).for_each(|transid| restarted.shared.accept_alone(transid));
    assert_eq!(restarted.insert_alone().await, None, "they are there already");
    assert_eq!(server.value(found).await, expected.to_string());
}

#[tokio::test]
async fn a_transid_is_removed_after_the_widest_window_and_refused_from_then_on() {
    let server = Postgres::start().await;
    let [node, other] = two(&server).await;
    set_time(&server, START).await;
    other.sweep(WINDOW * 2).await;
    let (first, later) = (transid_at(START, 1), transid_at(START + 900, 1));
    for transid in [first, later] {
        assert_eq!(node.check(transid).await, Verdict::New);
    }
    let rows = "SELECT count(*) FROM fleet.used_transid";

    // At the edge of the other node's window, and of the margin for slow clocks.
    set_time(&server, START + 660).await;
    node.clock.advance(Duration::from_secs(660));
    node.sweep(WINDOW).await;
    assert_eq!(other.check(first).await, Verdict::Used);

    // One clock that is ahead removes nothing.
    set_time(&server, START + 86_400).await;
    node.sweep(WINDOW).await;
    assert_eq!(other.check(first).await, Verdict::Used);
    set_time(&server, START + 660).await;
    node.clock.advance(Duration::from_secs(1));
    node.sweep(WINDOW).await;
    assert_eq!(other.check(first).await, Verdict::Used);

    // Both: the floor rises, and the row stays until no statement sees an older floor.
    set_time(&server, START + 661).await;
    node.sweep(WINDOW).await;
    for node in [&node, &other] {
        assert_eq!(node.check(first).await, Verdict::Expired);
        assert_eq!(node.check(transid_at(START, 2)).await, Verdict::Expired);
    }
    assert_eq!(server.value(rows).await, "2");
    node.clock.advance(Duration::from_secs(60));
    node.sweep(WINDOW).await;
    assert_eq!(server.value(rows).await, "1");
    for (node, verdict) in [(&node, Verdict::New), (&other, Verdict::Used)] {
        assert_eq!(node.check(first).await, Verdict::Expired);
        assert_eq!(node.check(later).await, verdict);
    }

    // The floor never falls.
    set_time(&server, START - 86_400).await;
    node.sweep(WINDOW).await;
    assert_eq!(other.check(first).await, Verdict::Expired);
}

#[tokio::test]
async fn many_rows_are_removed_by_one_sweep() {
    let server = Postgres::start().await;
    let [node, _] = two(&server).await;
    let first = transid_at(START, 1).number;
    server
        .sql(&format!(
            "INSERT INTO fleet.used_transid SELECT {first} + n, 1, 1, 'GW0001' FROM generate_series(1, 20000) n"
        ))
        .await;
    set_time(&server, START + 3_600).await;
    for _ in 0..2 {
        node.clock.advance(Duration::from_secs(3_600));
        node.sweep(WINDOW).await;
    }
    assert_eq!(server.value("SELECT count(*) FROM fleet.used_transid").await, "0");
}

#[tokio::test]
async fn without_a_floor_no_transid_is_accepted() {
    let server = Postgres::start().await;
    let [node, _] = two(&server).await;
    server.sql("DELETE FROM fleet.transid_floor").await;
    assert_eq!(node.check(transid(1)).await, Verdict::Expired);
}

/// A node without its proxy: its link and its checks.
struct Node {
    shared: Arc<SharedReplay>,
    clock: ManualClock,
    partition: Partition,
    _store: Store,
    _folder: TempDir,
}

impl Node {
    fn start(server: &Postgres, number: u8) -> Self {
        let partition = Partition::to(server);
        let (clock, hand) = Clock::manual(Time::from_secs(START.try_into().unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &partition);
        let store = open_store(&config, false, &clock).unwrap();
        let metrics = Metrics::new();
        let local = Local {
            identity: Identity {
                node: number,
                store: [number; 32],
                folder: [number; 32],
                place: String::new(),
            },
            clock: clock.clone(),
            alarms: store.alarms.clone(),
            audit: Arc::clone(&store.audit),
            metrics: Arc::clone(&metrics),
        };
        let fleet = Arc::new(Fleet::new(&config.fleet.unwrap(), local));
        let shared = Arc::new(SharedReplay::new(fleet, metrics, clock));
        Self { shared, clock: hand, partition, _store: store, _folder: folder }
    }

    /// The verdict on one transid, after further attempts if the machine is slow.
    async fn check(&self, transid: UsedTransid) -> Verdict {
        let counts = self.settle([transid].into_iter()).await;
        counts.into_keys().next().expect("one transid")
    }

    /// Checks all at once. Returns the number of each verdict.
    async fn check_all(&self, transids: impl Iterator<Item = UsedTransid>) -> HashMap<Verdict, usize> {
        let checks: Vec<_> = transids.map(|transid| self.shared.check(transid)).collect();
        let mut counts = HashMap::new();
        for check in checks {
            *counts.entry(within("a verdict", check.verdict()).await).or_default() += 1;
        }
        counts
    }

    /// Checks all at once, and again those without a verdict. Returns the number of each verdict.
    async fn settle(&self, transids: impl Iterator<Item = UsedTransid>) -> HashMap<Verdict, usize> {
        let mut counts = HashMap::new();
        let mut left: Vec<_> = transids.collect();
        while !left.is_empty() {
            let checks: Vec<_> = left.iter().map(|transid| (*transid, self.shared.check(*transid))).collect();
            left.clear();
            for (transid, check) in checks {
                match within("a verdict", check.verdict()).await {
                    Verdict::Alone => left.push(transid),
                    verdict => *counts.entry(verdict).or_default() += 1,
                }
            }
            self.close_breaker().await;
        }
        counts
    }

    /// Does what a heartbeat does after the database is back.
    async fn close_breaker(&self) {
        let link = &self.shared.fleet().link;
        while link.probe("SELECT 1", &[], Duration::from_secs(10)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn sweep(&self, window: Duration) {
        let first_number = |unix| TransidKey::first_of(unix).number();
        eventually("a sweep", async || self.shared.sweep(window, first_number).await.ok()).await;
    }

    async fn insert_alone(&self) -> Option<AloneReport> {
        eventually("an insertion", async || self.shared.insert_alone().await.ok()).await
    }
}

/// Nodes with the numbers 1, 2 and so on over a database with its tables.
async fn nodes(server: &Postgres, count: u8) -> Vec<Node> {
    create_tables(server).await;
    for number in 1..=count {
        server.sql(&format!("INSERT INTO fleet.node (node, store) VALUES ({number}, '')")).await;
    }
    (1..=count).map(|number| Node::start(server, number)).collect()
}

async fn two(server: &Postgres) -> [Node; 2] {
    nodes(server, 2).await.try_into().ok().expect("two")
}

/// The configuration of a node behind this partition.
fn config(folder: &Path, partition: &Partition) -> Config {
    configuration(folder, vec![partition.host()], |setup| setup.set("fleet.timeout", "2s"))
}

/// Sets the clock of the database.
async fn set_time(server: &Postgres, unix: u64) {
    let body = format!("SELECT to_timestamp({unix})");
    server
        .sql(&format!(
            "CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS '{body}'"
        ))
        .await;
}

/// The transid of a client with this sequence.
fn transid(sequence: i32) -> UsedTransid {
    transid_at(START, u32::try_from(sequence).unwrap() + 1)
}

fn transid_at(unix: u64, sequence: u32) -> UsedTransid {
    let client = AppId::parse("GW0001").unwrap();
    let (stamp, sequence) = (Stamp::from_unix(unix).unwrap(), Sequence::new(sequence).unwrap());
    UsedTransid { number: TransidKey::of(&Transid::new(&client, stamp, sequence)).number(), client }
}
