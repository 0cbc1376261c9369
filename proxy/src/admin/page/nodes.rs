//! The nodes of a fleet, as its database has them: read by a connection of the page's own, so that a page costs the lookups
//! of the node nothing, and kept for some seconds.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::Response;

use super::Parts;
use super::csv;
use crate::clock::timeout;
use crate::config::fleet::Fleet as Settings;
use crate::language::{Language, Text, text};
use crate::store::fleet::operate::{ClientUsage, Overview, Session, Usage};

/// The time for which a reading is shown again.
const KEPT: Duration = Duration::from_secs(5);
/// The longest time for which a page waits for the database.
const WAIT: Duration = Duration::from_secs(2);
/// Rows of clients by node that a page lists.
const MAX_CLIENTS: usize = 200;

/// The last reading.
#[derive(Default)]
pub(super) struct Nodes(tokio::sync::Mutex<Option<Reading>>);

#[derive(Clone)]
struct Reading {
    /// By the monotonic clock.
    at: Duration,
    found: Result<Arc<(Overview, Usage)>, Text>,
}

/// The fleet, for templates.
#[derive(Default)]
pub(super) struct Shown {
    /// The node that has read it, and its age.
    pub(super) source: String,
    pub(super) problem: Option<String>,
    pub(super) nodes: Vec<Node>,
    pub(super) days: Vec<Day>,
    pub(super) clients: Vec<Client>,
    /// Set if there are more clients, in words.
    pub(super) cut: Option<String>,
}

pub(super) struct Node {
    pub(super) number: i16,
    pub(super) class: &'static str,
    pub(super) state: String,
    pub(super) is_this: bool,
    pub(super) seconds: String,
    pub(super) beats: String,
    pub(super) purge: String,
}

/// The calls of an account today, of all nodes.
pub(super) struct Day {
    pub(super) account: String,
    pub(super) leased: i64,
    pub(super) reserved: i64,
    pub(super) limit: Option<u64>,
}

pub(super) struct Client {
    pub(super) appid: String,
    pub(super) node: i16,
    pub(super) transids: i64,
}

/// The nodes of the fleet; none without a fleet.
pub(super) async fn read(parts: &Parts, language: Language) -> Option<Shown> {
    let config = parts.admin.relay.config.load_full();
    let settings = config.fleet.as_ref()?;
    let clock = &parts.admin.relay.clock;
    let reading = {
        let mut kept = parts.nodes.0.lock().await;
        let is_recent = |reading: &&Reading| clock.monotonic().saturating_sub(reading.at) < KEPT;
        match kept.as_ref().filter(is_recent) {
            Some(reading) => reading.clone(),
            None => {
                let found = match timeout(WAIT, ask(settings)).await {
                    Ok(found) => found,
                    Err(_) => Err(text!("the database did not reply within 2 s", "数据库 2 秒内没有应答")),
                };
                kept.insert(Reading { at: clock.monotonic(), found }).clone()
            }
        }
    };
    let number = config.carrier.node;
    let seconds = clock.monotonic().saturating_sub(reading.at).as_secs();
    let is_alone = parts.admin.relay.fleet.as_ref().is_some_and(|fleet| fleet.life().is_none());
    let source = match is_alone {
        true => text!(
            "as node {number} read it from the database {seconds} s ago; node {number} acts without the others",
            "节点 {number} 在 {seconds} 秒前从数据库读取；节点 {number} 正在脱离集群单独运行"
        ),
        false => text!(
            "as node {number} read it from the database {seconds} s ago",
            "节点 {number} 在 {seconds} 秒前从数据库读取"
        ),
    };
    let source = source.of(language).to_owned();
    let (overview, usage) = match &reading.found {
        Ok(found) => (&found.0, &found.1),
        Err(problem) => {
            let problem = Some(problem.of(language).to_owned());
            return Some(Shown { source, problem, ..Shown::default() });
        }
    };
    let accounts: Vec<_> = config.accounts().collect();
    let days = usage.days.iter().map(|day| {
        let account = accounts.iter().find(|account| account.appid.as_str() == day.appid);
        Day {
            account: account.map_or_else(|| day.appid.clone(), |account| account.name.to_string()),
            leased: day.leased,
            reserved: day.reserved,
            limit: account.and_then(|account| account.calls_per_day).map(std::num::NonZeroU64::get),
        }
    });
    Some(Shown {
        source,
        problem: None,
        nodes: overview.nodes.iter().map(|node| shown(node, number, language)).collect(),
        days: days.collect(),
        clients: usage.clients.iter().take(MAX_CLIENTS).map(Client::of).collect(),
        cut: cut(usage.clients.len(), language),
    })
}

