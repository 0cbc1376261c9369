//! The memory tier: the entries asked for most lately, bounded in number and, where bodies are large, in bytes.
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

use super::freshness::is_in_future;
use super::{Entry, Key};
use crate::clock::Time;

/// An entry counts once for each of these bytes of its body, and once at least: the usual body is shorter.
const UNIT: usize = 256;

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
                .weigher(|_, entry: &Arc<Entry>| weight(entry))
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

    /// Keeps `entry`, unless a later answer is held already. One of the future is no later one: the clock was ahead.
    pub(super) fn insert(&self, key: Key, entry: &Arc<Entry>, now: Time) {
        let is_later = |present: &Entry| {
            present.answered_at > entry.answered_at && !is_in_future(present.answered_at, now)
        };
        self.0.entry(key).and_upsert_with(|present| match present {
            Some(present) if is_later(present.value()) => present.into_value(),
            _ => Arc::clone(entry),
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

    pub(super) fn len(&self) -> u64 {
        self.0.entry_count()
    }

    /// Lets moka do the work that it puts off; called on a ticker.
    pub(super) fn run_maintenance(&self) {
        self.0.run_pending_tasks();
    }

    fn selected(&self, selects: impl Fn(&Key, &Entry) -> bool) -> Vec<Key> {
        let selected = self.0.iter().filter(|(key, entry)| selects(key, entry));
        selected.map(|(key, _)| (*key).clone()).collect()
    }
}

/// For how many entries this one counts.
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
        let said = CarrierReply { body: vec![b'x'; bytes].into(), ..(*entry.reply).clone() };
        Arc::new(Entry { reply: said.into(), ..entry })
    }

    #[test]
    fn large_bodies_are_bounded_in_bytes_and_the_latest_stay() {
        let memory = Memory::new(100);
        for n in 0..50 {
            memory.insert(key(&format!("1064800{n:06}")), &of(64 << 10), Time::EPOCH);
            memory.run_maintenance();
        }
        assert_eq!(memory.len(), 0, "one alone is more than there is room for");
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
        assert_eq!(memory.len(), 100, "usual ones count once");
    }
}
