//! Replays and rates: what is remembered of each client that has asked.
//!
//! A transid is answered once within its client's window. [`Replay::pass`] decides it in one step under one lock: looked
//! up, rate, room, burnt; of two that try at once, one succeeds, and a refusal burns nothing.
//!
//! A burnt transid is 8 bytes: seconds since 2000 and sequence, ordered, so that entries leave by their stamp. What has
//! left stays refused: the floor below which a stamp is too old only rises, even when the machine's clock is stepped
//! back or a reload widens the window. Full means 72, never an entry forgotten early.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::{AppId, Stamp, Transid};
use foldhash::fast::RandomState;

use super::rate::Bucket;
use crate::clock::Time;
use crate::config::Rights;
use crate::config::file::ReplayMode;

/// Clients are spread over so many locks.
const SHARDS: usize = 32;

/// Transids of an observed client that are recognised when they come again.
const OBSERVED: usize = 256;

/// A client that has not asked for so long, and has nothing in the window, is forgotten.
const IDLE: Duration = Duration::from_secs(3_600);

/// How long to wait for room when nothing says it better.
const SOME_TIME: Duration = Duration::from_secs(10);

/// Bits of a [`Number`] that hold the sequence: 99,999,999 fits 27.
const SEQUENCE_BITS: u32 = 27;

/// The transids that were answered.
#[derive(Debug)]
pub struct Replay {
    shards: [Mutex<Tracks>; SHARDS],
    spread: RandomState,
    capacity: usize,
    held: AtomicUsize,
    /// The latest wall second that was seen.
    latest: AtomicU64,
    /// A stamp before this second may have been forgotten, whatever the window says now.
    base: AtomicU64,
    swept: AtomicUsize,
}

/// A transid as it is remembered: its stamp, then its sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Number(u64);

impl Number {
    /// Of a transid; its appid is the client's.
    pub fn of(transid: &Transid) -> Self {
        let seconds = transid.stamp().to_unix() - Stamp::FIRST.to_unix();
        Self(seconds << SEQUENCE_BITS | u64::from(transid.sequence().get()))
    }

    /// Its stamp, in Unix seconds.
    pub fn unix(self) -> u64 {
        (self.0 >> SEQUENCE_BITS) + Stamp::FIRST.to_unix()
    }
}

/// Only authenticated clients come in here, so that nobody can choose what to hash.
type Tracks = HashMap<AppId, Track, RandomState>;

/// What is remembered of a client.
#[derive(Debug, Default)]
struct Track {
    burnt: BTreeSet<Number>,
    /// The greatest that was ever burnt: whoever counts up is told from it alone that a transid is new.
    greatest: Number,
    /// What is older than this second was forgotten, and stays refused.
    forgotten: u64,
    bucket: Bucket,
    /// Hashes of what an observed client sent last.
    observed: VecDeque<u64>,
    last_asked: Duration,
}

/// What is wrong with a request at this point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// The stamp is too far from the clock, or so old that it may have been forgotten.
    Stale,
    /// It was used before.
    Reused,
    /// The client asks faster than its rate; wait this long.
    TooFast(Duration),
    /// No more transids can be remembered for now; the oldest leaves after this long.
    Full(Duration),
}

