//! `POST /cards/stop-reason`: asks the carrier for the reasons why a card is out of service.
//!
//! Only API v5 has this query (25S02), so the group of the card needs an account of it. The call counts in the account's
//! budget and has its row in the audit, as the caller has; the reply is not cached.

use std::sync::Arc;

use bytes::Bytes;
use cmiot_signer::Card;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::present;
use super::cache::{ApiError, group, not_found, refused, word};
use super::response::json;
use super::{Admin, body};
use crate::carrier::dialect::{StopReason, stop_reasons};
use crate::carrier::verdict::Class;
use crate::carrier::{CarrierResponse, NotSent};
use crate::operation::STOP_REASON;
use crate::refusal::Refusal;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StopReasonRequest {
    #[serde(deserialize_with = "present")]
    msisdn: Option<String>,
    #[serde(deserialize_with = "present")]
    iccid: Option<String>,
    #[serde(deserialize_with = "present")]
    imsi: Option<String>,
    #[serde(deserialize_with = "present")]
    group: Option<String>,
}

pub(super) async fn respond(admin: &Admin, request: Request<Incoming>, who: &str) -> Response<Full<Bytes>> {
    let (group, card) = match requested(admin, request).await {
        Ok(requested) => requested,
        Err(error) => return error.response(),
    };
    if admin.stop.is_cancelled() {
        return refused(&Refusal::NotSent(NotSent::Shutdown));
    }
    let what = format!(" group={} operation={}", word(&group), STOP_REASON.name);
    admin.note("stop-reason", who, &what, Some(card)).await;
    let relay = Arc::clone(&admin.relay);
    // A task of its own: the call has its row even if the client disconnects.
    let calling = admin.relay.tasks.spawn(async move { relay.carrier.stop_reason(&group, &card).await });
    let attempt = match calling.await {
        Ok(Ok(attempt)) => attempt,
        Ok(Err(not_sent)) => return refused(&Refusal::NotSent(not_sent)),
        Err(_) => return refused(&Refusal::TaskFailed),
    };
    match attempt.result {
        Err(fault) => refused(&Refusal::Carrier(fault)),
        Ok(response) if response.verdict.class.refuses_account() => {
            refused(&Refusal::Credentials(response.carrier_code()))
        }
        Ok(response) if response.verdict.class == Class::TokenRefused => {
            refused(&Refusal::TokenRefused(response.carrier_code()))
        }
        Ok(response) => json(StatusCode::OK, &shown(&attempt.account, &card, &response)),
    }
}

/// The group and the card of a request.
async fn requested(admin: &Admin, request: Request<Incoming>) -> Result<(Arc<str>, Card), ApiError> {
    let request: StopReasonRequest = admin.read(request).await?;
    let card = body::card(request.msisdn.as_deref(), request.iccid.as_deref(), request.imsi.as_deref())?;
    let card = card.ok_or_else(|| "name a card: msisdn, iccid or imsi".to_owned())?;
    let config = admin.relay.config.load();
    let group = Arc::clone(group(&config, request.group.as_deref())?);
    if !admin.relay.carrier.knows_stop_reasons(&group) {
        return Err(not_found(&format!(
            "group \"{group}\" has no account of API v5, and API v2 has no stop reasons: name the group of the card's v5 account"
        )));
    }
    Ok((group, config.canonical(&card)))
}

/// The carrier's reply. Its texts contain the card masked only.
fn shown(account: &str, card: &Card, response: &CarrierResponse) -> Value {
    let read: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let fields = if response.verdict.class == Class::Ok { &read["result"][0] } else { &Value::Null };
    let text = |name: &str| fields[name].as_str().filter(|text| !text.is_empty());
    let masked = |text: &str| text.replace(card.as_str(), &card.masked().to_string());
    let digits = text("stop_reason");
    let reasons = digits.and_then(stop_reasons).map(|reasons| {
        let reason = |one: &StopReason| {
            json!({
                "position": one.position, "digit": one.digit.to_string(),
                "meaning": one.meaning.as_ref().map(|meaning| &meaning.english),
            })
        };
        reasons.iter().map(reason).collect::<Value>()
    });
    let note = response.translated.as_ref().and_then(|translated| translated.note.as_deref());
    json!({
        "account": account,
        "code": response.carrier_code().as_str(),
        "note": note.map(masked),
        "stop_reason": digits,
        "platform": text("platform"),
        "description": text("description").map(masked),
        "reasons": reasons,
    })
}
