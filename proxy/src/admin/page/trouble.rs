//! Conditions that need the operator, in words with the remedy: the alarms, and the breakers and budgets that prevent calls.

use std::time::Duration;

use crate::alarms::Severity;
use crate::carrier::health::{FailedCall, OpenBreaker};
use crate::carrier::status::AccountStatus;
use crate::language::{Language, Text, text};

use super::Parts;
use super::texts::Texts;

/// A condition, for its template.
pub(super) struct Trouble {
    pub(super) name: String,
    /// The class of its style: `error` or `warning`.
    pub(super) level: &'static str,
    pub(super) severity: &'static str,
    pub(super) since: Option<String>,
    pub(super) text: String,
}

/// The conditions that hold now, errors first.
pub(super) fn all(parts: &Parts, accounts: &[AccountStatus], language: Language) -> Vec<Trouble> {
    let t = Texts::of(language);
    // Those of the accounts follow from their breakers, which may have changed since the last tick.
    parts.admin.relay.carrier.report_accounts();
    let mut all: Vec<Trouble> = Vec::new();
    for alarm in parts.admin.store.alarms.list() {
        let (level, severity) = match alarm.severity {
            Severity::Error => ("error", t.error),
            Severity::Warning => ("warning", t.warning),
        };
        all.push(Trouble {
            name: alarm.condition.name().to_owned(),
            level,
            severity,
            since: Some(alarm.since.to_string()),
            text: alarm.text.of(language).to_owned(),
        });
    }
    for account in accounts {
        for text in of_account(account) {
            let text = text.of(language).to_owned();
            let name = account.account.name.to_string();
            all.push(Trouble { name, level: "warning", severity: t.warning, since: None, text });
        }
    }
    all.sort_by_key(|trouble| trouble.level != "error");
    all
}

/// The reasons for which an account makes no calls, but for refused credentials, which are an alarm.
pub(super) fn of_account(account: &AccountStatus) -> Vec<Text> {
    let name = &account.account.name;
    let mut all: Vec<Text> =
        account.open.iter().filter_map(|(breaker, wait)| of_breaker(name, breaker, *wait)).collect();
    if account.budget.remaining_today == Some(0) {
        all.push(text!(
            "account {name}: the calls of today are spent; cached responses are served until midnight at UTC+8; raise \
             calls_per_day only if the carrier has granted more",
            "账号 {name}：今日的调用已用完；到 UTC+8 零点为止只提供缓存的响应；只有运营商批准了更多调用时才提高 calls_per_day"
        ));
    }
    all
}

fn of_breaker(name: &str, breaker: &OpenBreaker, wait: Option<Duration>) -> Option<Text> {
    let (why, next) = (breaker.failure.as_ref().map(reason).unwrap_or_default(), next_try(wait));
    let (why_en, why_zh, next_en, next_zh) = (why.english, why.chinese, next.english, next.chinese);
    match breaker.breaker {
        "transport" => Some(Text {
            english: format!(
                "account {name}: the carrier does not respond as it should ({why_en}), {next_en}; meanwhile cached responses \
                 are served where they may be stale; find the cause with `cmiot-proxy check --live`"
            ),
            chinese: format!(
                "账号 {name}：运营商响应异常（{why_zh}），{next_zh}；在此期间按允许的陈旧程度提供缓存的响应；请用 \
                 `cmiot-proxy check --live` 查找原因"
            ),
        }),
        "cool-down" => Some(Text {
            english: format!(
                "account {name}: the carrier throttles it ({why_en}), {next_en}; lower calls_per_second to the carrier's \
                 limit, or ask the carrier for more"
            ),
            chinese: format!(
                "账号 {name}：运营商正在限流（{why_zh}），{next_zh}；请把 calls_per_second 降到运营商的限额，或向运营商申请更多"
            ),
        }),
        _ => None,
    }
}

/// The last failure, in words.
pub(super) fn reason(failure: &FailedCall) -> Text {
    match (&failure.code, failure.fault) {
        (Some(code), _) => text!("code {code}", "返回码 {code}"),
        (None, Some(fault)) => text!("no reply: {fault}", "无应答：{fault}"),
        (None, None) => text!("no reply", "无应答"),
    }
}

/// The time of the next call, in words.
pub(super) fn next_try(wait: Option<Duration>) -> Text {
    match wait {
        Some(wait) => {
            let seconds = wait.as_secs() + 1;
            text!("the next call may leave in {seconds} s", "{seconds} 秒后可再次调用")
        }
        None => text!("the next call tests it", "下一次调用将进行试探"),
    }
}
