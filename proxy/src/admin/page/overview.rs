//! `GET /`: whether all is well, in one sentence; the conditions that need the operator; the figures of this moment.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::Parts;
use super::chart::Chart;
use super::csv;
use super::history::{self, Snapshot};
use super::moment;
use super::nodes;
use super::trends;
use super::trouble::{self, Trouble};
use super::verify::Progress;
use super::view::{self, View, Viewer, encoded};
use crate::carrier::status::AccountStatus;
use crate::clock::Time;
use crate::language::{Language, Text, text};
use crate::outcome::Outcome;

/// The period of the charts by day.
const MONTH: Duration = Duration::from_secs(31 * 24 * 3_600);
/// Accounts that the first sentence names.
const MAX_NAMED: usize = 3;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Asked {
    /// `csv` for a file of `table`: `hours`, `days`, `nodes`, or the conditions.
    format: String,
    table: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    view: View,
    headline: String,
    level: &'static str,
    troubles: Vec<Trouble>,
    figures: Vec<Figure>,
    /// The sums of the last 24 hours.
    sums: Vec<Figure>,
    is_incomplete: bool,
    last_day: Vec<Chart>,
    last_month: Vec<Chart>,
    verification: Progress,
    fleet: Option<nodes::Shown>,
}

/// A number with its name, and the page with the rows behind it.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) link: Option<String>,
}

impl Figure {
    #[expect(clippy::needless_pass_by_value, reason = "most values are numbers")]
    pub(super) fn new(name: &'static str, value: impl ToString) -> Self {
        Self { name, value: value.to_string(), link: None }
    }
}

pub(super) async fn show(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    let (view, language) = (viewer.view(), viewer.language);
    if asked.format == "csv" {
        return file(&parts, &asked.table, language).await;
    }
    let accounts = parts.admin.relay.carrier.statuses();
    let troubles = trouble::all(&parts, &accounts, language);
    let (level, headline) = headline(&parts, &accounts, &troubles);
    let now = parts.admin.relay.clock.now();
    let snapshot = parts.history(now.minus(MONTH)).await;
    let [last_day, last_month] = [trends::hours(&snapshot, now), trends::days(&snapshot, now)]
        .map(|all| trends::charts(&all, language));
    let page = Overview {
        headline: headline.of(language).to_owned(),
        level,
        troubles,
        figures: figures(&parts, &accounts, &view),
        sums: sums(&snapshot, now, &view),
        is_incomplete: !snapshot.is_complete_from(history::last_day(now)),
        last_day,
        last_month,
        fleet: nodes::read(&parts, language).await,
        verification: parts.verification.progress(language),
        view,
    };
    view::html(StatusCode::OK, &page)
}

/// A table of the page as a file.
async fn file(parts: &Parts, table: &str, language: Language) -> Response<Body> {
    let now = parts.admin.relay.clock.now();
    match table {
        "hours" => trends::file("hours.csv", &trends::hours(&parts.history(now.minus(MONTH)).await, now)),
        "days" => trends::file("days.csv", &trends::days(&parts.history(now.minus(MONTH)).await, now)),
        "nodes" => nodes::file(nodes::read(parts, language).await),
        _ => {
            let conditions = trouble::all(parts, &parts.admin.relay.carrier.statuses(), language);
            let lines = conditions
                .into_iter()
                .map(|one| [one.name, one.severity.to_owned(), one.since.unwrap_or_default(), one.text]);
            csv::response("conditions.csv", &["condition", "severity", "since", "text"], lines)
        }
    }
}

