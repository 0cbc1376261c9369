//! M8 and M12: the copy of the audit at the database, while the database is killed, and under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cmiot_proxy::clock::Clock;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Node, Nodes, Partition, Postgres, create_tables, fleet_setup, folder_of};
use crate::load::{all_members, client};
use crate::support::{GatewayClient, Proxy, STATUS_PATH, Setup, card_number, carrier, eventually, segments};
use crate::wrk;
use crate::{Line, Options};

/// The tables of rows.
const TABLES: [&str; 5] = ["record", "call", "refused", "gap", "note"];

/// Gateways of each node in M8.
const GATEWAYS: u32 = 4;

/// Lookups per second of M12, their cards, and the greatest lag that is allowed, in seconds.
const RATE: u32 = 5_000;
const CARDS: u32 = 500;
const LAG: f64 = 2.0;

/// M8: the database is killed again and again under load, and its copy of the audit is complete afterwards.
pub(crate) async fn killed_server(options: &Options) -> Vec<Line> {
    let mut fleet = Nodes::start_with(3, |setup, _| setup.set("fleet.audit", "all")).await;
    all_members(&fleet).await;
    let kills = options.scaled(50, 2);
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let mut load = JoinSet::new();
    for gateway in 0..3 * GATEWAYS {
        let node = client(&fleet[gateway as usize % 3]);
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        load.spawn(async move {
            let mut lost = 0_u64;
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Hits and misses: every fifth card is new.
                let card = card_number(gateway * 100_000 + number / 5);
                lost += u64::from(node.look_up(&card).await.code() != "0");
                sent.fetch_add(1, Ordering::Relaxed);
            }
            lost
        });
    }
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(500)).await;
        fleet.server.kill();
        fleet.server.start_again().await;
    }
    stop.store(true, Ordering::Relaxed);
    let lost: u64 = load.join_all().await.into_iter().sum();
    all_members(&fleet).await;
    wait_for_copies(&fleet).await;
    let sent = sent.load(Ordering::Relaxed);
    let mut different = Vec::new();
    let mut records = 0;
    for (index, node) in fleet.iter().enumerate() {
        for table in TABLES {
            let local = local(node, table);
            if table == "record" {
                records += local;
            }
            let copied = format!(
                "SELECT count(*) FROM audit.{table} r JOIN audit.chain c ON c.id = r.chain WHERE c.node = {}",
                index + 1
            );
            let copied = fleet.server.value(&copied).await;
            if copied != local.to_string() {
                different.push(format!("node {} {table}: {local}, copied {copied}", index + 1));
            }
        }
    }
    let report = fleet[0].command(&["fleet", "verify", "--user", "cmiot_owner", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&report.out).unwrap_or_default();
    let chains = report["chains"].as_array().cloned().unwrap_or_default();
    let whole = chains.iter().filter(|chain| chain["hashed"] == chain["batches"]).count();
    let what = format!("the database is killed {kills} times, {sent} lookups");
    vec![
        Line::counted(format!("{what}: without a response of the carrier"), "0", lost.to_string(), lost == 0),
        Line::counted(
            format!("{what}: records in the audits of the nodes"),
            "as many",
            records.to_string(),
            u64::try_from(records).is_ok_and(|records| records == sent),
        ),
        Line::counted(
            "rows of each table and node that are not copied once",
            "0",
            if different.is_empty() { "0".to_owned() } else { different.join("; ") },
            different.is_empty(),
        ),
        Line::counted(
            "chains at the database, and those whose every batch has its hash",
            "3, 3",
            format!("{}, {whole}", chains.len()),
            chains.len() == 3 && whole == 3,
        ),
    ]
}

