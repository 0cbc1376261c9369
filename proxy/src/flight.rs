//! Request collapsing (singleflight): identical lookups at the same time share one carrier call, a *flight*.
//!
//! A flight is a detached, tracked task with a deadline of its own. The request that started it (the leader) and those
//! that joined it (followers) each wait with their own timeout. A disconnect neither cancels nor restarts the flight: its
//! quota is already spent. All waiters get the result, a failure included. A flight leaves the table before it
//! publishes its result, and after the result is in the cache: a later request finds one or the other. A purge takes flights
//! off the table: they complete for their waiters, and no request joins them.
//!
//! Limits apply to the waiters of a flight, to a client (its waiting requests, and the flights that it started until they
//! end, even if it has disconnected), to the flights of a group, and to all flights, of which half are reserved for
//! misses. A request beyond a limit is refused at once. A flight is as urgent as its most urgent waiter.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::config::FlightLimits;
use crate::urgency::{SharedUrgency, Urgency};

/// The flights by key; `C` identifies a client.
pub struct Flights<K, C, T> {
    table: Mutex<Table<K, C, T>>,
    tasks: TaskTracker,
}

struct Table<K, C, T> {
    limits: FlightLimits,
    flights: HashMap<K, Flight<T>>,
    /// Per client: its waiting followers and its own flights. A count of zero is removed.
    clients: HashMap<C, usize>,
    /// Flights per group of the client that started them. A count of zero is removed.
    groups: HashMap<Arc<str>, usize>,
    /// Waiting requests.
    waiting: usize,
    /// Flights without a result, those off the table included.
    in_flight: usize,
    /// The number of the next flight: a key may have a second flight before its first one has ended.
    next: u64,
}

/// A flight in the table. Only its task can publish the result.
struct Flight<T> {
    number: u64,
    result: watch::Receiver<Option<T>>,
    waiters: usize,
    urgency: SharedUrgency,
}

/// One flight of a key: a purge may take it off the table before it ends, and the key then gets another.
#[derive(Clone)]
struct FlightId<K> {
    key: K,
    number: u64,
}

/// The client and group whose limits a request counts against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner<C> {
    pub client: C,
    pub group: Arc<str>,
}

/// A limit is reached, and the request is refused without waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitReached;

/// The flight's task ended without a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskFailed;

/// The part of a request in its flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It started the flight.
    Leader,
    /// It joined the flight of an earlier request.
    Follower,
}

/// The handle of a request that waits for a flight.
pub struct Waiter<K: Eq + Hash, C: Eq + Hash, T> {
    pub role: Role,
    result: watch::Receiver<Option<T>>,
    flights: Arc<Flights<K, C, T>>,
    /// The flight in the table, if it can be joined.
    flight: Option<FlightId<K>>,
    /// The client whose limit it counts against; `None` for a leader, whose flight counts.
    client: Option<C>,
}

impl<K, C, T> Flights<K, C, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    C: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// An empty table; `tasks` tracks its tasks, so that a drain can wait for them.
    pub fn new(limits: FlightLimits, tasks: TaskTracker) -> Self {
        let table = Table {
            limits,
            flights: HashMap::new(),
            clients: HashMap::new(),
            groups: HashMap::new(),
            waiting: 0,
            in_flight: 0,
            next: 0,
        };
        Self { table: Mutex::new(table), tasks }
    }

    /// Applies other limits. Flights and waiters beyond a lower limit stay; none is added until they are below it.
    pub fn set_limits(&self, limits: FlightLimits) {
        self.lock().limits = limits;
    }

    /// Joins the flight of `key`, or starts one that runs `fetch` with the flight's urgency. A flight of the proxy itself has
    /// no owner.
    ///
    /// # Errors
    /// [`LimitReached`].
    pub fn join<F>(
        self: &Arc<Self>,
        key: &K,
        owner: Option<Owner<C>>,
        urgency: Urgency,
        fetch: impl FnOnce(SharedUrgency) -> F,
    ) -> Result<Waiter<K, C, T>, LimitReached>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut table = self.lock();
        if let Some(flight) = table.flights.get(key) {
            if flight.waiters >= table.limits.waiters {
                return Err(LimitReached);
            }
            let id = FlightId { key: key.clone(), number: flight.number };
            let (result, shared_urgency) = (flight.result.clone(), flight.urgency.clone());
            let client = owner.map(|owner| owner.client);
            if let Some(client) = &client {
                table.count(client)?;
            }
            shared_urgency.raise(urgency);
            return Ok(self.add_waiter(&mut table, Role::Follower, result, Some(id), client));
        }
        self.start(table, Some(key), owner, urgency, fetch)
    }

    /// Starts a flight that no other request can join: an action.
    ///
    /// # Errors
    /// [`LimitReached`].
    pub fn start_unshared<F>(
        self: &Arc<Self>,
        owner: Option<Owner<C>>,
        fetch: impl FnOnce(SharedUrgency) -> F,
    ) -> Result<Waiter<K, C, T>, LimitReached>
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.start(self.lock(), None, owner, Urgency::Miss, fetch)
    }

    /// Takes flights off the table, and returns their number. They complete for their waiters.
    pub fn forget(&self, selects: impl Fn(&K) -> bool) -> usize {
        let mut table = self.lock();
        let before = table.flights.len();
        table.flights.retain(|key, _| !selects(key));
        before - table.flights.len()
    }

    /// The number of flights without a result.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// The number of waiting requests.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn start<F>(
        self: &Arc<Self>,
        mut table: MutexGuard<'_, Table<K, C, T>>,
        key: Option<&K>,
        owner: Option<Owner<C>>,
        urgency: Urgency,
        fetch: impl FnOnce(SharedUrgency) -> F,
    ) -> Result<Waiter<K, C, T>, LimitReached>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let limit = match urgency {
            Urgency::Miss => table.limits.flights,
            Urgency::Refresh | Urgency::Ahead => table.limits.flights.div_ceil(2),
        };
        if table.in_flight >= limit {
            return Err(LimitReached);
        }
        if let Some(Owner { client, group }) = &owner {
            if table.groups.get(group).is_some_and(|flights| *flights >= table.limits.group) {
                return Err(LimitReached);
            }
            table.count(client)?;
            *table.groups.entry(Arc::clone(group)).or_default() += 1;
        }
        let (sender, result) = watch::channel(None);
        let urgency = SharedUrgency::new(urgency);
        let id = key.map(|key| FlightId { key: key.clone(), number: table.next });
        if let Some(FlightId { key, number }) = id.clone() {
            let flight = Flight { number, result: result.clone(), waiters: 0, urgency: urgency.clone() };
            table.flights.insert(key, flight);
        }
        table.next += 1;
        table.in_flight += 1;
        let waiter = self.add_waiter(&mut table, Role::Leader, result, id.clone(), None);
        drop(table);
        let guard = FlightGuard { flights: Arc::clone(self), id, owner, sender: Some(sender) };
        let fetch = fetch(urgency);
        self.tasks.spawn(async move {
            let result = fetch.await;
            guard.complete(result);
        });
        Ok(waiter)
    }

    fn add_waiter(
        self: &Arc<Self>,
        table: &mut Table<K, C, T>,
        role: Role,
        result: watch::Receiver<Option<T>>,
        id: Option<FlightId<K>>,
        client: Option<C>,
    ) -> Waiter<K, C, T> {
        table.waiting += 1;
        if let Some(flight) = id.as_ref().and_then(|id| table.flights.get_mut(&id.key)) {
            flight.waiters += 1;
        }
        Waiter { role, result, flights: Arc::clone(self), flight: id, client }
    }
}

