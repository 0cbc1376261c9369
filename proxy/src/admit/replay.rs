//! Replays and rates: what is remembered of each client that has asked.
//!
//! A transid is answered once within its client's window. [`ReplayCache::check_and_record`] decides it in one step under one lock: looked
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
//! The mode `record_only` never refuses, and marks transids as used in the same table: after a change of the mode they are
//! refused. Where there is no room for that, the client's oldest ones are forgotten, and what is as old is refused then.

mod share;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;
use foldhash::fast::RandomState;

use super::rate::Bucket;
use crate::clock::{Moment, Time};
use crate::config::Permissions;
use crate::config::file::ReplayMode;
use crate::wire::transid::TransidKey;

use share::Group;
pub use share::{CapacityBound, FullReport, Owner};

/// Clients are spread over so many locks.
const SHARDS: usize = 32;

/// Transids of an observed client that the table cannot hold, and that are recognised when they come again.
const OBSERVED: usize = 256;

/// Transids of a client without a window are remembered around the clock for so long, for the day when it has one.
pub(super) const WITHOUT_WINDOW: Duration = Duration::from_secs(3_600);

/// A client that has not asked for so long, and has nothing in the window, is forgotten.
const IDLE: Duration = Duration::from_secs(3_600);

/// The transids that were answered.
#[derive(Debug)]
pub struct ReplayCache {
    shards: [Mutex<ClientStates>; SHARDS],
    spread: RandomState,
    capacity: usize,
    used: AtomicUsize,
    /// A stamp before this second may have been used by a client that is not remembered: it was not read back from the
    /// audit, or was forgotten with its client.
    unrestored_before: AtomicU64,
    /// The records of stamps before this second cannot be read.
    lost_before: AtomicU64,
    /// The audit is being read: nothing leaves the window meanwhile.
    restoring: AtomicBool,
    swept: AtomicUsize,
    /// What the clients of a group hold together.
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    /// The refusals for want of room since they were last reported.
    full_reports: Mutex<HashMap<Arc<str>, FullReport>>,
}

/// Only authenticated clients come in here, so that nobody can choose what to hash.
type ClientStates = HashMap<AppId, ClientState, RandomState>;

/// What is remembered of a client.
#[derive(Debug, Default)]
struct ClientState {
    used: BTreeSet<TransidKey>,
    /// The group that `used` is counted to.
    group: Option<Arc<Group>>,
    /// The greatest that was ever burnt: whoever counts up is told from it alone that a transid is new.
    highest: TransidKey,
    /// The second after the greatest stamp that has left the window. What is older stays refused.
    expired: u64,
    /// The same of what was forgotten for want of room.
    evicted_full: u64,
    /// The begin of the window when it was last looked for what has left it.
    floor: u64,
    bucket: Bucket,
    /// Hashes of what an observed client sent last and `used` cannot hold.
    observed: VecDeque<u64>,
    last_used: Duration,
}

/// What is wrong with a request at this point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// The stamp is too far from the clock, or so old that it may have been forgotten.
    Stale,
    /// It was used before.
    Reused,
    /// The client asks faster than its rate; wait this long.
    TooFast(Duration),
    /// No more transids can be remembered for now; the oldest leaves after this long.
    Full(Duration),
}

