//! The cache: carrier replies by (group, operation, card), in memory over `cache.db`.
//!
//! An entry is the carrier's reply in the form that gateways get, and the time of the reply; its freshness is evaluated on each lookup
//! ([`freshness`]), so a changed configuration and a restart need no migration. The group is part of every key: no path
//! shows one customer an entry of another.

pub mod cache_control;
pub mod freshness;
mod generation;
pub mod intern;
mod memory;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cmiot_signer::{Card, Status};

use crate::carrier::CarrierResponse;
use crate::carrier::charset::ContentType;
use crate::carrier::dialect::{has_card, stored_verdict};
use crate::carrier::verdict::{Class, Code, Translated};
use crate::clock::{Clock, Time};
use crate::config::Config;
use crate::lifetimes::Lifetime;
use crate::operation::{Operation, Parameters};
use crate::store::StoreError;
use crate::store::cache::{CacheRow, CacheStore, Selection};
use freshness::{Freshness, FreshnessPolicy};
pub use generation::FillToken;
use generation::{Generations, Source};
use intern::{CarrierReply, ReplyInterner};
pub use memory::Hits;
use memory::Memory;

/// The cache key of a lookup.
#[derive(Clone, Eq, Debug)]
pub struct Key {
    /// The group whose accounts make the call.
    pub group: Arc<str>,
    pub operation: &'static Operation,
    pub card: Card,
    /// The declared parameters, in addition to the card.
    pub parameters: Parameters,
}

impl Key {
    /// The key of a lookup without further parameters.
    pub fn new(group: &Arc<str>, operation: &'static Operation, card: &Card) -> Self {
        Self { group: Arc::clone(group), operation, card: *card, parameters: Parameters::default() }
    }
}

impl Hash for Key {
    /// The card distinguishes nearly all keys; hashing two more texts would cost more than it saves.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.card.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // Most keys share operation and group: comparing their texts would be most of the cost of a hit.
        let same_operation =
            || std::ptr::eq(self.operation, other.operation) || self.operation == other.operation;
        self.card == other.card
            && self.group == other.group
            && same_operation()
            && self.parameters == other.parameters
    }
}

/// One carrier reply, as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub reply: Arc<CarrierReply>,
    pub answered_at: Time,
    /// Purged softly: not fresh, whatever its age.
    pub stale: bool,
    /// Lookups since it came into memory.
    pub hits: Hits,
}

/// An entry with its freshness at the time of a lookup.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub entry: Arc<Entry>,
    pub freshness: Freshness,
    /// Absent for a reply that is never stored.
    pub lifetime: Option<Lifetime>,
    /// Earlier lookups of it in memory.
    pub hits: u32,
}

/// Age of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Age {
    /// Time since the carrier's reply.
    pub total: Duration,
    /// Time since the end of freshness; zero while fresh.
    pub stale: Duration,
}

impl Candidate {
    pub fn age(&self, now: Time) -> Age {
        let answered_at = self.entry.answered_at;
        let stale = self.lifetime.map(|lifetime| freshness::staleness(&lifetime, answered_at, now));
        Age { total: now.since(answered_at), stale: stale.unwrap_or(Duration::MAX) }
    }

    /// Seconds of freshness that remain at `now`, negative once stale; `None` for a reply that is never stored.
    pub fn ttl(&self, now: Time) -> Option<i64> {
        let ttl = freshness::ttl(&self.lifetime?, self.entry.answered_at, now);
        Some(if self.entry.stale { ttl.min(-1) } else { ttl })
    }

    /// Whether it is in the last fifth of its freshness at `now`, and was looked up `hits` times.
    pub fn should_refresh_ahead(&self, now: Time, hits: u32) -> bool {
        self.freshness == Freshness::Fresh
            && self.hits >= hits
            && self
                .lifetime
                .is_some_and(|lifetime| now.since(self.entry.answered_at) >= lifetime.fresh.0 / 5 * 4)
    }
}