impl<K, C, T> Flights<K, C, T> {
    fn lock(&self) -> MutexGuard<'_, Table<K, C, T>> {
        // No code under this lock can panic in the middle of a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, C, T> Table<K, C, T>
where
    K: Eq + Hash,
{
    /// The flight of this id, if it is still on the table.
    fn flight(&mut self, id: Option<&FlightId<K>>) -> Option<&mut Flight<T>> {
        let FlightId { key, number } = id?;
        self.flights.get_mut(key).filter(|flight| flight.number == *number)
    }
}

impl<K, C: Clone + Eq + Hash, T> Table<K, C, T> {
    /// Adds one to a client's count.
    fn count(&mut self, client: &C) -> Result<(), LimitReached> {
        let count = self.clients.get(client).copied().unwrap_or(0);
        if count >= self.limits.client {
            return Err(LimitReached);
        }
        self.clients.insert(client.clone(), count + 1);
        Ok(())
    }
}

/// Subtracts one from a count, and removes a count of zero.
fn uncount<N: Eq + Hash>(counts: &mut HashMap<N, usize>, name: &N) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

impl<K: Eq + Hash, C: Eq + Hash, T: Clone> Waiter<K, C, T> {
    /// Waits for the result. If the waiter is dropped, the flight continues.
    ///
    /// # Errors
    /// [`TaskFailed`].
    pub async fn result(&mut self) -> Result<T, TaskFailed> {
        let result = self.result.wait_for(Option::is_some).await.map_err(|_| TaskFailed)?;
        result.clone().ok_or(TaskFailed)
    }
}

impl<K: Eq + Hash, C: Eq + Hash, T> Drop for Waiter<K, C, T> {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        if let Some(flight) = table.flight(self.flight.as_ref()) {
            flight.waiters -= 1;
        }
        table.waiting -= 1;
        if let Some(client) = &self.client {
            uncount(&mut table.clients, client);
        }
    }
}

/// The task's side of a flight, which leaves the table exactly once: with its result, or if its task panics.
struct FlightGuard<K: Eq + Hash, C: Eq + Hash, T> {
    flights: Arc<Flights<K, C, T>>,
    id: Option<FlightId<K>>,
    /// The flight counts against the limits of this client and group until it ends.
    owner: Option<Owner<C>>,
    sender: Option<watch::Sender<Option<T>>>,
}

impl<K: Eq + Hash, C: Eq + Hash, T> FlightGuard<K, C, T> {
    fn complete(mut self, result: T) {
        let sender = self.sender.take();
        drop(self); // off the table first
        if let Some(sender) = sender {
            sender.send_replace(Some(result));
        }
    }
}

impl<K: Eq + Hash, C: Eq + Hash, T> Drop for FlightGuard<K, C, T> {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        table.in_flight -= 1;
        if let Some(owner) = &self.owner {
            uncount(&mut table.clients, &owner.client);
            uncount(&mut table.groups, &owner.group);
        }
        // A purge may have taken it off the table, and another flight of the key may have been added.
        if table.flight(self.id.as_ref()).is_some()
            && let Some(id) = &self.id
        {
            table.flights.remove(&id.key);
        }
    }
}

impl<K, C, T> fmt::Debug for Flights<K, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("in_flight", &self.lock().in_flight).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash, C: Eq + Hash, T> fmt::Debug for Waiter<K, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("role", &self.role).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
