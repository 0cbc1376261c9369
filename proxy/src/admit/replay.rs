//! Replays and rates: what is remembered of each client that has asked.
//!
//! A transid is answered once within its client's window. [`Replay::pass`] decides it in one step under one lock: looked
//! up, rate, room, burnt; of two that try at once, one succeeds, and a refusal burns nothing.
//!
//! A burnt transid is 8 bytes: seconds since 2000 and sequence, ordered, so that entries leave by their stamp. An entry
//! leaves when the believed time ([`Moment::believed`]) is its stamp plus the window. What has left stays refused, and
//! nothing else: a client's mark is above the greatest stamp that was really forgotten of it, wherever the clock has been,
//! and it outlives its client. After a step of the clock backwards the audit is read again, and the marks fall to what it
//! shows. Full means 72, never an entry forgotten early.
//!
//! The table is divided: a client may hold its share, and the clients of a group together the group's. Both are smaller
//! than the table, so that a client that fills its share refuses itself alone.
//!
//! The mode `observe` never refuses, and marks transids as used in the same table: after a change of the mode they are
//! refused. Where there is no room for that, the client's oldest ones are forgotten, and what is as old is refused then.

mod share;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::{AppId, Stamp, Transid};
use foldhash::fast::RandomState;

use super::rate::Bucket;
use crate::clock::{Moment, Time};
use crate::config::Rights;
use crate::config::file::ReplayMode;

use share::Group;
pub use share::{Bound, Full, Owner};

/// Clients are spread over so many locks.
const SHARDS: usize = 32;

/// Transids of an observed client that the table cannot hold, and that are recognised when they come again.
const OBSERVED: usize = 256;

/// Transids of a client without a window are remembered around the clock for so long, for the day when it has one.
pub(super) const WITHOUT_WINDOW: Duration = Duration::from_secs(3_600);

/// A client that has not asked for so long, and has nothing in the window, is forgotten.
const IDLE: Duration = Duration::from_secs(3_600);

/// Bits of a [`Number`] that hold the sequence: 99,999,999 fits 27.
const SEQUENCE_BITS: u32 = 27;

