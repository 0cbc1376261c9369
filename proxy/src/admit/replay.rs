//! The replay cache: the used transids of each client, and the state of its rate limit.
//!
//! A transid is accepted once within its client's window. [`ReplayCache::check_and_record`] decides in one step under one
//! lock: look up, room, rate, mark used. Of two requests at once with the same transid one succeeds, and a refusal marks
//! nothing used.
//!
//! A used transid takes 8 bytes: seconds since 2000 and sequence, ordered, so that entries are removed by their stamp. An
//! entry is removed when the believed time ([`Moment::believed`]) is its stamp plus the window. Removed transids stay
//! refused, and no others are: a client's *floor of accepted stamps* is above the greatest stamp that was really removed,
//! wherever the clock has been, and it outlives the client's entry. After a step of the clock backwards the audit is read
//! again, and the floors fall to what it shows. A full cache refuses with 72, and never removes an entry early.
//!
//! The capacity is divided: there is a limit per client and one per group. Both are smaller than the whole, so that a
//! client that reaches its limit affects only its own requests.
//!
//! The mode `observe` refuses no replay, and marks transids used in the same cache: after a change of the mode they are
//! refused. If there is no room, the client's oldest entries are evicted, and transids of their age are refused then.

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

/// The number of locks over which clients are distributed.
const SHARDS: usize = 32;

/// The number of an observed client's last transids that are recognised although the cache cannot hold them.
const OBSERVED: usize = 256;

/// Transids of a client without a window are stored for this long, in case it gets a window later.
pub(super) const WITHOUT_WINDOW: Duration = Duration::from_secs(3_600);

/// A client without a request for this long, and without an entry in the window, is removed.
const IDLE: Duration = Duration::from_secs(3_600);

/// The used transids, by client.
#[derive(Debug)]
pub struct ReplayCache {
    shards: [Mutex<ClientStates>; SHARDS],
    spread: RandomState,
    capacity: usize,
    used: AtomicUsize,
    /// A stamp before this second may have been used by a client that has no entry: its record was not read back from the
    /// audit, or the client was removed.
    unrestored_before: AtomicU64,
    /// The records of stamps before this second are unreadable.
    lost_before: AtomicU64,
    /// The audit is being read; no entry is removed meanwhile.
    restoring: AtomicBool,
    swept: AtomicUsize,
    /// The number of transids per group.
    groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    /// Refusals because the cache was full, since the last report.
    full_reports: Mutex<HashMap<Arc<str>, FullReport>>,
}

/// All clients here are authenticated, so no attacker can choose the keys of the hash table.
type ClientStates = HashMap<AppId, ClientState, RandomState>;

/// The state of a client.
#[derive(Debug, Default)]
struct ClientState {
    used: BTreeSet<TransidKey>,
    /// The group that `used` is counted to.
    group: Option<Arc<Group>>,
    /// The greatest used transid: a client that counts up is known by it alone to send a new one.
    highest: TransidKey,
    /// The second after the greatest stamp that has left the window. Older stamps stay refused.
    expired: u64,
    /// The second after the greatest stamp that was evicted because the cache was full.
    evicted_full: u64,
    /// The start of the window when expired entries were last removed.
    floor: u64,
    bucket: Bucket,
    /// Hashes of an observed client's last transids that `used` cannot hold.
    observed: VecDeque<u64>,
    last_used: Duration,
}

/// The reason for which a transid is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// The stamp is too far from the clock, or so old that its use may no longer be stored.
    Stale,
    /// The transid was used before.
    Reused,
    /// The client exceeds its rate until this time has passed.
    TooFast(Duration),
    /// The cache is full until this time has passed, when the oldest entry expires.
    Full(Duration),
}

impl ReplayCache {
    /// A cache for `capacity` transids in total.
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

    /// Checks that a stamp is in a window around the clock, and that its records are readable. After an unconfirmed step
    /// forwards, either time may be the right one.
    ///
    /// # Errors
    /// [`ReplayError::Stale`].
    pub fn check_window(
        &self,
        unix: u64,
        window: Option<Duration>,
        arrived: Moment,
    ) -> Result<(), ReplayError> {
        let Some(window) = window else { return Ok(()) };
        let limit = window.as_secs();
        let around = |time: Time| {
            let now = time.as_secs();
            (now.saturating_sub(limit)..=now.saturating_add(limit)).contains(&unix)
        };
        let inside = around(arrived.wall) || (arrived.believed != arrived.wall && around(arrived.believed));
        if inside && unix >= self.unknown() { Ok(()) } else { Err(ReplayError::Stale) }
    }

