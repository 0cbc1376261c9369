//! The table by examples, and by a model: every interleaving of a small cast of askers, flights and a purge.

mod model;

use super::*;
use tokio::sync::oneshot;

type Table = Flights<&'static str, &'static str, u32>;

fn flights(flights: usize, waiters: usize, client: usize) -> Arc<Table> {
    in_groups(FlightLimits { flights, waiters, client, group: flights })
}

fn in_groups(caps: FlightLimits) -> Arc<Table> {
    Arc::new(Flights::new(caps, TaskTracker::new()))
}

const NOBODY: Option<Owner<&str>> = None;

/// A client of the one group.
fn some(client: &'static str) -> Option<Owner<&'static str>> {
    Some(Owner { client, group: "group".into() })
}

#[tokio::test]
async fn those_who_meet_share_one_landing() {
    let flights = flights(10, 10, 10);
    let (land, landing) = oneshot::channel();
    let mut leader =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { landing.await.unwrap() }).unwrap();
    let mut follower =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { unreachable!("a second flight") }).unwrap();
    assert_eq!((leader.role, follower.role), (Role::Leader, Role::Follower));
    land.send(7).unwrap();
    assert_eq!((leader.result().await, follower.result().await), (Ok(7), Ok(7)));
    assert_eq!(flights.in_flight(), 0);
}

#[tokio::test]
async fn changed_caps_count_for_those_who_come_afterwards() {
    let flights = flights(1, 1, 1);
    let (land, landing) = oneshot::channel();
    let fly = |_| async { landing.await.unwrap() };
    let mut first = flights.join(&"card", some("a"), Urgency::Miss, fly).unwrap();
    let join = |key, client| flights.join(key, some(client), Urgency::Miss, |_| async { 2 });
    assert!(join(&"card", "b").is_err() && join(&"other", "a").is_err() && join(&"other", "b").is_err());
    flights.set_limits(FlightLimits { flights: 2, waiters: 2, client: 2, group: 2 });
    let (mut follower, mut second) = (join(&"card", "b").unwrap(), join(&"other", "a").unwrap());
    flights.set_limits(FlightLimits { flights: 1, waiters: 1, client: 1, group: 1 });
    assert!(join(&"third", "c").is_err(), "a lower cap counts what is under way");
    land.send(1).unwrap();
    assert_eq!((first.result().await, follower.result().await), (Ok(1), Ok(1)));
    assert_eq!(second.result().await, Ok(2));
}

#[tokio::test]
async fn a_leader_that_leaves_neither_cancels_nor_restarts() {
    let flights = flights(10, 10, 10);
    let (land, landing) = oneshot::channel();
    let leader = flights.join(&"card", NOBODY, Urgency::Miss, |_| async { landing.await.unwrap() }).unwrap();
    let second = |_| async { unreachable!("a second flight") };
    let mut follower = flights.join(&"card", NOBODY, Urgency::Miss, second).unwrap();
    drop(leader);
    let mut late = flights.join(&"card", NOBODY, Urgency::Miss, second).unwrap();
    land.send(7).unwrap();
    assert_eq!((follower.result().await, late.result().await), (Ok(7), Ok(7)));
}

#[tokio::test]
async fn a_flight_whose_task_dies_is_lost_and_the_next_one_flies() {
    let flights = flights(10, 10, 10);
    let mut seat =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { panic!("a defect, in a test") }).unwrap();
    assert_eq!(seat.result().await, Err(TaskFailed));
    let mut next = flights.join(&"card", NOBODY, Urgency::Miss, |_| async { 8 }).unwrap();
    assert_eq!((next.role, next.result().await), (Role::Leader, Ok(8)));
}

#[tokio::test]
async fn caps_turn_away_at_once_and_places_come_back() {
    let flights = flights(1, 2, 10);
    let (land, landing) = oneshot::channel();
    let mut leader = flights.join(&"a", NOBODY, Urgency::Miss, |_| async { landing.await.unwrap() }).unwrap();
    let follower = flights.join(&"a", NOBODY, Urgency::Miss, |_| async { 0 }).unwrap();
    assert_eq!(flights.join(&"a", NOBODY, Urgency::Miss, |_| async { 0 }).err(), Some(LimitReached));
    assert_eq!(flights.join(&"b", NOBODY, Urgency::Miss, |_| async { 0 }).err(), Some(LimitReached));
    assert_eq!(flights.start_unshared(NOBODY, |_| async { 0 }).err(), Some(LimitReached));
    drop(follower);
    assert!(flights.join(&"a", NOBODY, Urgency::Miss, |_| async { 0 }).is_ok());
    land.send(7).unwrap();
    assert_eq!(leader.result().await, Ok(7));
    assert!(flights.join(&"b", NOBODY, Urgency::Miss, |_| async { 0 }).is_ok());
}

#[tokio::test]
async fn a_client_has_so_many_seats_and_others_are_not_touched() {
    let flights = flights(10, 10, 2);
    let never = |_| std::future::pending::<u32>();
    let first = flights.join(&"a", some("one"), Urgency::Miss, never).unwrap();
    let _second = flights.join(&"b", some("one"), Urgency::Miss, never).unwrap();
    assert_eq!(flights.join(&"c", some("one"), Urgency::Miss, never).err(), Some(LimitReached));
    assert_eq!(flights.join(&"a", some("one"), Urgency::Miss, never).err(), Some(LimitReached));
    assert_eq!(flights.in_flight(), 2, "who is turned away starts nothing");
    assert!(flights.join(&"c", some("other"), Urgency::Miss, never).is_ok());
    drop(first);
    let crowded = flights.join(&"d", some("one"), Urgency::Miss, never).err();
    assert_eq!(crowded, Some(LimitReached), "the flight that it started goes on");
}

