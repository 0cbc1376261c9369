//! Liveness, readiness and metrics.
//!
//! - `GET /live`: 200 while the process runs.
//! - `GET /ready`: 503 if and only if an authenticated request would be refused although its response is fresh: the
//!   audit accepts no record under `on_failure = "refuse"`, the store has failed permanently, or the proxy drains. Every
//!   other condition that needs the operator is an alarm with 200: a line `alarm: ...`, or an object in JSON
//!   (`Accept: application/json`, `?format=json`). The lines are in Chinese if `Accept-Language` prefers it.
//! - `GET /metrics`: for Prometheus, in OpenMetrics for a client that accepts it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::json;

use super::{Admin, response};
use crate::alarms::{Alarm, Condition};
use crate::language::{Language, Text, text};
use crate::log;
use crate::metrics::{Format, Gauges};
use crate::store::Store;

pub(super) fn live() -> Response<Full<Bytes>> {
    response::text(StatusCode::OK, "live\n")
}

/// Responds without waiting for a disk: with the known state, while a background task tests `state.db`.
pub(super) fn ready<B>(admin: &Admin, request: &Request<B>) -> Response<Full<Bytes>> {
    let Some(as_json) = wants_json(request) else {
        return response::text(StatusCode::BAD_REQUEST, "format: json or text\n");
    };
    let drains = admin.stop.is_cancelled().then(|| text!("the proxy drains", "代理正在排空"));
    let reason = drains.or_else(|| admin.store.unready().map(|unready| unready.text()));
    if reason.is_none() {
        admin.probe.run(&admin.store, admin.relay.clock.monotonic());
    }
    let status = if reason.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let alarms = alarms(admin);
    if as_json {
        let alarms: Vec<_> = alarms.iter().map(alarm_json).collect();
        let body = json!({ "ready": reason.is_none(), "reason": reason.map(|reason| reason.english), "alarms": alarms });
        return varying(response::typed(status, "application/json", format!("{body}\n")), Language::English);
    }
    let language = Language::accepted(request_header(request.headers(), &header::ACCEPT_LANGUAGE));
    let first = match &reason {
        None => text!("ready", "就绪"),
        Some(Text { english, chinese }) => {
            Text { english: format!("not ready: {english}"), chinese: format!("未就绪：{chinese}") }
        }
    };
    let lines = std::iter::once(first).chain(alarms.iter().map(alarm_line));
    let body = lines.fold(String::new(), |all, line| all + line.of(language) + "\n");
    varying(response::text(status, body), language)
}

/// A response whose representation and language the request has selected (RFC 9110 12.5.5).
fn varying(mut response: Response<Full<Bytes>>, language: Language) -> Response<Full<Bytes>> {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Language"));
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
    response
}

/// The line of an alarm. The name of its condition is the heading of its entry in docs/operations.md.
fn alarm_line(alarm: &Alarm) -> Text {
    let (name, Text { english, chinese }) = (alarm.condition.name(), &alarm.text);
    Text { english: format!("alarm: {name}: {english}"), chinese: format!("告警：{name}：{chinese}") }
}

fn alarm_json(alarm: &Alarm) -> serde_json::Value {
    let Alarm { condition, severity, since, text } = alarm;
    json!({
        "alarm": condition.name(),
        "severity": severity.name(),
        "since": since.to_string(),
        "text": text.english,
    })
}

/// Whether the response is JSON, by `?format=` or by `Accept`; none for an unknown format.
fn wants_json<B>(request: &Request<B>) -> Option<bool> {
    let query = request.uri().query().unwrap_or_default();
    let format = query.split('&').filter_map(|pair| pair.strip_prefix("format=")).next_back();
    match format {
        Some("json") => Some(true),
        Some("text") => Some(false),
        Some(_) => None,
        None => Some(prefers_json(accept(request.headers()))),
    }
}

/// Whether an `Accept` header names JSON, and text not before it (RFC 9110 12.5.1; weights other than 0 do not matter
/// between two formats of the same facts).
fn prefers_json(accept: &str) -> bool {
    let ranges = accept.split(',').map(|range| range.trim().to_ascii_lowercase());
    let mut named = ranges.filter(|range| !range.replace(' ', "").ends_with(";q=0"));
    named
        .find(|range| ["application/json", "text/plain", "text/*"].iter().any(|name| range.starts_with(name)))
        .is_some_and(|range| range.starts_with("application/json"))
}

