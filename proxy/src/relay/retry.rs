//! Retries with the transid of an earlier request (`replay = "same-answer"`): they get the response to that request, or a
//! refusal.

use std::sync::Arc;

use super::select::{Selected, from_cache};
use super::{Exchange, Query, Relay};
use crate::admit::idempotency::Response;
use crate::clock::Time;
use crate::refusal::Refusal;

impl Relay {
    /// A stored response again, with its freshness of now. Past the client's limit of staleness it is refused.
    pub(super) fn stored_response(
        &self,
        query: &Query,
        response: Response,
        now: Time,
    ) -> Result<Selected, Refusal> {
        let entry = response.ok_or(Refusal::OnlyIfCached)?;
        let candidate = self.cache.evaluate(&query.key, entry, now).ok_or(Refusal::ReusedTransid)?;
        let max_stale = query.client.permissions.max_stale_ceiling;
        if candidate.lifetime.is_some() && candidate.age(now).stale > max_stale {
            return Err(Refusal::ReusedTransid);
        }
        Ok(from_cache(&candidate, None, now))
    }

    /// Publishes the result to retries. Failures are not published, so that a retry tries again.
    pub(super) fn publish_result(&self, exchange: &mut Exchange, result: &Result<Selected, Refusal>) {
        let Some(retry_slot) = exchange.retry_slot.take() else { return };
        let response = match result {
            Ok(selected) => Some(Arc::clone(&selected.entry)),
            Err(Refusal::OnlyIfCached) => None,
            Err(_) => return,
        };
        self.admit.idempotency.complete(retry_slot, response);
    }
}
