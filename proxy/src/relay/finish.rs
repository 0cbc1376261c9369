//! The end of a request: its record is committed, and its answer rendered meanwhile.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Relay, Selected};
use crate::audit::Record;
use crate::carrier::verdict::Class;
use crate::clock::{Clock, Moment, Time};
use crate::refusal::Refusal;
use crate::wire::response::{GatewayResponse, HttpResponse};

impl Relay {
    /// Record and answer, `now`: the record is committed, or the answer is that it could not be.
    pub(super) fn finish(
        self: Arc<Self>,
        found: Result<Selected, Refusal>,
        came: Moment,
        now: Time,
        peer: IpAddr,
        mut record: Record,
    ) -> impl Future<Output = HttpResponse> + Send + use<> {
        // Masked only for those who read it.
        let card = if tracing::enabled!(tracing::Level::INFO) { record.masked_card() } else { None };
        let took = move |clock: &Clock| clock.monotonic().saturating_sub(came.monotonic);
        let mut open = false;
        let (outcome, refusal, answer) = match found {
            Ok(Selected { outcome, entry, cache_status }) => {
                let age = now.since(entry.answered_at);
                let wait = retry_after(entry.reply.verdict.class);
                let answer = GatewayResponse::relayed(
                    entry.reply.body.clone(),
                    &entry.reply.content_type,
                    cache_status,
                    age,
                    wait,
                );
                record.answered(entry, age);
                (outcome, None, answer)
            }
            Err(refusal) => {
                open = matches!(refusal, Refusal::Begun(_));
                let refusal = refusal.describe();
                let answer = GatewayResponse::refused(&refusal);
                (refusal.outcome, Some(refusal), answer)
            }
        };
        let action = record.action();
        let (rendered, reason) =
            (answer.into_response(), refusal.as_ref().map_or("", |refusal| refusal.reason));
        let (counted, committed) = self.audit.commit(record, outcome, refusal.as_ref(), took(&self.clock));
        async move {
            let (outcome, reason, rendered) = match committed.await {
                Ok(()) => {
                    if let Some(action) = action.filter(|_| !open) {
                        self.actions.end(action);
                    }
                    (outcome, reason, rendered)
                }
                Err(_) => {
                    // Without its record an action that may have been done stays open.
                    let begun = action.and_then(|action| self.actions.refusal(action));
                    let refusal = begun.unwrap_or(Refusal::Audit).describe();
                    (refusal.outcome, refusal.reason, GatewayResponse::refused(&refusal).into_response())
                }
            };
            let latency = took(&self.clock);
            self.metrics.lookup(outcome, reason, latency);
            if !counted {
                tracing::info!(
                    outcome = outcome.name(), reason, %peer, card,
                    latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX), "look-up"
                );
            }
            rendered
        }
    }
}

/// How long to wait after an answer that says "later".
fn retry_after(class: Class) -> Option<Duration> {
    match class {
        Class::Throttled => Some(Duration::from_secs(5)),
        Class::Busy => Some(Duration::from_secs(2)),
        Class::NotReady => Some(Duration::from_secs(600)),
        _ => None,
    }
}
