//! Collapsing: identical look-ups that meet share one call to the carrier.
//!
//! A flight is a detached, tracked task with a deadline of its own. The request that started it (the leader) and those
//! that joined it (followers) wait alike, each as long as it likes; one that hangs up neither cancels nor restarts the
//! flight, since the quota is spent anyway. All of them get the landing, a failure included. A flight leaves the
//! table before it lands, after what it brought is in the cache: whoever comes later finds the one or the other.
//! A purge takes flights off the table: they land for those who wait, and nobody joins them any more.
//! Capped are the waiters of a flight, what a client has under way (requests that wait, and flights that it started until
//! they end, whoever has left), the flights of a group, and flights in total, of which half are left to misses; beyond a
//! cap a request is turned away at once. A flight is as urgent as the most urgent of those who joined it.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::config::FlightLimits;
use crate::urgency::{SharedUrgency, Urgency};

/// The flights under way, by key; `C` is who waits.
pub struct Flights<K, C, T> {
    table: Mutex<Table<K, C, T>>,
    tasks: TaskTracker,
}

struct Table<K, C, T> {
    limits: FlightLimits,
    flights: HashMap<K, Flight<T>>,
    /// What each client has under way: seats in the flights of others, and flights of its own. None is kept at zero.
    clients: HashMap<C, usize>,
    /// Flights under way by the group of who started them; none is kept at zero.
    groups: HashMap<Arc<str>, usize>,
    /// Requests that wait.
    waiting: usize,
    /// Flights that have not landed, those off the table included.
    in_flight: usize,
    /// The number of the next flight: a key may fly again before its first flight has landed.
    next: u64,
}

/// A flight as the table holds it: where it will land, and how many wait. The task alone can land it.
struct Flight<T> {
    number: u64,
    landing: watch::Receiver<Option<T>>,
    waiters: usize,
    urgency: SharedUrgency,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner<C> {
    /// The client.
    pub client: C,
    /// Its group.
    pub group: Arc<str>,
}

/// A cap is reached: turned away without waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitReached;

/// The flight's task died without landing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskFailed;

/// Who started the flight that one waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// This request.
    Leader,
    /// An earlier one.
    Follower,
}

/// A place in a flight.
pub struct Waiter<K: Eq + Hash, C: Eq + Hash, T> {
    /// Who started it.
    pub role: Role,
    landing: watch::Receiver<Option<T>>,
    flights: Arc<Flights<K, C, T>>,
    /// Where the place is to be given back, if the flight can still be joined.
    at: Option<(K, u64)>,
    /// Whose cap it counts against; none for a leader, whose flight counts.
    client: Option<C>,
}

impl<K, C, T> Flights<K, C, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    C: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// An empty table; its tasks are tracked by `tasks`, so that a drain can wait for them.
    pub fn new(caps: FlightLimits, tasks: TaskTracker) -> Self {
        let table = Table {
            limits: caps,
            flights: HashMap::new(),
            clients: HashMap::new(),
            groups: HashMap::new(),
            waiting: 0,
            in_flight: 0,
            next: 0,
        };
        Self { table: Mutex::new(table), tasks }
    }

    /// Applies other caps from now on. What is beyond a lower one stays; nothing joins it until it is below again.
    pub fn set_limits(&self, caps: FlightLimits) {
        self.lock().limits = caps;
    }

    /// Joins the flight of `key`, or starts one that runs `fly`, which is told how urgent it is and becomes. Nobody asked
    /// for a proxy's own flights.
    ///
    /// # Errors
    /// [`LimitReached`] when a cap is reached.
    pub fn join<F>(
        self: &Arc<Self>,
        key: &K,
        owner: Option<Owner<C>>,
        urgency: Urgency,
        fly: impl FnOnce(SharedUrgency) -> F,
    ) -> Result<Waiter<K, C, T>, LimitReached>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut table = self.lock();
        if let Some(flight) = table.flights.get(key) {
            if flight.waiters >= table.limits.waiters {
                return Err(LimitReached);
            }
            let (number, landing, pressure) = (flight.number, flight.landing.clone(), flight.urgency.clone());
            let client = owner.map(|who| who.client);
            if let Some(client) = &client {
                table.count(client)?;
            }
            pressure.raise(urgency);
            return Ok(self.add_waiter(
                &mut table,
                Role::Follower,
                landing,
                Some((key.clone(), number)),
                client,
            ));
        }
        self.start(table, Some(key), owner, urgency, fly)
    }

    /// Starts a flight that nobody joins: what is asked changes something.
    ///
    /// # Errors
    /// [`LimitReached`] when a cap is reached.
    pub fn start_unshared<F>(
        self: &Arc<Self>,
        who: Option<Owner<C>>,
        fly: impl FnOnce(SharedUrgency) -> F,
    ) -> Result<Waiter<K, C, T>, LimitReached>
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.start(self.lock(), None, who, Urgency::Miss, fly)
    }

    /// Takes flights off the table; returns how many. They land for those who wait.
    pub fn forget(&self, detaches: impl Fn(&K) -> bool) -> usize {
        let mut table = self.lock();
        let before = table.flights.len();
        table.flights.retain(|key, _| !detaches(key));
        before - table.flights.len()
    }

    /// Flights under way.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Requests that wait for one of them.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn start<F>(
        self: &Arc<Self>,
        mut table: MutexGuard<'_, Table<K, C, T>>,
        key: Option<&K>,
        who: Option<Owner<C>>,
        urgency: Urgency,
        fly: impl FnOnce(SharedUrgency) -> F,
    ) -> Result<Waiter<K, C, T>, LimitReached>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let places = match urgency {
            Urgency::Miss => table.limits.flights,
            Urgency::Refresh | Urgency::Ahead => table.limits.flights.div_ceil(2),
        };
        if table.in_flight >= places {
            return Err(LimitReached);
        }
        if let Some(Owner { client, group }) = &who {
            if table.groups.get(group).is_some_and(|flights| *flights >= table.limits.group) {
                return Err(LimitReached);
            }
            table.count(client)?;
            *table.groups.entry(Arc::clone(group)).or_default() += 1;
        }
        let (landing, landed) = watch::channel(None);
        let pressure = SharedUrgency::new(urgency);
        let number = table.next;
        let at = key.map(|key| (key.clone(), number));
        if let Some((key, number)) = at.clone() {
            let flight = Flight { number, landing: landed.clone(), waiters: 0, urgency: pressure.clone() };
            table.flights.insert(key, flight);
        }
        table.next += 1;
        table.in_flight += 1;
        let seat = self.add_waiter(&mut table, Role::Leader, landed, at.clone(), None);
        drop(table);
        let airborne = FlightGuard { flights: Arc::clone(self), at, who, landing: Some(landing) };
        let course = fly(pressure);
        self.tasks.spawn(async move {
            let landing = course.await;
            airborne.complete(landing);
        });
        Ok(seat)
    }

    fn add_waiter(
        self: &Arc<Self>,
        table: &mut Table<K, C, T>,
        role: Role,
        landing: watch::Receiver<Option<T>>,
        at: Option<(K, u64)>,
        client: Option<C>,
    ) -> Waiter<K, C, T> {
        table.waiting += 1;
        if let Some(flight) = at.as_ref().and_then(|(key, _)| table.flights.get_mut(key)) {
            flight.waiters += 1;
        }
        Waiter { role, landing, flights: Arc::clone(self), at, client }
    }
}

