//! Whether the proxy lives, whether it can answer, and what it has counted.
//!
//! - `GET /live`: 200 while the process runs.
//! - `GET /ready`: 503 if and only if an authenticated request would be refused although its answer is fresh: the
//!   audit takes no record under `on_failure = "refuse"`, the store has failed for good, or the proxy drains. Everything
//!   else that needs the operator is a line `alarm: ...` beside 200.
//! - `GET /metrics`: OpenMetrics text, as Prometheus reads it.

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

/// Nothing here waits for a disk: what is known is told, and `state.db` is tried in the background.
pub(super) fn ready(admin: &Admin) -> Response<Full<Bytes>> {
    let drains = admin.stop.is_cancelled().then(|| "the proxy drains".to_owned());
    if let Some(why) = drains.or_else(|| admin.store.unready().map(|why| why.to_string())) {
        return response::text(
            StatusCode::SERVICE_UNAVAILABLE,
            with_alarms(admin, format!("not ready: {why}\n")),
        );
    }
    admin.probe.run(&admin.store, admin.relay.clock.monotonic());
    response::text(StatusCode::OK, with_alarms(admin, "ready\n".to_owned()))
}

/// The age up to which a result of the probe of `state.db` is used again.
const BELIEVED: Duration = Duration::from_secs(1);

/// Tries whether `state.db` takes a commit: one at a time, and at most once in `BELIEVED`, however often it is asked for.
#[derive(Debug, Default)]
pub struct Probe {
    running: AtomicBool,
    /// When the last one began, by the monotonic clock.
    began: Mutex<Option<Duration>>,
}

impl Probe {
    fn run(self: &Arc<Self>, store: &Arc<Store>, now: Duration) {
        {
            // Nothing panics with it.
            let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
            let believed = began.is_some_and(|began| now.saturating_sub(began) < BELIEVED);
            if believed || self.running.swap(true, Ordering::AcqRel) {
                return;
            }
            *began = Some(now);
        }
        let (probe, store) = (Arc::clone(self), Arc::clone(store));
        tokio::task::spawn_blocking(move || {
            match store.state.probe() {
                Ok(()) => store.alarms.clear(Condition::State),
                Err(error) => store.alarms.raise(
                    Condition::State,
                    format!("no call to the carrier can be numbered; what is cached is answered: {error}"),
                ),
            }
            probe.running.store(false, Ordering::Release);
        });
    }
}

/// A line for each alarm behind the first one.
fn with_alarms(admin: &Admin, first: String) -> String {
    alarms(admin).into_iter().fold(first, |all, one| format!("{all}alarm: {one}\n"))
}

/// The alarms: the process's own conditions, then what the carrier refuses.
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
    let (used_transids_by_group, max_transids_per_group) = admin.relay.admit.shares();
    let gauges = Gauges {
        cache_entries: admin.relay.cache.entry_count(),
        flights: admin.relay.flights.in_flight(),
        waiters: admin.relay.flights.waiting(),
        connections: admin.connections.open_connections(),
        used_transids: admin.relay.admit.used_transids(),
        used_transids_by_group,
        max_transids_per_group,
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
