//! Messages: an event as the JSON object `type`, `timestamp`, `data`.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::conditions::{ALARM, BREAKER};
use crate::clock::Time;
use crate::config::webhook::EventClass;
use crate::config::{Config, Webhook};
use crate::store::audit::query::{Event, EventKind, StatusAnswer};

/// A message to send.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Its `webhook-id`.
    pub(super) id: String,
    /// The row of its event; 0 of a test.
    pub(super) row: i64,
    /// Its type.
    pub(super) kind: String,
    /// The time of the event.
    pub(super) at: Time,
    /// The JSON.
    pub(super) body: Bytes,
}

impl Message {
    /// The message of an event; none if the webhook does not get it.
    pub(super) fn of(event: &Event, webhook: &Webhook, config: &Config) -> Option<Self> {
        let (class, kind, mut data) = match &event.kind {
            EventKind::Status(answer) if !answer.is_change() => return None,
            EventKind::Status(answer) => {
                (EventClass::Status, "status.changed".to_owned(), status(answer, config))
            }
            EventKind::Note { what, detail } => {
                let class = match what.as_str() {
                    ALARM => EventClass::Alarm,
                    BREAKER => EventClass::Breaker,
                    _ => return None,
                };
                let Ok(Value::Object(mut data)) = serde_json::from_str(detail) else { return None };
                let state = data.shift_remove("state")?;
                (class, format!("{what}.{}", state.as_str()?), data)
            }
        };
        let group = data.get("group").and_then(Value::as_str);
        if !webhook.wants(class) || (class != EventClass::Alarm && !webhook.reports(group)) {
            return None;
        }
        data.insert("row".to_owned(), event.row.into());
        Some(Self::new(event.id.clone(), event.row, kind, event.at, &data))
    }

    /// A test.
    pub(super) fn test(webhook: &str, now: Time) -> Self {
        let id = format!("msg_test_{}", now.as_micros());
        let mut data = Map::new();
        data.insert("webhook".to_owned(), webhook.into());
        Self::new(id, 0, "test".to_owned(), now, &data)
    }

    fn new(id: String, row: i64, kind: String, at: Time, data: &Map<String, Value>) -> Self {
        let body = json!({ "type": kind, "timestamp": at.to_string(), "data": data }).to_string();
        Self { id, row, kind, at, body: body.into() }
    }
}

/// The card is written as in the audit.
fn status(answer: &StatusAnswer, config: &Config) -> Map<String, Value> {
    let StatusAnswer { card, kind, masked, key, account, operation, transid, before, to } = answer;
    let mut data = Map::new();
    data.insert("card".to_owned(), card.as_str().into());
    data.insert("kind".to_owned(), (*kind).into());
    for (name, value) in [("masked", masked), ("key", key)] {
        data.extend(value.iter().map(|value| (name.to_owned(), value.as_str().into())));
    }
    let of = config.accounts().find(|one| *one.name == **account);
    for (name, value) in [
        ("account", Some(account.as_str())),
        ("group", of.map(|one| &*one.group)),
        ("operation", Some(operation.as_str())),
        ("from", before.as_ref().map(|before| before.status.as_str())),
        ("to", Some(to.as_str())),
        ("carrier_transid", transid.as_deref()),
    ] {
        data.insert(name.to_owned(), value.into());
    }
    data.insert("from_seen".to_owned(), before.as_ref().map(|before| before.at.to_string()).into());
    data
}
