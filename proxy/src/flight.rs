//! Collapsing: identical look-ups that meet share one call to the carrier.
//!
//! A flight is a detached, tracked task with a deadline of its own. The request that started it (the leader) and those
//! that joined it (followers) wait alike, each as long as it likes; one that hangs up neither cancels nor restarts the
//! flight, since the quota is spent anyway. All of them get the landing, a failure included. A flight leaves the
//! table before it lands, after what it brought is in the cache: whoever comes later finds the one or the other.
//! Waiters are capped per flight, flights in total; beyond a cap a request is turned away at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The flights under way, by key.
#[derive(Debug)]
pub struct Flights<K, T> {
    table: Mutex<HashMap<K, Flight<T>>>,
    caps: Caps,
    tasks: TaskTracker,
}

/// How many may fly and wait.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Flights under way at once.
    pub flights: usize,
    /// Requests that wait for one flight, its leader included.
    pub waiters: usize,
}

/// A cap is reached: turned away without waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crowded;

/// The flight's task died without landing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost;

/// Who started the flight that one waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// This request.
    Leader,
    /// An earlier one.
    Follower,
}

/// A flight as the table holds it: where it will land, and how many wait. The task alone can land it.
#[derive(Debug)]
struct Flight<T> {
    landing: watch::Receiver<Option<T>>,
    waiters: Arc<AtomicUsize>,
}

/// A place in a flight.
#[derive(Debug)]
pub struct Seat<T> {
    /// Who started it.
    pub role: Role,
    landing: watch::Receiver<Option<T>>,
    waiters: Arc<AtomicUsize>,
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// An empty table; its tasks are tracked by `tasks`, so that a drain can wait for them.
    pub fn new(caps: Caps, tasks: TaskTracker) -> Self {
        Self { table: Mutex::default(), caps, tasks }
    }

    /// Joins the flight of `key`, or starts one that runs `fly`.
    ///
    /// # Errors
    /// [`Crowded`] when a cap is reached.
    pub fn join<F>(self: &Arc<Self>, key: &K, fly: impl FnOnce() -> F) -> Result<Seat<T>, Crowded>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut table = self.lock();
        if let Some(flight) = table.get(key) {
            return Seat::take(flight, Role::Follower, self.caps.waiters);
        }
        if table.len() >= self.caps.flights {
            return Err(Crowded);
        }
        let (landing, landed) = watch::channel(None);
        let flight = Flight { landing: landed, waiters: Arc::default() };
        let seat = Seat::take(&flight, Role::Leader, self.caps.waiters)?;
        table.insert(key.clone(), flight);
        drop(table);
        let airborne = Airborne { flights: Arc::clone(self), key: key.clone(), landing: Some(landing) };
        let course = fly();
        self.tasks.spawn(async move {
            let landing = course.await;
            airborne.land(landing);
        });
        Ok(seat)
    }

    /// Flights under way.
    pub fn under_way(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Flight<T>>> {
        // Nothing under this lock can panic half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Seat<T> {
    fn take(flight: &Flight<T>, role: Role, cap: usize) -> Result<Self, Crowded> {
        if flight.waiters.fetch_add(1, Ordering::Relaxed) >= cap {
            flight.waiters.fetch_sub(1, Ordering::Relaxed);
            return Err(Crowded);
        }
        Ok(Self { role, landing: flight.landing.clone(), waiters: Arc::clone(&flight.waiters) })
    }

    /// Waits for the landing. Dropping the wait gives the place back and leaves the flight alone.
    ///
    /// # Errors
    /// [`Lost`] when the flight's task died.
    pub async fn landing(&mut self) -> Result<T, Lost> {
        let landed = self.landing.wait_for(Option::is_some).await.map_err(|_| Lost)?;
        landed.clone().ok_or(Lost)
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A flight's own end of it: leaves the table exactly once, whether it lands or its task dies.
struct Airborne<K: Eq + Hash, T> {
    flights: Arc<Flights<K, T>>,
    key: K,
    landing: Option<watch::Sender<Option<T>>>,
}

impl<K: Eq + Hash, T> Airborne<K, T> {
    fn land(mut self, landing: T) {
        let sender = self.landing.take();
        drop(self); // out of the table first
        if let Some(sender) = sender {
            sender.send_replace(Some(landing));
        }
    }
}

impl<K: Eq + Hash, T> Drop for Airborne<K, T> {
    fn drop(&mut self) {
        self.flights.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    fn flights(flights: usize, waiters: usize) -> Arc<Flights<&'static str, u32>> {
        Arc::new(Flights::new(Caps { flights, waiters }, TaskTracker::new()))
    }

    #[tokio::test]
    async fn those_who_meet_share_one_landing() {
        let flights = flights(10, 10);
        let (land, landing) = oneshot::channel();
        let mut leader = flights.join(&"card", || async { landing.await.unwrap() }).unwrap();
        let mut follower = flights.join(&"card", || async { unreachable!("a second flight") }).unwrap();
        assert_eq!((leader.role, follower.role), (Role::Leader, Role::Follower));
        land.send(7).unwrap();
        assert_eq!((leader.landing().await, follower.landing().await), (Ok(7), Ok(7)));
        assert_eq!(flights.under_way(), 0);
    }

    #[tokio::test]
    async fn a_leader_that_leaves_neither_cancels_nor_restarts() {
        let flights = flights(10, 10);
        let (land, landing) = oneshot::channel();
        let leader = flights.join(&"card", || async { landing.await.unwrap() }).unwrap();
        let mut follower = flights.join(&"card", || async { unreachable!("a second flight") }).unwrap();
        drop(leader);
        let mut late = flights.join(&"card", || async { unreachable!("a second flight") }).unwrap();
        land.send(7).unwrap();
        assert_eq!((follower.landing().await, late.landing().await), (Ok(7), Ok(7)));
    }

    #[tokio::test]
    async fn a_flight_whose_task_dies_is_lost_and_the_next_one_flies() {
        let flights = flights(10, 10);
        let mut seat = flights.join(&"card", || async { panic!("a defect, in a test") }).unwrap();
        assert_eq!(seat.landing().await, Err(Lost));
        let mut next = flights.join(&"card", || async { 8 }).unwrap();
        assert_eq!((next.role, next.landing().await), (Role::Leader, Ok(8)));
    }

    #[tokio::test]
    async fn caps_turn_away_at_once_and_places_come_back() {
        let flights = flights(1, 2);
        let (land, landing) = oneshot::channel();
        let mut leader = flights.join(&"a", || async { landing.await.unwrap() }).unwrap();
        let follower = flights.join(&"a", || async { 0 }).unwrap();
        assert_eq!(flights.join(&"a", || async { 0 }).err(), Some(Crowded));
        assert_eq!(flights.join(&"b", || async { 0 }).err(), Some(Crowded));
        drop(follower);
        assert!(flights.join(&"a", || async { 0 }).is_ok());
        land.send(7).unwrap();
        assert_eq!(leader.landing().await, Ok(7));
        assert!(flights.join(&"b", || async { 0 }).is_ok());
    }
}
