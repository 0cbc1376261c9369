//! Endpoints that inspect, purge and fill the cache.
//!
//! - `GET /cache/stats`: the number of entries by group, operation, code and STATUS.
//! - `POST /cache/show`: the entry for one card.
//! - `POST /cache/purge`: removes the selected entries, or marks them stale (`"soft": true`): they are then served only if
//!   the carrier fails; or only counts them (`"dry_run": true`). In a fleet it applies to all nodes, or (`"local": true`) to
//!   this one.
//! - `POST /cache/fetch`: looks up one card within the budget, unless its entry is fresh.
//!
//! The declared parameters of an operation are part of an entry's key: `show` and `fetch` accept them
//! (`"parameters": {"query_date": "20260101"}`), and a purge covers all their values.
//!
//! Requests and responses are JSON; a card has the carrier's parameter name (`{"msisdn": "..."}`) and is never part of a
//! URL.

mod fleet_purge;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cmiot_signer::Card;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::present;
use super::response::json;
use super::{Admin, body};
use crate::audit::filter;
use crate::cache::freshness::Freshness;
use crate::cache::{Entry, Key, PurgeMode};
use crate::carrier::NotSent;
use crate::clock::Time;
use crate::config::Config;
use crate::operation::{Operation, Parameters, USER_STATUS};
use crate::refusal::Refusal;
use crate::store::cache::Selection;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CacheRequest {
    #[serde(deserialize_with = "present")]
    msisdn: Option<String>,
    #[serde(deserialize_with = "present")]
    iccid: Option<String>,
    #[serde(deserialize_with = "present")]
    imsi: Option<String>,
    #[serde(deserialize_with = "present")]
    group: Option<String>,
    #[serde(deserialize_with = "present")]
    operation: Option<String>,
    #[serde(deserialize_with = "present")]
    status: Option<String>,
    /// The values of the operation's declared parameters.
    #[serde(deserialize_with = "present")]
    parameters: Option<BTreeMap<String, String>>,
    /// Required for a purge without any condition.
    all: bool,
    soft: bool,
    /// Only count what the purge would select.
    dry_run: bool,
    /// Purge this node only, not its fleet.
    local: bool,
}

/// The refusal of a request.
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl From<String> for ApiError {
    fn from(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message }
    }
}

/// A well-formed request that names something absent.
pub(super) fn not_found(message: &str) -> ApiError {
    ApiError { status: StatusCode::NOT_FOUND, message: message.to_owned() }
}

pub(super) async fn stats(admin: &Admin) -> Response<Full<Bytes>> {
    let file = Arc::clone(admin.relay.cache.store());
    let counted =
        tokio::task::spawn_blocking(move || file.counts().map(|counts| (counts, file.losses()))).await;
    let (counts, losses) = match counted {
        Ok(Ok(counted)) => counted,
        Ok(Err(error)) => return failed(&error.to_string()),
        Err(_) => return failed("the task that counts the entries failed"),
    };
    let kinds = counts.iter().map(|one| {
        json!({"group": one.group, "operation": one.operation, "code": one.code, "status": one.status, "answers": one.answers})
    });
    let relay = &admin.relay;
    json(
        StatusCode::OK,
        &json!({
            "memory": relay.cache.entry_count(),
            "file": counts.iter().map(|one| one.answers).sum::<u64>(),
            "kinds": kinds.collect::<Value>(),
            "flights": relay.flights.in_flight(),
            "generation": relay.cache.generation(),
            "writes_queued": relay.cache.store().queued(),
            "writes_dropped": losses.dropped,
            "writes_failed": losses.failed,
        }),
    )
}

pub(super) async fn show(admin: &Admin, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let key = match requested_key(admin, request).await {
        Ok(key) => key,
        Err(error) => return error.response(),
    };
    let Some(found) = admin.relay.cache.inspect(&key).await else {
        return not_found(&no_entry_message(&key)).response();
    };
    let age = admin.relay.clock.now().since(found.entry.answered_at);
    let mut shown = entry_json(&found.entry);
    shown["age"] = json!(age.as_secs());
    shown["good_for"] =
        json!(found.freshness.map_or("nothing: its kind is not kept", |freshness| match freshness {
            Freshness::Fresh => "fresh",
            Freshness::Revalidate => "stale, while asking",
            Freshness::IfError => "stale, when the carrier fails or is slow",
            Freshness::Expired => "nothing: expired",
        }));
    shown["fresh_until"] = json!(found.fresh_until.map(|until| until.to_string()));
    shown["stale_until"] = json!(found.stale_until.map(|until| until.to_string()));
    shown["tier"] = json!(if found.in_memory { "memory" } else { "file" });
    shown["generation"] = json!(admin.relay.cache.generation());
    json(StatusCode::OK, &shown)
}