/// The sums of the last 24 hours, each with the rows behind it if the viewer may see them.
fn sums(snapshot: &Snapshot, now: Time, view: &View) -> Vec<Figure> {
    let (sums, t) = (trends::last_day(snapshot, now), view.t);
    let since = encoded(&moment::local(history::last_day(now)));
    let link = |conditions: &str| view.audits.then(|| format!("/page/audit?since={since}{conditions}"));
    let percent = sums.hit_percent().map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1} %"));
    let ms = |percent| sums.latency_ms(percent).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    vec![
        Figure { link: link(""), ..Figure::new(t.lookups, sums.lookups()) },
        Figure { link: link("&outcome=hit"), ..Figure::new(t.hit_share, percent) },
        Figure { link: link("&kind=calls"), ..Figure::new(t.carrier_calls, sums.all_calls()) },
        Figure { link: link("&outcome=refused"), ..Figure::new(t.refused, sums.outcome(Outcome::Refused)) },
        Figure { link: link("&outcome=failed"), ..Figure::new(t.failed, sums.outcome(Outcome::Failed)) },
        Figure { link: link("&kind=refusals"), ..Figure::new(t.counted, sums.counted) },
        Figure { link: link(""), ..Figure::new("p50", ms(50)) },
        Figure { link: link(""), ..Figure::new("p99", ms(99)) },
    ]
}

/// The figures of this moment.
fn figures(parts: &Parts, accounts: &[AccountStatus], view: &View) -> Vec<Figure> {
    let (admin, t) = (&parts.admin, view.t);
    let audit = &admin.store.audit;
    let anchor = audit.anchored_at().map_or_else(|| t.none_yet.to_owned(), moment::shown);
    let mut all = vec![
        Figure::new(t.cached, admin.relay.cache.entry_count()),
        Figure::new(t.flights, admin.relay.flights.in_flight()),
        Figure::new(t.connections, admin.connections.open_connections()),
        Figure::new(t.waiting_rows, audit.queued()),
        Figure {
            link: view.audits.then(|| "/page/audit#verification".to_owned()),
            ..Figure::new(t.last_anchor, anchor)
        },
    ];
    let left = accounts.iter().filter_map(|one| Some((one, one.budget.remaining_today?)));
    let figure = |(one, left): (&AccountStatus, u64)| Figure {
        link: Some("/page/accounts".to_owned()),
        ..Figure::new(t.calls_left, format!("{}: {left}", one.account.name))
    };
    all.extend(left.take(MAX_NAMED).map(figure));
    all
}

/// Whether the proxy answers, and from which source; then the budget of the accounts.
fn headline(parts: &Parts, accounts: &[AccountStatus], troubles: &[Trouble]) -> (&'static str, Text) {
    let admin = &parts.admin;
    if admin.stop.is_cancelled() {
        let text = text!(
            "Draining: requests in flight are answered, new connections are not accepted.",
            "正在排空：进行中的请求会得到答复，不再接受新连接。"
        );
        return ("error", text);
    }
    if let Some(unready) = admin.store.unready() {
        let Text { english, chinese } = unready.text();
        let english = format!("Not answering: {english}.");
        return ("error", Text { english, chinese: format!("无法应答：{chinese}。") });
    }
    let blocked = accounts.iter().filter(|account| account.is_blocked()).count();
    let (level, state) = if blocked == accounts.len() {
        let text = text!(
            "Answering from the cache alone: no call to the carrier can be made now.",
            "只能用缓存应答：目前无法调用运营商。"
        );
        ("error", text)
    } else if !admin.store.audit.healthy() {
        let text = text!(
            "Answering without records: the audit cannot be written.",
            "正在应答但没有记录：审计无法写入。"
        );
        ("error", text)
    } else if troubles.iter().any(|trouble| trouble.level == "error") {
        ("error", text!("Answering, and something needs you.", "正在应答，但有问题需要处理。"))
    } else if troubles.is_empty() {
        ("good", text!("Answering.", "正常应答。"))
    } else {
        ("warning", text!("Answering, with a warning.", "正在应答，有警告。"))
    };
    let mut sentences = vec![state];
    let limited = accounts
        .iter()
        .filter_map(|one| Some((one, one.budget.attainable_today?, one.budget.remaining_today?)));
    for (account, all, left) in limited.take(MAX_NAMED) {
        let percent = left.saturating_mul(100) / all.max(1);
        sentences.push(text!(
            "Account {name}: {percent} % of today's calls left.",
            "账号 {name}：今日调用剩余 {percent}%。",
            name = account.account.name
        ));
    }
    let english = sentences.iter().map(|text| text.english.as_str()).collect::<Vec<_>>().join(" ");
    let chinese = sentences.iter().map(|text| text.chinese.as_str()).collect();
    (level, Text { english, chinese })
}
