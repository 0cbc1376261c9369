//! Selection of the response: the carrier's, or an entry of the cache.

use std::sync::Arc;

use super::fetch::FetchResult;
use super::{Exchange, Relay};
use crate::cache::freshness::Freshness;
use crate::cache::{Candidate, Entry, Key};
use crate::carrier::verdict::Class;
use crate::clock::Time;
use crate::flight::Role;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::wire::response::{CacheStatus, Forward, ForwardReason};

/// The selected carrier response, and its way here.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    pub(super) outcome: Outcome,
    pub(super) entry: Arc<Entry>,
    pub(super) cache_status: CacheStatus,
}

impl Relay {
    /// Selects the response to a request that waited for a fetch: what the carrier responded, unless the stale candidate
    /// is better.
    pub(super) fn select(
        &self,
        key: &Key,
        role: Role,
        fetched: FetchResult,
        candidate: Option<Candidate>,
        exchange: &mut Exchange,
    ) -> Result<Selected, Refusal> {
        if let Some(call) = fetched.call() {
            exchange.record.called(&call.account, call.transid.as_ref());
        }
        let reason = match candidate.as_ref().map(|candidate| candidate.freshness) {
            None => ForwardReason::UriMiss,
            Some(Freshness::Fresh) => ForwardReason::Request,
            Some(_) => ForwardReason::Stale,
        };
        // The call of another node is one that another request led, too.
        let led = role == Role::Leader && !fetched.call().is_some_and(|call| call.elsewhere);
        let forward = Forward { reason, collapsed: !led };
        match fetched {
            FetchResult::AlreadyCached(entry) => {
                Ok(from_cache(&self.cache.assume_fresh(key, entry), None, self.clock.now()))
            }
            FetchResult::FromFleet(entry) => {
                let candidate = self.cache.assume_fresh(key, entry);
                Ok(from_cache(&candidate, Some(CacheStatus::FLEET), self.clock.now()))
            }
            FetchResult::Response { entry, stored, .. } => {
                let class = entry.reply.verdict.class;
                if let Some(candidate) = candidate.filter(|_| class.yields_to_stale()) {
                    let stale = from_cache(&candidate, Some(class.name()), self.clock.now());
                    return Ok(stale.instead_of_response(forward, 200));
                }
                Ok(Selected {
                    outcome: if led { Outcome::Miss } else { Outcome::Collapsed },
                    cache_status: CacheStatus::Forwarded { forward, stored, detail: negative(&entry) },
                    entry,
                })
            }
            FetchResult::Failed { refusal, .. } => {
                let carrier_status = refusal.describe().carrier_status;
                let stale = self.serve_stale(candidate, refusal)?;
                Ok(match carrier_status {
                    Some(status) => stale.instead_of_response(forward, status),
                    None => stale,
                })
            }
        }
    }

    /// Serves the stale candidate, if there is one, in place of a refusal.
    pub(super) fn serve_stale(
        &self,
        candidate: Option<Candidate>,
        refusal: Refusal,
    ) -> Result<Selected, Refusal> {
        let Some(candidate) = candidate else { return Err(refusal) };
        Ok(from_cache(&candidate, Some(refusal.describe().reason), self.clock.now()))
    }
}

impl Selected {
    /// The stale entry replaces a carrier response that was received with this HTTP status.
    fn instead_of_response(mut self, forward: Forward, status: u16) -> Self {
        if let CacheStatus::Hit { ttl, detail } = self.cache_status {
            self.cache_status = CacheStatus::StaleInstead { forward, status, ttl, detail };
        }
        self
    }
}

/// A candidate as the response. `origin` is the reason for which there is no fresher one, or the fleet.
pub(super) fn from_cache(candidate: &Candidate, origin: Option<&'static str>, now: Time) -> Selected {
    let Candidate { entry, freshness, .. } = candidate;
    let detail = negative(entry).or(origin);
    Selected {
        outcome: if *freshness == Freshness::Fresh { Outcome::Hit } else { Outcome::Stale },
        cache_status: CacheStatus::Hit { ttl: candidate.ttl(now), detail },
        entry: Arc::clone(entry),
    }
}

fn negative(entry: &Entry) -> Option<&'static str> {
    (entry.reply.verdict.class == Class::NotFound).then_some(CacheStatus::NEGATIVE)
}