/// Waits until the copy has the last row of each node, and no node writes further rows.
async fn wait_for_copies(fleet: &Nodes) {
    for (index, node) in fleet.iter().enumerate() {
        let position = format!(
            "SELECT coalesce((SELECT last FROM audit.chain WHERE node = {} ORDER BY id DESC LIMIT 1), -1)",
            index + 1
        );
        eventually("the copy", async || {
            let last = last(node).to_string();
            (fleet.server.value(&position).await == last).then_some(())
        })
        .await;
    }
}

/// The rows of a table in all segments of a node.
fn local(node: &Node, table: &str) -> i64 {
    let count = |connection: &Connection| {
        connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    opened(node).iter().map(count).sum()
}

/// The last row of a node's audit.
fn last(node: &Node) -> i64 {
    let newest = opened(node).pop().expect("a segment");
    newest.query_row("SELECT coalesce(max(last), 0) FROM batch", [], |row| row.get(0)).unwrap()
}

fn opened(node: &Node) -> Vec<Connection> {
    let open = |path| Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    segments(&node.data()).into_iter().map(open).collect()
}

/// M12: the lag of a copy of all rows, at a steady rate of hits.
pub(crate) async fn lag(options: &Options) -> Vec<Line> {
    let server = Postgres::start().await;
    create_tables(&server).await;
    let carrier = carrier().await;
    let partition = Partition::to(&server);
    // Transids are checked here alone: the database has the copy to do.
    let setup =
        fleet_setup(&carrier, &partition, 1, 1).set("fleet.audit", "all").set("fleet.replay", "local");
    let setup = setup
        .set("gateway.max_requests_per_connection", 1_000_000_000)
        .set("fleet.hosts", vec![format!("unix:{}", server.socket_folder().display())]);
    let proxy = start(setup).await;
    for card in 0..CARDS {
        proxy.look_up(&card_number(card)).await.assert_normal();
    }
    eventually("the copy of the first rows", async || (lag_of(&proxy).await < 0.5).then_some(())).await;
    let seconds = options.scaled(30, 3);
    let load = tokio::spawn(at_rate(client(&proxy), seconds));
    let mut greatest: f64 = 0.0;
    let clock = Clock::system();
    let begun = clock.monotonic();
    while clock.monotonic().saturating_sub(begun) < Duration::from_secs(seconds.into()) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        greatest = greatest.max(lag_of(&proxy).await);
    }
    let answered = load.await.expect("a load that ends");
    vec![Line::counted(
        format!(
            "audit = \"all\", {:.0} hits per second for {seconds} s: greatest lag of the copy",
            answered as f64 / f64::from(seconds)
        ),
        "< 2 s at 5,000 per second",
        format!("{greatest:.2} s"),
        greatest < LAG,
    )]
}

/// Sends hits at a steady rate over connections that stay open, each at most one at a time. Returns their number.
async fn at_rate(node: GatewayClient, seconds: u32) -> u64 {
    const CONNECTIONS: u32 = 64;
    let mut load = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let node = node.clone();
        load.spawn(async move {
            let mut connected = node.connect().await;
            let mut due = tokio::time::interval(Duration::from_secs(1) * CONNECTIONS / RATE);
            let lookups = RATE * seconds / CONNECTIONS;
            for lookup in 0..lookups {
                due.tick().await;
                let query = node.sign(&card_number((connection * lookups + lookup) % CARDS));
                let request = format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text());
                connected.send(request).await;
                connected.response().await.assert_normal();
            }
            u64::from(lookups)
        });
    }
    load.join_all().await.into_iter().sum()
}

async fn start(setup: Setup) -> Proxy {
    let proxy = wrk::start(folder_of(&setup), setup).await;
    eventually("a member", async || {
        (proxy.metrics().await.value("cmiot_fleet_alone", []) == Some(0.0)).then_some(())
    })
    .await;
    proxy
}

/// The lag of the copy, in seconds.
async fn lag_of(proxy: &Proxy) -> f64 {
    proxy.metrics().await.value("cmiot_fleet_audit_lag_seconds", []).unwrap_or(f64::INFINITY)
}
