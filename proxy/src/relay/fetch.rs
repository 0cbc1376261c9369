//! What happens without a request, since a flight outlives its askers: ask the carrier, store what it said.

use std::sync::Arc;

use cmiot_signer::Status;

use super::{Relay, flight_owner};
use crate::cache::freshness::Freshness;
use crate::cache::{Candidate, Entry, Key, PurgeMode, Purged};
use crate::carrier::{Attempt, Call};
use crate::clock::Time;
use crate::config::{Client, Config};
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::cache::Selection;
use crate::urgency::{SharedUrgency, Urgency};

/// What a flight brings to all who wait for it.
#[derive(Clone, Debug)]
pub struct FetchResult {
    /// The last call that was made; none if the cache had the answer after all, or no call may be made.
    pub(super) call: Option<Arc<Attempt>>,
    /// The carrier's answer, or why there is none.
    pub(super) result: Result<FetchedEntry, Refusal>,
}

#[derive(Clone, Debug)]
pub(super) struct FetchedEntry {
    pub(super) entry: Arc<Entry>,
    pub(super) stored: bool,
}

impl Relay {
    /// The flight of one key. An answer that is fresh and newer than the one known when it began spares the call.
    pub(super) async fn fetch(&self, key: Key, pressure: SharedUrgency, known: Option<Time>) -> FetchResult {
        // The flight before this one may have landed between our look and our start.
        if let Some(Candidate { entry, freshness: Freshness::Fresh, .. }) =
            self.cache.get_in_memory(&key, self.clock.now())
            && known.is_none_or(|known| entry.answered_at > known)
        {
            return FetchResult { call: None, result: Ok(FetchedEntry { entry, stored: true }) };
        }
        self.send(&key, &pressure).await
    }

    /// Asks the carrier, and stores what it said.
    pub(super) async fn send(&self, key: &Key, pressure: &SharedUrgency) -> FetchResult {
        // Before the call: what is purged from here on outdates its answer.
        let ticket = self.cache.fill_token();
        let call = Call { operation: key.operation, card: &key.card, parameters: &key.parameters };
        let attempt = match self.carrier.call(&key.group, call, pressure).await {
            Ok(attempt) => attempt,
            Err(not_asked) => return FetchResult { call: None, result: Err(Refusal::NotSent(not_asked)) },
        };
        let end = match &attempt.result {
            Ok(answered) if answered.verdict.class.refuses_account() => {
                Err(Refusal::Credentials(answered.verdict.code))
            }
            Ok(answered) => {
                let entry = self.cache.entry(answered.clone());
                let stored = key.operation.is_lookup() && self.cache.insert(&ticket, key, &entry);
                Ok(FetchedEntry { entry, stored })
            }
            Err(fault) => Err(Refusal::Carrier(fault.clone())),
        };
        FetchResult { call: Some(Arc::new(attempt)), result: end }
    }

    /// Refreshes what is asked for often while it is still fresh, if its share of the budget allows it now. The flight
    /// counts against the client that asked.
    pub(super) fn refresh_ahead(
        self: &Arc<Self>,
        config: &Config,
        client: &Client,
        key: &Key,
        held: &Candidate,
        now: Time,
    ) {
        let hits = config.cache.refresh_ahead_hits;
        if !held.should_refresh_ahead(now, hits) || !self.carrier.may_refresh_ahead(&key.group, key.operation)
        {
            return;
        }
        let (relay, flying, known) = (Arc::clone(self), key.clone(), Some(held.entry.answered_at));
        // A table that is full, or a flight that is under way, needs no more than this one's trying.
        let _ = self.flights.join(key, Some(flight_owner(client)), Urgency::Ahead, |pressure| async move {
            relay.fetch(flying, pressure, known).await
        });
    }

    /// Fetches one card without a gateway: what is fresh is left as it is. Says whether a call was made.
    ///
    /// # Errors
    /// The refusal that a gateway would get.
    pub async fn fetch_card(self: &Arc<Self>, key: &Key) -> Result<(bool, Arc<Entry>), Refusal> {
        if let Some(Candidate { entry, freshness: Freshness::Fresh, .. }) = self.cache.look_up(key).await {
            return Ok((false, entry));
        }
        let (relay, flying) = (Arc::clone(self), key.clone());
        let mut seat =
            self.flights
                .join(key, None, Urgency::Refresh, |pressure| async move {
                    relay.fetch(flying, pressure, None).await
                })
                .map_err(|_| Refusal::Overloaded)?;
        let landing = seat.result().await.map_err(|_| Refusal::TaskFailed)?;
        Ok((landing.call.is_some(), landing.result?.entry))
    }

    /// Purges what is selected, the responses that are kept for repetition included: flights under way land for those who
    /// wait, and their answers are not kept.
    ///
    /// # Errors
    /// When cache.db could not be changed.
    pub async fn purge(&self, selection: &Selection, depth: PurgeMode) -> Result<Purged, StoreError> {
        let outdated = || {
            let flies = |key: &Key| selection.may_cover(&key.group, key.operation.name, &key.card);
            self.flights.forget(flies);
            let config = self.config.load();
            self.admit.idempotency.purge(|asked, entry| {
                let card = config.canonical(&asked.card);
                let (group, operation) = (&asked.group, asked.operation.name);
                entry.map_or_else(
                    || selection.may_cover(group, operation, &card),
                    |entry| {
                        let status = entry.reply.verdict.status.as_ref().map(Status::code);
                        selection.covers(group, operation, &card, status, entry.answered_at)
                    },
                )
            });
        };
        self.cache.purge(selection, depth, outdated).await
    }
}
