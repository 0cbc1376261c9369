//! What happens without a request, since a flight outlives its askers: ask the carrier, store what it said.

use std::sync::Arc;

use super::Relay;
use crate::cache::freshness::Freshness;
use crate::cache::{Entry, Held, Key};
use crate::carrier::Attempt;
use crate::carrier::budget::Urgency;
use crate::carrier::verdict::Class;
use crate::operation::Operation;
use crate::outcome::Refusal;

/// What a flight brings to all who wait for it.
#[derive(Clone, Debug)]
pub struct Landing {
    /// The last call that was made; none if the cache had the answer after all, or no call may be made.
    pub(super) call: Option<Arc<Attempt>>,
    /// The carrier's answer, or why there is none.
    pub(super) end: Result<Brought, Refusal>,
}

#[derive(Clone, Debug)]
pub(super) struct Brought {
    pub(super) entry: Arc<Entry>,
    pub(super) stored: bool,
}

impl Relay {
    /// The flight of one key.
    pub(super) async fn fly(&self, key: Key, operation: &'static Operation, urgency: Urgency) -> Landing {
        // The flight before this one may have landed between our look and our start.
        if let Some(Held { entry, freshness: Freshness::Fresh }) = self.cache.recall(&key) {
            return Landing { call: None, end: Ok(Brought { entry, stored: true }) };
        }
        let attempt = match self.carrier.call(&key.group, operation, &key.card, urgency).await {
            Ok(attempt) => attempt,
            Err(not_asked) => return Landing { call: None, end: Err(Refusal::NotAsked(not_asked)) },
        };
        let end = match &attempt.end {
            Ok(answered) if answered.verdict.class == Class::Credentials => {
                Err(Refusal::Credentials(answered.verdict.code))
            }
            Ok(answered) => {
                let entry = Arc::new(Entry::from(answered.clone()));
                let stored = self.cache.store(&key, &entry);
                Ok(Brought { entry, stored })
            }
            Err(fault) => Err(Refusal::Carrier(fault.clone())),
        };
        Landing { call: Some(Arc::new(attempt)), end }
    }
}
