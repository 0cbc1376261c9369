//! A request that is sent again with its transid: what the first one got, or nothing (`replay = "same-answer"`).

use std::sync::Arc;

use super::{Found, Relay, cached};
use crate::admit::repeat::{Response, Teller};
use crate::cache::Key;
use crate::clock::Time;
use crate::config::Client;
use crate::outcome::Refusal;

impl Relay {
    /// A kept response once more, as good as it is by now; past its bounds it is none.
    pub(super) fn repeat(
        &self,
        client: &Client,
        key: &Key,
        response: Response,
        now: Time,
    ) -> Result<Found, Refusal> {
        let entry = response.ok_or(Refusal::OnlyIfCached)?;
        let held = self.cache.appraise(key, entry, now).ok_or(Refusal::ReusedTransid)?;
        let (_, stale) = held.age(now);
        if held.lifetime.is_some() && stale > client.rights.max_stale_ceiling {
            return Err(Refusal::ReusedTransid);
        }
        Ok(cached(&held, None, now))
    }

    /// Tells those who ask again. Of a failure nothing: whoever asks again may be luckier.
    pub(super) fn tell(&self, teller: Option<Teller>, found: &Result<Found, Refusal>) {
        let response = match found {
            Ok(found) => Some(Arc::clone(&found.entry)),
            Err(Refusal::OnlyIfCached) => None,
            Err(_) => return,
        };
        if let Some(teller) = teller {
            self.admit.repeats.tell(teller, response);
        }
    }
}