/// The `Accept` header, empty if it is absent.
fn accept(headers: &HeaderMap) -> &str {
    request_header(headers, &header::ACCEPT)
}

/// A header, empty if it is absent.
fn request_header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Minimum time between the starts of two probes of `state.db`.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Tests whether `state.db` accepts a commit: one test at a time, and at most one per `PROBE_INTERVAL`, for any number of
/// requests.
#[derive(Debug, Default)]
pub struct Probe {
    running: AtomicBool,
    /// The start of the last test, by the monotonic clock.
    started: Mutex<Option<Duration>>,
}

impl Probe {
    fn run(self: &Arc<Self>, store: &Arc<Store>, now: Duration) {
        {
            // No code that can panic runs under the lock.
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            let recent = started.is_some_and(|started| now.saturating_sub(started) < PROBE_INTERVAL);
            if recent || self.running.swap(true, Ordering::AcqRel) {
                return;
            }
            *started = Some(now);
        }
        let (probe, store) = (Arc::clone(self), Arc::clone(store));
        tokio::task::spawn_blocking(move || {
            match store.state.probe() {
                Ok(()) => store.alarms.clear(Condition::State),
                Err(error) => store.alarms.raise(
                    Condition::State,
                    text!(
                        "cannot assign transids to carrier calls; only cached responses are served: {error}; do not remove \
                         state.db",
                        "无法为对运营商的调用分配事务编码，只提供缓存的响应：{error}；不要删除 state.db"
                    ),
                ),
            }
            probe.running.store(false, Ordering::Release);
        });
    }
}

/// The alarms that hold now.
fn alarms(admin: &Admin) -> Vec<Alarm> {
    // Those of the accounts follow from their breakers, which may have changed since the last tick.
    admin.relay.carrier.report_accounts();
    admin.store.alarms.list()
}

pub(super) fn metrics(admin: &Admin, headers: &HeaderMap) -> Response<Full<Bytes>> {
    admin.probe.run(&admin.store, admin.relay.clock.monotonic());
    let shares = admin.relay.admit.group_shares();
    let (audit, alarms) = (&admin.store.audit, alarms(admin));
    let gauges = Gauges {
        cache_entries: admin.relay.cache.entry_count(),
        flights: admin.relay.flights.in_flight(),
        waiters: admin.relay.flights.waiting(),
        connections: admin.connections.open_connections(),
        used_transids: admin.relay.admit.used_transids(),
        used_transids_by_group: shares.used,
        max_transids: admin.relay.admit.max_transids(),
        max_transids_per_group: shares.max_per_group,
        audit_queue: audit.queued(),
        audit_wal: audit.wal_bytes(),
        audit_unrecorded: audit.missed(),
        audit_last_anchor: audit.anchored_at(),
        audit_min_free: audit.min_free(),
        store_free: audit.free_bytes(),
        log_lines_dropped: log::dropped(),
        alarms: alarms.len(),
        alarm: alarms,
    };
    let format = Format::accepted(accept(headers));
    let text = admin.metrics.render(format, &gauges, &admin.relay.carrier.gauges());
    let mut response = response::text(StatusCode::OK, text);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    // A cache between the two must not mix the formats up.
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_chosen_by_the_query_or_by_accept() {
        for (target, accept, json) in [
            ("/ready", "", Some(false)),
            ("/ready", "*/*", Some(false)),
            ("/ready", "application/json", Some(true)),
            ("/ready", "Application/JSON; charset=utf-8", Some(true)),
            ("/ready", "text/html, application/json;q=0.9", Some(true)),
            ("/ready", "text/plain, application/json", Some(false)),
            ("/ready", "application/json; q=0, text/plain", Some(false)),
            ("/ready?format=json", "text/plain", Some(true)),
            ("/ready?x=1&format=text", "application/json", Some(false)),
            ("/ready?format=yaml", "", None),
        ] {
            let request = Request::builder().uri(target).header(header::ACCEPT, accept).body(()).unwrap();
            assert_eq!(wants_json(&request), json, "{target} {accept}");
        }
    }

    #[test]
    fn openmetrics_is_sent_to_a_client_that_accepts_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Prometheus);
    }
}
