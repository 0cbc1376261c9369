//! Responses that are stored for idempotent retries: `replay = "same-answer"`.
//!
//! A gateway whose response was lost may send the same request again. While the first request is in flight, the second
//! waits for its response; afterwards it gets a copy. Group, card and path must be those of the first request, since the
//! token signs none of them. The transid is looked up in the replay cache under this table's lock, so that both agree: a
//! transid that is used there and has no response here is refused, and is never fetched again. Only a request that got no
//! response (a 73) may be tried again.
//!
//! A response is removed with the replay window, with a purge that covers it, and when large responses need its room: a
//! client's oldest large response is removed first. None survives a restart.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cmiot_signer::{AppId, Card};
use foldhash::fast::RandomState;
use tokio::sync::watch;

use crate::cache::Entry;
use crate::operation::{Operation, Parameters};
use crate::wire::transid::TransidKey;

/// The number of locks over which clients are distributed.
const SHARDS: usize = 32;

/// The length of a large body, in bytes. The replay cache limits the number of shorter ones.
const LARGE: usize = 256;

/// Capacity for large bodies, in bytes.
#[derive(Clone, Copy, Debug)]
struct Capacity {
    /// Per client.
    client: usize,
    /// In total.
    all: usize,
}

/// Room for 64 of the longest responses per client, and for 16 such clients.
const CAPACITY: Capacity = Capacity { client: 4 << 20, all: 64 << 20 };

/// The response to a request; `None` if it was `only-if-cached`, and nothing was cached.
pub type Response = Option<Arc<Entry>>;

/// The stored responses, by client and transid.
#[derive(Debug)]
pub struct IdempotencyCache {
    shards: [Mutex<HashMap<AppId, ClientSlots, RandomState>>; SHARDS],
    spread: RandomState,
    capacity: Capacity,
    large: AtomicUsize,
    swept: AtomicUsize,
}

/// The responses of one client.
#[derive(Debug, Default)]
struct ClientSlots {
    slots: BTreeMap<TransidKey, Slot>,
    /// The slots with large bodies, oldest first. Some may have been removed already.
    large: VecDeque<TransidKey>,
    large_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    fingerprint: Fingerprint,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The first request is in flight; if the sender is dropped, it ended without a response.
    Waiting(Box<watch::Receiver<Option<Response>>>),
    Completed(Response),
    /// Purged, or refused.
    Gone,
}

/// The request for which a transid was first used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    pub group: Arc<str>,
    pub operation: &'static Operation,
    /// The card with the number that was sent.
    pub card: Card,
    /// The parameters that the operation declares.
    pub parameters: Parameters,
}

/// The state of the request with a transid, for the next request with it.
#[derive(Debug)]
pub enum RetryState {
    /// It is the first request, and publishes the response to retries.
    New(Completer),
    /// The first request is in flight; a retry waits for its response.
    InFlight(ResultReceiver),
    /// The stored response.
    Stored(Response),
    /// The transid was used, and no response to this request is stored.
    Mismatch,
}

/// Publishes the response to retries. If it is dropped without a response, the next request counts as the first.
#[derive(Debug)]
pub struct Completer {
    appid: AppId,
    key: TransidKey,
    sender: watch::Sender<Option<Response>>,
}

/// Waits for the response of the first request.
#[derive(Debug)]
pub struct ResultReceiver(watch::Receiver<Option<Response>>);

