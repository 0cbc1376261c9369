//! The end of a request: its record is committed, while its response is rendered.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;

use super::select::Selected;
use super::{Exchange, Relay};
use crate::cache::intern::CarrierReply;
use crate::carrier::verdict::Class;
use crate::clock::{Clock, Time};
use crate::refusal::Refusal;
use crate::wire::response::{Body, GatewayResponse, HttpResponse, TRANSID};

impl Relay {
    /// Commits the record, then responds; without a committed record the response is a refusal. The returned future holds
    /// no more than the wait needs.
    pub(super) fn audit_and_respond(
        self: Arc<Self>,
        exchange: Exchange,
        result: Result<Selected, Refusal>,
        now: Time,
    ) -> impl Future<Output = HttpResponse> + Send + use<> {
        let Exchange { arrived, peer, mut record, unread_transid, .. } = exchange;
        let elapsed = move |clock: &Clock| clock.monotonic().saturating_sub(arrived.monotonic);
        let result_unknown = matches!(result, Err(Refusal::Begun(_)));
        let (outcome, refusal, response) = match result {
            Ok(Selected { outcome, entry, cache_status }) => {
                let age = now.since(entry.answered_at);
                // The carrier's response is the result of an action: a gateway must not send it again.
                let retry_after = match record.action() {
                    Some(_) => None,
                    None => retry_after(entry.reply.verdict.class),
                };
                let response =
                    GatewayResponse::relayed(body_of(&entry.reply), cache_status, age, retry_after);
                record.answered(entry, age);
                (outcome, None, response)
            }
            Err(refusal) => {
                let refusal = refusal.describe();
                let response = GatewayResponse::refused(&refusal);
                (refusal.outcome, Some(refusal), response)
            }
        };
        let action = record.action();
        let reason = refusal.as_ref().map_or("", |refusal| refusal.reason);
        // Letters and digits are a valid header value, so the error never occurs.
        let transid = match (record.exact_transid(), unread_transid) {
            (Some(read), _) => HeaderValue::from_bytes(read.as_bytes()).ok(),
            (None, Some(unread)) => HeaderValue::from_bytes(unread.as_bytes()).ok(),
            (None, None) => None,
        };
        let response = response.into_response(transid);
        let (client, claimed, card) = record.parties();
        let (counted, committed) = self.audit.commit(record, outcome, refusal.as_ref(), elapsed(&self.clock));
        // Boxed: most lookups have no line while many are served.
        let line = (!counted).then(|| self.lookup_log.sample(arrived.monotonic)).flatten();
        let line = line.map(|sampled| Box::new(sampled.line(peer, client, claimed, card)));
        async move {
            let (outcome, reason, response) = match committed.await {
                Ok(()) => {
                    if let Some(action) = action.filter(|_| !result_unknown) {
                        self.actions.end(action);
                    }
                    (outcome, reason, response)
                }
                Err(_) => {
                    // Without its record, an action that may have been executed stays open.
                    let begun = action.and_then(|action| self.actions.refusal(action));
                    let refusal = begun.unwrap_or(Refusal::Audit).describe();
                    let transid = response.headers().get(&TRANSID).cloned();
                    let response = GatewayResponse::refused(&refusal).into_response(transid);
                    (refusal.outcome, refusal.reason, response)
                }
            };
            let latency = elapsed(&self.clock);
            self.metrics.lookup(outcome, reason, latency);
            self.stale_watch.count(reason);
            if let Some(line) = line {
                line.write(outcome, reason, latency);
            }
            response
        }
    }
}

fn body_of(reply: &CarrierReply) -> Body<'_> {
    Body {
        bytes: reply.body.clone(),
        content_type: &reply.content_type,
        translated: reply.translated.as_ref().map(|translated| translated.note.as_deref()),
    }
}

/// The wait before a retry after a carrier response that says "later".
fn retry_after(class: Class) -> Option<Duration> {
    match class {
        Class::Throttled => Some(Duration::from_secs(5)),
        Class::Busy | Class::Unknown => Some(Duration::from_secs(2)),
        Class::NotReady => Some(Duration::from_secs(600)),
        _ => None,
    }
}
