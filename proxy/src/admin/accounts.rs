//! `POST /accounts/check`: one real call with each password of each account, so that the operator learns whether the
//! carrier accepts them while the proxy serves.
//!
//! The request may name the card to look up (`{"msisdn": "..."}`). A call counts in the account's budget and has its row in
//! the audit, as the caller has; the response is not cached. One check runs at a time.

use std::sync::Arc;

use bytes::Bytes;
use cmiot_signer::{Card, CardKind};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{self, present};
use super::{Admin, response};
use crate::carrier::check::{Check, judge};
use crate::carrier::{Call, NotSent};
use crate::operation::{Parameters, USER_STATUS};
use crate::refusal::Refusal;

/// The card of a check that names none. A reply that it is unknown shows that the account is accepted, too.
pub const CHECK_CARD: &str = "1064800000000";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CheckRequest {
    #[serde(deserialize_with = "present")]
    msisdn: Option<String>,
    #[serde(deserialize_with = "present")]
    iccid: Option<String>,
    #[serde(deserialize_with = "present")]
    imsi: Option<String>,
}

impl CheckRequest {
    fn card(&self) -> Result<Card, String> {
        let named = body::card(self.msisdn.as_deref(), self.iccid.as_deref(), self.imsi.as_deref())?;
        match named {
            Some(card) => Ok(card),
            None => Card::parse(CardKind::Msisdn, CHECK_CARD).map_err(|error| error.to_string()),
        }
    }
}

pub(super) async fn check(admin: &Admin, request: Request<Incoming>, who: &str) -> Response<Full<Bytes>> {
    let card = match admin.read::<CheckRequest>(request).await.and_then(|request| request.card()) {
        Ok(card) => card,
        Err(error) => return response::json(StatusCode::BAD_REQUEST, &json!({ "error": error })),
    };
    if admin.stop.is_cancelled() {
        let error = describe(&NotSent::Shutdown);
        return response::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error }));
    }
    // Each check costs calls of every account's budget.
    let Ok(only) = Arc::clone(&admin.checking).try_lock_owned() else {
        let error = json!({"error": "a check is running, wait for it"});
        return response::json(StatusCode::CONFLICT, &error);
    };
    admin.note("check", who, &format!(" operation={}", USER_STATUS.name), Some(card)).await;
    let (relay, stop) = (Arc::clone(&admin.relay), admin.stop.clone());
    // A task of its own: each call has its row even if the client disconnects.
    let checking = admin.relay.tasks.spawn(async move {
        let _only = only;
        let parameters = Parameters::default();
        let call = Call { operation: USER_STATUS, card: &card, parameters: &parameters };
        relay.carrier.check_accounts(call, &stop).await
    });
    match checking.await {
        Ok(checks) => {
            let accounts: Value = checks.iter().map(shown).collect();
            response::json(StatusCode::OK, &json!({ "accounts": accounts }))
        }
        Err(_) => {
            let error = json!({"error": "the task that checks the accounts failed"});
            response::json(StatusCode::INTERNAL_SERVER_ERROR, &error)
        }
    }
}

fn shown(check: &Check) -> Value {
    let (accepted, code, latency, text) = match &check.result {
        Ok(attempt) => {
            let (accepted, text) = judge(attempt);
            let text = text.english;
            let code =
                attempt.result.as_ref().ok().map(|response| response.carrier_code().as_str().to_owned());
            (accepted, code, u64::try_from(attempt.latency.as_millis()).ok(), text)
        }
        Err(not_sent) => (false, None, None, format!("not sent: {}", describe(not_sent))),
    };
    json!({
        "account": &*check.account,
        "password": check.password + 1,
        "accepted": accepted,
        "code": code,
        "latency_ms": latency,
        "text": text,
    })
}

fn describe(not_sent: &NotSent) -> String {
    Refusal::NotSent(not_sent.clone()).describe().details.into_owned()
}