impl Replay {
    /// A table for `capacity` transids in all.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            spread: RandomState::default(),
            capacity,
            held: AtomicUsize::new(0),
            latest: AtomicU64::new(0),
            base: AtomicU64::new(0),
            swept: AtomicUsize::new(0),
        }
    }

    /// Whether a stamp is inside a window around the clock, and not forgotten.
    ///
    /// # Errors
    /// [`Unusable::Stale`].
    pub fn check_window(&self, unix: u64, window: Option<Duration>, now: Time) -> Result<(), Unusable> {
        let Some(window) = window else { return Ok(()) };
        let (now, limit) = (now.as_secs(), window.as_secs());
        let inside = now.saturating_sub(limit)..=now.saturating_add(limit);
        if inside.contains(&unix) && unix >= self.floor(window) { Ok(()) } else { Err(Unusable::Stale) }
    }

    /// Lets a client's transid pass in this mode: true if it did before. Only the mode `refuse` never says true.
    ///
    /// # Errors
    /// [`Unusable`]; nothing is burnt then.
    pub fn pass(
        &self,
        appid: &AppId,
        number: Number,
        rights: &Rights,
        mode: ReplayMode,
        now: Time,
        ticks: Duration,
    ) -> Result<bool, Unusable> {
        self.latest.fetch_max(now.as_secs(), Ordering::Relaxed);
        let Some(window) = rights.window else { return self.observe(appid, number.0, rights, ticks) };
        if mode == ReplayMode::Observe {
            return self.observe(appid, number.0, rights, ticks);
        }
        let mut shard = self.shard(appid);
        let track = shard.entry(*appid).or_default();
        track.last_asked = ticks;
        let floor = self.floor(window).max(track.forgotten);
        self.held.fetch_sub(track.forget(floor), Ordering::Relaxed);
        let again = number <= track.greatest && track.burnt.contains(&number);
        if again && mode == ReplayMode::Refuse {
            return Err(Unusable::Reused);
        }
        if number.unix() < floor {
            return Err(Unusable::Stale);
        }
        if !again && (track.burnt.len() >= rights.share || self.held.load(Ordering::Relaxed) >= self.capacity)
        {
            return Err(Unusable::Full(track.room_after(floor)));
        }
        if let Some(rate) = rights.rate {
            track.bucket.take(rate, ticks).map_err(Unusable::TooFast)?;
        }
        self.held.fetch_add(track.burn(number), Ordering::Relaxed);
        Ok(again)
    }

    /// Notes what an observed client sent: true if it is among the last that it sent.
    ///
    /// # Errors
    /// [`Unusable::TooFast`].
    pub fn observe(
        &self,
        appid: &AppId,
        sent: u64,
        rights: &Rights,
        ticks: Duration,
    ) -> Result<bool, Unusable> {
        let mut shard = self.shard(appid);
        let track = shard.entry(*appid).or_default();
        track.last_asked = ticks;
        if let Some(rate) = rights.rate {
            track.bucket.take(rate, ticks).map_err(Unusable::TooFast)?;
        }
        if track.observed.contains(&sent) {
            return Ok(true);
        }
        if track.observed.len() >= OBSERVED {
            track.observed.pop_front();
        }
        track.observed.push_back(sent);
        Ok(false)
    }

    /// Notes a transid that was answered before a restart.
    pub fn remember(&self, appid: &AppId, number: Number, window: Duration, now: Time) {
        self.latest.fetch_max(now.as_secs(), Ordering::Relaxed);
        let mut shard = self.shard(appid);
        let track = shard.entry(*appid).or_default();
        if number.unix() < self.floor(window).max(track.forgotten) {
            return;
        }
        self.held.fetch_add(track.burn(number), Ordering::Relaxed);
    }

    /// A reload may widen windows: what was forgotten under the narrowest one so far stays refused.
    pub fn reloaded(&self, narrowest: Option<Duration>) {
        if let Some(narrowest) = narrowest {
            self.base.fetch_max(self.floor(narrowest), Ordering::Relaxed);
        }
    }

    /// Forgets what has left the widest window there is, in one part of the table a call. A client that asks nothing is not
    /// held to its own: it may have had a narrower one when it asked last.
    pub fn sweep(&self, widest: Duration, ticks: Duration) {
        let turn = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = lock(&self.shards[turn]);
        let floor = self.floor(widest);
        shard.retain(|_, track| {
            self.held.fetch_sub(track.forget(floor), Ordering::Relaxed);
            let idle = track.burnt.is_empty() && ticks.saturating_sub(track.last_asked) >= IDLE;
            // What it has forgotten must not come in again.
            !idle || track.forgotten > floor
        });
        let room = shard.len() * 2;
        shard.shrink_to(room);
    }

    /// Transids remembered.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// A stamp before this second is too old, or may have been forgotten.
    fn floor(&self, window: Duration) -> u64 {
        let latest = self.latest.load(Ordering::Relaxed);
        latest.saturating_sub(window.as_secs()).max(self.base.load(Ordering::Relaxed))
    }

    fn shard(&self, appid: &AppId) -> MutexGuard<'_, Tracks> {
        let hash = self.spread.hash_one(appid);
        lock(&self.shards[usize::try_from(hash % SHARDS as u64).expect("below 32")])
    }
}

fn lock(shard: &Mutex<Tracks>) -> MutexGuard<'_, Tracks> {
    // A panic under this lock could only come from an allocation; the table is whole at every step.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Track {
    /// Burns it, and says how many that made more.
    fn burn(&mut self, number: Number) -> usize {
        self.greatest = self.greatest.max(number);
        self.burnt.insert(number).into()
    }

    /// Forgets what is older than the floor, and says how many that were. Looks once a second.
    fn forget(&mut self, floor: u64) -> usize {
        let mut gone = 0;
        if floor <= self.forgotten {
            return gone;
        }
        self.forgotten = floor;
        while self.burnt.first().is_some_and(|oldest| oldest.unix() < floor) {
            self.burnt.pop_first();
            gone += 1;
        }
        gone
    }

    /// When the oldest entry leaves.
    fn room_after(&self, floor: u64) -> Duration {
        let oldest = self.burnt.first().map(|oldest| oldest.unix().saturating_sub(floor) + 1);
        oldest.map_or(SOME_TIME, Duration::from_secs)
    }
}

#[cfg(test)]
mod tests;