/// The state of an entry, for the operator.
#[derive(Clone, Debug)]
pub struct EntryInfo {
    pub entry: Arc<Entry>,
    /// `None` when the present configuration does not store its kind.
    pub freshness: Option<Freshness>,
    pub fresh_until: Option<Time>,
    /// Until when it may be served stale.
    pub stale_until: Option<Time>,
    /// Whether it is in memory, or only in the file.
    pub in_memory: bool,
}

/// Effect of a purge on the entries that it selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeMode {
    /// Marks them stale: they are served only if the carrier fails.
    Soft,
    /// Removes them.
    Hard,
}

/// Result of a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purged {
    /// Entries in memory.
    pub memory: u64,
    /// Rows of the file.
    pub file: u64,
    /// The generation that it started.
    pub generation: u64,
}

/// Memory over SQLite.
pub struct Cache {
    memory: Memory,
    replies: ReplyInterner,
    store: Arc<CacheStore>,
    generations: Arc<Generations>,
    policy: ArcSwap<FreshnessPolicy>,
    clock: Clock,
}

impl Cache {
    /// The cache of a configuration, over `store`.
    pub fn new(config: &Config, store: Arc<CacheStore>, clock: Clock) -> Self {
        Self {
            memory: Memory::new(config.cache.memory_entries),
            replies: ReplyInterner::default(),
            store,
            generations: Arc::default(),
            policy: ArcSwap::from_pointee(FreshnessPolicy::of(config)),
            clock,
        }
    }

    /// Applies the lifetimes of a changed configuration.
    pub fn reload(&self, config: &Config) {
        self.policy.store(Arc::new(FreshnessPolicy::of(config)));
    }

    /// Looks the key up in memory, then in SQLite. A failure of the store is a miss, since the carrier has the status.
    pub async fn look_up(&self, key: &Key) -> Option<Candidate> {
        if let Some(candidate) = self.get_in_memory(key, self.clock.now()) {
            return Some(candidate);
        }
        let token = self.fill_token();
        // Boxed, so that the future of a hit in memory has no space for this.
        let entry = Arc::new(Box::pin(self.load(key)).await?);
        let candidate = self.evaluate_at(key, Arc::clone(&entry), self.clock.now())?;
        token
            .insert_if_current(Source::File, key, &entry, || self.insert_in_memory(key, &entry))
            .then_some(candidate)
    }

    /// Looks the key up in memory only: at the start of a lookup, and again by a leader before its carrier call.
    pub fn get_in_memory(&self, key: &Key, now: Time) -> Option<Candidate> {
        let found = self.memory.get(key)?;
        let candidate = self.evaluate_at(key, found.entry, now)?;
        Some(Candidate { hits: found.hits, ..candidate })
    }

    /// The entry of a carrier response. Only [`Self::insert`] stores it.
    pub fn entry(&self, response: CarrierResponse) -> Arc<Entry> {
        let reply = self.replies.intern(CarrierReply {
            body: response.body,
            content_type: response.content_type,
            verdict: response.verdict,
            translated: response.translated,
        });
        Arc::new(Entry { reply, answered_at: response.at, stale: false, hits: Hits::default() })
    }

    /// A token to take before the call, and to pass to [`Self::insert`] with its response.
    pub fn fill_token(&self) -> FillToken {
        self.generations.fill_token()
    }