pub(super) async fn purge(admin: &Admin, request: Request<Incoming>, who: &str) -> Response<Full<Bytes>> {
    let RequestedPurge { selection, mode, local } = match requested_purge(admin, request).await {
        Ok(requested) => requested,
        Err(error) => return error.response(),
    };
    let Some(mode) = mode else { return count(admin, selection).await };
    purge_selected(admin, selection, mode, local, who).await
}

/// Purges a selection, in a fleet on all nodes unless `local`, and notes it.
pub(super) async fn purge_selected(
    admin: &Admin,
    selection: Selection,
    mode: PurgeMode,
    local: bool,
    who: &str,
) -> Response<Full<Bytes>> {
    if let (Some(fleet), false) = (&admin.relay.fleet, local) {
        return fleet_purge::purge(admin, fleet, &selection, mode, who).await;
    }
    match admin.relay.purge(&selection, mode).await {
        Ok(purged) => {
            tracing::info!(?mode, memory = purged.memory, file = purged.file, "cache purged");
            let counts = format!(" memory={} file={}", purged.memory, purged.file);
            let what = format!("{counts}{}", selected(&selection, mode));
            let recorded = admin.note("purge", who, &what, selection.card).await;
            json(
                StatusCode::OK,
                &json!({
                    "memory": purged.memory, "file": purged.file, "generation": purged.generation,
                    "recorded": recorded,
                }),
            )
        }
        Err(error) => {
            let what = format!(" file=failed{}", selected(&selection, mode));
            admin.note("purge", who, &what, selection.card).await;
            failed(&format!("purged from memory, but not from cache.db: {error}"))
        }
    }
}

/// The number of entries that the purge would select.
async fn count(admin: &Admin, selection: Selection) -> Response<Full<Bytes>> {
    let memory = admin.relay.cache.count_in_memory(&selection);
    let file = Arc::clone(admin.relay.cache.store());
    // The rows in the queue count, too.
    if let Err(error) = file.flush().await {
        return failed(&error.to_string());
    }
    match tokio::task::spawn_blocking(move || file.count_where(&selection)).await {
        Ok(Ok(rows)) => json(StatusCode::OK, &json!({"dry_run": true, "memory": memory, "file": rows})),
        Ok(Err(error)) => failed(&error.to_string()),
        Err(_) => failed("the task that counts the entries failed"),
    }
}

pub(super) async fn fetch(admin: &Admin, request: Request<Incoming>, who: &str) -> Response<Full<Bytes>> {
    let key = match requested_key(admin, request).await {
        Ok(key) => key,
        Err(error) => return error.response(),
    };
    if !key.operation.is_lookup() {
        return not_found("operation: it is an action, which cannot be fetched into the cache").response();
    }
    fetch_key(admin, &key, None, who).await
}