impl ReplayCache {
    /// A table for `capacity` transids in all.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            spread: RandomState::default(),
            capacity,
            used: AtomicUsize::new(0),
            unrestored_before: AtomicU64::new(0),
            lost_before: AtomicU64::new(0),
            restoring: AtomicBool::new(false),
            swept: AtomicUsize::new(0),
            groups: Mutex::default(),
            full_reports: Mutex::default(),
        }
    }

    /// Whether a stamp is inside a window around the clock, and its records can be read. After a step forwards that is
    /// not confirmed, either time may be the right one.
    ///
    /// # Errors
    /// [`ReplayError::Stale`].
    pub fn check_window(&self, unix: u64, window: Option<Duration>, came: Moment) -> Result<(), ReplayError> {
        let Some(window) = window else { return Ok(()) };
        let limit = window.as_secs();
        let around = |time: Time| {
            let now = time.as_secs();
            (now.saturating_sub(limit)..=now.saturating_add(limit)).contains(&unix)
        };
        let inside = around(came.wall) || (came.believed != came.wall && around(came.believed));
        if inside && unix >= self.unknown() { Ok(()) } else { Err(ReplayError::Stale) }
    }

    /// Lets a client's transid pass in this mode: true if it did before. Only the mode `refuse` never says true, and
    /// only the mode `record_only` refuses nothing but what comes too fast.
    ///
    /// # Errors
    /// [`ReplayError`]; nothing is burnt then.
    pub fn check_and_record(
        &self,
        owner: Owner<'_>,
        number: TransidKey,
        rights: &Permissions,
        mode: ReplayMode,
        came: Moment,
    ) -> Result<bool, ReplayError> {
        let ticks = came.monotonic;
        let window = rights.window.unwrap_or(WITHOUT_WINDOW);
        let mut shard = self.shard(owner.appid);
        let track = shard.entry(*owner.appid).or_default();
        track.last_used = ticks;
        self.count_to(track, owner.group);
        let floor = floor(window, came.believed);
        self.expire(track, floor);
        let mark = track.mark().max(self.unknown());
        let again = number <= track.highest && track.used.contains(&number);
        if mode == ReplayMode::Observe {
            track.take_permit(rights, ticks)?;
            let latest = came.wall.as_secs().saturating_add(window.as_secs());
            let held = again
                || number.unix() >= floor.max(mark)
                    && number.unix() <= latest
                    && self.mark_used_or_evict(track, number, rights, owner);
            return Ok(again || !held && track.is_repeat(number.bits()));
        }
        if again && mode == ReplayMode::Refuse {
            return Err(ReplayError::Reused);
        }
        if number.unix() < mark {
            return Err(ReplayError::Stale);
        }
        if again {
            track.take_permit(rights, ticks)?;
            return Ok(true);
        }
        // Room first: a request that finds none has not used its rate.
        if let Err(bound) = self.reserve(track, rights, owner) {
            self.report_full(owner, bound);
            return Err(ReplayError::Full(track.time_until_room(floor, window)));
        }
        if let Err(too_fast) = track.take_permit(rights, ticks) {
            self.release(track, 1);
            return Err(too_fast);
        }
        track.mark_used(number);
        Ok(false)
    }

    /// Notes what an observed client sent that has no stamp: true if it is among the last that it sent.
    ///
    /// # Errors
    /// [`ReplayError::TooFast`].
    pub fn record_only(
        &self,
        appid: &AppId,
        sent: u64,
        rights: &Permissions,
        ticks: Duration,
    ) -> Result<bool, ReplayError> {
        let mut shard = self.shard(appid);
        let track = shard.entry(*appid).or_default();
        track.last_used = ticks;
        track.take_permit(rights, ticks)?;
        Ok(track.is_repeat(sent))
    }

    /// Begins to read the audit: until [`Self::finish_restore`] nothing leaves the window.
    pub fn begin_restore(&self) {
        self.restoring.store(true, Ordering::Release);
    }

    /// Notes a transid that was used, as the audit says. Its client is known by the group that it has now, if any.
    pub fn restore(&self, appid: &AppId, group: Option<&Arc<str>>, number: TransidKey) {
        let mut shard = self.shard(appid);
        let track = shard.entry(*appid).or_default();
        if let Some(group) = group {
            self.count_to(track, group);
        }
        if !track.mark_used(number) {
            return;
        }
        self.used.fetch_add(1, Ordering::Relaxed);
        if let Some(group) = &track.group {
            group.held.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All used transids with stamps of this Unix second or later are remembered now: what is older stays refused, and
    /// only that. Since [`Self::begin_restore`] nothing has left the window.
    pub fn finish_restore(&self, from: u64) {
        for shard in &self.shards {
            lock(shard).values_mut().for_each(|track| track.expired = track.expired.min(from));
        }
        self.unrestored_before.store(from, Ordering::Relaxed);
        self.abandon_restore();
    }

    /// The audit could not be read: all marks stay.
    pub fn abandon_restore(&self) {
        self.restoring.store(false, Ordering::Release);
    }

    /// The records of stamps before this Unix second cannot be read; 0 when all can.
    pub fn set_lost_before(&self, before: u64) {
        self.lost_before.store(before, Ordering::Relaxed);
    }

    /// Forgets what has left the widest window there is, in one part of the table a call. A client that asks nothing is not
    /// held to its own: it may have had a narrower one when it asked last.
    pub fn sweep(&self, widest: Duration, now: Moment) {
        if self.restoring.load(Ordering::Acquire) {
            return;
        }
        let turn = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = lock(&self.shards[turn]);
        let floor = floor(widest, now.believed);
        shard.retain(|_, track| {
            self.expire(track, floor);
            let idle = track.used.is_empty() && now.monotonic.saturating_sub(track.last_used) >= IDLE;
            // What it has forgotten must not come in again: its mark becomes everybody's once it is of no use to anybody.
            let goes = idle && track.mark() <= floor;
            if goes {
                self.unrestored_before.fetch_max(track.mark(), Ordering::Relaxed);
            }
            !goes
        });
        let room = shard.len() * 2;
        shard.shrink_to(room);
    }

    /// Transids remembered.
    pub fn transid_count(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Transids remembered of each group, in the order of their names.
    pub fn transid_count_by_group(&self) -> Vec<(Arc<str>, usize)> {
        let groups = lock(&self.groups);
        let mut held: Vec<_> =
            groups.values().map(|one| (Arc::clone(&one.name), one.held.load(Ordering::Relaxed))).collect();
        held.sort();
        held
    }

    /// The groups of which requests were refused for want of room since the last call.
    pub fn take_full_reports(&self) -> Vec<(Arc<str>, FullReport)> {
        let mut full: Vec<_> = lock(&self.full_reports).drain().collect();
        full.sort_by(|(one, _), (other, _)| one.cmp(other));
        full
    }

    /// Takes room for one more transid of the client. The caller burns it, or gives the room back.
    fn reserve(
        &self,
        track: &ClientState,
        rights: &Permissions,
        owner: Owner<'_>,
    ) -> Result<(), CapacityBound> {
        if track.used.len() >= rights.share {
            return Err(CapacityBound::Client);
        }
        let Some(group) = &track.group else { return Err(CapacityBound::Group) };
        if group.held.fetch_add(1, Ordering::Relaxed) >= owner.group_share {
            group.held.fetch_sub(1, Ordering::Relaxed);
            return Err(CapacityBound::Group);
        }
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.capacity {
            self.release(track, 1);
            return Err(CapacityBound::Table);
        }
        Ok(())
    }

    /// Gives room of the client's back.
    fn release(&self, track: &ClientState, room: usize) {
        self.used.fetch_sub(room, Ordering::Relaxed);
        if let Some(group) = &track.group {
            group.held.fetch_sub(room, Ordering::Relaxed);
        }
    }

    /// Burns a transid of an observed client. Without room, its oldest second is forgotten first; what is older than all
    /// that it has is forgotten itself. Says whether it is held.
    fn mark_used_or_evict(
        &self,
        track: &mut ClientState,
        number: TransidKey,
        rights: &Permissions,
        owner: Owner<'_>,
    ) -> bool {
        while self.reserve(track, rights, owner).is_err() {
            match track.used.first().map(|oldest| oldest.unix()) {
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
        track.mark_used(number);
        true
    }

    /// Forgets what has left the window, unless the audit is being read. Looks once a second.
    fn expire(&self, track: &mut ClientState, floor: u64) {
        if floor == track.floor || self.restoring.load(Ordering::Acquire) {
            return;
        }
        track.floor = floor;
        let (greatest, gone) = track.forget(floor);
        if gone > 0 {
            track.expired = track.expired.max(greatest.unix() + 1);
            self.release(track, gone);
        }
    }

    /// Forgets what is older than the floor, for want of room.
    fn forget(&self, track: &mut ClientState, floor: u64) {
        let (_, gone) = track.forget(floor);
        track.evicted_full = track.evicted_full.max(floor);
        if gone > 0 {
            self.release(track, gone);
        }
    }

    /// Counts a client's transids to its group; to another one when it has moved.
    fn count_to(&self, track: &mut ClientState, name: &Arc<str>) {
        if let Some(group) = &track.group {
            if Arc::ptr_eq(&group.name, name) || group.name == *name {
                return;
            }
            group.held.fetch_sub(track.used.len(), Ordering::Relaxed);
        }
        let mut groups = lock(&self.groups);
        let group = groups
            .entry(Arc::clone(name))
            .or_insert_with(|| Arc::new(Group { name: Arc::clone(name), held: AtomicUsize::new(0) }));
        group.held.fetch_add(track.used.len(), Ordering::Relaxed);
        track.group = Some(Arc::clone(group));
    }

    fn report_full(&self, owner: Owner<'_>, bound: CapacityBound) {
        let mut full = lock(&self.full_reports);
        let first = FullReport { client: *owner.appid, bound, refused: 0 };
        let full = full.entry(Arc::clone(owner.group)).or_insert(first);
        *full = FullReport { client: *owner.appid, bound, refused: full.refused + 1 };
    }

    /// A stamp before this second may have been used, whoever sends it.
    fn unknown(&self) -> u64 {
        self.unrestored_before.load(Ordering::Relaxed).max(self.lost_before.load(Ordering::Relaxed))
    }

    fn shard(&self, appid: &AppId) -> MutexGuard<'_, ClientStates> {
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

impl ClientState {
    /// Burns it, and says whether it is new.
    fn mark_used(&mut self, number: TransidKey) -> bool {
        self.highest = self.highest.max(number);
        self.used.insert(number)
    }

    /// Takes one look-up of the client's rate.
    fn take_permit(&mut self, rights: &Permissions, ticks: Duration) -> Result<(), ReplayError> {
        rights.rate.map_or(Ok(()), |rate| self.bucket.acquire(rate, ticks)).map_err(ReplayError::TooFast)
    }

    /// Whether an observed client sent this lately; from now on it did.
    fn is_repeat(&mut self, sent: u64) -> bool {
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
        self.expired.max(self.evicted_full)
    }

    /// Forgets what is older than the floor; the greatest of it, and how many there were.
    fn forget(&mut self, floor: u64) -> (TransidKey, usize) {
        let (mut greatest, mut gone) = (TransidKey::default(), 0);
        while let Some(oldest) = self.used.first().copied().filter(|oldest| oldest.unix() < floor) {
            self.used.pop_first();
            greatest = oldest;
            gone += 1;
        }
        (greatest, gone)
    }

    /// When the client's oldest transid leaves. Without one, others of its group fill the table: theirs have left after
    /// the window.
    fn time_until_room(&self, floor: u64, window: Duration) -> Duration {
        let oldest = self.used.first().map(|oldest| oldest.unix().saturating_sub(floor) + 1);
        oldest.map_or(window, Duration::from_secs)
    }
}

#[cfg(test)]
mod tests;