impl Default for IdempotencyCache {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl IdempotencyCache {
    fn new(capacity: Capacity) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            spread: RandomState::default(),
            capacity,
            large: AtomicUsize::new(0),
            swept: AtomicUsize::new(0),
        }
    }

    /// Enters a request. `mark_used` marks the transid used, and returns whether it was used before.
    ///
    /// # Errors
    /// Those of `mark_used`; nothing has changed then.
    pub fn enter<E>(
        &self,
        appid: AppId,
        key: TransidKey,
        fingerprint: Fingerprint,
        mark_used: impl FnOnce() -> Result<bool, E>,
    ) -> Result<RetryState, E> {
        let mut shard = self.shard(&appid);
        let used = mark_used()?;
        let client = shard.entry(appid).or_default();
        match client.slots.get(&key) {
            None if used => return Ok(RetryState::Mismatch),
            None => {}
            Some(slot) if slot.fingerprint.group != fingerprint.group => {
                // The client has another group now, and is refused; it stays refused if it gets the old group back.
                self.drop_response(client, key);
                return Ok(RetryState::Mismatch);
            }
            Some(slot) if slot.fingerprint != fingerprint => return Ok(RetryState::Mismatch),
            Some(Slot { state, .. }) => match state {
                State::Completed(response) => return Ok(RetryState::Stored(response.clone())),
                State::Gone => return Ok(RetryState::Mismatch),
                State::Waiting(first) if first.has_changed().is_ok() => {
                    return Ok(RetryState::InFlight(ResultReceiver((**first).clone())));
                }
                State::Waiting(_) => {}
            },
        }
        let (sender, response) = watch::channel(None);
        client.slots.insert(key, Slot { fingerprint, state: State::Waiting(Box::new(response)) });
        Ok(RetryState::New(Completer { appid, key, sender }))
    }

    /// Publishes the response to waiting retries, and stores it for later ones.
    pub fn complete(&self, completer: Completer, response: Response) {
        let Completer { appid, key, sender } = completer;
        let mut shard = self.shard(&appid);
        if let Some(client) = shard.get_mut(&appid) {
            self.store(client, key, response.clone());
        }
        drop(shard);
        sender.send_replace(Some(response));
    }

    /// Removes the response of a transid that was refused as used: it stays refused, in each mode.
    pub fn refused(&self, appid: AppId, key: TransidKey) {
        if let Some(client) = self.shard(&appid).get_mut(&appid) {
            self.drop_response(client, key);
        }
    }

    /// Removes the selected responses. A request in flight is selected by its fingerprint alone.
    pub fn purge(&self, selects: impl Fn(&Fingerprint, Option<&Entry>) -> bool) {
        for shard in &self.shards {
            for client in lock(shard).values_mut() {
                let mut freed = 0;
                for slot in client.slots.values_mut() {
                    let entry = match &slot.state {
                        State::Waiting(_) => None,
                        State::Completed(Some(entry)) => Some(&**entry),
                        State::Completed(None) | State::Gone => continue,
                    };
                    if selects(&slot.fingerprint, entry) {
                        freed += entry.map_or(0, large_bytes);
                        slot.state = State::Gone;
                    }
                }
                self.free(client, freed);
            }
        }
    }

    /// Removes transids with stamps before this Unix second, in one shard per call.
    pub fn sweep(&self, floor: u64) {
        let shard = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = lock(&self.shards[shard]);
        shard.retain(|_, client| {
            let mut freed = 0;
            while let Some(oldest) = client.slots.first_entry()
                && oldest.key().unix() < floor
            {
                freed += oldest.remove().large_bytes();
            }
            self.free(client, freed);
            client.large.retain(|key| client.slots.contains_key(key));
            !client.slots.is_empty()
        });
        let room = shard.len() * 2;
        shard.shrink_to(room);
    }

    fn drop_response(&self, client: &mut ClientSlots, key: TransidKey) {
        if let Some(slot) = client.slots.get_mut(&key) {
            let freed = slot.large_bytes();
            slot.state = State::Gone;
            self.free(client, freed);
        }
    }

    fn store(&self, client: &mut ClientSlots, key: TransidKey, response: Response) {
        let bytes = response.as_deref().map_or(0, large_bytes);
        match client.slots.get(&key) {
            Some(slot) if matches!(slot.state, State::Waiting(_)) => {}
            // Purged, or out of the window.
            _ => return,
        }
        if bytes > self.capacity.client {
            client.slots.remove(&key);
            return;
        }
        while bytes > 0
            && (client.large_bytes + bytes > self.capacity.client
                || self.large.load(Ordering::Relaxed) + bytes > self.capacity.all)
        {
            let Some(oldest) = client.large.pop_front() else {
                // Other clients use all the room: this response is not stored, and its transid stays used.
                client.slots.remove(&key);
                return;
            };
            let freed = client.slots.remove(&oldest).map_or(0, |slot| slot.large_bytes());
            self.free(client, freed);
        }
        if bytes > 0 {
            client.large.push_back(key);
            client.large_bytes += bytes;
            self.large.fetch_add(bytes, Ordering::Relaxed);
        }
        if let Some(slot) = client.slots.get_mut(&key) {
            slot.state = State::Completed(response);
        }
    }

    fn free(&self, client: &mut ClientSlots, bytes: usize) {
        client.large_bytes -= bytes;
        self.large.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn shard(&self, appid: &AppId) -> MutexGuard<'_, HashMap<AppId, ClientSlots, RandomState>> {
        let hash = self.spread.hash_one(appid);
        lock(&self.shards[usize::try_from(hash % SHARDS as u64).expect("below 32")])
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // No step leaves the table inconsistent.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes by which a response counts as large.
fn large_bytes(entry: &Entry) -> usize {
    let bytes = entry.reply.body.len();
    if bytes >= LARGE { bytes } else { 0 }
}

impl Slot {
    fn large_bytes(&self) -> usize {
        match &self.state {
            State::Completed(Some(entry)) => large_bytes(entry),
            _ => 0,
        }
    }
}

impl ResultReceiver {
    /// Waits for the response; `None` if the first request ended without one.
    pub async fn wait(mut self) -> Option<Response> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|response| response.clone())
    }
}

#[cfg(test)]
mod tests;
