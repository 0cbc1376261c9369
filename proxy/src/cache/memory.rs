//! The memory tier: a bounded number of entries, fewer if bodies are large.
//!
//! Freshness is evaluated on each lookup by our own clock, so no entry expires here: entries are evicted least recently
//! used first. moka's default policy may refuse new keys when full, but a card that was just looked up is the most likely
//! next one. Each entry counts its lookups: frequently used ones are refreshed ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::freshness::is_in_future;
use super::{Entry, Key};
use crate::clock::Time;

/// Bytes of a body per unit of capacity; an entry takes at least one unit, and a usual body is shorter.
const UNIT: usize = 256;

pub(super) struct Memory(Cache<Key, Arc<Entry>, RandomState>);

/// Lookups of an entry in memory. The counter is in the entry, where it needs no allocation of its own; entries are equal
/// whatever it is.
#[derive(Default, Debug)]
pub struct Hits(AtomicU32);

impl Hits {
    /// Counts one lookup; returns the number of earlier ones.
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

/// An entry in memory and its earlier lookups.
pub(super) struct Found {
    pub(super) entry: Arc<Entry>,
    pub(super) hits: u32,
}

impl Memory {
    pub(super) fn new(entries: u64) -> Self {
        // Only authenticated clients choose keys, so a fast hash with a random seed is enough.
        let hasher = RandomState::default();
        Self(
            Cache::builder()
                .max_capacity(entries)
                .weigher(|_, entry: &Arc<Entry>| weight(entry))
                .eviction_policy(EvictionPolicy::lru())
                .build_with_hasher(hasher),
        )
    }

    pub(super) fn get(&self, key: &Key) -> Option<Found> {
        let entry = self.0.get(key)?;
        let hits = entry.hits.count();
        Some(Found { entry, hits })
    }

    /// Inserts `entry`, unless a later one is present. An entry of the future is no later one: the clock was ahead.
    pub(super) fn insert(&self, key: Key, entry: &Arc<Entry>, now: Time) {
        let is_later = |present: &Entry| {
            present.answered_at > entry.answered_at && !is_in_future(present.answered_at, now)
        };
        self.0.entry(key).and_upsert_with(|present| match present {
            Some(present) if is_later(present.value()) => present.into_value(),
            _ => Arc::clone(entry),
        });
    }

    /// The number of the selected entries.
    pub(super) fn count(&self, selects: impl Fn(&Key, &Entry) -> bool) -> u64 {
        self.selected(selects).len() as u64
    }

    /// Removes the selected entries; returns how many.
    pub(super) fn remove(&self, selects: impl Fn(&Key, &Entry) -> bool) -> u64 {
        self.selected(selects).into_iter().map(|key| self.0.invalidate(&key)).count() as u64
    }

    /// Marks the selected entries stale; returns how many.
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

    pub(super) fn len(&self) -> u64 {
        self.0.entry_count()
    }

    /// Runs the work that moka defers; called on a ticker.
    pub(super) fn run_maintenance(&self) {
        self.0.run_pending_tasks();
    }

    fn selected(&self, selects: impl Fn(&Key, &Entry) -> bool) -> Vec<Key> {
        let selected = self.0.iter().filter(|(key, entry)| selects(key, entry));
        selected.map(|(key, _)| (*key).clone()).collect()
    }
}

/// Units of capacity that an entry takes.
fn weight(entry: &Entry) -> u32 {
    u32::try_from(entry.reply.body.len().div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::intern::CarrierReply;
    use crate::cache::tests::{entry, key};

    fn of(bytes: usize) -> Arc<Entry> {
        let entry = entry("00", 0);
        let reply = CarrierReply { body: vec![b'x'; bytes].into(), ..(*entry.reply).clone() };
        Arc::new(Entry { reply: reply.into(), ..entry })
    }

    #[test]
    fn large_bodies_are_bounded_in_bytes_and_the_latest_stay() {
        let memory = Memory::new(100);
        for n in 0..50 {
            memory.insert(key(&format!("1064800{n:06}")), &of(64 << 10), Time::EPOCH);
            memory.run_maintenance();
        }
        assert_eq!(memory.len(), 0, "a single one exceeds the capacity");
        for n in 0..50 {
            memory.insert(key(&format!("1064800{n:06}")), &of(2_500), Time::EPOCH);
            memory.run_maintenance();
        }
        assert_eq!(memory.len(), 10);
        assert!(memory.get(&key("1064800000049")).is_some() && memory.get(&key("1064800000039")).is_none());
        for n in 0..200 {
            memory.insert(key(&format!("1064800{n:06}")), &of(80), Time::EPOCH);
            memory.run_maintenance();
        }
        assert_eq!(memory.len(), 100, "a usual one takes one unit");
    }
}
