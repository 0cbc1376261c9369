//! Examples, and a model: every interleaving of three requests, their flights and a purge.

mod model;

use super::*;
use tokio::sync::oneshot;

type Table = Flights<&'static str, &'static str, u32>;

fn flights(flights: usize, waiters: usize, client: usize) -> Arc<Table> {
    with_limits(FlightLimits { flights, waiters, client, group: flights })
}

fn with_limits(limits: FlightLimits) -> Arc<Table> {
    Arc::new(Flights::new(limits, TaskTracker::new()))
}

const PROXY: Option<Owner<&str>> = None;

/// A client of the only group.
fn owned_by(client: &'static str) -> Option<Owner<&'static str>> {
    Some(Owner { client, group: "group".into() })
}

#[tokio::test]
async fn identical_requests_share_one_result() {
    let flights = flights(10, 10, 10);
    let (end, result) = oneshot::channel();
    let mut leader =
        flights.join(&"card", PROXY, Urgency::Miss, |_| async { result.await.unwrap() }).unwrap();
    let mut follower =
        flights.join(&"card", PROXY, Urgency::Miss, |_| async { unreachable!("a second flight") }).unwrap();
    assert_eq!((leader.role, follower.role), (Role::Leader, Role::Follower));
    end.send(7).unwrap();
    assert_eq!((leader.result().await, follower.result().await), (Ok(7), Ok(7)));
    assert_eq!(flights.in_flight(), 0);
}

#[tokio::test]
async fn changed_limits_apply_to_later_requests() {
    let flights = flights(1, 1, 1);
    let (end, result) = oneshot::channel();
    let fetch = |_| async { result.await.unwrap() };
    let mut first = flights.join(&"card", owned_by("a"), Urgency::Miss, fetch).unwrap();
    let join = |key, client| flights.join(key, owned_by(client), Urgency::Miss, |_| async { 2 });
    assert!(join(&"card", "b").is_err() && join(&"other", "a").is_err() && join(&"other", "b").is_err());
    flights.set_limits(FlightLimits { flights: 2, waiters: 2, client: 2, group: 2 });
    let (mut follower, mut second) = (join(&"card", "b").unwrap(), join(&"other", "a").unwrap());
    flights.set_limits(FlightLimits { flights: 1, waiters: 1, client: 1, group: 1 });
    assert!(join(&"third", "c").is_err(), "a lower limit counts the flights that exist");
    end.send(1).unwrap();
    assert_eq!((first.result().await, follower.result().await), (Ok(1), Ok(1)));
    assert_eq!(second.result().await, Ok(2));
}

#[tokio::test]
async fn a_leader_that_disconnects_neither_cancels_nor_restarts_the_flight() {
    let flights = flights(10, 10, 10);
    let (end, result) = oneshot::channel();
    let leader = flights.join(&"card", PROXY, Urgency::Miss, |_| async { result.await.unwrap() }).unwrap();
    let second = |_| async { unreachable!("a second flight") };
    let mut follower = flights.join(&"card", PROXY, Urgency::Miss, second).unwrap();
    drop(leader);
    let mut late = flights.join(&"card", PROXY, Urgency::Miss, second).unwrap();
    end.send(7).unwrap();
    assert_eq!((follower.result().await, late.result().await), (Ok(7), Ok(7)));
}

#[tokio::test]
async fn a_flight_whose_task_panics_fails_and_the_next_one_starts() {
    let flights = flights(10, 10, 10);
    let mut waiter =
        flights.join(&"card", PROXY, Urgency::Miss, |_| async { panic!("a defect, in a test") }).unwrap();
    assert_eq!(waiter.result().await, Err(TaskFailed));
    let mut next = flights.join(&"card", PROXY, Urgency::Miss, |_| async { 8 }).unwrap();
    assert_eq!((next.role, next.result().await), (Role::Leader, Ok(8)));
}

#[tokio::test]
async fn limits_refuse_at_once_and_are_given_back() {
    let flights = flights(1, 2, 10);
    let (end, result) = oneshot::channel();
    let mut leader = flights.join(&"a", PROXY, Urgency::Miss, |_| async { result.await.unwrap() }).unwrap();
    let follower = flights.join(&"a", PROXY, Urgency::Miss, |_| async { 0 }).unwrap();
    assert_eq!(flights.join(&"a", PROXY, Urgency::Miss, |_| async { 0 }).err(), Some(LimitReached));
    assert_eq!(flights.join(&"b", PROXY, Urgency::Miss, |_| async { 0 }).err(), Some(LimitReached));
    assert_eq!(flights.start_unshared(PROXY, |_| async { 0 }).err(), Some(LimitReached));
    drop(follower);
    assert!(flights.join(&"a", PROXY, Urgency::Miss, |_| async { 0 }).is_ok());
    end.send(7).unwrap();
    assert_eq!(leader.result().await, Ok(7));
    assert!(flights.join(&"b", PROXY, Urgency::Miss, |_| async { 0 }).is_ok());
}

#[tokio::test]
async fn the_limit_of_one_client_leaves_others_alone() {
    let flights = flights(10, 10, 2);
    let never = |_| std::future::pending::<u32>();
    let first = flights.join(&"a", owned_by("one"), Urgency::Miss, never).unwrap();
    let _second = flights.join(&"b", owned_by("one"), Urgency::Miss, never).unwrap();
    assert_eq!(flights.join(&"c", owned_by("one"), Urgency::Miss, never).err(), Some(LimitReached));
    assert_eq!(flights.join(&"a", owned_by("one"), Urgency::Miss, never).err(), Some(LimitReached));
    assert_eq!(flights.in_flight(), 2, "a refused request starts no flight");
    assert!(flights.join(&"c", owned_by("other"), Urgency::Miss, never).is_ok());
    drop(first);
    let refused = flights.join(&"d", owned_by("one"), Urgency::Miss, never).err();
    assert_eq!(refused, Some(LimitReached), "the flight that it started continues");
}

#[tokio::test]
async fn a_flight_counts_against_the_client_that_started_it_until_it_ends() {
    let flights = flights(10, 10, 1);
    let (end, result) = oneshot::channel();
    drop(flights.join(&"a", owned_by("one"), Urgency::Miss, |_| async { result.await.unwrap() }).unwrap());
    assert_eq!((flights.in_flight(), flights.waiting()), (1, 0));
    for key in ["a", "b"] {
        assert_eq!(
            flights.join(&key, owned_by("one"), Urgency::Miss, |_| async { 0 }).err(),
            Some(LimitReached)
        );
    }
    assert_eq!(flights.start_unshared(owned_by("one"), |_| async { 0 }).err(), Some(LimitReached));
    let mut other = flights.join(&"a", owned_by("other"), Urgency::Miss, |_| async { 0 }).unwrap();
    end.send(7).unwrap();
    assert_eq!(other.result().await, Ok(7));
    // The flight no longer counts against its client, although its result may still be read.
    let mut again = flights.join(&"b", owned_by("one"), Urgency::Miss, |_| async { 8 }).unwrap();
    assert_eq!(again.result().await, Ok(8));
    drop((other, again));
    let table = flights.lock();
    assert!(table.clients.is_empty() && table.groups.is_empty() && table.waiting == 0);
}

#[tokio::test]
async fn a_flight_whose_task_panicked_counts_no_more() {
    let flights = flights(10, 10, 1);
    let mut waiter =
        flights.join(&"a", owned_by("one"), Urgency::Miss, |_| async { panic!("in a test") }).unwrap();
    assert_eq!(waiter.result().await, Err(TaskFailed));
    assert!(flights.join(&"b", owned_by("one"), Urgency::Miss, |_| async { 0 }).is_ok());
}

#[tokio::test]
async fn the_limit_of_one_group_leaves_others_alone() {
    let flights = with_limits(FlightLimits { flights: 4, waiters: 10, client: 2, group: 3 });
    let never = |_| std::future::pending::<u32>();
    let of = |client, group: &str| Some(Owner { client, group: group.into() });
    let mut waiters = Vec::new();
    for (key, client) in [("a", "one"), ("b", "one"), ("c", "two")] {
        waiters.push(flights.join(&key, of(client, "g"), Urgency::Miss, never).unwrap());
    }
    assert_eq!(flights.join(&"d", of("three", "g"), Urgency::Miss, never).err(), Some(LimitReached));
    assert_eq!(flights.start_unshared(of("three", "g"), never).err(), Some(LimitReached));
    assert!(flights.join(&"a", of("three", "g"), Urgency::Miss, never).is_ok(), "a follower starts none");
    assert!(flights.join(&"d", of("four", "h"), Urgency::Miss, never).is_ok());
    assert_eq!(
        flights.join(&"e", of("four", "h"), Urgency::Miss, never).err(),
        Some(LimitReached),
        "all flights are taken"
    );
}

#[tokio::test]
async fn requests_with_a_stale_entry_leave_half_of_the_flights_to_misses() {
    let flights = flights(4, 10, 10);
    let never = |_| std::future::pending::<u32>();
    let _a = flights.join(&"a", PROXY, Urgency::Refresh, never).unwrap();
    let _b = flights.join(&"b", PROXY, Urgency::Refresh, never).unwrap();
    assert_eq!(flights.join(&"c", PROXY, Urgency::Refresh, never).err(), Some(LimitReached));
    assert!(flights.join(&"c", PROXY, Urgency::Miss, never).is_ok());
}

#[tokio::test]
async fn a_flight_is_as_urgent_as_its_most_urgent_waiter() {
    let flights = flights(10, 2, 10);
    let never = |_| std::future::pending::<u32>();
    let mut shared = None;
    let fetch = |urgency: SharedUrgency| {
        shared = Some(urgency);
        std::future::pending::<u32>()
    };
    let _refresh = flights.join(&"card", PROXY, Urgency::Refresh, fetch).unwrap();
    let shared = shared.unwrap();
    assert_eq!(shared.get(), Urgency::Refresh);
    let miss = flights.join(&"card", PROXY, Urgency::Miss, never).unwrap();
    assert_eq!(shared.get(), Urgency::Miss);
    drop(miss);
    assert!(flights.join(&"card", PROXY, Urgency::Ahead, never).is_ok());
    assert_eq!(
        shared.get(),
        Urgency::Miss,
        "the urgent waiter may have left, but the quota is better spent soon"
    );
}

#[tokio::test]
async fn a_flight_off_the_table_completes_for_its_waiters_and_is_not_joined() {
    let flights = flights(10, 10, 10);
    let (end, result) = oneshot::channel();
    let mut before =
        flights.join(&"card", PROXY, Urgency::Miss, |_| async { result.await.unwrap() }).unwrap();
    assert_eq!(flights.forget(|key| *key == "card"), 1);
    let (end_second, result) = oneshot::channel();
    let mut after = flights.join(&"card", PROXY, Urgency::Miss, |_| async { result.await.unwrap() }).unwrap();
    assert_eq!((after.role, flights.in_flight()), (Role::Leader, 2));
    end.send(1).unwrap();
    assert_eq!(before.result().await, Ok(1));
    let mut follower =
        flights.join(&"card", PROXY, Urgency::Miss, |_| async { unreachable!("a third flight") }).unwrap();
    end_second.send(2).unwrap();
    assert_eq!((after.result().await, follower.result().await), (Ok(2), Ok(2)));
}
