//! The cache: answers by (group, operation, card), in memory over `cache.db`.
//!
//! Only what the carrier said is kept, byte for byte, with the moment it was said; how long that serves is decided
//! anew on each look-up ([`freshness`]), so a changed configuration and a restart need no migration. The group is part
//! of every key: no path shows one customer another's entry.

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
use crate::carrier::dialect::v2;
use crate::carrier::verdict::Code;
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

/// What an answer is the answer to.
#[derive(Clone, Eq, Debug)]
pub struct Key {
    /// Whose accounts were asked.
    pub group: Arc<str>,
    /// What was asked.
    pub operation: &'static Operation,
    /// The card.
    pub card: Card,
    /// What the operation declares beside the card.
    pub parameters: Parameters,
}

impl Key {
    /// The key of one look-up without further parameters.
    pub fn new(group: &Arc<str>, operation: &'static Operation, card: &Card) -> Self {
        Self { group: Arc::clone(group), operation, card: *card, parameters: Parameters::default() }
    }
}

impl Hash for Key {
    /// The card tells nearly all keys apart; hashing two more texts would cost more than it spares.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.card.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        // Most operations are one and the same, as groups are; comparing their texts would be the most of a hit.
        let same_operation =
            || std::ptr::eq(self.operation, other.operation) || self.operation == other.operation;
        self.card == other.card
            && self.group == other.group
            && same_operation()
            && self.parameters == other.parameters
    }
}

/// One answer of the carrier, as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it said.
    pub reply: Arc<CarrierReply>,
    /// When it said so.
    pub answered_at: Time,
    /// Purged softly: not fresh, whatever its age.
    pub stale: bool,
    /// Since it came into memory.
    pub hits: Hits,
}

/// An entry that was found, and what it is good for now.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The entry.
    pub entry: Arc<Entry>,
    /// What it is good for.
    pub freshness: Freshness,
    /// How long it serves; none for what is never stored.
    pub lifetime: Option<Lifetime>,
    /// How often memory was asked for it before.
    pub hits: u32,
}

impl Candidate {
    /// How old it is at `now`, and for how long it has been stale.
    pub fn age(&self, now: Time) -> (Duration, Duration) {
        let answered_at = self.entry.answered_at;
        let stale = self.lifetime.map(|lifetime| freshness::staleness(&lifetime, answered_at, now));
        (now.since(answered_at), stale.unwrap_or(Duration::MAX))
    }

    /// Seconds of freshness left at `now`, negative once stale; none for what is never stored.
    pub fn ttl(&self, now: Time) -> Option<i64> {
        let ttl = freshness::ttl(&self.lifetime?, self.entry.answered_at, now);
        Some(if self.entry.stale { ttl.min(-1) } else { ttl })
    }

    /// Whether it is in the last fifth of its freshness at `now`, and was asked for `hits` times.
    pub fn should_refresh_ahead(&self, now: Time, hits: u32) -> bool {
        self.freshness == Freshness::Fresh
            && self.hits >= hits
            && self
                .lifetime
                .is_some_and(|lifetime| now.since(self.entry.answered_at) >= lifetime.fresh.0 / 5 * 4)
    }
}

/// What the cache knows about a key, for whoever looks inside.
#[derive(Clone, Debug)]
pub struct EntryInfo {
    /// The entry.
    pub entry: Arc<Entry>,
    /// What it is good for; `None` when its kind is not stored by now's rules.
    pub freshness: Option<Freshness>,
    /// Until when it is fresh, and until when it may be answered stale.
    pub until: Option<(Time, Time)>,
    /// Whether memory holds it; the file does otherwise.
    pub in_memory: bool,
}

/// How a purge leaves what it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeMode {
    /// Stale: good for the carrier's bad days alone.
    Soft,
    /// Gone.
    Hard,
}

