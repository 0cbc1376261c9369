//! The cache: answers by (group, operation, card), in memory over `cache.db`.
//!
//! Only what the carrier said is kept, byte for byte, with the moment it was said; how long that serves is decided
//! anew on each look-up ([`freshness`]), so a changed configuration and a restart need no migration. The group is part
//! of every key: no path shows one customer another's entry.

pub mod freshness;
mod memory;

use std::sync::Arc;

use bytes::Bytes;
use cmiot_signer::{Card, Status};

use crate::carrier::Answered;
use crate::carrier::verdict::{Code, Verdict};
use crate::clock::{Clock, Time};
use crate::config::Lifetimes;
use crate::operation::Operation;
use crate::store::cache::{CacheRow, CacheStore};
use freshness::{Freshness, lifetime};
use memory::Memory;

/// What an answer is the answer to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Whose accounts were asked.
    pub group: Arc<str>,
    /// The operation's name.
    pub operation: &'static str,
    /// The card.
    pub card: Card,
}

impl Key {
    /// The key of one look-up.
    pub fn new(group: &Arc<str>, operation: &'static Operation, card: &Card) -> Self {
        Self { group: Arc::clone(group), operation: operation.name, card: *card }
    }
}

/// One answer of the carrier, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The carrier's body, byte for byte.
    pub body: Bytes,
    /// What it means.
    pub verdict: Verdict,
    /// When the carrier gave it.
    pub answered_at: Time,
}

impl From<Answered> for Entry {
    fn from(answered: Answered) -> Self {
        Self { body: answered.body, verdict: answered.verdict, answered_at: answered.at }
    }
}

/// An entry that was found, and what it is good for now.
#[derive(Clone, Debug)]
pub struct Held {
    /// The entry.
    pub entry: Arc<Entry>,
    /// What it is good for.
    pub freshness: Freshness,
}

impl Held {
    /// An entry that is known to be fresh.
    pub fn fresh(entry: Arc<Entry>) -> Self {
        Self { entry, freshness: Freshness::Fresh }
    }
}

/// Memory over SQLite.
pub struct Cache {
    memory: Memory,
    store: Arc<CacheStore>,
    lifetimes: Lifetimes,
    clock: Clock,
}

impl Cache {
    /// A cache of at most `entries` in memory, over `store`.
    pub fn new(entries: u64, store: Arc<CacheStore>, lifetimes: Lifetimes, clock: Clock) -> Self {
        Self { memory: Memory::new(entries), store, lifetimes, clock }
    }

    /// Memory, then SQLite. A store that fails is a miss: the carrier knows better anyway.
    pub async fn look_up(&self, key: &Key) -> Option<Held> {
        if let Some(held) = self.recall(key) {
            return Some(held);
        }
        let entry = Arc::new(self.load(key).await?);
        let held = self.judge(Arc::clone(&entry))?;
        self.keep_in_memory(key, entry);
        Some(held)
    }

    /// Memory only: what a leader looks at once more before it spends a call.
    pub fn recall(&self, key: &Key) -> Option<Held> {
        self.memory.get(key).and_then(|entry| self.judge(entry))
    }

    /// Stores an answer if its verdict is ever stored; says whether it was.
    pub fn store(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        if lifetime(&self.lifetimes, &entry.verdict).is_none() {
            return false;
        }
        self.keep_in_memory(key, Arc::clone(entry));
        self.store.save(CacheRow {
            group: Arc::clone(&key.group),
            operation: key.operation.into(),
            card: key.card,
            code: entry.verdict.code.as_str().to_owned(),
            status: entry.verdict.status.as_ref().map(|status| status.code().to_owned()),
            answered_at: entry.answered_at,
            body: entry.body.clone(),
        });
        true
    }

    /// Seconds of freshness left, negative once stale; `None` for what is never stored.
    pub fn ttl(&self, entry: &Entry) -> Option<i64> {
        let lifetime = lifetime(&self.lifetimes, &entry.verdict)?;
        Some(freshness::ttl(lifetime, entry.answered_at, self.clock.now()))
    }

    /// Entries in memory, about.
    pub fn entries(&self) -> u64 {
        self.memory.entries()
    }

    /// Frees what has expired; called on a ticker.
    pub fn tidy(&self) {
        self.memory.tidy();
    }

    fn judge(&self, entry: Arc<Entry>) -> Option<Held> {
        let lifetime = lifetime(&self.lifetimes, &entry.verdict)?;
        match freshness::freshness(lifetime, entry.answered_at, self.clock.now()) {
            Freshness::Expired => None,
            freshness => Some(Held { entry, freshness }),
        }
    }

    fn keep_in_memory(&self, key: &Key, entry: Arc<Entry>) {
        if let Some(lifetime) = lifetime(&self.lifetimes, &entry.verdict) {
            let left = lifetime.useful().saturating_sub(self.clock.now().since(entry.answered_at));
            self.memory.put(key.clone(), entry, left);
        }
    }

    async fn load(&self, key: &Key) -> Option<Entry> {
        let (store, wanted) = (Arc::clone(&self.store), key.clone());
        let loaded =
            tokio::task::spawn_blocking(move || store.load(&wanted.group, wanted.operation, &wanted.card))
                .await;
        match loaded {
            Ok(Ok(row)) => row.and_then(entry),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cache.db cannot be read: asking the carrier instead");
                None
            }
            Err(_) => None,
        }
    }
}

fn entry(row: CacheRow) -> Option<Entry> {
    let code = Code::parse(&row.code)?;
    let status = row.status.as_deref().map(Status::from_code);
    Some(Entry { body: row.body, verdict: Verdict::stored(code, status), answered_at: row.answered_at })
}