    /// Marks a client's transid used, and returns whether it was used before, which the mode `refuse` never accepts. The mode
    /// `observe` only refuses requests beyond the rate.
    ///
    /// # Errors
    /// [`ReplayError`]; nothing is marked used then.
    pub fn check_and_record(
        &self,
        owner: Owner<'_>,
        key: TransidKey,
        permissions: &Permissions,
        mode: ReplayMode,
        arrived: Moment,
    ) -> Result<bool, ReplayError> {
        let ticks = arrived.monotonic;
        let window = permissions.window.unwrap_or(WITHOUT_WINDOW);
        let mut shard = self.shard(owner.appid);
        let client = shard.entry(*owner.appid).or_default();
        client.last_used = ticks;
        self.count_to(client, owner.group);
        let floor = floor(window, arrived.believed);
        self.expire(client, floor);
        let accepted_from = client.floor().max(self.unknown());
        let again = key <= client.highest && client.used.contains(&key);
        if mode == ReplayMode::Observe {
            client.take_permit(permissions, ticks)?;
            let latest = arrived.wall.as_secs().saturating_add(window.as_secs());
            let stored = again
                || key.unix() >= floor.max(accepted_from)
                    && key.unix() <= latest
                    && self.mark_used_or_evict(client, key, permissions, owner);
            return Ok(again || !stored && client.is_repeat(key.bits()));
        }
        if again && mode == ReplayMode::Refuse {
            return Err(ReplayError::Reused);
        }
        if key.unix() < accepted_from {
            return Err(ReplayError::Stale);
        }
        if again {
            client.take_permit(permissions, ticks)?;
            return Ok(true);
        }
        // Room first: a request that is refused for want of it has not used its rate.
        if let Err(bound) = self.reserve(client, permissions, owner) {
            self.report_full(owner, bound);
            return Err(ReplayError::Full(client.time_until_room(floor, window)));
        }
        if let Err(too_fast) = client.take_permit(permissions, ticks) {
            self.release(client, 1);
            return Err(too_fast);
        }
        client.mark_used(key);
        Ok(false)
    }

    /// Marks a transid unused that [`Self::check_and_record`] has marked, before anything was done for its request.
    pub fn unmark(&self, appid: &AppId, key: TransidKey) {
        let mut shard = self.shard(appid);
        if let Some(client) = shard.get_mut(appid)
            && client.used.remove(&key)
        {
            self.release(client, 1);
        }
    }

    /// Records the hash of an observed client's transid without a stamp. Returns whether it is among its last ones.
    ///
    /// # Errors
    /// [`ReplayError::TooFast`].
    pub fn record_only(
        &self,
        appid: &AppId,
        digest: u64,
        permissions: &Permissions,
        ticks: Duration,
    ) -> Result<bool, ReplayError> {
        let mut shard = self.shard(appid);
        let client = shard.entry(*appid).or_default();
        client.last_used = ticks;
        client.take_permit(permissions, ticks)?;
        Ok(client.is_repeat(digest))
    }

    /// Starts a restore from the audit: until [`Self::finish_restore`] no entry is removed.
    pub fn begin_restore(&self) {
        self.restoring.store(true, Ordering::Release);
    }

