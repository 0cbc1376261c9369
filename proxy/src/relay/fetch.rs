//! The carrier call. It runs in a task of its own, so it completes even if every waiter disconnects.

use std::sync::Arc;

use cmiot_signer::{Status, Transid};

use super::{Query, Relay};
use crate::cache::freshness::Freshness;
use crate::cache::{Candidate, Entry, FillToken, Key, PurgeMode, Purged};
use crate::carrier::verdict::{Class, Translated};
use crate::carrier::{Attempt, Call, CarrierResponse, NotSent};
use crate::clock::Time;
use crate::config::Config;
use crate::operation::{FreshnessRule, USER_STATUS};
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::cache::Selection;
use crate::urgency::{SharedUrgency, Urgency};

/// The result of a flight, for all its waiters.
#[derive(Clone, Debug)]
pub enum FetchResult {
    /// No call was made: since the lookup, an earlier flight has stored a fresh entry.
    AlreadyCached(Arc<Entry>),
    /// No call was made: another node of the fleet has this response, which is fresh.
    FromFleet(Arc<Entry>),
    /// The carrier's response.
    Response { call: Made, entry: Arc<Entry>, stored: bool },
    /// No response that may be relayed. `call` is the last call, if one was made.
    Failed { call: Option<Made>, refusal: Refusal },
}

/// The call that a result comes from.
#[derive(Clone, Debug)]
pub struct Made {
    pub account: Arc<str>,
    pub transid: Option<Transid>,
    /// Whether another node of the fleet made it.
    pub elsewhere: bool,
}

impl Made {
    fn here(attempt: &Attempt) -> Self {
        Self { account: Arc::clone(&attempt.account), transid: attempt.transid, elsewhere: false }
    }
}

impl FetchResult {
    pub(super) fn call(&self) -> Option<&Made> {
        match self {
            Self::AlreadyCached(_) | Self::FromFleet(_) => None,
            Self::Response { call, .. } => Some(call),
            Self::Failed { call, .. } => call.as_ref(),
        }
    }
}

impl Relay {
    /// The work of a flight: calls the carrier, unless the cache has a fresh entry that is newer than the one `known` when
    /// the flight was joined.
    pub(super) async fn fetch_unless_cached(
        &self,
        key: Key,
        urgency: SharedUrgency,
        known: Option<Time>,
    ) -> FetchResult {
        // The key's last flight may have ended between the lookup and the start of this one.
        if let Some(Candidate { entry, freshness: Freshness::Fresh, .. }) =
            self.cache.get_in_memory(&key, self.clock.now())
            && known.is_none_or(|known| entry.answered_at > known)
        {
            return FetchResult::AlreadyCached(entry);
        }
        match &self.fleet {
            // Boxed, so that a flight without a fleet has no space for this.
            Some(fleet) => Box::pin(self.fetch_in_fleet(fleet, &key, &urgency, known)).await,
            None => self.call_carrier(&key, &urgency).await,
        }
    }

    /// Calls the carrier, and stores its response.
    pub(super) async fn call_carrier(&self, key: &Key, urgency: &SharedUrgency) -> FetchResult {
        match self.make_call(key, urgency).await {
            Ok((attempt, token)) => self.read_call(key, &token, &attempt),
            Err(not_sent) => FetchResult::Failed { call: None, refusal: Refusal::NotSent(not_sent) },
        }
    }

    /// Makes a call. The token was taken before it.
    ///
    /// # Errors
    /// [`NotSent`]: no call was made.
    pub(super) async fn make_call(
        &self,
        key: &Key,
        urgency: &SharedUrgency,
    ) -> Result<(Attempt, FillToken), NotSent> {
        // Taken before the call, so that a purge during the call keeps the response out of the cache.
        let token = self.cache.fill_token();
        let call = Call { operation: key.operation, card: &key.card, parameters: &key.parameters };
        let known = match self.carrier.has_fallback(&key.group) {
            true => self.cache.was_translated(key).await,
            false => None,
        };
        Ok((self.carrier.call(&key.group, call, urgency, known).await?, token))
    }

    /// The result of a call; its response is stored.
    pub(super) fn read_call(&self, key: &Key, token: &FillToken, attempt: &Attempt) -> FetchResult {
        let call = Made::here(attempt);
        match &attempt.result {
            Ok(response) => self.read_response(key, token, call, response.clone()),
            Err(fault) => FetchResult::Failed { call: Some(call), refusal: Refusal::Carrier(fault.clone()) },
        }
    }

