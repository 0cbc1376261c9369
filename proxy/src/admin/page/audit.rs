//! `GET /page/audit`: rows of the audit by time, client, outcome and more, newest first; `GET /page/audit/row`: one of them
//! with its carrier calls; `POST /page/audit/reveal`: the same with its card, which is a note in the audit.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, Form, Query, State};
use cmiot_signer::{Card, CardKind};
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::Parts;
use super::csv;
use super::heads;
use super::moment;
use super::rows::{self, Table};
use super::verify::Progress;
use super::view::{self, View, Viewer, encoded};
use super::words;
use crate::audit::filter;
use crate::language::{Language, Text, text};
use crate::outcome::Outcome;
use crate::store::StoreError;
use crate::store::audit::query::{
    self, CALL, Field, Fields, Filter, LOOKUP, Listed, LookupWithCalls, ShownRow, ViewColumn, timed_out,
};

/// Rows of a page, and of a file.
const PAGE: usize = 100;
const MAX_EXPORT: usize = 10_000;
/// Timeouts of a page, and of a file.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(20);

/// The filter of a page. No field is a card: those are posted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// `lookups`, `calls`, `notes` or `refusals`.
    kind: String,
    client: String,
    account: String,
    peer: String,
    transid: String,
    outcome: String,
    reason: String,
    code: String,
    status: String,
    since: String,
    until: String,
    before: String,
    format: String,
}

#[derive(Deserialize)]
pub(super) struct AskedRow {
    id: i64,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    view: View,
    asked: Asked,
    outcomes: Vec<(&'static str, String)>,
    table: Option<Table>,
    problem: Option<String>,
    older: Option<String>,
    csv: String,
    /// The greatest number of rows in a file, in words.
    file_limit: String,
    verification: Progress,
    last_anchor: String,
}

#[derive(Template)]
#[template(path = "row.html")]
struct RowPage {
    view: View,
    id: i64,
    is_lookup: bool,
    kind: &'static str,
    pairs: Vec<Pair>,
    words: Vec<String>,
    calls: Vec<Vec<Pair>>,
    /// Whether its card can be shown by asking.
    can_reveal: bool,
    revealed: Option<String>,
}

/// A column of a row that has a value.
struct Pair {
    name: &'static str,
    head: &'static str,
    value: String,
}

impl Asked {
    fn filter(&self) -> Result<Filter, Text> {
        let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let time = |name: &str, text: &str| {
            let at = some(text).map(|text| moment::parse(&text));
            at.transpose().map_err(|forms| text!("{name}: {forms}", "{name}：{forms}"))
        };
        let number = |text: String| {
            text.parse().map_err(|_| text!("before: the number of a row", "before：应为行的编号"))
        };
        let before = some(&self.before).map(number);
        filter::checked(Filter {
            card: None,
            client: some(&self.client),
            account: some(&self.account),
            peer: some(&self.peer),
            transid: some(&self.transid),
            outcome: some(&self.outcome),
            reason: some(&self.reason),
            code: some(&self.code),
            status: some(&self.status),
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            before: before.transpose()?,
        })
    }

    /// The query of a page with this filter.
    fn query(&self, more: &[(&str, &str)]) -> String {
        let fields = [
            ("kind", &self.kind),
            ("client", &self.client),
            ("account", &self.account),
            ("peer", &self.peer),
            ("transid", &self.transid),
            ("outcome", &self.outcome),
            ("reason", &self.reason),
            ("code", &self.code),
            ("status", &self.status),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let fields =
            fields.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, value.as_str()));
        let pairs = fields.chain(more.iter().copied());
        let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        format!("/page/audit?{}", pairs.join("&"))
    }

    fn listed(&self) -> Option<Listed> {
        match self.kind.as_str() {
            "calls" => Some(Listed::Calls),
            "notes" => Some(Listed::Notes),
            "refusals" => Some(Listed::Refusals),
            _ => None,
        }
    }

    fn columns(&self) -> &'static [ViewColumn] {
        self.listed().map_or(LOOKUP, Listed::columns)
    }
}

