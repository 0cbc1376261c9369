//! Whether the proxy lives, whether it can answer, and what it has counted.
//!
//! - `GET /live`: 200 while the process runs.
//! - `GET /ready`: 200 while look-ups are answered, else 503; the body says what is wrong, and what the carrier
//!   refuses (`alarm: ...`): that needs the operator, and makes nothing unready.
//! - `GET /metrics`: OpenMetrics text, as Prometheus reads it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::{Admin, reply};
use crate::log;
use crate::metrics::Levels;

pub(super) fn live() -> Response<Full<Bytes>> {
    reply::text(StatusCode::OK, "live\n")
}

pub(super) async fn ready(admin: &Admin) -> Response<Full<Bytes>> {
    // One real commit, which waits for the disk.
    let store = Arc::clone(&admin.store);
    match tokio::task::spawn_blocking(move || store.writable()).await {
        // Alarms do not make it unready: what is cached is still answered.
        Ok(Ok(())) => reply::text(StatusCode::OK, with_alarms(admin, "ready\n".to_owned())),
        Ok(Err(error)) => {
            reply::text(StatusCode::SERVICE_UNAVAILABLE, with_alarms(admin, format!("not ready: {error}\n")))
        }
        Err(_) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the check died\n"),
    }
}

/// A line for each alarm behind the first one.
fn with_alarms(admin: &Admin, first: String) -> String {
    alarms(admin).into_iter().fold(first, |all, one| format!("{all}alarm: {one}\n"))
}

/// What needs the operator: the process's own conditions, then what the carrier refuses.
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
    let levels = Levels {
        cache_entries: admin.relay.cache.entries(),
        flights: admin.relay.flights.under_way(),
        waiters: admin.relay.flights.waiting(),
        connections: admin.connections.open(),
        transids: admin.relay.admit.remembered(),
        transid_shares: admin.relay.admit.shares(),
        audit_queue: admin.store.audit.queued(),
        audit_wal: admin.store.audit.wal_bytes(),
        audit_missed: admin.store.audit.missed(),
        log_dropped: log::dropped(),
        accounts: admin.relay.carrier.levels(),
        alarms: alarms(admin).len(),
    };
    let mut response = reply::text(StatusCode::OK, admin.metrics.render(&levels));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
    );
    response
}