impl<K, C, T> Flights<K, C, T> {
    fn lock(&self) -> MutexGuard<'_, Table<K, C, T>> {
        // Nothing under this lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, C, T> Table<K, C, T>
where
    K: Eq + Hash,
{
    /// The flight of this key, if it is still the one of this number.
    fn flight(&mut self, at: Option<&(K, u64)>) -> Option<&mut Flight<T>> {
        let (key, number) = at?;
        self.flights.get_mut(key).filter(|flight| flight.number == *number)
    }
}

impl<K, C: Clone + Eq + Hash, T> Table<K, C, T> {
    /// Counts one more of a client's.
    fn count(&mut self, client: &C) -> Result<(), LimitReached> {
        let under_way = self.clients.get(client).copied().unwrap_or(0);
        if under_way >= self.limits.client {
            return Err(LimitReached);
        }
        self.clients.insert(client.clone(), under_way + 1);
        Ok(())
    }
}

/// Counts one less, and keeps no zero.
fn uncount<N: Eq + Hash>(counts: &mut HashMap<N, usize>, name: &N) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

impl<K: Eq + Hash, C: Eq + Hash, T: Clone> Waiter<K, C, T> {
    /// Waits for the landing. Dropping the wait gives the place back and leaves the flight alone.
    ///
    /// # Errors
    /// [`TaskFailed`] when the flight's task died.
    pub async fn result(&mut self) -> Result<T, TaskFailed> {
        let landed = self.landing.wait_for(Option::is_some).await.map_err(|_| TaskFailed)?;
        landed.clone().ok_or(TaskFailed)
    }
}

impl<K: Eq + Hash, C: Eq + Hash, T> Drop for Waiter<K, C, T> {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        if let Some(flight) = table.flight(self.at.as_ref()) {
            flight.waiters -= 1;
        }
        table.waiting -= 1;
        if let Some(client) = &self.client {
            uncount(&mut table.clients, client);
        }
    }
}

/// A flight's own end of it: leaves the table exactly once, whether it lands or its task dies.
struct FlightGuard<K: Eq + Hash, C: Eq + Hash, T> {
    flights: Arc<Flights<K, C, T>>,
    at: Option<(K, u64)>,
    /// Who started it: it counts against their caps for as long as it flies.
    who: Option<Owner<C>>,
    landing: Option<watch::Sender<Option<T>>>,
}

impl<K: Eq + Hash, C: Eq + Hash, T> FlightGuard<K, C, T> {
    fn complete(mut self, landing: T) {
        let sender = self.landing.take();
        drop(self); // out of the table first
        if let Some(sender) = sender {
            sender.send_replace(Some(landing));
        }
    }
}

impl<K: Eq + Hash, C: Eq + Hash, T> Drop for FlightGuard<K, C, T> {
    fn drop(&mut self) {
        let mut table = self.flights.lock();
        table.in_flight -= 1;
        if let Some(who) = &self.who {
            uncount(&mut table.clients, &who.client);
            uncount(&mut table.groups, &who.group);
        }
        // A purge may have taken it off, and another flight of the key may be on it.
        if table.flight(self.at.as_ref()).is_some()
            && let Some((key, _)) = &self.at
        {
            table.flights.remove(key);
        }
    }
}

impl<K, C, T> fmt::Debug for Flights<K, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("under_way", &self.lock().in_flight).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash, C: Eq + Hash, T> fmt::Debug for Waiter<K, C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("role", &self.role).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
