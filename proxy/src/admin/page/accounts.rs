//! `GET /page/accounts`: the budget of each account with a forecast for midnight, its queue, its breakers, its password.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::Parts;
use super::csv;
use super::history::{self, Snapshot};
use super::moment;
use super::nodes;
use super::sums::{HOUR, last_minute};
use super::trouble::{self, next_try, reason};
use super::view::{self, View, Viewer, encoded};
use crate::carrier::status::AccountStatus;
use crate::clock::Time;
use crate::language::{Language, text};

/// Microseconds of a day, and the offset of its midnight.
const DAY: i64 = 24 * HOUR;
const ZONE: i64 = 8 * HOUR;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Asked {
    /// `csv` for a file of `table`: `fleet`, or the accounts of this node.
    format: String,
    table: String,
}

#[derive(Template)]
#[template(path = "accounts.html")]
struct Accounts {
    view: View,
    accounts: Vec<Account>,
    fleet: Option<nodes::Shown>,
}

/// An account, for its template.
struct Account {
    name: String,
    group: String,
    /// The class and the words of its state.
    level: &'static str,
    state: String,
    day: Option<Day>,
    rate: Rate,
    waiting: usize,
    breakers: Vec<Breaker>,
    password: String,
    troubles: Vec<String>,
    /// The calls of the last 24 hours, and the page that lists them.
    calls: u64,
    link: String,
}

/// The budget of today.
struct Day {
    limit: u64,
    used: u64,
    percent: u64,
    /// Calls at midnight, if they go on as they did since the last one.
    forecast: String,
    is_short: bool,
    reserve: Option<u64>,
    /// The page that lists the calls of today.
    link: String,
}

/// The calls per second.
struct Rate {
    /// The mean of the last whole minute.
    mean: String,
    limit: Option<u32>,
}

struct Breaker {
    name: &'static str,
    operation: &'static str,
    reason: String,
    next: String,
}

pub(super) async fn show(
    State(parts): State<Arc<Parts>>,
    Extension(viewer): Extension<Arc<Viewer>>,
    Query(asked): Query<Asked>,
) -> Response<Body> {
    let language = viewer.language;
    if asked.format == "csv" && asked.table == "fleet" {
        return nodes::days_file(nodes::read(&parts, language).await);
    }
    let now = parts.admin.relay.clock.now();
    let since = history::last_day(now);
    let snapshot = parts.history(since).await;
    let accounts = parts.admin.relay.carrier.statuses();
    let accounts: Vec<_> =
        accounts.iter().map(|status| shown(status, &snapshot, now, since, language)).collect();
    if asked.format == "csv" {
        return file(&accounts);
    }
    let fleet = nodes::read(&parts, language).await;
    view::html(StatusCode::OK, &Accounts { accounts, fleet, view: viewer.view() })
}

/// The accounts as a file.
fn file(accounts: &[Account]) -> Response<Body> {
    const HEAD: [&str; 14] = [
        "account",
        "group",
        "state",
        "calls_today",
        "calls_per_day",
        "reserve_of_node",
        "forecast",
        "calls_per_second_last_minute",
        "calls_per_second",
        "waiting",
        "password",
        "calls_24h",
        "breakers",
        "conditions",
    ];
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let lines = accounts.iter().map(|account| {
        let day = account.day.as_ref();
        let breakers = account.breakers.iter().map(|one| {
            let parts = [one.name, one.operation, &one.reason, &one.next];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        });
        [
            account.name.clone(),
            account.group.clone(),
            account.state.clone(),
            number(day.map(|day| day.used)),
            number(day.map(|day| day.limit)),
            number(day.and_then(|day| day.reserve)),
            day.map(|day| day.forecast.clone()).unwrap_or_default(),
            account.rate.mean.clone(),
            number(account.rate.limit.map(u64::from)),
            account.waiting.to_string(),
            account.password.clone(),
            account.calls.to_string(),
            breakers.collect::<Vec<_>>().join("; "),
            account.troubles.join("; "),
        ]
    });
    csv::response("accounts.csv", &HEAD, lines)
}

fn shown(status: &AccountStatus, snapshot: &Snapshot, now: Time, since: Time, language: Language) -> Account {
    let troubles: Vec<_> =
        trouble::of_account(status).iter().map(|text| text.of(language).to_owned()).collect();
    let (level, state) = match (status.is_blocked(), status.open.is_empty()) {
        (true, _) => ("error", text!("no calls now", "暂停调用")),
        (false, false) => ("warning", text!("calls with restrictions", "调用受限")),
        (false, true) => ("good", text!("makes calls", "正常调用")),
    };
    let name = status.account.name.to_string();
    let calls = snapshot.hours.values().filter_map(|hour| hour.calls.get(&status.account.name)).sum();
    let mean = f64::from(last_minute(&snapshot.hours, &name, now.as_micros())) / 60.0;
    let all = status.account.passwords.len();
    let breakers = status.open.iter().map(|(open, wait)| Breaker {
        name: open.breaker,
        operation: open.operation.unwrap_or_default(),
        reason: open.failure.as_ref().map(reason).unwrap_or_default().of(language).to_owned(),
        next: next_try(*wait).of(language).to_owned(),
    });
    Account {
        level,
        state: state.of(language).to_owned(),
        day: day(status, now, language),
        rate: Rate { mean: format!("{mean:.1}"), limit: status.budget.per_second },
        waiting: status.budget.waiting,
        breakers: breakers.collect(),
        password: text!("{used} of {all}", "第 {used} 个，共 {all} 个", used = status.password)
            .of(language)
            .to_owned(),
        troubles,
        calls,
        link: calls_since(&name, since),
        group: status.group.to_string(),
        name,
    }
}

/// The page that lists the calls of an account since a time.
fn calls_since(account: &str, since: Time) -> String {
    let since = encoded(&moment::local(since));
    format!("/page/audit?kind=calls&account={}&since={since}", encoded(account))
}

/// The budget of today, with the forecast from the calls since midnight.
fn day(status: &AccountStatus, now: Time, language: Language) -> Option<Day> {
    let (limit, left) = (status.budget.per_day?, status.budget.remaining_today?);
    let used = status.budget.attainable_today.unwrap_or(limit).saturating_sub(left);
    let passed = (now.as_micros() + ZONE).rem_euclid(DAY);
    let midnight = Time::from_micros(now.as_micros() - passed);
    // In the first hour of a day too few calls were made for a forecast.
    let forecast = (passed >= HOUR).then(|| (used as f64 * DAY as f64 / passed as f64) as u64);
    let is_short = forecast.is_some_and(|forecast| forecast > limit);
    let said = match forecast {
        Some(calls) if is_short => {
            text!(
                "{calls} calls at midnight at this rate: more than the limit",
                "按此速度到零点为 {calls} 次：超过限额"
            )
        }
        Some(calls) => text!("{calls} calls at midnight at this rate", "按此速度到零点为 {calls} 次"),
        None => text!("no forecast in the first hour of the day", "每日第一小时内不作预测"),
    };
    Some(Day {
        limit,
        used,
        percent: used.saturating_mul(100) / limit.max(1),
        forecast: said.of(language).to_owned(),
        is_short,
        reserve: status.budget.reserve_today,
        link: calls_since(&status.account.name, midnight),
    })
}
