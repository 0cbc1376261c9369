//! `GET /page/refusals`: the refused and failed requests of the last 24 hours by peer and reason, with the remedy.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::Parts;
use super::csv;
use super::history;
use super::moment;
use super::sums::RefusalHour;
use super::view::{self, View, Viewer, encoded};
use super::words;
use crate::clock::Time;

/// Rows of a page.
const MAX_ROWS: usize = 1_000;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// The beginning of the peer's address.
    peer: String,
    reason: String,
    format: String,
}

#[derive(Template)]
#[template(path = "refusals.html")]
struct Refusals {
    view: View,
    asked: Asked,
    reasons: Vec<String>,
    rows: Vec<Refusal>,
    since: String,
    csv: String,
    is_behind: bool,
    is_cut: bool,
}

/// The refusals of a peer for one reason, for their template.
struct Refusal {
    peer: String,
    reason: String,
    words: String,
    client: String,
    count: u64,
    last: String,
    link: String,
    counted: String,
}

pub(super) async fn show(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    let now = parts.admin.relay.clock.now();
    let since = history::last_day(now);
    let snapshot = parts.history(since).await;
    let mut sums: HashMap<(Option<Arc<str>>, Arc<str>), RefusalHour> = HashMap::new();
    for ((peer, reason), more) in snapshot.hours.values().flat_map(|hour| &hour.refusals) {
        let sum = sums.entry((peer.clone(), Arc::clone(reason))).or_default();
        sum.count += more.count;
        if more.last >= sum.last {
            (sum.last, sum.client) = (more.last, more.client.or(sum.client));
        }
    }
    let mut reasons: Vec<String> = sums.keys().map(|(_, reason)| reason.to_string()).collect();
    reasons.sort();
    reasons.dedup();
    let mut found: Vec<_> = sums
        .into_iter()
        .filter(|((peer, reason), _)| {
            let from = peer.as_deref().unwrap_or_default();
            from.starts_with(asked.peer.trim()) && (asked.reason.is_empty() || asked.reason == **reason)
        })
        .collect();
    found.sort_by(|(one, a), (other, b)| (b.count, b.last, one).cmp(&(a.count, a.last, other)));
    let is_cut = found.len() > MAX_ROWS;
    found.truncate(MAX_ROWS);
    let from = encoded(&moment::local(since));
    let rows: Vec<_> = found
        .into_iter()
        .map(|((peer, reason), sum)| {
            let of_peer = peer.as_ref().map(|peer| format!("&peer={}", encoded(peer))).unwrap_or_default();
            let query = format!("reason={}&since={from}{of_peer}", encoded(&reason));
            Refusal {
                words: words::of_reason(&reason).of(viewer.language).to_owned(),
                peer: peer.map(|peer| peer.to_string()).unwrap_or_default(),
                reason: reason.to_string(),
                client: sum.client.map(|client| client.as_str().to_owned()).unwrap_or_default(),
                count: sum.count,
                last: moment::shown(Time::from_micros(sum.last)),
                link: format!("/page/audit?{query}"),
                counted: format!("/page/audit?kind=refusals&{query}"),
            }
        })
        .collect();
    if asked.format == "csv" {
        let head = ["peer", "reason", "count", "last", "client", "remedy"];
        let lines = rows
            .into_iter()
            .map(|row| [row.peer, row.reason, row.count.to_string(), row.last, row.client, row.words]);
        return csv::response("refusals.csv", &head, lines);
    }
    let page = Refusals {
        view: viewer.view(),
        csv: format!(
            "/page/refusals?peer={}&reason={}&format=csv",
            encoded(&asked.peer),
            encoded(&asked.reason)
        ),
        asked,
        reasons,
        rows,
        since: moment::shown(since),
        is_behind: !snapshot.is_complete_from(since),
        is_cut,
    };
    view::html(StatusCode::OK, &page)
}