/// What a purge found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purged {
    /// Entries in memory.
    pub memory: u64,
    /// Rows of the file.
    pub file: u64,
    /// The generation that it began.
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
    /// The cache of a configuration, over `insert`.
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

    /// Takes over how long answers serve from a changed configuration.
    pub fn reload(&self, config: &Config) {
        self.policy.store(Arc::new(FreshnessPolicy::of(config)));
    }

    /// Memory, then SQLite. A store that fails is a miss: the carrier knows better anyway.
    pub async fn look_up(&self, key: &Key) -> Option<Candidate> {
        if let Some(held) = self.get_in_memory(key, self.clock.now()) {
            return Some(held);
        }
        let ticket = self.fill_token();
        // Boxed, so that what is in memory need not carry the room for this.
        let entry = Arc::new(Box::pin(self.load(key)).await?);
        let held = self.evaluate_at(key, Arc::clone(&entry), self.clock.now())?;
        ticket
            .insert_if_current(Source::File, key, &entry, || self.insert_in_memory(key, &entry))
            .then_some(held)
    }

    /// Memory only: what is known at once, and what a leader looks at once more before it spends a call.
    pub fn get_in_memory(&self, key: &Key, now: Time) -> Option<Candidate> {
        let (entry, hits) = self.memory.get(key)?;
        self.evaluate_at(key, entry, now).map(|held| Candidate { hits, ..held })
    }

    /// The entry that an answer of the carrier's makes. It is stored by [`Self::insert`] alone.
    pub fn entry(&self, answered: CarrierResponse) -> Arc<Entry> {
        let reply = self.replies.intern(&answered.body, answered.content_type, answered.verdict);
        Arc::new(Entry { reply, answered_at: answered.at, stale: false, hits: Hits::default() })
    }

    /// To be taken before the carrier is asked, and handed in with its answer.
    pub fn fill_token(&self) -> FillToken {
        self.generations.fill_token()
    }

    /// Stores an answer if its verdict is ever stored and no purge came since the ticket was taken; says whether it
    /// was.
    pub fn insert(&self, ticket: &FillToken, key: &Key, entry: &Arc<Entry>) -> bool {
        if self.policy.load().lifetime(key, entry).is_none() {
            return false;
        }
        ticket.insert_if_current(Source::Carrier, key, entry, || {
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
                stale: false,
            };
            self.store.save(row, self.clock.now().plus(freshness::TOLERANCE));
        })
    }

    /// Purges what is selected, in memory and in the file. Answers that were asked for before are not stored; when
    /// this returns, nothing that was stored before is answered as fresh (soft) or at all (hard). `outdated` runs
    /// before anything else can be stored: flights under way are taken off their table in it.
    ///
    /// # Errors
    /// When the file could not be changed. Memory was, and what was asked before is outdated all the same.
    pub async fn purge(
        &self,
        selection: &Selection,
        depth: PurgeMode,
        outdated: impl FnOnce(),
    ) -> Result<Purged, StoreError> {
        let selects = |key: &Key, entry: &Entry| {
            let status = entry.reply.verdict.status.as_ref().map(Status::code);
            selection.covers(&key.group, key.operation.name, &key.card, status, entry.answered_at)
        };
        let (generation, (memory, applied)) = self.generations.begin(selection, || {
            outdated();
            match depth {
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

    /// Removes what was answered in the future: when that time has come, it would pass for new. To be called at the start
    /// and whenever the clock has been set back. Until the file is done, such rows are expired as they are.
    pub fn remove_future(&self) {
        let now = self.clock.now();
        let memory = self.memory.remove(|_, entry| freshness::is_in_future(entry.answered_at, now));
        if memory > 0 {
            tracing::warn!(
                entries = memory,
                "entries were answered in the future by this machine's clock: they are removed"
            );
        }
        let after = Some(now.plus(freshness::TOLERANCE));
        drop(self.store.remove_where(Selection { answered_after: after, ..Selection::default() }));
    }

    /// What is known about a key, whatever it is good for.
    pub async fn inspect(&self, key: &Key) -> Option<EntryInfo> {
        let (entry, in_memory) = match self.memory.get(key) {
            Some((entry, _)) => (entry, true),
            None => (Arc::new(self.load(key).await?), false),
        };
        let lifetime = self.policy.load().lifetime(key, &entry);
        let until = lifetime.map(|lifetime| {
            (entry.answered_at.plus(lifetime.fresh.0), entry.answered_at.plus(lifetime.useful()))
        });
        let freshness = lifetime.map(|lifetime| freshness_at(self.clock.now(), &lifetime, &entry));
        Some(EntryInfo { entry, freshness, until, in_memory })
    }

    /// Purges since the start.
    pub fn generation(&self) -> u64 {
        self.generations.current()
    }

    /// The file under it.
    pub fn store(&self) -> &Arc<CacheStore> {
        &self.store
    }

    /// An entry that is known to be fresh.
    pub fn assume_fresh(&self, key: &Key, entry: Arc<Entry>) -> Candidate {
        let lifetime = self.policy.load().lifetime(key, &entry);
        Candidate { entry, freshness: Freshness::Fresh, lifetime, hits: 0 }
    }

    /// What an answer that was given before is good for now; none when it has expired. One that is never stored has no
    /// lifetime, and counts as fresh.
    pub fn evaluate(&self, key: &Key, entry: Arc<Entry>, now: Time) -> Option<Candidate> {
        if self.policy.load().lifetime(key, &entry).is_some() {
            return self.evaluate_at(key, entry, now);
        }
        Some(Candidate { entry, freshness: Freshness::Fresh, lifetime: None, hits: 0 })
    }

    /// Entries in memory, about.
    pub fn entry_count(&self) -> u64 {
        self.memory.len()
    }

    /// Frees what has expired; called on a ticker.
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
                tracing::warn!(%error, "cache.db cannot be read: asking the carrier instead");
                None
            }
            Err(_) => None,
        }
    }

    /// A row of the file; `None` for one that no proxy wrote.
    fn read(&self, row: &CacheRow) -> Option<Entry> {
        let code = Code::parse(&row.code)?;
        let verdict = v2::stored_verdict(code, row.status.as_deref().map(Status::from_code));
        let content_type = ContentType::stored(row.charset.as_deref());
        let reply = self.replies.intern(&row.body, content_type, verdict);
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

#[cfg(test)]
pub(crate) mod tests;