pub(super) async fn show(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    let is_file = asked.format == "csv";
    let limit = if is_file { MAX_EXPORT } else { PAGE };
    let filter = asked.filter().and_then(|filter| {
        match asked.listed().and_then(|listed| listed.unknown_field(&filter)) {
            Some(field) => {
                Err(text!("{field}: rows of this kind do not have it", "{field}：这类行没有此字段"))
            }
            None => Ok(filter),
        }
    });
    let found = match filter {
        Ok(filter) => {
            let found = find(&parts, asked.listed(), filter, limit, is_file).await;
            found.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, explain(&error)))
        }
        Err(problem) => Err((StatusCode::BAD_REQUEST, problem)),
    };
    let columns = asked.columns();
    if is_file && let Ok(rows) = &found {
        let head: Vec<_> = columns.iter().map(|column| column.name).collect();
        let name = if asked.listed().is_none() { "lookups.csv" } else { "audit.csv" };
        return csv::file(name, &head, rows.iter().map(|row| rows::masked(columns, row)));
    }
    let status = found.as_ref().map_or_else(|(status, _)| *status, |_| StatusCode::OK);
    let (table, older, problem) = match found {
        Ok(rows) => {
            let last = rows.last().and_then(|row| query::id(row)).filter(|_| rows.len() == limit);
            let older = last.map(|last| asked.query(&[("before", &last.to_string())]));
            (Some(Table::of(columns, &rows, viewer.language)), older, None)
        }
        Err((_, problem)) => (None, None, Some(problem.of(viewer.language).to_owned())),
    };
    let view = viewer.view();
    let anchored = parts.admin.store.audit.anchored_at();
    let page = AuditPage {
        outcomes: Outcome::ALL
            .map(|outcome| (outcome.name(), words::of_outcome(outcome.name()).of(viewer.language).to_owned()))
            .into(),
        table,
        problem,
        older,
        csv: asked.query(&[("format", "csv")]),
        file_limit: file_limit().of(viewer.language).to_owned(),
        verification: parts.verification.progress(viewer.language),
        last_anchor: anchored.map_or_else(|| view.t.none_yet.to_owned(), moment::shown),
        asked,
        view,
    };
    view::html(status, &page)
}

fn file_limit() -> Text {
    text!(
        "A file has the newest {MAX_EXPORT} rows at most; `cmiot-proxy audit export` writes all rows of a month.",
        "文件最多包含最新的 {MAX_EXPORT} 行；`cmiot-proxy audit export` 可导出整月的所有行。"
    )
}

/// The rows that a filter finds, on connections of their own and within a timeout.
async fn find(
    parts: &Parts,
    listed: Option<Listed>,
    filter: Filter,
    limit: usize,
    is_file: bool,
) -> Result<Vec<Fields>, StoreError> {
    let timeout = if is_file { EXPORT_TIMEOUT } else { PAGE_TIMEOUT };
    parts
        .read(timeout, move |dir, deadline| match listed {
            None => query::lookups(dir, &filter, limit, Some(deadline)),
            Some(listed) => query::list(dir, listed, &filter, limit, Some(deadline)),
        })
        .await
}

/// A failed query, in words.
pub(super) fn explain(error: &StoreError) -> Text {
    if timed_out(error) {
        return text!(
            "it took too long: name a client, or a shorter time with since and until",
            "查询用时过长：请指定客户端，或缩短 since 和 until 之间的时间"
        );
    }
    text!("the audit cannot be read: {error}", "无法读取审计：{error}")
}

pub(super) async fn row(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<AskedRow>,
) -> Response<Body> {
    match find_row(&parts, asked.id).await {
        Ok(Some(row)) => row_page(&viewer, asked.id, &row, None),
        Ok(None) => view::message_for(&viewer, StatusCode::NOT_FOUND, &no_row()),
        Err(error) => view::message_for(&viewer, StatusCode::SERVICE_UNAVAILABLE, &explain(&error)),
    }
}

