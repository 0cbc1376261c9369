//! Lookups with their times, and nodes as the measurements start them.

use std::time::Duration;

use cmiot_proxy::clock::Clock;
use tokio::task::JoinSet;

use crate::harness::Nodes;
use crate::support::{Card, Connection, GatewayClient, Proxy, Response, STATUS_PATH, Setup, eventually};

/// A response and its time.
pub(crate) struct Timed {
    pub(crate) response: Response,
    pub(crate) took: Duration,
}

/// Three nodes that act together. A busy machine may take longer than the default time of a request with the database.
pub(crate) async fn three(configure: impl Fn(Setup, usize) -> Setup) -> Nodes {
    let fleet =
        Nodes::start_with(3, |setup, number| configure(setup.set("fleet.timeout", "1s"), number)).await;
    all_members(&fleet).await;
    fleet
}

/// Waits until no node is alone, and all are pacers.
pub(crate) async fn all_members(fleet: &Nodes) {
    for node in fleet.iter() {
        eventually("a member", async || {
            (node.metrics().await.value("cmiot_fleet_alone", []) == Some(0.0)).then_some(())
        })
        .await;
    }
    let count = fleet.iter().count().to_string();
    let pacers = "SELECT count(*) FROM fleet.pacer WHERE until > fleet.now()";
    eventually("all nodes to be pacers", async || (fleet.server.value(pacers).await == count).then_some(()))
        .await;
}

pub(crate) fn client(node: &Proxy) -> GatewayClient {
    GatewayClient { address: node.address, gateway: node.gateway.clone() }
}

/// Looks a card up this many times at once, spread over the nodes: the connections are open before the first request is
/// sent. Without a response if the node ended first.
pub(crate) async fn at_once(fleet: &Nodes, lookups: usize, card: &Card<String>) -> JoinSet<Option<Timed>> {
    let nodes = fleet.iter().count();
    let mut opened = Vec::new();
    for lookup in 0..lookups {
        let client = client(&fleet[lookup % nodes]);
        let request = request(&client, card);
        opened.push((client.connect().await, request));
    }
    let mut sent = JoinSet::new();
    for (connection, request) in opened {
        sent.spawn(timed(connection, request));
    }
    sent
}

/// Looks a card up on a new connection.
pub(crate) async fn once(client: GatewayClient, card: Card<String>) -> Timed {
    let request = request(&client, &card);
    timed(client.connect().await, request).await.expect("a node that runs")
}

fn request(client: &GatewayClient, card: &Card<String>) -> String {
    format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", client.sign(card).text())
}

async fn timed(mut connection: Connection, request: String) -> Option<Timed> {
    let clock = Clock::system();
    let sent = clock.monotonic();
    connection.try_send(request).await.ok()?;
    let response = connection.try_response().await?;
    Some(Timed { response, took: clock.monotonic().saturating_sub(sent) })
}

/// The time below which this percentage of the times is.
pub(crate) fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
