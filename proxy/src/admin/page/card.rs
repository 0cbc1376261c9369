//! `/page/card`: the entry of one card, when it ends, and its history.
//!
//! A card number is posted once. The server keeps it for the session under a random handle, and the page has the handle: so
//! no page and no URL has the number, and reload and back work.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, Form, Query, State};
use cmiot_signer::{Card, CardKind};
use http_body_util::BodyExt;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::Parts;
use super::guard;
use super::mask;
use super::moment;
use super::rows::Table;
use super::session::{self, Id};
use super::timeline::Timeline;
use super::view::{self, View, Viewer, encoded};
use super::{see_other, words};
use crate::admin::cache;
use crate::cache::freshness::Freshness;
use crate::cache::{EntryInfo, Key, PurgeMode};
use crate::clock::Time;
use crate::config::Config;
use crate::config::file::Role;
use crate::language::{Language, Text, text};
use crate::operation::USER_STATUS;
use crate::store::cache::Selection;

/// Cards that are kept, of all sessions.
const MAX_CARDS: usize = 1_024;

/// The cards that sessions look at.
#[derive(Default)]
pub(super) struct Cards(Mutex<VecDeque<Kept>>);

/// A card under its handle.
#[derive(Clone)]
struct Kept {
    handle: String,
    session: Option<Id>,
    card: Card,
    key: Key,
    /// The result of the last act.
    notice: Option<Text>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Search {
    kind: String,
    number: String,
    group: String,
    operation: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Asked {
    /// The handle of a card.
    of: String,
    /// `csv` for a file of `table`: `changes`, or the lookups.
    format: String,
    table: String,
}

#[derive(Deserialize)]
pub(super) struct Purge {
    of: String,
    mode: String,
    #[serde(default)]
    confirmed: String,
}

#[derive(Template)]
#[template(path = "card.html")]
struct CardPage {
    view: View,
    groups: Vec<String>,
    operations: Vec<String>,
    problem: Option<String>,
    found: Option<Found>,
}

/// A card, for its template.
struct Found {
    handle: String,
    masked: String,
    group: String,
    operation: &'static str,
    notice: Option<String>,
    entry: Option<Entry>,
    changes: Vec<String>,
    lookups: Vec<(Table, Table)>,
    problem: Option<String>,
    /// The files of both.
    changes_csv: String,
    lookups_csv: String,
}

struct Entry {
    state: String,
    class: &'static str,
    code: String,
    status: String,
    age: String,
    answered: String,
    fresh_until: String,
    stale_until: String,
    tier: String,
    body: String,
}

#[derive(Template)]
#[template(path = "purge.html")]
struct Confirm {
    view: View,
    handle: String,
    mode: String,
    question: String,
}

impl Cards {
    fn keep(&self, kept: Kept) {
        let mut all = self.all();
        if all.len() >= MAX_CARDS {
            all.pop_front();
        }
        all.push_back(kept);
    }

    /// The card of a handle of this session, with its notice, which is shown once.
    fn take(&self, handle: &str, session: Option<Id>) -> Option<Kept> {
        let mut all = self.all();
        let kept = all.iter_mut().find(|kept| kept.handle == handle && kept.session == session)?;
        let found = kept.clone();
        kept.notice = None;
        Some(found)
    }

    fn notice(&self, handle: &str, notice: Text) {
        if let Some(kept) = self.all().iter_mut().find(|kept| kept.handle == handle) {
            kept.notice = Some(notice);
        }
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        // Nothing under this lock can panic in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a posted card, and redirects to its page.
pub(super) async fn search(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Form(asked): Form<Search>,
) -> Response<Body> {
    let handle = session::random();
    match (asked.key(&parts), handle) {
        (Ok((card, key)), Some(handle)) => {
            let to = format!("/page/card?of={handle}");
            parts.cards.keep(Kept { handle, session: viewer.session, card, key, notice: None });
            see_other(&to)
        }
        (Err(problem), _) => page(&parts, &viewer, StatusCode::BAD_REQUEST, Some(&problem), None),
        (_, None) => {
            let problem = text!("the system has no random numbers", "系统无法提供随机数");
            page(&parts, &viewer, StatusCode::INTERNAL_SERVER_ERROR, Some(&problem), None)
        }
    }
}

pub(super) async fn show(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    if asked.of.is_empty() {
        return page(&parts, &viewer, StatusCode::OK, None, None);
    }
    let Some(kept) = parts.cards.take(&asked.of, viewer.session) else { return unknown(&parts, &viewer) };
    if asked.format == "csv" {
        return file(&parts, &viewer, kept.card, &asked.table).await;
    }
    let found = find(&parts, &viewer, kept).await;
    page(&parts, &viewer, StatusCode::OK, None, Some(found))
}

/// A table of the card's history as a file.
async fn file(parts: &Parts, viewer: &Viewer, card: Card, table: &str) -> Response<Body> {
    if !viewer.roles.has(Role::Audit) {
        return view::message_for(viewer, StatusCode::FORBIDDEN, &guard::missing(Role::Audit));
    }
    match Timeline::read(parts, card).await {
        Ok(timeline) if table == "changes" => timeline.changes_file(),
        Ok(timeline) => timeline.lookups_file(),
        Err(problem) => view::message_for(viewer, StatusCode::SERVICE_UNAVAILABLE, &problem),
    }
}

/// Looks the card up again at the carrier, although its entry may be fresh; without a response the entry stays as it is.
pub(super) async fn refresh(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Form(asked): Form<Asked>,
) -> Response<Body> {
    let Some(kept) = parts.cards.take(&asked.of, viewer.session) else { return unknown(&parts, &viewer) };
    let known = parts.admin.relay.cache.inspect(&kept.key).await.map(|info| info.entry.answered_at);
    let result = json(cache::fetch_key(&parts.admin, &kept.key, known, &viewer.who).await).await;
    let notice = match result["outcome"].as_str() {
        Some("fetched") => {
            text!("the carrier was asked: one call of the account is spent", "已询问运营商：账号用去一次调用")
        }
        Some("fresh") => text!(
            "another node or request has just asked: no call was spent",
            "其他节点或请求刚刚问过：没有用去调用"
        ),
        _ => {
            let words = words::of_reason(result["reason"].as_str().unwrap_or_default());
            let Text { english, chinese } = words;
            Text {
                english: format!("not refreshed: {english}"), chinese: format!("未能刷新：{chinese}")
            }
        }
    };
    parts.cards.notice(&asked.of, notice);
    see_other(&format!("/page/card?of={}", encoded(&asked.of)))
}

/// Asks for a confirmation, and then purges the card's entry, in a fleet on all nodes.
pub(super) async fn purge(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Form(asked): Form<Purge>,
) -> Response<Body> {
    let Some(kept) = parts.cards.take(&asked.of, viewer.session) else { return unknown(&parts, &viewer) };
    let mode = if asked.mode == "soft" { PurgeMode::Soft } else { PurgeMode::Hard };
    if asked.confirmed != "yes" {
        let card = kept.card.masked().to_string();
        let question = match mode {
            PurgeMode::Soft => text!(
                "Mark the entry of {card} stale? It is then served only while the carrier fails; the next lookup costs a call.",
                "把 {card} 的条目标记为陈旧？之后只在运营商故障时提供，下一次查询会用去一次调用。"
            ),
            PurgeMode::Hard => text!(
                "Remove the entry of {card}? The next lookup costs a call, and fails if the carrier does.",
                "删除 {card} 的条目？下一次查询会用去一次调用；运营商故障时查询会失败。"
            ),
        };
        let page = Confirm {
            question: question.of(viewer.language).to_owned(),
            view: viewer.view(),
            handle: asked.of,
            mode: if mode == PurgeMode::Soft { "soft" } else { "hard" }.to_owned(),
        };
        return view::html(StatusCode::OK, &page);
    }
    let purged = cache::purge_selected(&parts.admin, selection(&kept.key), mode, false, &viewer.who).await;
    let result = json(purged).await;
    let notice = match (result["memory"].as_u64(), result["error"].as_str()) {
        (Some(memory), _) => purged_notice(memory, &result),
        (None, error) => {
            let error = error.unwrap_or("unknown");
            text!("not purged: {error}", "未能清除：{error}")
        }
    };
    parts.cards.notice(&asked.of, notice);
    see_other(&format!("/page/card?of={}", encoded(&asked.of)))
}

/// The result of a purge: counts, nodes that have not applied it, and whether it is in the audit.
fn purged_notice(memory: u64, result: &Value) -> Text {
    let file = result["file"].as_u64().unwrap_or_default();
    let Text { mut english, mut chinese } =
        text!("purged: {memory} in memory, {file} in the file", "已清除：内存 {memory} 条，文件 {file} 条");
    let nodes = ["waiting", "away"].into_iter().flat_map(|name| result["fleet"][name].as_array());
    let nodes: Vec<_> = nodes.flatten().map(Value::to_string).collect();
    if !nodes.is_empty() {
        let nodes = nodes.join(", ");
        english.push_str(&format!("; not applied yet by nodes {nodes}"));
        chinese.push_str(&format!("；以下节点尚未执行：{nodes}"));
    }
    if result["recorded"] == false {
        english.push_str("; not recorded in the audit");
        chinese.push_str("；未写入审计");
    }
    Text { english, chinese }
}

/// Every entry of the card under its operation, whatever the parameters.
fn selection(key: &Key) -> Selection {
    Selection {
        card: Some(key.card),
        group: Some((&*key.group).into()),
        operation: Some(key.operation.name.into()),
        ..Selection::default()
    }
}

async fn json(response: Response<http_body_util::Full<bytes::Bytes>>) -> Value {
    // It is whole, and in memory.
    let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    body.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
}

impl Search {
    fn key(&self, parts: &Parts) -> Result<(Card, Key), Text> {
        let kinds = [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi];
        let kind = kinds.into_iter().find(|kind| kind.as_str() == self.kind).unwrap_or(CardKind::Msisdn);
        // The number is not repeated: the error names its rule alone.
        let card = Card::parse(kind, self.number.trim())
            .map_err(|_| text!("this is not a card number of that kind", "这不是该类型的卡号"))?;
        let config = parts.admin.relay.config.load();
        let operation = match self.operation.as_str() {
            "" => USER_STATUS,
            name => {
                config.operations.named(name).ok_or_else(|| text!("no such operation", "没有这个能力"))?
            }
        };
        let group = match self.group.as_str() {
            "" => config.groups.keys().next().filter(|_| config.groups.len() == 1),
            name => config.groups.get_key_value(name).map(|(name, _)| name),
        };
        let group = group.ok_or_else(|| text!("choose a group", "请选择分组"))?;
        Ok((card, Key::new(group, operation, &config.canonical(&card))))
    }
}

fn unknown(parts: &Parts, viewer: &Viewer) -> Response<Body> {
    let problem =
        text!("this session does not know that card: enter it again", "当前会话中没有这张卡：请重新输入");
    page(parts, viewer, StatusCode::NOT_FOUND, Some(&problem), None)
}

fn page(
    parts: &Parts,
    viewer: &Viewer,
    status: StatusCode,
    problem: Option<&Text>,
    found: Option<Found>,
) -> Response<Body> {
    let config = parts.admin.relay.config.load();
    let mut groups: Vec<_> = config.groups.keys().map(ToString::to_string).collect();
    groups.sort();
    let page = CardPage {
        groups,
        operations: lookups(&config),
        problem: problem.map(|problem| problem.of(viewer.language).to_owned()),
        found,
        view: viewer.view(),
    };
    view::html(status, &page)
}

/// The names of the configured operations that are no actions, the user-status lookup first.
fn lookups(config: &Config) -> Vec<String> {
    let names = config.operations.names();
    let is_lookup =
        |name: &&str| config.operations.named(name).is_some_and(crate::operation::Operation::is_lookup);
    let mut names: Vec<_> = names.split(", ").filter(is_lookup).map(str::to_owned).collect();
    names.sort_by_key(|name| name != USER_STATUS.name);
    names
}

async fn find(parts: &Parts, viewer: &Viewer, kept: Kept) -> Found {
    let (view, language) = (viewer.view(), viewer.language);
    let may_see = view.operates || view.audits;
    let now = parts.admin.relay.clock.now();
    let entry = if may_see { parts.admin.relay.cache.inspect(&kept.key).await } else { None };
    let read = if view.audits { Timeline::read(parts, kept.card).await } else { Ok(Timeline::default()) };
    let (timeline, problem) = match read {
        Ok(timeline) => (timeline, None),
        Err(problem) => (Timeline::default(), Some(problem.of(language).to_owned())),
    };
    let file = format!("/page/card?of={}&format=csv", encoded(&kept.handle));
    Found {
        masked: kept.card.masked().to_string(),
        handle: kept.handle,
        group: kept.key.group.to_string(),
        operation: kept.key.operation.name,
        notice: kept.notice.map(|notice| notice.of(language).to_owned()),
        entry: entry.map(|info| shown(&info, now, language)),
        changes: timeline.changes(language),
        lookups: timeline.lookups(language),
        problem,
        changes_csv: format!("{file}&table=changes"),
        lookups_csv: file,
    }
}

fn shown(info: &EntryInfo, now: Time, language: Language) -> Entry {
    let (class, state) = match info.freshness {
        Some(Freshness::Fresh) => ("good", text!("a gateway gets this, fresh", "网关会得到此应答（新鲜）")),
        Some(Freshness::Revalidate) => (
            "warning",
            text!(
                "a gateway gets this, stale, while the carrier is asked",
                "网关会先得到此应答（陈旧），同时询问运营商"
            ),
        ),
        Some(Freshness::IfError) => (
            "warning",
            text!(
                "a gateway gets this only if the carrier fails or is slow",
                "只有运营商故障或缓慢时网关才会得到此应答"
            ),
        ),
        Some(Freshness::Expired) | None => {
            ("error", text!("expired: the carrier is asked", "已过期：会询问运营商"))
        }
    };
    let verdict = &info.entry.reply.verdict;
    let status = verdict.status.as_ref().map(|status| status.code().to_owned());
    let status =
        status.map(|code| format!("{code} {}", words::of_status(&code).of(language))).unwrap_or_default();
    let seconds = now.since(info.entry.answered_at).as_secs();
    let until = |at: Option<Time>| at.map_or_else(|| "-".to_owned(), moment::shown);
    let tier = if info.in_memory { text!("memory", "内存") } else { text!("file", "文件") };
    Entry {
        class,
        state: state.of(language).to_owned(),
        code: verdict.code.as_str().to_owned(),
        status,
        age: text!("{seconds} s", "{seconds} 秒").of(language).to_owned(),
        answered: moment::shown(info.entry.answered_at),
        fresh_until: until(info.fresh_until),
        stale_until: until(info.stale_until),
        tier: tier.of(language).to_owned(),
        body: mask::body(&String::from_utf8_lossy(&info.entry.reply.body)),
    }
}