    /// The result of a call with a response, which is stored.
    pub(super) fn read_response(
        &self,
        key: &Key,
        token: &FillToken,
        call: Made,
        response: CarrierResponse,
    ) -> FetchResult {
        if response.verdict.class.refuses_account() {
            let refusal = Refusal::Credentials(response.carrier_code());
            return FetchResult::Failed { call: Some(call), refusal };
        }
        if response.verdict.class == Class::TokenRefused {
            let refusal = Refusal::TokenRefused(response.carrier_code());
            return FetchResult::Failed { call: Some(call), refusal };
        }
        let entry = self.cache.entry(self.with_usage(key, response));
        let stored = key.operation.is_lookup() && self.cache.insert(token, key, &entry);
        FetchResult::Response { call, entry, stored }
    }

    /// Adds the counting of the card's usage to figures that were translated, if the card's STATUS is in memory: it follows
    /// from the card's platform.
    fn with_usage(&self, key: &Key, response: CarrierResponse) -> CarrierResponse {
        let Some(translated) = &response.translated else { return response };
        if !matches!(key.operation.keep, FreshnessRule::UntilNineAm(_)) {
            return response;
        }
        let status = Key::new(&key.group, USER_STATUS, &key.card);
        let known = self.cache.get_in_memory(&status, self.clock.now());
        let usage = known.and_then(|known| Some(known.entry.reply.translated.as_ref()?.usage));
        let translated = Translated { usage: usage.unwrap_or(translated.usage), ..(**translated).clone() };
        CarrierResponse { translated: Some(Arc::new(translated)), ..response }
    }

    /// Refreshes an entry in demand while it is still fresh, if its share of the budget allows it now. The flight counts
    /// against the client of the request.
    pub(super) fn refresh_ahead(
        self: &Arc<Self>,
        config: &Config,
        query: &Query,
        candidate: &Candidate,
        now: Time,
    ) {
        let (key, hits) = (&query.key, config.cache.refresh_ahead_hits);
        if !candidate.should_refresh_ahead(now, hits)
            || !self.carrier.may_refresh_ahead(&key.group, key.operation)
        {
            return;
        }
        let (relay, flight_key) = (Arc::clone(self), key.clone());
        let known = Some(candidate.entry.answered_at);
        // If the table is full or the key has a flight already, nothing is left to do.
        let _ = self.flights.join(key, Some(query.owner()), Urgency::Ahead, |urgency| async move {
            relay.fetch_unless_cached(flight_key, urgency, known).await
        });
    }

    /// Fetches one card without a gateway, unless its entry is fresh and newer than the one that was answered at `known`.
    /// Returns whether this node made a call.
    ///
    /// # Errors
    /// The refusal that a gateway would get.
    pub async fn fetch_card(
        self: &Arc<Self>,
        key: &Key,
        known: Option<Time>,
    ) -> Result<(bool, Arc<Entry>), Refusal> {
        if let Some(Candidate { entry, freshness: Freshness::Fresh, .. }) = self.cache.look_up(key).await
            && known.is_none_or(|known| entry.answered_at > known)
        {
            return Ok((false, entry));
        }
        let (relay, flight_key) = (Arc::clone(self), key.clone());
        let mut waiter = self
            .flights
            .join(key, None, Urgency::Refresh, |urgency| async move {
                relay.fetch_unless_cached(flight_key, urgency, known).await
            })
            .map_err(|_| Refusal::Overloaded)?;
        match waiter.result().await.map_err(|_| Refusal::TaskFailed)? {
            FetchResult::AlreadyCached(entry) | FetchResult::FromFleet(entry) => Ok((false, entry)),
            FetchResult::Response { entry, call, .. } => Ok((!call.elsewhere, entry)),
            FetchResult::Failed { refusal, .. } => Err(refusal),
        }
    }

    /// Purges the selected entries, and the responses stored for retries. Flights complete for their waiters, and their
    /// responses are not stored.
    ///
    /// # Errors
    /// cache.db could not be changed.
    pub async fn purge(&self, selection: &Selection, mode: PurgeMode) -> Result<Purged, StoreError> {
        let forget = || {
            self.flights.forget(|key: &Key| selection.may_cover(&key.group, key.operation.name, &key.card));
            let config = self.config.load();
            self.admit.idempotency.purge(|request, entry| {
                let card = config.canonical(&request.card);
                let (group, operation) = (&request.group, request.operation.name);
                entry.map_or_else(
                    || selection.may_cover(group, operation, &card),
                    |entry| {
                        let status = entry.reply.verdict.status.as_ref().map(Status::code);
                        selection.covers(group, operation, &card, status, entry.answered_at)
                    },
                )
            });
        };
        self.cache.purge(selection, mode, forget).await
    }
}