    /// Stores an entry if its kind is stored and no purge has covered it since the token was taken; returns whether it did.
    pub fn insert(&self, token: &FillToken, key: &Key, entry: &Arc<Entry>) -> bool {
        if self.policy.load().lifetime(key, entry).is_none() {
            return false;
        }
        token.insert_if_current(Source::Carrier, key, entry, || {
            self.insert_in_memory(key, entry);
            let row = CacheRow {
                group: Arc::clone(&key.group),
                operation: key.operation.name.into(),
                card: key.card,
                parameters: key.parameters.as_str().to_owned(),
                code: entry.reply.verdict.code.as_str().to_owned(),
                status: entry.reply.verdict.status.as_ref().map(|status| status.code().to_owned()),
                answered_at: entry.answered_at,
                body: entry.reply.body.clone(),
                charset: entry.reply.content_type.charset().map(str::to_owned),
                carrier: entry.reply.translated.as_ref().map(|translated| translated.written()),
                stale: false,
            };
            self.store.save(row, self.clock.now().plus(freshness::TOLERANCE));
        })
    }

    /// Purges the selected entries, in memory and in the file. Responses to earlier calls are not stored; when this
    /// returns, no entry that was stored before is served as fresh (soft) or at all (hard). `outdate` runs before any
    /// other entry can be stored: it takes the flights out of their table.
    ///
    /// # Errors
    /// When the file could not be changed. Memory was changed, and responses to earlier calls are outdated nevertheless.
    pub async fn purge(
        &self,
        selection: &Selection,
        mode: PurgeMode,
        outdate: impl FnOnce(),
    ) -> Result<Purged, StoreError> {
        let selects = |key: &Key, entry: &Entry| is_selected(selection, key, entry);
        let (generation, (memory, applied)) = self.generations.start(selection, || {
            outdate();
            match mode {
                PurgeMode::Hard => (self.memory.remove(selects), self.store.remove_where(selection.clone())),
                PurgeMode::Soft => {
                    (self.memory.mark_stale(selects), self.store.mark_stale_where(selection.clone()))
                }
            }
        });
        let applied = applied.await;
        self.generations.end(generation, selection);
        Ok(Purged { memory, file: applied?, generation })
    }

    /// The number of entries in memory that a purge would select now.
    pub fn count_in_memory(&self, selection: &Selection) -> u64 {
        self.memory.count(|key, entry| is_selected(selection, key, entry))
    }

    /// Removes entries whose time is in the future: they would count as new when that time comes. Called at the start and
    /// after each step backwards of the clock. Until they are removed from the file, they count as expired.
    pub fn remove_future(&self) {
        let now = self.clock.now();
        let memory = self.memory.remove(|_, entry| freshness::is_in_future(entry.answered_at, now));
        if memory > 0 {
            tracing::warn!(
                entries = memory,
                "removed cache entries whose time is in the future by this machine's clock"
            );
        }
        let after = Some(now.plus(freshness::TOLERANCE));
        drop(self.store.remove_where(Selection { answered_after: after, ..Selection::default() }));
    }

    /// The entry of a key, expired or not.
    pub async fn inspect(&self, key: &Key) -> Option<EntryInfo> {
        let (entry, in_memory) = match self.memory.get(key) {
            Some(found) => (found.entry, true),
            None => (Arc::new(self.load(key).await?), false),
        };
        let lifetime = self.policy.load().lifetime(key, &entry);
        Some(EntryInfo {
            freshness: lifetime.map(|lifetime| freshness_at(self.clock.now(), &lifetime, &entry)),
            fresh_until: lifetime.map(|lifetime| entry.answered_at.plus(lifetime.fresh.0)),
            stale_until: lifetime.map(|lifetime| entry.answered_at.plus(lifetime.usable_for())),
            entry,
            in_memory,
        })
    }

    /// Whether the last reply for a key that shows that the carrier has the card, expired or not, was translated from another
    /// API than gateways speak. None if there is none.
    pub async fn was_translated(&self, key: &Key) -> Option<bool> {
        let reply = match self.memory.get(key) {
            Some(found) => Arc::clone(&found.entry.reply),
            None => self.load(key).await?.reply,
        };
        // A card state that v2 does not have is code 81 for gateways, and a success of the carrier.
        let is_known = reply.verdict.class == Class::Ok || reply.translated.as_deref().is_some_and(has_card);
        is_known.then_some(reply.translated.is_some())
    }

