//! The memory tier: the entries asked for most lately, bounded in number.
//!
//! Freshness is decided by our own clock on every look-up; moka's expiry only frees what is of no use any more. The
//! policy is LRU: moka's default refuses new keys when full, and a card just asked for is the one asked for next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Entry, Key};

/// Entries by key.
pub(super) struct Memory(Cache<Key, Held>);

#[derive(Clone)]
struct Held {
    entry: Arc<Entry>,
    useful: Duration,
}

impl Memory {
    pub(super) fn new(entries: u64) -> Self {
        Self(
            Cache::builder()
                .max_capacity(entries)
                .eviction_policy(EvictionPolicy::lru())
                .expire_after(Useful)
                .build(),
        )
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.0.get(key).map(|held| held.entry)
    }

    /// Keeps `entry` for `useful` at most, unless a later answer is held already.
    pub(super) fn put(&self, key: Key, entry: Arc<Entry>, useful: Duration) {
        self.0.entry(key).and_upsert_with(|present| match present {
            Some(present) if present.value().entry.answered_at > entry.answered_at => present.into_value(),
            _ => Held { entry, useful },
        });
    }

    pub(super) fn entries(&self) -> u64 {
        self.0.entry_count()
    }

    /// Lets moka do the work that it puts off; called on a ticker.
    pub(super) fn tidy(&self) {
        self.0.run_pending_tasks();
    }
}

/// An entry leaves when it is of no use, counted anew when a later answer replaces it.
struct Useful;

impl Expiry<Key, Held> for Useful {
    fn expire_after_create(&self, _: &Key, held: &Held, _: Instant) -> Option<Duration> {
        Some(held.useful)
    }

    fn expire_after_update(&self, _: &Key, held: &Held, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(held.useful)
    }
}
