//! A purge of all nodes of a fleet: ordered in the database, applied here, and then by the others.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::{failed, selected};
use crate::admin::Admin;
use crate::admin::response::json;
use crate::cache::PurgeMode;
use crate::fleet::Fleet;
use crate::fleet::purge::OrderError;
use crate::store::cache::Selection;

/// Orders the purge, and responds when every live node has applied it, or lists those that have not within ten seconds.
pub(super) async fn purge(
    admin: &Admin,
    fleet: &Fleet,
    selection: &Selection,
    mode: PurgeMode,
    who: &str,
) -> Response<Full<Bytes>> {
    let generation = match fleet.order_purge(selection, mode == PurgeMode::Soft).await {
        Ok(generation) => generation,
        Err(error) => return not_ordered(&error),
    };
    let what = format!(" fleet={generation}{}", selected(selection, mode));
    let recorded = admin.note("purge", who, &what, selection.card).await;
    // Without a life, this node applies it now, and again before it acts with the others.
    let purged = match fleet.life() {
        Some(life) => admin.relay.apply_purges(fleet, life).await.map_err(|error| error.to_string()),
        None => admin.relay.purge(selection, mode).await.map_err(|error| error.to_string()),
    };
    let purged = match purged {
        Ok(purged) => purged,
        Err(error) => {
            return failed(&format!(
                "ordered as {generation}, but not applied by this node, which tries again by itself: {error}; \
                 `cmiot-proxy fleet status` shows the last purge of each node"
            ));
        }
    };
    let behind = match fleet.wait_for_nodes(generation).await {
        Ok(behind) => behind,
        Err(error) => {
            return failed(&format!(
                "ordered as {generation}; which nodes have applied it is unknown: {error}; \
                 `cmiot-proxy fleet status` shows it once the database is back"
            ));
        }
    };
    tracing::info!(?mode, generation, waiting = ?behind.live, away = ?behind.away, "cache of the fleet purged");
    json(
        StatusCode::OK,
        &json!({
            "memory": purged.memory,
            "file": purged.file,
            "generation": admin.relay.cache.generation(),
            "fleet": { "purge": generation, "waiting": behind.live, "away": behind.away },
            "recorded": recorded,
        }),
    )
}

fn not_ordered(error: &OrderError) -> Response<Full<Bytes>> {
    let hint = "try again when the database is back, or purge this node alone with \"local\": true (`cache purge --local`)";
    let message = match error {
        OrderError::Link(error) => format!("not ordered, or its result is unknown: {error}: {hint}"),
        OrderError::Alone | OrderError::Seal => format!("{error}: {hint}"),
    };
    json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": message }))
}
