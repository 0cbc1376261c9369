//! Liveness, readiness and metrics.
//!
//! - `GET /live`: 200 while the process runs.
//! - `GET /ready`: 503 if and only if an authenticated request would be refused although its response is fresh: the
//!   audit accepts no record under `on_failure = "refuse"`, the store has failed permanently, or the proxy drains. Every
//!   other condition that needs the operator is a line `alarm: ...` with 200.
//! - `GET /metrics`: OpenMetrics text for Prometheus.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::{Admin, response};
use crate::alarms::Condition;
use crate::log;
use crate::metrics::Gauges;
use crate::store::Store;

pub(super) fn live() -> Response<Full<Bytes>> {
    response::text(StatusCode::OK, "live\n")
}

/// Responds without waiting for a disk: with the known state, while a background task tests `state.db`.
pub(super) fn ready(admin: &Admin) -> Response<Full<Bytes>> {
    let drains = admin.stop.is_cancelled().then(|| "the proxy drains".to_owned());
    if let Some(reason) = drains.or_else(|| admin.store.unready().map(|unready| unready.to_string())) {
        return response::text(
            StatusCode::SERVICE_UNAVAILABLE,
            with_alarms(admin, format!("not ready: {reason}\n")),
        );
    }
    admin.probe.run(&admin.store, admin.relay.clock.monotonic());
    response::text(StatusCode::OK, with_alarms(admin, "ready\n".to_owned()))
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
                    format!(
                        "cannot assign transids to carrier calls; only cached responses are served: {error}"
                    ),
                ),
            }
            probe.running.store(false, Ordering::Release);
        });
    }
}

/// The first line, followed by a line per alarm.
fn with_alarms(admin: &Admin, first: String) -> String {
    alarms(admin).into_iter().fold(first, |all, one| format!("{all}alarm: {one}\n"))
}

/// The alarms: conditions of the process, then refusals by the carrier.
fn alarms(admin: &Admin) -> Vec<String> {
    let own = admin
        .store
        .alarms
        .list()
        .into_iter()
        .map(|(condition, text)| format!("{}: {text}", condition.name()));
    own.chain(admin.relay.carrier.alarms().iter().map(ToString::to_string)).collect()
}

pub(super) fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    let shares = admin.relay.admit.group_shares();
    let gauges = Gauges {
        cache_entries: admin.relay.cache.entry_count(),
        flights: admin.relay.flights.in_flight(),
        waiters: admin.relay.flights.waiting(),
        connections: admin.connections.open_connections(),
        used_transids: admin.relay.admit.used_transids(),
        used_transids_by_group: shares.used,
        max_transids_per_group: shares.max_per_group,
        audit_queue: admin.store.audit.queued(),
        audit_wal: admin.store.audit.wal_bytes(),
        audit_unrecorded: admin.store.audit.missed(),
        log_lines_dropped: log::dropped(),
        alarms: alarms(admin).len(),
    };
    let mut response =
        response::text(StatusCode::OK, admin.metrics.render(&gauges, &admin.relay.carrier.gauges()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    response
}