/// Looks a key up within the budget, unless its entry is fresh and newer than the one that was answered at `known`, and notes
/// a call.
pub(super) async fn fetch_key(
    admin: &Admin,
    key: &Key,
    known: Option<Time>,
    who: &str,
) -> Response<Full<Bytes>> {
    if admin.stop.is_cancelled() {
        // The end of the process would interrupt a new call.
        return refused(&Refusal::NotSent(NotSent::Shutdown));
    }
    match admin.relay.fetch_card(key, known).await {
        Ok((called, entry)) => {
            if called {
                let what = format!(" group={} operation={}", word(&key.group), key.operation.name);
                admin.note("warm", who, &what, Some(key.card)).await;
            }
            let mut shown = entry_json(&entry);
            shown["outcome"] = json!(if called { "fetched" } else { "fresh" });
            json(StatusCode::OK, &shown)
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The response where no reply of the carrier can be shown.
pub(super) fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let refusal = refusal.describe();
    let shown = json!({"outcome": "failed", "code": refusal.code.as_str(), "reason": refusal.reason});
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &shown);
    if let Some(wait) = refusal.retry_after {
        let seconds = HeaderValue::from(wait.as_secs().max(1));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}

/// The conditions of a purge but for its card, as its note has them.
fn selected(selection: &Selection, mode: PurgeMode) -> String {
    let mut text = format!(" mode={}", if mode == PurgeMode::Soft { "soft" } else { "hard" });
    let conditions = [
        ("group", selection.group.as_deref()),
        ("operation", selection.operation.as_deref()),
        ("status", selection.status.as_deref()),
    ];
    for (name, value) in conditions {
        if let Some(value) = value {
            text.push_str(&format!(" {name}={}", word(value)));
        }
    }
    if *selection == Selection::default() {
        text.push_str(" all");
    }
    text
}

/// A value as one word of a note.
pub(super) fn word(value: &str) -> String {
    value.replace(char::is_whitespace, "_")
}

async fn requested_key(admin: &Admin, request: Request<Incoming>) -> Result<Key, ApiError> {
    admin.read::<CacheRequest>(request).await?.key(admin)
}

/// A purge, as it is requested.
struct RequestedPurge {
    selection: Selection,
    /// None if the entries are only to be counted.
    mode: Option<PurgeMode>,
    /// Purge this node only.
    local: bool,
}

async fn requested_purge(admin: &Admin, request: Request<Incoming>) -> Result<RequestedPurge, ApiError> {
    let request = admin.read::<CacheRequest>(request).await?;
    let mode = match (request.dry_run, request.soft) {
        (true, _) => None,
        (false, true) => Some(PurgeMode::Soft),
        (false, false) => Some(PurgeMode::Hard),
    };
    Ok(RequestedPurge { selection: request.selection(admin)?, mode, local: request.local })
}

impl CacheRequest {
    fn key(&self, admin: &Admin) -> Result<Key, ApiError> {
        let card = self.card()?.ok_or_else(|| "name a card: msisdn, iccid or imsi".to_owned())?;
        let operation = self.operation(admin)?.unwrap_or(USER_STATUS);
        let config = admin.relay.config.load();
        let card = config.canonical(&card);
        let group = group(&config, self.group.as_deref())?;
        let parameters = self.parameters.as_ref();
        let parameters = parameters.map(|given| Parameters::named(operation, given)).transpose();
        let parameters = parameters.map_err(|error| not_found(&error))?;
        Ok(Key { parameters: parameters.unwrap_or_default(), ..Key::new(group, operation, &card) })
    }

    fn selection(&self, admin: &Admin) -> Result<Selection, ApiError> {
        if let Some(group) = &self.group
            && !admin.relay.config.load().groups.contains_key(group.as_str())
        {
            return Err(not_found("group: the configuration has no group of this name"));
        }
        if self.parameters.is_some() {
            let message =
                "parameters: a purge covers every value of them; name the card or the operation alone";
            return Err(message.to_owned().into());
        }
        self.status.as_deref().map(filter::status).transpose().map_err(|text| text.english)?;
        let selection = Selection {
            card: self.card()?.map(|card| admin.relay.config.load().canonical(&card)),
            group: self.group.as_deref().map(Into::into),
            operation: self.operation(admin)?.map(|operation| operation.name.into()),
            status: self.status.clone(),
            answered_before: None,
            answered_after: None,
        };
        if (selection == Selection::default()) != self.all {
            let message =
                "name what to purge (a card, group, operation or status), or set only \"all\": true";
            return Err(message.to_owned().into());
        }
        Ok(selection)
    }

    fn card(&self) -> Result<Option<Card>, String> {
        body::card(self.msisdn.as_deref(), self.iccid.as_deref(), self.imsi.as_deref())
    }

    fn operation(&self, admin: &Admin) -> Result<Option<&'static Operation>, ApiError> {
        let Some(name) = self.operation.as_deref() else { return Ok(None) };
        let operations = &admin.relay.config.load().operations;
        let none = || not_found(&format!("operation: unknown \"{name}\"; known: {}", operations.names()));
        operations.named(name).map(Some).ok_or_else(none)
    }
}

/// The group of this name, or the only one.
///
/// # Errors
/// Without a name, several groups; with one, none of this name.
pub(super) fn group<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Arc<str>, ApiError> {
    let group = match name {
        Some(name) => config.groups.get_key_value(name).map(|(name, _)| name),
        None => config.groups.keys().next().filter(|_| config.groups.len() == 1),
    };
    group.ok_or_else(|| not_found("group: name a configured one"))
}

/// Names the key without an entry, and other keys that may have one.
fn no_entry_message(key: &Key) -> String {
    let operation = key.operation.name;
    match (key.operation.parameters, key.parameters.as_str()) {
        ([], _) => "nothing is known about this card".to_owned(),
        (declared, "") => format!(
            "nothing is known about this card without parameters; {operation} declares {}: name their values in \"parameters\"",
            declared.join(", ")
        ),
        (_, given) => format!("nothing is known about this card with {given}"),
    }
}

/// An entry as JSON. Its body is the carrier's JSON; every cached body is valid JSON.
fn entry_json(entry: &Entry) -> Value {
    json!({
        "code": entry.reply.verdict.code.as_str(),
        "status": entry.reply.verdict.status.as_ref().map(|status| status.code().to_owned()),
        "answered_at": entry.answered_at.to_string(),
        "soft_purged": entry.stale,
        "body": serde_json::from_slice::<Value>(&entry.reply.body).unwrap_or(Value::Null),
    })
}

impl ApiError {
    /// The JSON response with the message.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        json(self.status, &json!({"error": self.message}))
    }
}

fn failed(message: &str) -> Response<Full<Bytes>> {
    json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": message}))
}