#[tokio::test]
async fn a_flight_counts_against_the_client_that_started_it_until_it_ends() {
    let flights = flights(10, 10, 1);
    let (land, landing) = oneshot::channel();
    drop(flights.join(&"a", some("one"), Urgency::Miss, |_| async { landing.await.unwrap() }).unwrap());
    assert_eq!((flights.in_flight(), flights.waiting()), (1, 0));
    for key in ["a", "b"] {
        assert_eq!(flights.join(&key, some("one"), Urgency::Miss, |_| async { 0 }).err(), Some(LimitReached));
    }
    assert_eq!(flights.start_unshared(some("one"), |_| async { 0 }).err(), Some(LimitReached));
    let mut other = flights.join(&"a", some("other"), Urgency::Miss, |_| async { 0 }).unwrap();
    land.send(7).unwrap();
    assert_eq!(other.result().await, Ok(7));
    // It is over for the one that started it, whoever still reads what it brought.
    let mut again = flights.join(&"b", some("one"), Urgency::Miss, |_| async { 8 }).unwrap();
    assert_eq!(again.result().await, Ok(8));
    drop((other, again));
    let table = flights.lock();
    assert!(table.clients.is_empty() && table.groups.is_empty() && table.waiting == 0);
}

#[tokio::test]
async fn a_flight_that_dies_counts_no_more() {
    let flights = flights(10, 10, 1);
    let mut seat = flights.join(&"a", some("one"), Urgency::Miss, |_| async { panic!("in a test") }).unwrap();
    assert_eq!(seat.result().await, Err(TaskFailed));
    assert!(flights.join(&"b", some("one"), Urgency::Miss, |_| async { 0 }).is_ok());
}

#[tokio::test]
async fn a_group_has_its_share_and_another_group_goes_on() {
    let flights = in_groups(FlightLimits { flights: 4, waiters: 10, client: 2, group: 3 });
    let never = |_| std::future::pending::<u32>();
    let of = |client, group: &str| Some(Owner { client, group: group.into() });
    let mut seats = Vec::new();
    for (key, client) in [("a", "one"), ("b", "one"), ("c", "two")] {
        seats.push(flights.join(&key, of(client, "g"), Urgency::Miss, never).unwrap());
    }
    assert_eq!(flights.join(&"d", of("three", "g"), Urgency::Miss, never).err(), Some(LimitReached));
    assert_eq!(flights.start_unshared(of("three", "g"), never).err(), Some(LimitReached));
    assert!(flights.join(&"a", of("three", "g"), Urgency::Miss, never).is_ok(), "which starts none");
    assert!(flights.join(&"d", of("four", "h"), Urgency::Miss, never).is_ok());
    assert_eq!(
        flights.join(&"e", of("four", "h"), Urgency::Miss, never).err(),
        Some(LimitReached),
        "all fly"
    );
}

#[tokio::test]
async fn who_can_be_answered_otherwise_leaves_half_of_the_places() {
    let flights = flights(4, 10, 10);
    let never = |_| std::future::pending::<u32>();
    let _a = flights.join(&"a", NOBODY, Urgency::Refresh, never).unwrap();
    let _b = flights.join(&"b", NOBODY, Urgency::Refresh, never).unwrap();
    assert_eq!(flights.join(&"c", NOBODY, Urgency::Refresh, never).err(), Some(LimitReached));
    assert!(flights.join(&"c", NOBODY, Urgency::Miss, never).is_ok());
}

#[tokio::test]
async fn a_flight_is_as_urgent_as_the_most_urgent_who_joined() {
    let flights = flights(10, 2, 10);
    let never = |_| std::future::pending::<u32>();
    let mut flown = None;
    let fly = |pressure: SharedUrgency| {
        flown = Some(pressure);
        std::future::pending::<u32>()
    };
    let _refresh = flights.join(&"card", NOBODY, Urgency::Refresh, fly).unwrap();
    let flown = flown.unwrap();
    assert_eq!(flown.get(), Urgency::Refresh);
    let miss = flights.join(&"card", NOBODY, Urgency::Miss, never).unwrap();
    assert_eq!(flown.get(), Urgency::Miss);
    drop(miss);
    assert!(flights.join(&"card", NOBODY, Urgency::Ahead, never).is_ok());
    assert_eq!(
        flown.get(),
        Urgency::Miss,
        "who asked for it may have left, but the quota is better spent soon"
    );
}

#[tokio::test]
async fn what_is_taken_off_the_table_lands_for_those_who_wait_and_is_not_joined() {
    let flights = flights(10, 10, 10);
    let (land, landing) = oneshot::channel();
    let mut before =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { landing.await.unwrap() }).unwrap();
    assert_eq!(flights.forget(|key| *key == "card"), 1);
    let (land_again, landing) = oneshot::channel();
    let mut after =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { landing.await.unwrap() }).unwrap();
    assert_eq!((after.role, flights.in_flight()), (Role::Leader, 2));
    land.send(1).unwrap();
    assert_eq!(before.result().await, Ok(1));
    let mut follower =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { unreachable!("a third flight") }).unwrap();
    land_again.send(2).unwrap();
    assert_eq!((after.result().await, follower.result().await), (Ok(2), Ok(2)));
}
