//! Look into the cache, purge it, fill it.
//!
//! - `GET /cache/stats`: how much is kept, by group, operation, code and STATUS.
//! - `POST /cache/show`: what is known about one card.
//! - `POST /cache/purge`: forget what is selected, or keep it for the carrier's bad days (`"soft": true`).
//! - `POST /cache/fetch`: ask about one card within the budget, unless what is known is fresh.
//!
//! The declared parameters of an operation are part of an entry's key: `show` and `fetch_card` take them
//! (`"parameters": {"query_date": "20260101"}`), and a purge covers every value of them.
//!
//! Requests and answers are JSON; a card is named as the carrier does (`{"msisdn": "..."}`) and never stands in a URL.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cmiot_signer::{Card, CardKind};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::present;
use super::{Admin, response};
use crate::audit::filter;
use crate::cache::freshness::Freshness;
use crate::cache::{Entry, Key, PurgeMode};
use crate::carrier::NotSent;
use crate::operation::{Operation, Parameters, USER_STATUS};
use crate::refusal::Refusal;
use crate::store::cache::Selection;

/// What one request is about.
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
    /// Purging without any condition needs this.
    all: bool,
    soft: bool,
}

/// Why a request is not carried out: the response's status, and words for whoever asked.
struct ApiError(StatusCode, String);

impl From<String> for ApiError {
    fn from(what: String) -> Self {
        Self(StatusCode::BAD_REQUEST, what)
    }
}

/// The request is well-formed, and names something that is not there.
fn unknown(what: &str) -> ApiError {
    ApiError(StatusCode::NOT_FOUND, what.to_owned())
}

