//! The memory tier: the entries asked for most lately, bounded in number.
//!
//! Freshness is decided by our own clock on every look-up, so nothing expires here; what is of no use any more is what
//! nobody asks for, and leaves when room is needed. The policy is LRU: moka's default refuses new keys when full, and a
//! card just asked for is the one asked for next. Beside each entry stands how often it was asked for: what is asked for
//! often is refreshed ahead of need.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{Entry, Key};

/// Entries by key.
pub(super) struct Memory(Cache<Key, Arc<Entry>, RandomState>);

/// How often memory was asked for an entry. Part of the entry, where it costs no allocation of its own, and no part of
/// what it says: entries are equal whatever it is.
#[derive(Default, Debug)]
pub struct Hits(AtomicU32);

impl Hits {
    /// One more; returns how many there were before.
    fn count(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Clone for Hits {
    fn clone(&self) -> Self {
        Self(self.0.load(Ordering::Relaxed).into())
    }
}

impl PartialEq for Hits {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Hits {}

impl Memory {
    pub(super) fn new(entries: u64) -> Self {
        // Only authenticated clients ask for keys, so that a fast hash with a seed of its own is enough.
        let hasher = RandomState::default();
        Self(
            Cache::builder()
                .max_capacity(entries)
                .eviction_policy(EvictionPolicy::lru())
                .build_with_hasher(hasher),
        )
    }

    /// The entry, and how often it was asked for since it was put here.
    pub(super) fn get(&self, key: &Key) -> Option<(Arc<Entry>, u32)> {
        let entry = self.0.get(key)?;
        let hits = entry.hits.count();
        Some((entry, hits))
    }

    /// Keeps `entry`, unless a later answer is held already.
    pub(super) fn put(&self, key: Key, entry: Arc<Entry>) {
        self.0.entry(key).and_upsert_with(|present| match present {
            Some(present) if present.value().answered_at > entry.answered_at => present.into_value(),
            _ => entry,
        });
    }

    /// Forgets the entries that are selected; returns how many.
    pub(super) fn remove(&self, selects: impl Fn(&Key, &Entry) -> bool) -> u64 {
        self.selected(selects).into_iter().map(|key| self.0.invalidate(&key)).count() as u64
    }

    /// Marks the entries that are selected as stale; returns how many.
    pub(super) fn mark_stale(&self, selects: impl Fn(&Key, &Entry) -> bool) -> u64 {
        let marked = self.selected(selects).into_iter().map(|key| {
            self.0.entry(key).and_compute_with(|present| match present {
                Some(present) => {
                    let entry = Entry { stale: true, ..(*present.into_value()).clone() };
                    moka::ops::compute::Op::Put(Arc::new(entry))
                }
                None => moka::ops::compute::Op::Nop,
            })
        });
        marked.count() as u64
    }

    pub(super) fn entries(&self) -> u64 {
        self.0.entry_count()
    }

    /// Lets moka do the work that it puts off; called on a ticker.
    pub(super) fn tidy(&self) {
        self.0.run_pending_tasks();
    }

    fn selected(&self, selects: impl Fn(&Key, &Entry) -> bool) -> Vec<Key> {
        let selected = self.0.iter().filter(|(key, entry)| selects(key, entry));
        selected.map(|(key, _)| (*key).clone()).collect()
    }
}
