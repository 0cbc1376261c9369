//! `GET /page/clients`: the clients with their requests of the last 24 hours, sortable, filterable, those in trouble first.
//!
//! A client is in trouble if one in ten of its requests of the last 24 hours was refused, or if its clock is off by more than
//! half of its window.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use cmiot_signer::AppId;
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::Parts;
use super::csv;
use super::history;
use super::moment;
use super::nodes;
use super::sums::ClientHour;
use super::view::{self, View, Viewer, encoded};
use crate::clock::Time;
use crate::config::Config;
use crate::outcome::Outcome;

/// Rows of a page.
const PAGE: usize = 500;
/// Reasons that a row names.
const MAX_REASONS: usize = 3;

/// The filter and the order of the rows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// The beginning of the appid, or a part of the group.
    q: String,
    sort: String,
    /// Set if only clients in trouble are to be shown.
    trouble: String,
    page: usize,
    /// `csv` for a file of `table`: `fleet`, or the clients of this node.
    format: String,
    table: String,
}

#[derive(Template)]
#[template(path = "clients.html")]
struct Clients {
    view: View,
    asked: Asked,
    q: String,
    only_trouble: bool,
    rows: Vec<Client>,
    total: usize,
    in_trouble: usize,
    fill: Vec<Fill>,
    since: String,
    csv: String,
    next: Option<String>,
    previous: Option<String>,
    is_behind: bool,
    fleet: Option<nodes::Shown>,
}

/// The used part of a group's share of the replay table.
struct Fill {
    group: String,
    used: usize,
    most: usize,
}

/// A client, for its template.
struct Client {
    appid: String,
    group: String,
    requests: u64,
    hits: u64,
    stale: u64,
    calls: u64,
    refused: u64,
    failed: u64,
    /// The most frequent reasons with their counts.
    reasons: Vec<(Arc<str>, u32)>,
    last: i64,
    /// Seconds by which its clock is ahead.
    ahead: Option<i64>,
    is_trouble: bool,
    is_revoked: bool,
    link: String,
}

impl Client {
    fn last_shown(&self) -> String {
        if self.last == 0 { String::new() } else { moment::shown(Time::from_micros(self.last)) }
    }

    fn reasons_shown(&self) -> String {
        let all = self.reasons.iter().map(|(reason, count)| format!("{reason} {count}"));
        all.collect::<Vec<_>>().join(", ")
    }

    fn ahead_shown(&self) -> String {
        self.ahead.map_or_else(String::new, |seconds| format!("{seconds:+} s"))
    }
}

pub(super) async fn show(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    if asked.format == "csv" && asked.table == "fleet" {
        return nodes::clients_file(nodes::read(&parts, viewer.language).await);
    }
    let now = parts.admin.relay.clock.now();
    let since = history::last_day(now);
    let snapshot = parts.history(since).await;
    let mut sums: HashMap<AppId, ClientHour> = HashMap::new();
    for hour in snapshot.hours.values() {
        for (client, more) in &hour.clients {
            add(sums.entry(*client).or_default(), more);
        }
    }
    let config = parts.admin.relay.config.load_full();
    let mut rows = rows(&config, &sums, since);
    let in_trouble = rows.iter().filter(|row| row.is_trouble).count();
    let only_trouble = !asked.trouble.is_empty();
    let q = asked.q.trim().to_ascii_lowercase();
    rows.retain(|row| {
        let matches =
            row.appid.to_ascii_lowercase().starts_with(&q) || row.group.to_ascii_lowercase().contains(&q);
        matches && (row.is_trouble || !only_trouble)
    });
    sort(&mut rows, &asked.sort);
    if asked.format == "csv" {
        return to_csv(&rows);
    }
    let total = rows.len();
    let first = asked.page.saturating_mul(PAGE).min(total);
    let rows: Vec<_> = rows.into_iter().skip(first).take(PAGE).collect();
    let link = |page: usize, more: &str| {
        let trouble = if only_trouble { "&trouble=1" } else { "" };
        format!(
            "/page/clients?q={}&sort={}{trouble}&page={page}{more}",
            encoded(&asked.q),
            encoded(&asked.sort)
        )
    };
    let shares = parts.admin.relay.admit.group_shares();
    let fill = shares.used.iter().map(|(group, used)| Fill {
        group: group.to_string(),
        used: *used,
        most: shares.max_per_group,
    });
    let page = Clients {
        view: viewer.view(),
        q: asked.q.clone(),
        only_trouble,
        next: (first + rows.len() < total).then(|| link(asked.page + 1, "")),
        previous: (asked.page > 0).then(|| link(asked.page - 1, "")),
        csv: link(0, "&format=csv"),
        fill: fill.collect(),
        rows,
        total,
        in_trouble,
        fleet: nodes::read(&parts, viewer.language).await,
        since: moment::shown(since),
        is_behind: !snapshot.is_complete_from(since),
        asked,
    };
    view::html(StatusCode::OK, &page)
}

