//! Notes in the audit about alarms and breakers, when they begin and when they end, so that positions cover them.
//!
//! The conditions are compared with those whose start is in the audit; `state.db` keeps these, so that a start notes the
//! ends of conditions that ended with the process. A note is written only for events that a webhook is configured for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::blocking;
use crate::alarms::Alarm;
use crate::carrier::health::{FailedCall, OpenBreaker};
use crate::config::webhook::EventClass;
use crate::config::{Account, Config};
use crate::relay::Relay;
use crate::store::audit::NoteRow;
use crate::store::{Store, StoreError};

/// The kinds of the notes.
pub(super) const ALARM: &str = "alarm";
pub(super) const BREAKER: &str = "breaker";

/// Conditions of an earlier process are kept for this time after a start: those that still hold are found again within it.
const AFTER_START: Duration = Duration::from_secs(10);

/// Characters of an alarm's text in a note.
const LONGEST_TEXT: usize = 2_000;

/// A condition that holds.
struct Holding {
    /// The kind of its notes.
    what: &'static str,
    /// The fields of its notes.
    fields: serde_json::Value,
}

/// The conditions whose start is in the audit and whose end is not.
pub(super) struct Conditions {
    relay: Arc<Relay>,
    store: Arc<Store>,
    /// By name, with the detail of the note.
    noted: BTreeMap<String, String>,
    /// Those of them that an earlier process left.
    inherited: BTreeSet<String>,
    /// When this process began, by the monotonic clock.
    since: Duration,
}

impl Conditions {
    /// Those that an earlier process left.
    pub(super) async fn load(relay: Arc<Relay>, store: Arc<Store>) -> Result<Self, StoreError> {
        let of = Arc::clone(&store);
        let noted: BTreeMap<_, _> = blocking(move || of.state.conditions()).await?.into_iter().collect();
        let inherited = noted.keys().cloned().collect();
        let since = relay.clock.monotonic();
        Ok(Self { relay, store, noted, inherited, since })
    }

    /// Notes the conditions that started or ended, and alarms of another severity than noted. A note that cannot be written is written the next time.
    pub(super) async fn note_changes(&mut self) {
        let holding = self.holding(&self.relay.config.load());
        for (name, &Holding { what, ref fields }) in &holding {
            if !self.noted.get(name).is_some_and(|noted| severity_of(noted) == fields["severity"]) {
                let state = if what == ALARM { "raised" } else { "opened" };
                self.note(name, what, fields.clone(), state).await;
            }
        }
        if self.relay.clock.monotonic().saturating_sub(self.since) >= AFTER_START {
            self.inherited.clear();
        }
        let is_over = |name: &String| !holding.contains_key(name) && !self.inherited.contains(name);
        let ended: Vec<_> = self.noted.iter().filter(|(name, _)| is_over(name)).map(pair).collect();
        for (name, detail) in ended {
            let what = if name.starts_with(ALARM) { ALARM } else { BREAKER };
            if !is_wanted(what, &self.relay.config.load()) {
                continue;
            }
            let fields = serde_json::from_str(&detail).unwrap_or_else(|_| json!({}));
            self.note(&name, what, fields, if what == ALARM { "ended" } else { "closed" }).await;
        }
    }

    /// The conditions that hold now, by name, of the kinds that a webhook wants.
    fn holding(&self, config: &Config) -> BTreeMap<String, Holding> {
        let mut all = BTreeMap::new();
        if is_wanted(ALARM, config) {
            self.relay.carrier.report_accounts();
            for Alarm { condition, severity, text, .. } in self.store.alarms.list() {
                let text: String = text.english.chars().take(LONGEST_TEXT).collect();
                let fields = json!({ "alarm": condition.name(), "severity": severity.name(), "text": text });
                all.insert(format!("{ALARM} {}", condition.name()), Holding { what: ALARM, fields });
            }
        }
        if is_wanted(BREAKER, config) {
            for (account, open) in self.relay.carrier.open_breakers() {
                let (name, fields) = breaker(&account, &open);
                all.insert(name, Holding { what: BREAKER, fields });
            }
        }
        all
    }

    async fn note(&mut self, name: &str, what: &'static str, mut fields: serde_json::Value, state: &str) {
        fields["state"] = state.into();
        let detail = fields.to_string();
        let note = NoteRow { at: self.relay.clock.now(), what, detail: detail.clone() };
        if let Err(error) = self.store.audit.append_note(note).await {
            tracing::debug!(%error, name, state, "webhooks: the note waits");
            return;
        }
        let begins = matches!(state, "raised" | "opened");
        let (store, of) = (Arc::clone(&self.store), name.to_owned());
        let started = begins.then(|| detail.clone());
        let stored = blocking(move || store.state.set_condition(&of, started.as_deref())).await;
        if let Err(error) = stored {
            tracing::warn!(%error, name, state, "webhooks: after a restart this may be noted again");
        }
        match begins {
            true => self.noted.insert(name.to_owned(), detail),
            false => self.noted.remove(name),
        };
    }
}

/// The severity in the detail of a note; null for a breaker, which has none.
fn severity_of(detail: &str) -> serde_json::Value {
    serde_json::from_str(detail)
        .map(|mut detail: serde_json::Value| detail["severity"].take())
        .unwrap_or_default()
}

/// The name of a breaker that is not closed, and the fields of its notes. A subscription concerns one operation, so the
/// name has it.
fn breaker(account: &Account, open: &OpenBreaker) -> (String, serde_json::Value) {
    let (account, group, breaker) = (&*account.name, &*account.group, open.breaker);
    let mut fields = json!({ "account": account, "group": group, "breaker": breaker });
    if let Some(FailedCall { operation, code, fault }) = &open.failure {
        fields["operation"] = (*operation).into();
        if let Some(code) = code {
            fields["code"] = code.as_str().into();
        }
        if let Some(fault) = fault {
            fields["fault"] = (*fault).into();
        }
    }
    let name = match open.operation {
        Some(operation) => format!("{BREAKER} {breaker} {account} {operation}"),
        None => format!("{BREAKER} {breaker} {account}"),
    };
    (name, fields)
}

fn is_wanted(what: &str, config: &Config) -> bool {
    let class = if what == ALARM { EventClass::Alarm } else { EventClass::Breaker };
    config.webhooks.iter().any(|webhook| webhook.wants(class))
}

fn pair((name, detail): (&String, &String)) -> (String, String) {
    (name.clone(), detail.clone())
}