/// Shows a row's card after the note about it is committed: without the note, it stays masked.
pub(super) async fn reveal(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Form(asked): Form<AskedRow>,
) -> Response<Body> {
    let row = match find_row(&parts, asked.id).await {
        Ok(Some(row)) => row,
        Ok(None) => return view::message_for(&viewer, StatusCode::NOT_FOUND, &no_row()),
        Err(error) => return view::message_for(&viewer, StatusCode::SERVICE_UNAVAILABLE, &explain(&error)),
    };
    let Some(card) = card_of(&row) else {
        let text = text!("this row has no card in the clear", "这一行没有明文卡号");
        return view::message_for(&viewer, StatusCode::NOT_FOUND, &text);
    };
    if !parts.admin.note("reveal", &viewer.who, &format!(" row={}", asked.id), Some(card)).await {
        let text = text!(
            "the card is not shown, since the note about it could not be written into the audit",
            "无法把这次查看写入审计，因此不显示卡号"
        );
        return view::message_for(&viewer, StatusCode::SERVICE_UNAVAILABLE, &text);
    }
    row_page(&viewer, asked.id, &row, Some(card.as_str().to_owned()))
}

async fn find_row(parts: &Parts, id: i64) -> Result<Option<ShownRow>, StoreError> {
    parts.read(PAGE_TIMEOUT, move |dir, _| query::row(dir, id)).await
}

fn no_row() -> Text {
    text!("the audit has no row of this number", "审计中没有这个编号的行")
}

/// The columns and the fields of a row.
fn facts(row: &ShownRow) -> (&'static [ViewColumn], &[Field], &'static str) {
    match row {
        ShownRow::Lookup(LookupWithCalls { lookup, .. }) => (LOOKUP, lookup, "lookup"),
        ShownRow::Other { kind, columns, fields } => (columns, fields, kind),
    }
}

/// The card of a row; none if the row has a hash or no card.
fn card_of(row: &ShownRow) -> Option<Card> {
    let (columns, fields, _) = facts(row);
    if !rows::text(columns, fields, "masked").is_empty() {
        return None;
    }
    let kind = rows::text(columns, fields, "kind");
    let kind =
        [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi].into_iter().find(|one| one.as_str() == kind)?;
    Card::parse(kind, &rows::text(columns, fields, "card")).ok()
}

fn row_page(viewer: &Viewer, id: i64, row: &ShownRow, revealed: Option<String>) -> Response<Body> {
    let (columns, fields, kind) = facts(row);
    let calls = match row {
        ShownRow::Lookup(found) => {
            found.calls.iter().map(|call| pairs(CALL, call, viewer.language)).collect()
        }
        ShownRow::Other { .. } => Vec::new(),
    };
    let page = RowPage {
        id,
        is_lookup: matches!(row, ShownRow::Lookup(_)),
        kind: heads::of_kind(kind, viewer.language),
        pairs: pairs(columns, fields, viewer.language),
        words: meanings(columns, fields, viewer.language),
        calls,
        can_reveal: revealed.is_none() && card_of(row).is_some(),
        revealed,
        view: viewer.view(),
    };
    view::html(StatusCode::OK, &page)
}

/// The columns of a row that have a value, with masked cards.
fn pairs(columns: &'static [ViewColumn], row: &[Field], language: Language) -> Vec<Pair> {
    let masked = rows::masked(columns, row);
    let pair = |column: &ViewColumn| Pair {
        name: column.name,
        head: heads::of_column(column.name, language),
        value: rows::text(columns, &masked, column.name),
    };
    columns.iter().map(pair).filter(|pair| !pair.value.is_empty() && pair.name != "masked").collect()
}

/// The reason and the STATUS of a row, in words.
fn meanings(columns: &[ViewColumn], row: &[Field], language: Language) -> Vec<String> {
    let reason = Some(rows::text(columns, row, "reason")).filter(|reason| !reason.is_empty());
    let status = Some(rows::text(columns, row, "status")).filter(|status| !status.is_empty());
    let reason = reason.map(|reason| words::of_reason(&reason));
    let status = status.map(|status| {
        let Text { english, chinese } = words::of_status(&status);
        Text {
            english: format!("STATUS {status}: {english}"),
            chinese: format!("STATUS {status}：{chinese}"),
        }
    });
    reason.into_iter().chain(status).map(|text| text.of(language).to_owned()).collect()
}