    /// Marks a transid used that the audit lists. It counts against the group that its client has now, if any.
    pub fn restore(&self, appid: &AppId, group: Option<&Arc<str>>, key: TransidKey) {
        let mut shard = self.shard(appid);
        let client = shard.entry(*appid).or_default();
        if let Some(group) = group {
            self.count_to(client, group);
        }
        if !client.mark_used(key) {
            return;
        }
        self.used.fetch_add(1, Ordering::Relaxed);
        if let Some(group) = &client.group {
            group.transids.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends a restore: all used transids with stamps of this Unix second or later are stored now, so only older stamps stay
    /// refused. Since [`Self::begin_restore`] no entry was removed.
    pub fn finish_restore(&self, from: u64) {
        for shard in &self.shards {
            lock(shard).values_mut().for_each(|client| client.expired = client.expired.min(from));
        }
        self.unrestored_before.store(from, Ordering::Relaxed);
        self.abandon_restore();
    }

    /// Ends a restore that failed: the same stamps stay refused.
    pub fn abandon_restore(&self) {
        self.restoring.store(false, Ordering::Release);
    }

    /// Refuses stamps before this Unix second, whose records are unreadable; 0 refuses none.
    pub fn set_lost_before(&self, before: u64) {
        self.lost_before.store(before, Ordering::Relaxed);
    }

    /// Removes entries that have left the widest window of all clients, in one shard per call. An idle client's own window
    /// does not apply: it may have been narrower at its last request.
    pub fn sweep(&self, widest: Duration, now: Moment) {
        if self.restoring.load(Ordering::Acquire) {
            return;
        }
        let shard = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = lock(&self.shards[shard]);
        let floor = floor(widest, now.believed);
        shard.retain(|_, client| {
            self.expire(client, floor);
            let idle = client.used.is_empty() && now.monotonic.saturating_sub(client.last_used) >= IDLE;
            // Its removed transids must stay refused: its floor applies to all clients now, and is below all their windows.
            let removed = idle && client.floor() <= floor;
            if removed {
                self.unrestored_before.fetch_max(client.floor(), Ordering::Relaxed);
            }
            !removed
        });
        let capacity = shard.len() * 2;
        shard.shrink_to(capacity);
    }

    /// The number of transids for which there is room in total.
    pub fn limit(&self) -> usize {
        self.capacity
    }

    pub fn transid_count(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The number of transids per group, in the order of the groups' names.
    pub fn transid_count_by_group(&self) -> Vec<(Arc<str>, usize)> {
        let groups = lock(&self.groups);
        let mut counts: Vec<_> = groups
            .values()
            .map(|one| (Arc::clone(&one.name), one.transids.load(Ordering::Relaxed)))
            .collect();
        counts.sort();
        counts
    }

    /// The groups whose requests were refused because the cache was full, since the last call.
    pub fn take_full_reports(&self) -> Vec<(Arc<str>, FullReport)> {
        let mut full: Vec<_> = lock(&self.full_reports).drain().collect();
        full.sort_by(|(one, _), (other, _)| one.cmp(other));
        full
    }

    /// Reserves room for one more transid of the client. The caller marks it used, or releases the room.
    fn reserve(
        &self,
        client: &ClientState,
        permissions: &Permissions,
        owner: Owner<'_>,
    ) -> Result<(), CapacityBound> {
        if client.used.len() >= permissions.share {
            return Err(CapacityBound::Client);
        }
        let Some(group) = &client.group else { return Err(CapacityBound::Group) };
        if group.transids.fetch_add(1, Ordering::Relaxed) >= owner.group_share {
            group.transids.fetch_sub(1, Ordering::Relaxed);
            return Err(CapacityBound::Group);
        }
        if self.used.fetch_add(1, Ordering::Relaxed) >= self.capacity {
            self.release(client, 1);
            return Err(CapacityBound::Table);
        }
        Ok(())
    }

    /// Releases a client's room.
    fn release(&self, client: &ClientState, room: usize) {
        self.used.fetch_sub(room, Ordering::Relaxed);
        if let Some(group) = &client.group {
            group.transids.fetch_sub(room, Ordering::Relaxed);
        }
    }

    /// Marks a transid of an observed client used. Without room, the client's oldest second is evicted first; a transid that is
    /// older than all others is not stored. Returns whether it is stored.
    fn mark_used_or_evict(
        &self,
        client: &mut ClientState,
        key: TransidKey,
        permissions: &Permissions,
        owner: Owner<'_>,
    ) -> bool {
        while self.reserve(client, permissions, owner).is_err() {
            match client.used.first().map(|oldest| oldest.unix()) {
                Some(oldest) if oldest <= key.unix() => self.forget(client, oldest + 1),
                _ => {
                    self.forget(client, key.unix() + 1);
                    return false;
                }
            }
            if key.unix() < client.floor() {
                return false;
            }
        }
        client.mark_used(key);
        true
    }

    /// Removes entries that have left the window, at most once per second, unless the audit is being read.
    fn expire(&self, client: &mut ClientState, floor: u64) {
        if floor == client.floor || self.restoring.load(Ordering::Acquire) {
            return;
        }
        client.floor = floor;
        let (greatest, gone) = client.forget(floor);
        if gone > 0 {
            client.expired = client.expired.max(greatest.unix() + 1);
            self.release(client, gone);
        }
    }

    /// Evicts entries that are older than the floor, because the cache is full.
    fn forget(&self, client: &mut ClientState, floor: u64) {
        let (_, gone) = client.forget(floor);
        client.evicted_full = client.evicted_full.max(floor);
        if gone > 0 {
            self.release(client, gone);
        }
    }

    /// Counts a client's transids against its group, also after a change of the group.
    fn count_to(&self, client: &mut ClientState, name: &Arc<str>) {
        if let Some(group) = &client.group {
            if Arc::ptr_eq(&group.name, name) || group.name == *name {
                return;
            }
            group.transids.fetch_sub(client.used.len(), Ordering::Relaxed);
        }
        let mut groups = lock(&self.groups);
        let group = groups
            .entry(Arc::clone(name))
            .or_insert_with(|| Arc::new(Group { name: Arc::clone(name), transids: AtomicUsize::new(0) }));
        group.transids.fetch_add(client.used.len(), Ordering::Relaxed);
        client.group = Some(Arc::clone(group));
    }

    fn report_full(&self, owner: Owner<'_>, bound: CapacityBound) {
        let mut full = lock(&self.full_reports);
        let first = FullReport { client: *owner.appid, bound, refused: 0 };
        let full = full.entry(Arc::clone(owner.group)).or_insert(first);
        *full = FullReport { client: *owner.appid, bound, refused: full.refused + 1 };
    }

    /// The second before which a stamp of any client may have been used.
    fn unknown(&self) -> u64 {
        self.unrestored_before.load(Ordering::Relaxed).max(self.lost_before.load(Ordering::Relaxed))
    }

    fn shard(&self, appid: &AppId) -> MutexGuard<'_, ClientStates> {
        let hash = self.spread.hash_one(appid);
        lock(&self.shards[usize::try_from(hash % SHARDS as u64).expect("below 32")])
    }
}

/// The start of the window: a stamp before this second has left it.
fn floor(window: Duration, believed: Time) -> u64 {
    believed.as_secs().saturating_sub(window.as_secs())
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under these locks could only come from an allocation; no step leaves the tables inconsistent.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientState {
    /// Marks a transid used, and returns whether it is new.
    fn mark_used(&mut self, key: TransidKey) -> bool {
        self.highest = self.highest.max(key);
        self.used.insert(key)
    }

    /// Takes one request of the client's rate.
    fn take_permit(&mut self, permissions: &Permissions, ticks: Duration) -> Result<(), ReplayError> {
        permissions.rate.map_or(Ok(()), |rate| self.bucket.acquire(rate, ticks)).map_err(ReplayError::TooFast)
    }

    /// Whether an observed client sent this hash lately. It is recorded.
    fn is_repeat(&mut self, digest: u64) -> bool {
        if self.observed.contains(&digest) {
            return true;
        }
        if self.observed.len() >= OBSERVED {
            self.observed.pop_front();
        }
        self.observed.push_back(digest);
        false
    }

    /// Stamps before this second may have been removed: the client's floor of accepted stamps.
    fn floor(&self) -> u64 {
        self.expired.max(self.evicted_full)
    }

    /// Removes entries with stamps before the floor. Returns the greatest, and their key.
    fn forget(&mut self, floor: u64) -> (TransidKey, usize) {
        let (mut greatest, mut gone) = (TransidKey::default(), 0);
        while let Some(oldest) = self.used.first().copied().filter(|oldest| oldest.unix() < floor) {
            self.used.pop_first();
            greatest = oldest;
            gone += 1;
        }
        (greatest, gone)
    }

    /// The time until the client's oldest transid expires. Without one, other clients of its group fill the cache: their
    /// transids have expired after the window.
    fn time_until_room(&self, floor: u64, window: Duration) -> Duration {
        let oldest = self.used.first().map(|oldest| oldest.unix().saturating_sub(floor) + 1);
        oldest.map_or(window, Duration::from_secs)
    }
}

#[cfg(test)]
mod tests;