impl Client {
    fn of(usage: &ClientUsage) -> Self {
        Self { appid: usage.appid.clone(), node: usage.node, transids: usage.transids }
    }
}

/// The words for a list that ends before its last client.
fn cut(found: usize, language: Language) -> Option<String> {
    let text = || text!("Only the first {MAX_CLIENTS} rows are shown.", "只显示前 {MAX_CLIENTS} 行。");
    (found > MAX_CLIENTS).then(|| text().of(language).to_owned())
}

/// The nodes as a file; without a fleet, without lines.
pub(super) fn file(fleet: Option<Shown>) -> Response<Body> {
    let nodes = fleet.map(|fleet| fleet.nodes).unwrap_or_default();
    let lines = nodes
        .into_iter()
        .map(|node| [node.number.to_string(), node.state, node.seconds, node.beats, node.purge]);
    csv::response("nodes.csv", &["node", "state", "seconds_since_start", "heartbeats", "last_purge"], lines)
}

/// The calls of today by account, of all nodes, as a file; without a fleet, without lines.
pub(super) fn days_file(fleet: Option<Shown>) -> Response<Body> {
    let days = fleet.map(|fleet| fleet.days).unwrap_or_default();
    let lines = days.into_iter().map(|day| {
        let limit = day.limit.map(|limit| limit.to_string()).unwrap_or_default();
        [day.account, day.leased.to_string(), limit, day.reserved.to_string()]
    });
    let head = ["account", "calls_today", "calls_per_day", "reserves"];
    csv::response("fleet-accounts.csv", &head, lines)
}

/// The clients by node as a file, as many as the page lists; without a fleet, without lines.
pub(super) fn clients_file(fleet: Option<Shown>) -> Response<Body> {
    let clients = fleet.map(|fleet| fleet.clients).unwrap_or_default();
    let lines = clients
        .into_iter()
        .map(|client| [client.appid, client.node.to_string(), client.transids.to_string()]);
    csv::response("fleet-clients.csv", &["appid", "node", "transids"], lines)
}

async fn ask(settings: &Settings) -> Result<Arc<(Overview, Usage)>, Text> {
    let read = async {
        let session = Session::connect(settings, None).await?;
        // One more than a page lists shows that there are more.
        let usage = session.usage(MAX_CLIENTS as i64 + 1, WAIT).await?;
        Ok::<_, crate::store::fleet::operate::OperateError>((session.overview().await?, usage))
    };
    read.await.map(Arc::new).map_err(|error| {
        text!(
            "{error}; `cmiot-proxy fleet status` asks again, and the alarm `alone` says what the node does meanwhile",
            "{error}；`cmiot-proxy fleet status` 可再次查询，告警 `alone` 说明节点此时的行为"
        )
    })
}

fn shown(node: &crate::store::fleet::operate::Node, own: u8, language: Language) -> Node {
    let (class, state) = match &node.life {
        None => ("hint", text!("never started", "从未启动")),
        Some(life) if life.is_alive => ("badge good", text!("alive", "在线")),
        Some(life) if life.gone => ("badge", text!("ended", "已结束")),
        Some(_) => ("badge error", text!("silent", "无心跳")),
    };
    let number = |read: fn(&crate::store::fleet::operate::Life) -> i64| {
        node.life.as_ref().map_or_else(String::new, |life| read(life).to_string())
    };
    Node {
        number: node.number,
        class,
        state: state.of(language).to_owned(),
        is_this: node.number == i16::from(own),
        seconds: number(|life| life.seconds),
        beats: number(|life| life.beats),
        purge: number(|life| life.applied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_clients_says_that_it_is_cut() {
        assert_eq!(cut(MAX_CLIENTS, Language::English), None);
        let more = MAX_CLIENTS + 1;
        assert_eq!(cut(more, Language::English).as_deref(), Some("Only the first 200 rows are shown."));
        assert_eq!(cut(more, Language::Chinese).as_deref(), Some("只显示前 200 行。"));
    }
}