/// The transids that were answered.
#[derive(Debug)]
pub struct Replay {
    shards: [Mutex<Tracks>; SHARDS],
    spread: RandomState,
    capacity: usize,
    held: AtomicUsize,
    /// A stamp before this second may have been used by a client that is not remembered: it was not read back from the
    /// audit, or was forgotten with its client.
    unread: AtomicU64,
    /// The records of stamps before this second cannot be read.
    lost: AtomicU64,
    /// The audit is being read: nothing leaves the window meanwhile.
    reading: AtomicBool,
    swept: AtomicUsize,
    /// What the clients of a group hold together.
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    /// The refusals for want of room since they were last reported.
    full: Mutex<HashMap<Arc<str>, Full>>,
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
    /// The group that `burnt` is counted to.
    group: Option<Arc<Group>>,
    /// The greatest that was ever burnt: whoever counts up is told from it alone that a transid is new.
    greatest: Number,
    /// The second after the greatest stamp that has left the window. What is older stays refused.
    forgotten: u64,
    /// The same of what was forgotten for want of room.
    crowded: u64,
    /// The begin of the window when it was last looked for what has left it.
    floor: u64,
    bucket: Bucket,
    /// Hashes of what an observed client sent last and `burnt` cannot hold.
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
            unread: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            swept: AtomicUsize::new(0),
            groups: Mutex::default(),
            full: Mutex::default(),
        }
    }

    /// Whether a stamp is inside a window around the clock, and its records can be read. After a step forwards that is
    /// not confirmed, either time may be the right one.
    ///
    /// # Errors
    /// [`Unusable::Stale`].
    pub fn check_window(&self, unix: u64, window: Option<Duration>, came: Moment) -> Result<(), Unusable> {
        let Some(window) = window else { return Ok(()) };
        let limit = window.as_secs();
        let around = |time: Time| {
            let now = time.as_secs();
            (now.saturating_sub(limit)..=now.saturating_add(limit)).contains(&unix)
        };
        let inside = around(came.wall) || (came.believed != came.wall && around(came.believed));
        if inside && unix >= self.unknown() { Ok(()) } else { Err(Unusable::Stale) }
    }

    /// Lets a client's transid pass in this mode: true if it did before. Only the mode `refuse` never says true, and
    /// only the mode `observe` refuses nothing but what comes too fast.
    ///
    /// # Errors
    /// [`Unusable`]; nothing is burnt then.
    pub fn pass(
        &self,
        owner: Owner<'_>,
        number: Number,
        rights: &Rights,
        mode: ReplayMode,
        came: Moment,
    ) -> Result<bool, Unusable> {
        let ticks = came.ticks;
        let window = rights.window.unwrap_or(WITHOUT_WINDOW);
        let mut shard = self.shard(owner.appid);
        let track = shard.entry(*owner.appid).or_default();
        track.last_asked = ticks;
        self.count_to(track, owner.group);
        let floor = floor(window, came.believed);
        self.let_leave(track, floor);
        let mark = track.mark().max(self.unknown());
        let again = number <= track.greatest && track.burnt.contains(&number);
        if mode == ReplayMode::Observe {
            track.take_turn(rights, ticks)?;
            let latest = came.wall.as_secs().saturating_add(window.as_secs());
            let held = again
                || number.unix() >= floor.max(mark)
                    && number.unix() <= latest
                    && self.burn_or_forget(track, number, rights, owner);
            return Ok(again || !held && track.observed_before(number.0));
        }
        if again && mode == ReplayMode::Refuse {
            return Err(Unusable::Reused);
        }
        if number.unix() < mark {
            return Err(Unusable::Stale);
        }
        if again {
            track.take_turn(rights, ticks)?;
            return Ok(true);
        }
        // Room first: a request that finds none has not used its rate.
        if let Err(bound) = self.reserve(track, rights, owner) {
            self.note_full(owner, bound);
            return Err(Unusable::Full(track.room_after(floor, window)));
        }
        if let Err(too_fast) = track.take_turn(rights, ticks) {
            self.release(track, 1);
            return Err(too_fast);
        }
        track.burn(number);
        Ok(false)
    }

    /// Notes what an observed client sent that has no stamp: true if it is among the last that it sent.
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
        track.take_turn(rights, ticks)?;
        Ok(track.observed_before(sent))
    }

    /// Begins to read the audit: until [`Self::read_back`] nothing leaves the window.
    pub fn begin_reading(&self) {
        self.reading.store(true, Ordering::Release);
    }

    /// Notes a transid that was used, as the audit says. Its client is known by the group that it has now, if any.
    pub fn remember(&self, appid: &AppId, group: Option<&Arc<str>>, number: Number) {
        let mut shard = self.shard(appid);
        let track = shard.entry(*appid).or_default();
        if let Some(group) = group {
            self.count_to(track, group);
        }
        if !track.burn(number) {
            return;
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        if let Some(group) = &track.group {
            group.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All used transids with stamps of this Unix second or later are remembered now: what is older stays refused, and
    /// only that. Since [`Self::begin_reading`] nothing has left the window.
    pub fn read_back(&self, from: u64) {
        for shard in &self.shards {
            lock(shard).values_mut().for_each(|track| track.forgotten = track.forgotten.min(from));
        }
        self.unread.store(from, Ordering::Relaxed);
        self.end_reading();
    }

    /// The audit could not be read: all marks stay.
    pub fn end_reading(&self) {
        self.reading.store(false, Ordering::Release);
    }

    /// The records of stamps before this Unix second cannot be read; 0 when all can.
    pub fn set_lost(&self, before: u64) {
        self.lost.store(before, Ordering::Relaxed);
    }

    /// Forgets what has left the widest window there is, in one part of the table a call. A client that asks nothing is not
    /// held to its own: it may have had a narrower one when it asked last.
    pub fn sweep(&self, widest: Duration, now: Moment) {
        if self.reading.load(Ordering::Acquire) {
            return;
        }
        let turn = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = lock(&self.shards[turn]);
        let floor = floor(widest, now.believed);
        shard.retain(|_, track| {
            self.let_leave(track, floor);
            let idle = track.burnt.is_empty() && now.ticks.saturating_sub(track.last_asked) >= IDLE;
            // What it has forgotten must not come in again: its mark becomes everybody's once it is of no use to anybody.
            let goes = idle && track.mark() <= floor;
            if goes {
                self.unread.fetch_max(track.mark(), Ordering::Relaxed);
            }
            !goes
        });
        let room = shard.len() * 2;
        shard.shrink_to(room);
    }

    /// Transids remembered.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Transids remembered of each group, in the order of their names.
    pub fn held_by_group(&self) -> Vec<(Arc<str>, usize)> {
        let groups = lock(&self.groups);
        let mut held: Vec<_> =
            groups.values().map(|one| (Arc::clone(&one.name), one.held.load(Ordering::Relaxed))).collect();
        held.sort();
        held
    }

    /// The groups of which requests were refused for want of room since the last call.
    pub fn take_full(&self) -> Vec<(Arc<str>, Full)> {
        let mut full: Vec<_> = lock(&self.full).drain().collect();
        full.sort_by(|(one, _), (other, _)| one.cmp(other));
        full
    }

    /// Takes room for one more transid of the client. The caller burns it, or gives the room back.
    fn reserve(&self, track: &Track, rights: &Rights, owner: Owner<'_>) -> Result<(), Bound> {
        if track.burnt.len() >= rights.share {
            return Err(Bound::Client);
        }
        let Some(group) = &track.group else { return Err(Bound::Group) };
        if group.held.fetch_add(1, Ordering::Relaxed) >= owner.group_share {
            group.held.fetch_sub(1, Ordering::Relaxed);
            return Err(Bound::Group);
        }
        if self.held.fetch_add(1, Ordering::Relaxed) >= self.capacity {
            self.release(track, 1);
            return Err(Bound::Table);
        }
        Ok(())
    }

    /// Gives room of the client's back.
    fn release(&self, track: &Track, room: usize) {
        self.held.fetch_sub(room, Ordering::Relaxed);
        if let Some(group) = &track.group {
            group.held.fetch_sub(room, Ordering::Relaxed);
        }
    }

    /// Burns a transid of an observed client. Without room, its oldest second is forgotten first; what is older than all
    /// that it has is forgotten itself. Says whether it is held.
    fn burn_or_forget(&self, track: &mut Track, number: Number, rights: &Rights, owner: Owner<'_>) -> bool {
        while self.reserve(track, rights, owner).is_err() {
            match track.burnt.first().map(|oldest| oldest.unix()) {
                Some(oldest) if oldest <= number.unix() => self.forget(track, oldest + 1),
                _ => {
                    self.forget(track, number.unix() + 1);
                    return false;
                }
            }
            if number.unix() < track.mark() {
                return false;
            }
        }
        track.burn(number);
        true
    }

    /// Forgets what has left the window, unless the audit is being read. Looks once a second.
    fn let_leave(&self, track: &mut Track, floor: u64) {
        if floor == track.floor || self.reading.load(Ordering::Acquire) {
            return;
        }
        track.floor = floor;
        let (greatest, gone) = track.forget(floor);
        if gone > 0 {
            track.forgotten = track.forgotten.max(greatest.unix() + 1);
            self.release(track, gone);
        }
    }

    /// Forgets what is older than the floor, for want of room.
    fn forget(&self, track: &mut Track, floor: u64) {
        let (_, gone) = track.forget(floor);
        track.crowded = track.crowded.max(floor);
        if gone > 0 {
            self.release(track, gone);
        }
    }

    /// Counts a client's transids to its group; to another one when it has moved.
    fn count_to(&self, track: &mut Track, name: &Arc<str>) {
        if let Some(group) = &track.group {
            if Arc::ptr_eq(&group.name, name) || group.name == *name {
                return;
            }
            group.held.fetch_sub(track.burnt.len(), Ordering::Relaxed);
        }
        let mut groups = lock(&self.groups);
        let group = groups
            .entry(Arc::clone(name))
            .or_insert_with(|| Arc::new(Group { name: Arc::clone(name), held: AtomicUsize::new(0) }));
        group.held.fetch_add(track.burnt.len(), Ordering::Relaxed);
        track.group = Some(Arc::clone(group));
    }

    fn note_full(&self, owner: Owner<'_>, bound: Bound) {
        let mut full = lock(&self.full);
        let first = Full { client: *owner.appid, bound, refused: 0 };
        let full = full.entry(Arc::clone(owner.group)).or_insert(first);
        *full = Full { client: *owner.appid, bound, refused: full.refused + 1 };
    }

    /// A stamp before this second may have been used, whoever sends it.
    fn unknown(&self) -> u64 {
        self.unread.load(Ordering::Relaxed).max(self.lost.load(Ordering::Relaxed))
    }

    fn shard(&self, appid: &AppId) -> MutexGuard<'_, Tracks> {
        let hash = self.spread.hash_one(appid);
        lock(&self.shards[usize::try_from(hash % SHARDS as u64).expect("below 32")])
    }
}

/// The begin of the window: a stamp before this second has left it.
fn floor(window: Duration, believed: Time) -> u64 {
    believed.as_secs().saturating_sub(window.as_secs())
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under these locks could only come from an allocation; the tables are whole at every step.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Track {
    /// Burns it, and says whether it is new.
    fn burn(&mut self, number: Number) -> bool {
        self.greatest = self.greatest.max(number);
        self.burnt.insert(number)
    }

    /// Takes one look-up of the client's rate.
    fn take_turn(&mut self, rights: &Rights, ticks: Duration) -> Result<(), Unusable> {
        rights.rate.map_or(Ok(()), |rate| self.bucket.take(rate, ticks)).map_err(Unusable::TooFast)
    }

    /// Whether an observed client sent this lately; from now on it did.
    fn observed_before(&mut self, sent: u64) -> bool {
        if self.observed.contains(&sent) {
            return true;
        }
        if self.observed.len() >= OBSERVED {
            self.observed.pop_front();
        }
        self.observed.push_back(sent);
        false
    }

    /// What is older than this second may have been forgotten.
    fn mark(&self) -> u64 {
        self.forgotten.max(self.crowded)
    }

    /// Forgets what is older than the floor; the greatest of it, and how many there were.
    fn forget(&mut self, floor: u64) -> (Number, usize) {
        let (mut greatest, mut gone) = (Number::default(), 0);
        while let Some(oldest) = self.burnt.first().copied().filter(|oldest| oldest.unix() < floor) {
            self.burnt.pop_first();
            greatest = oldest;
            gone += 1;
        }
        (greatest, gone)
    }

    /// When the client's oldest transid leaves. Without one, others of its group fill the table: theirs have left after
    /// the window.
    fn room_after(&self, floor: u64, window: Duration) -> Duration {
        let oldest = self.burnt.first().map(|oldest| oldest.unix().saturating_sub(floor) + 1);
        oldest.map_or(window, Duration::from_secs)
    }
}

#[cfg(test)]
mod tests;
