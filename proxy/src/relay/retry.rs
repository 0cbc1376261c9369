//! A request that is sent again with its transid: what the first one got, or nothing (`replay = "same-answer"`).

use std::sync::Arc;

use super::{Relay, Selected, from_cache};
use crate::admit::idempotency::{Completer, Response};
use crate::cache::Key;
use crate::clock::Time;
use crate::config::Client;
use crate::refusal::Refusal;

impl Relay {
    /// A kept response once more, as good as it is by now; past its bounds it is none.
    pub(super) fn retried_response(
        &self,
        client: &Client,
        key: &Key,
        response: Response,
        now: Time,
    ) -> Result<Selected, Refusal> {
        let entry = response.ok_or(Refusal::OnlyIfCached)?;
        let held = self.cache.evaluate(key, entry, now).ok_or(Refusal::ReusedTransid)?;
        if held.lifetime.is_some() && held.age(now).stale > client.permissions.max_stale_ceiling {
            return Err(Refusal::ReusedTransid);
        }
        Ok(from_cache(&held, None, now))
    }

    /// Tells those who ask again. Of a failure nothing: whoever asks again may be luckier.
    pub(super) fn publish_result(&self, teller: Option<Completer>, found: &Result<Selected, Refusal>) {
        let response = match found {
            Ok(found) => Some(Arc::clone(&found.entry)),
            Err(Refusal::OnlyIfCached) => None,
            Err(_) => return,
        };
        if let Some(teller) = teller {
            self.admit.idempotency.complete(teller, response);
        }
    }
}