    /// The number of purges since the start.
    pub fn generation(&self) -> u64 {
        self.generations.current()
    }

    /// The file below the memory tier.
    pub fn store(&self) -> &Arc<CacheStore> {
        &self.store
    }

    /// A candidate for an entry that was just received.
    pub fn assume_fresh(&self, key: &Key, entry: Arc<Entry>) -> Candidate {
        let lifetime = self.policy.load().lifetime(key, &entry);
        Candidate { entry, freshness: Freshness::Fresh, lifetime, hits: 0 }
    }

    /// The freshness of an entry that was served before; `None` when it has expired. One whose kind is never stored has
    /// no lifetime, and counts as fresh.
    pub fn evaluate(&self, key: &Key, entry: Arc<Entry>, now: Time) -> Option<Candidate> {
        if self.policy.load().lifetime(key, &entry).is_some() {
            return self.evaluate_at(key, entry, now);
        }
        Some(Candidate { entry, freshness: Freshness::Fresh, lifetime: None, hits: 0 })
    }

    /// The approximate number of entries in memory.
    pub fn entry_count(&self) -> u64 {
        self.memory.len()
    }

    /// Runs the deferred work of the memory tier; called on a ticker.
    pub fn run_maintenance(&self) {
        self.memory.run_maintenance();
    }

    fn evaluate_at(&self, key: &Key, entry: Arc<Entry>, now: Time) -> Option<Candidate> {
        let lifetime = self.policy.load().lifetime(key, &entry)?;
        match freshness_at(now, &lifetime, &entry) {
            Freshness::Expired => None,
            freshness => Some(Candidate { entry, freshness, lifetime: Some(lifetime), hits: 0 }),
        }
    }

    fn insert_in_memory(&self, key: &Key, entry: &Arc<Entry>) {
        self.memory.insert(key.clone(), entry, self.clock.now());
    }

    async fn load(&self, key: &Key) -> Option<Entry> {
        let (store, wanted) = (Arc::clone(&self.store), key.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            store.load(&wanted.group, wanted.operation.name, &wanted.card, wanted.parameters.as_str())
        })
        .await;
        match loaded {
            Ok(Ok(row)) => self.read(&row?),
            Ok(Err(error)) => {
                tracing::warn!(%error, "cache.db cannot be read: calling the carrier instead");
                None
            }
            Err(_) => None,
        }
    }

    /// The entry of a row; `None` for a row that no proxy wrote.
    fn read(&self, row: &CacheRow) -> Option<Entry> {
        let code = Code::parse(&row.code)?;
        let status = row.status.as_deref().map(Status::from_code);
        let verdict = stored_verdict(code, status);
        let content_type = ContentType::stored(row.charset.as_deref());
        let translated = match &row.carrier {
            Some(written) => Some(Arc::new(Translated::read(written)?)),
            None => None,
        };
        let reply =
            self.replies.intern(CarrierReply { body: row.body.clone(), content_type, verdict, translated });
        Some(Entry { reply, answered_at: row.answered_at, stale: row.stale, hits: Hits::default() })
    }
}

fn freshness_at(now: Time, lifetime: &Lifetime, entry: &Entry) -> Freshness {
    match freshness::freshness(lifetime, entry.answered_at, now) {
        Freshness::Fresh | Freshness::Revalidate if entry.stale => Freshness::IfError,
        freshness => freshness,
    }
}

impl FreshnessPolicy {
    fn of(config: &Config) -> Self {
        Self { lifetimes: config.lifetimes.clone(), jitter_percent: config.cache.ttl_jitter_percent }
    }
}

fn is_selected(selection: &Selection, key: &Key, entry: &Entry) -> bool {
    let status = entry.reply.verdict.status.as_ref().map(Status::code);
    selection.covers(&key.group, key.operation.name, &key.card, status, entry.answered_at)
}

#[cfg(test)]
pub(crate) mod tests;