fn add(sums: &mut ClientHour, more: &ClientHour) {
    for (sum, more) in sums.outcomes.iter_mut().zip(more.outcomes) {
        *sum = sum.saturating_add(more);
    }
    for (reason, count) in &more.reasons {
        *sums.reasons.entry(Arc::clone(reason)).or_default() += count;
    }
    if more.last >= sums.last {
        (sums.last, sums.ahead) = (more.last, more.ahead.or(sums.ahead));
    }
}

/// Every listed client, and every other one that has sent a request.
fn rows(config: &Config, sums: &HashMap<AppId, ClientHour>, since: Time) -> Vec<Client> {
    let nothing = ClientHour::default();
    let others = sums.keys().filter(|appid| !config.clients.contains_key(*appid));
    let all = config.clients.keys().chain(others);
    all.map(|appid| {
        let sums = sums.get(appid).unwrap_or(&nothing);
        let count = |outcome: Outcome| u64::from(sums.outcomes[outcome as usize]);
        let requests = Outcome::ALL.iter().map(|&outcome| count(outcome)).sum();
        let refused = count(Outcome::Refused);
        let listed = config.clients.get(appid);
        let window = match listed {
            Some(client) => client.permissions.window,
            None => config.derived.iter().find_map(|derived| derived.rights.window),
        };
        let is_off =
            sums.ahead.zip(window).is_some_and(|(ahead, window)| ahead.unsigned_abs() > window.as_secs() / 2);
        let since = encoded(&moment::local(since));
        Client {
            group: listed.map(|client| client.group.to_string()).unwrap_or_default(),
            requests,
            hits: count(Outcome::Hit),
            stale: count(Outcome::Stale),
            calls: count(Outcome::Miss),
            refused,
            failed: count(Outcome::Failed),
            reasons: most(&sums.reasons),
            last: sums.last,
            ahead: sums.ahead,
            is_trouble: is_off || (refused > 0 && refused * 10 >= requests),
            is_revoked: config.revoked.contains(appid),
            link: format!("/page/audit?client={}&since={since}", encoded(appid.as_str())),
            appid: appid.as_str().to_owned(),
        }
    })
    .collect()
}

/// The most frequent reasons with their counts.
fn most(reasons: &BTreeMap<Arc<str>, u32>) -> Vec<(Arc<str>, u32)> {
    let mut all: Vec<_> = reasons.iter().map(|(reason, count)| (Arc::clone(reason), *count)).collect();
    all.sort_by_key(|(_, count)| Reverse(*count));
    all.truncate(MAX_REASONS);
    all
}

/// Those in trouble first, unless another order is asked for; the appid decides between equals.
fn sort(rows: &mut [Client], by: &str) {
    rows.sort_by(|one, other| one.appid.cmp(&other.appid));
    match by {
        "name" => {}
        "group" => rows.sort_by(|one, other| one.group.cmp(&other.group)),
        "requests" => rows.sort_by_key(|row| Reverse(row.requests)),
        "refused" => rows.sort_by_key(|row| Reverse(row.refused)),
        "failed" => rows.sort_by_key(|row| Reverse(row.failed)),
        "last" => rows.sort_by_key(|row| Reverse(row.last)),
        "ahead" => rows.sort_by_key(|row| Reverse(row.ahead.map_or(0, i64::unsigned_abs))),
        _ => rows.sort_by_key(|row| (!row.is_trouble, Reverse(row.requests))),
    }
}

fn to_csv(rows: &[Client]) -> Response<Body> {
    let head = [
        "appid",
        "group",
        "requests",
        "hits",
        "stale",
        "misses",
        "refused",
        "failed",
        "reasons",
        "last",
        "clock_ahead_s",
        "trouble",
    ];
    let lines = rows.iter().map(|row| {
        [
            row.appid.clone(),
            row.group.clone(),
            row.requests.to_string(),
            row.hits.to_string(),
            row.stale.to_string(),
            row.calls.to_string(),
            row.refused.to_string(),
            row.failed.to_string(),
            row.reasons_shown(),
            row.last_shown(),
            row.ahead.map(|ahead| ahead.to_string()).unwrap_or_default(),
            u8::from(row.is_trouble).to_string(),
        ]
    });
    csv::response("clients.csv", &head, lines)
}
