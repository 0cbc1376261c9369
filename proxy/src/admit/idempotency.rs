//! Responses that are kept for repetition: `replay = "same-answer"`.
//!
//! A gateway whose response was lost may send the very same request once more. While the first is under way, the second
//! waits for its response; afterwards it gets a copy. Group, card and path must be those of the first, since none of them
//! is signed. The transid is looked up in the replay table under this table's lock, so that both agree: what is used
//! there and not kept here is refused, and is never fetched again. Only a request that got no response (a 73) may be
//! tried anew.
//!
//! A kept response leaves with the replay window, with a purge that covers it, and when large ones need its room: a
//! client's oldest large response leaves first. After a restart none is kept.

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

/// Clients are spread over so many locks.
const SHARDS: usize = 32;

/// Bytes of a body that counts as large. Shorter ones are bounded by their number, which the replay table bounds.
const LARGE: usize = 256;

/// Bytes of the large bodies that are kept.
#[derive(Clone, Copy, Debug)]
struct Capacity {
    /// For one client.
    client: usize,
    /// In all.
    all: usize,
}

/// Enough for 64 of the longest responses of one client, and for 16 such clients.
const CAPACITY: Capacity = Capacity { client: 4 << 20, all: 64 << 20 };

/// The response of a request; none when it asked for what is cached alone, and nothing was.
pub type Response = Option<Arc<Entry>>;

/// The kept responses, by client and transid.
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
    /// Those with large bodies, the first kept first. Some may be gone already.
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
    /// The first request is under way, or ended without a response when the sender is gone.
    Waiting(Box<watch::Receiver<Option<Response>>>),
    Completed(Response),
    /// Purged, or refused once.
    Gone,
}

/// What a transid was first used for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    /// The group whose accounts answer.
    pub group: Arc<str>,
    /// The operation.
    pub operation: &'static Operation,
    /// The card, by the number that was sent.
    pub card: Card,
    /// The declared parameters beside it.
    pub parameters: Parameters,
}

/// How a request gets its response.
#[derive(Debug)]
pub enum RetryState {
    /// It is the first: it finds the response, and tells the others.
    New(Completer),
    /// The first is under way: it waits for its response.
    InFlight(ResultReceiver),
    /// It gets what was kept.
    Stored(Response),
    /// Not at all: its transid was used, and no response to this request is kept.
    Mismatch,
}

/// Tells the response to those who ask again. Dropped without, the next request is the first again.
#[derive(Debug)]
pub struct Completer {
    appid: AppId,
    number: TransidKey,
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
    fn new(room: Capacity) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            spread: RandomState::default(),
            capacity: room,
            large: AtomicUsize::new(0),
            swept: AtomicUsize::new(0),
        }
    }

    /// How a client's request gets its response. `pass` uses the transid, and says whether it was used before.
    ///
    /// # Errors
    /// That of `pass`; nothing is changed then.
    pub fn enter<E>(
        &self,
        appid: AppId,
        number: TransidKey,
        asked: Fingerprint,
        pass: impl FnOnce() -> Result<bool, E>,
    ) -> Result<RetryState, E> {
        let mut shard = self.shard(&appid);
        let used = pass()?;
        let shelf = shard.entry(appid).or_default();
        match shelf.slots.get(&number) {
            None if used => return Ok(RetryState::Mismatch),
            None => {}
            Some(slot) if slot.fingerprint.group != asked.group => {
                // The client has moved, and is refused: that stays so when it moves back.
                self.drop_response(shelf, number);
                return Ok(RetryState::Mismatch);
            }
            Some(slot) if slot.fingerprint != asked => return Ok(RetryState::Mismatch),
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
        shelf.slots.insert(number, Slot { fingerprint: asked, state: State::Waiting(Box::new(response)) });
        Ok(RetryState::New(Completer { appid, number, sender }))
    }

    /// Tells the response to those who wait, and keeps it for those who ask later.
    pub fn complete(&self, teller: Completer, response: Response) {
        let Completer { appid, number, sender } = teller;
        let mut shard = self.shard(&appid);
        if let Some(shelf) = shard.get_mut(&appid) {
            self.keep(shelf, number, response.clone());
        }
        drop(shard);
        sender.send_replace(Some(response));
    }

    /// Forgets the response to a request that was refused for its transid: it is refused from then on, in whatever mode.
    pub fn refused(&self, appid: AppId, number: TransidKey) {
        if let Some(shelf) = self.shard(&appid).get_mut(&appid) {
            self.drop_response(shelf, number);
        }
    }

    /// Forgets the responses that are selected. Of those under way only what was asked is known.
    pub fn purge(&self, selects: impl Fn(&Fingerprint, Option<&Entry>) -> bool) {
        for shard in &self.shards {
            for shelf in lock(shard).values_mut() {
                let mut freed = 0;
                for slot in shelf.slots.values_mut() {
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
                self.free(shelf, freed);
            }
        }
    }

    /// Forgets transids with stamps before this Unix second, in one part of the table a call.
    pub fn sweep(&self, floor: u64) {
        let turn = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = lock(&self.shards[turn]);
        shard.retain(|_, shelf| {
            let mut freed = 0;
            while let Some(oldest) = shelf.slots.first_entry()
                && oldest.key().unix() < floor
            {
                freed += oldest.remove().large_bytes();
            }
            self.free(shelf, freed);
            shelf.large.retain(|number| shelf.slots.contains_key(number));
            !shelf.slots.is_empty()
        });
        let room = shard.len() * 2;
        shard.shrink_to(room);
    }

    fn drop_response(&self, shelf: &mut ClientSlots, number: TransidKey) {
        if let Some(slot) = shelf.slots.get_mut(&number) {
            let freed = slot.large_bytes();
            slot.state = State::Gone;
            self.free(shelf, freed);
        }
    }

    fn keep(&self, shelf: &mut ClientSlots, number: TransidKey, response: Response) {
        let bytes = response.as_deref().map_or(0, large_bytes);
        match shelf.slots.get(&number) {
            Some(slot) if matches!(slot.state, State::Waiting(_)) => {}
            // Purged, or out of the window.
            _ => return,
        }
        if bytes > self.capacity.client {
            shelf.slots.remove(&number);
            return;
        }
        while bytes > 0
            && (shelf.large_bytes + bytes > self.capacity.client
                || self.large.load(Ordering::Relaxed) + bytes > self.capacity.all)
        {
            let Some(oldest) = shelf.large.pop_front() else {
                // Others have all the room: this one is not kept, and its transid is used.
                shelf.slots.remove(&number);
                return;
            };
            let freed = shelf.slots.remove(&oldest).map_or(0, |slot| slot.large_bytes());
            self.free(shelf, freed);
        }
        if bytes > 0 {
            shelf.large.push_back(number);
            shelf.large_bytes += bytes;
            self.large.fetch_add(bytes, Ordering::Relaxed);
        }
        if let Some(slot) = shelf.slots.get_mut(&number) {
            slot.state = State::Completed(response);
        }
    }

    fn free(&self, shelf: &mut ClientSlots, bytes: usize) {
        shelf.large_bytes -= bytes;
        self.large.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn shard(&self, appid: &AppId) -> MutexGuard<'_, HashMap<AppId, ClientSlots, RandomState>> {
        let hash = self.spread.hash_one(appid);
        lock(&self.shards[usize::try_from(hash % SHARDS as u64).expect("below 32")])
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    // The table is whole at every step.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes that a response counts for.
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
    /// Waits for the response; none when the first request ended without one.
    pub async fn wait(mut self) -> Option<Response> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|response| response.clone())
    }
}

#[cfg(test)]
mod tests;