pub(super) async fn stats(admin: &Admin) -> Response<Full<Bytes>> {
    let file = Arc::clone(admin.relay.cache.store());
    let counted =
        tokio::task::spawn_blocking(move || file.counts().map(|counts| (counts, file.losses()))).await;
    let (counts, losses) = match counted {
        Ok(Ok(counted)) => counted,
        Ok(Err(error)) => return failed(&error.to_string()),
        Err(_) => return failed("the count died"),
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
    let key = match named(admin, request).await {
        Ok(key) => key,
        Err(why) => return wrong(&why),
    };
    let Some(found) = admin.relay.cache.inspect(&key).await else {
        return wrong(&unknown(&nothing_known(&key)));
    };
    let age = admin.relay.clock.now().since(found.entry.answered_at);
    let mut shown = described(&found.entry);
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

pub(super) async fn purge(admin: &Admin, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (selection, soft) = match selected(admin, request).await {
        Ok(selected) => selected,
        Err(why) => return wrong(&why),
    };
    let depth = if soft { PurgeMode::Soft } else { PurgeMode::Hard };
    match admin.relay.purge(&selection, depth).await {
        Ok(purged) => {
            tracing::info!(?depth, memory = purged.memory, file = purged.file, "cache purged");
            json(
                StatusCode::OK,
                &json!({
                    "memory": purged.memory, "file": purged.file, "generation": purged.generation,
                }),
            )
        }
        Err(error) => failed(&format!("memory is purged, cache.db is not: {error}")),
    }
}

pub(super) async fn fetch(admin: &Admin, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let key = match named(admin, request).await {
        Ok(key) => key,
        Err(why) => return wrong(&why),
    };
    if !key.operation.is_lookup() {
        return wrong(&unknown("operation: it changes something, and is not fetched ahead of need"));
    }
    if admin.stop.is_cancelled() {
        // No call is begun that the end of the process would cut off.
        let refusal = Refusal::NotSent(NotSent::Shutdown).describe();
        let shown = json!({"outcome": "failed", "code": refusal.code.as_str(), "reason": refusal.reason});
        return json(StatusCode::SERVICE_UNAVAILABLE, &shown);
    }
    match admin.relay.fetch_card(&key).await {
        Ok((called, entry)) => {
            let mut shown = described(&entry);
            shown["outcome"] = json!(if called { "fetched" } else { "fresh" });
            json(StatusCode::OK, &shown)
        }
        Err(refusal) => {
            let refusal = refusal.describe();
            let shown = json!({"outcome": "failed", "code": refusal.code.as_str(), "reason": refusal.reason});
            let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &shown);
            if let Some(wait) = refusal.retry_after {
                let seconds = HeaderValue::from(wait.as_secs().max(1));
                response.headers_mut().insert(RETRY_AFTER, seconds);
            }
            response
        }
    }
}

/// The entry that a request names.
async fn named(admin: &Admin, request: Request<Incoming>) -> Result<Key, ApiError> {
    admin.read::<CacheRequest>(request).await?.key(admin)
}

/// What a request would purge, and whether softly.
async fn selected(admin: &Admin, request: Request<Incoming>) -> Result<(Selection, bool), ApiError> {
    let wanted = admin.read::<CacheRequest>(request).await?;
    Ok((wanted.selection(admin)?, wanted.soft))
}

impl CacheRequest {
    fn key(&self, admin: &Admin) -> Result<Key, ApiError> {
        let card = self.card()?.ok_or_else(|| "name a card: msisdn, iccid or imsi".to_owned())?;
        let operation = self.operation(admin)?.unwrap_or(USER_STATUS);
        let config = admin.relay.config.load();
        let card = config.canonical(&card);
        let group = match &self.group {
            Some(group) => config.groups.get_key_value(group.as_str()).map(|(name, _)| name),
            None => config.groups.keys().next().filter(|_| config.groups.len() == 1),
        };
        let group = group.ok_or_else(|| unknown("group: name one that the configuration has"))?;
        let parameters = self.parameters.as_ref();
        let parameters = parameters.map(|given| Parameters::named(operation, given)).transpose();
        let parameters = parameters.map_err(|error| unknown(&error))?;
        Ok(Key { parameters: parameters.unwrap_or_default(), ..Key::new(group, operation, &card) })
    }

    fn selection(&self, admin: &Admin) -> Result<Selection, ApiError> {
        if let Some(group) = &self.group
            && !admin.relay.config.load().groups.contains_key(group.as_str())
        {
            return Err(unknown("group: the configuration has none of this name"));
        }
        if self.parameters.is_some() {
            let what = "parameters: a purge covers every value of them; name the card or the operation alone";
            return Err(what.to_owned().into());
        }
        self.status.as_deref().map(filter::status).transpose()?;
        let selection = Selection {
            card: self.card()?.map(|card| admin.relay.config.load().canonical(&card)),
            group: self.group.as_deref().map(Into::into),
            operation: self.operation(admin)?.map(|operation| operation.name.into()),
            status: self.status.clone(),
            answered_before: None,
            answered_after: None,
        };
        if (selection == Selection::default()) != self.all {
            let what =
                "name what to purge (a card, group, operation or status), or nothing and \"all\": true";
            return Err(what.to_owned().into());
        }
        Ok(selection)
    }

    fn card(&self) -> Result<Option<Card>, String> {
        let named =
            [(CardKind::Msisdn, &self.msisdn), (CardKind::Iccid, &self.iccid), (CardKind::Imsi, &self.imsi)];
        let mut named =
            named.iter().filter_map(|(kind, number)| number.as_deref().map(|number| (*kind, number)));
        let Some((kind, number)) = named.next() else { return Ok(None) };
        if named.next().is_some() {
            return Err("name one card: msisdn, iccid or imsi".to_owned());
        }
        Card::parse(kind, number).map(Some).map_err(|error| format!("{}: {error}", kind.as_str()))
    }

    fn operation(&self, admin: &Admin) -> Result<Option<&'static Operation>, ApiError> {
        let Some(name) = self.operation.as_deref() else { return Ok(None) };
        let operations = &admin.relay.config.load().operations;
        let none = || unknown(&format!("operation: \"{name}\" is not known; known: {}", operations.names()));
        operations.named(name).map(Some).ok_or_else(none)
    }
}

/// Which key has no entry, and which others may have one.
fn nothing_known(key: &Key) -> String {
    let of = key.operation.name;
    match (key.operation.parameters, key.parameters.as_str()) {
        ([], _) => "nothing is known about this card".to_owned(),
        (declared, "") => format!(
            "nothing is known about this card without parameters; {of} declares {}: name their values in \"parameters\"",
            declared.join(", ")
        ),
        (_, given) => format!("nothing is known about this card with {given}"),
    }
}

/// What the carrier said: its own JSON where it is one, which whatever is kept is.
fn described(entry: &Entry) -> Value {
    json!({
        "code": entry.reply.verdict.code.as_str(),
        "status": entry.reply.verdict.status.as_ref().map(|status| status.code().to_owned()),
        "answered_at": entry.answered_at.to_string(),
        "soft_purged": entry.stale,
        "body": serde_json::from_slice::<Value>(&entry.reply.body).unwrap_or(Value::Null),
    })
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    response::typed(status, "application/json", format!("{value}\n"))
}

fn wrong(ApiError(status, what): &ApiError) -> Response<Full<Bytes>> {
    json(*status, &json!({"error": what}))
}

fn failed(what: &str) -> Response<Full<Bytes>> {
    json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": what}))
}
