//! The table by examples, and by a model: every interleaving of a small cast of askers, flights and a purge.

mod model;

use super::*;
use tokio::sync::oneshot;

type Table = Flights<&'static str, &'static str, u32>;

fn flights(flights: usize, waiters: usize, client: usize) -> Arc<Table> {
    Arc::new(Flights::new(Caps { flights, waiters, client }, TaskTracker::new()))
}

const NOBODY: Option<&str> = None;

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
    assert_eq!((leader.landing().await, follower.landing().await), (Ok(7), Ok(7)));
    assert_eq!(flights.under_way(), 0);
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
    assert_eq!((follower.landing().await, late.landing().await), (Ok(7), Ok(7)));
}

#[tokio::test]
async fn a_flight_whose_task_dies_is_lost_and_the_next_one_flies() {
    let flights = flights(10, 10, 10);
    let mut seat =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { panic!("a defect, in a test") }).unwrap();
    assert_eq!(seat.landing().await, Err(Lost));
    let mut next = flights.join(&"card", NOBODY, Urgency::Miss, |_| async { 8 }).unwrap();
    assert_eq!((next.role, next.landing().await), (Role::Leader, Ok(8)));
}

#[tokio::test]
async fn caps_turn_away_at_once_and_places_come_back() {
    let flights = flights(1, 2, 10);
    let (land, landing) = oneshot::channel();
    let mut leader = flights.join(&"a", NOBODY, Urgency::Miss, |_| async { landing.await.unwrap() }).unwrap();
    let follower = flights.join(&"a", NOBODY, Urgency::Miss, |_| async { 0 }).unwrap();
    assert_eq!(flights.join(&"a", NOBODY, Urgency::Miss, |_| async { 0 }).err(), Some(Crowded));
    assert_eq!(flights.join(&"b", NOBODY, Urgency::Miss, |_| async { 0 }).err(), Some(Crowded));
    assert_eq!(flights.alone(NOBODY, |_| async { 0 }).err(), Some(Crowded));
    drop(follower);
    assert!(flights.join(&"a", NOBODY, Urgency::Miss, |_| async { 0 }).is_ok());
    land.send(7).unwrap();
    assert_eq!(leader.landing().await, Ok(7));
    assert!(flights.join(&"b", NOBODY, Urgency::Miss, |_| async { 0 }).is_ok());
}

#[tokio::test]
async fn a_client_has_so_many_seats_and_others_are_not_touched() {
    let flights = flights(10, 10, 2);
    let never = |_| std::future::pending::<u32>();
    let first = flights.join(&"a", Some("one"), Urgency::Miss, never).unwrap();
    let _second = flights.join(&"b", Some("one"), Urgency::Miss, never).unwrap();
    assert_eq!(flights.join(&"c", Some("one"), Urgency::Miss, never).err(), Some(Crowded));
    assert_eq!(flights.join(&"a", Some("one"), Urgency::Miss, never).err(), Some(Crowded));
    assert_eq!(flights.under_way(), 2, "who is turned away starts nothing");
    assert!(flights.join(&"c", Some("other"), Urgency::Miss, never).is_ok());
    drop(first);
    assert!(flights.join(&"c", Some("one"), Urgency::Miss, never).is_ok());
}

#[tokio::test]
async fn who_can_be_answered_otherwise_leaves_half_of_the_places() {
    let flights = flights(4, 10, 10);
    let never = |_| std::future::pending::<u32>();
    let _a = flights.join(&"a", NOBODY, Urgency::Refresh, never).unwrap();
    let _b = flights.join(&"b", NOBODY, Urgency::Refresh, never).unwrap();
    assert_eq!(flights.join(&"c", NOBODY, Urgency::Refresh, never).err(), Some(Crowded));
    assert!(flights.join(&"c", NOBODY, Urgency::Miss, never).is_ok());
}

#[tokio::test]
async fn a_flight_is_as_urgent_as_the_most_urgent_who_joined() {
    let flights = flights(10, 2, 10);
    let never = |_| std::future::pending::<u32>();
    let mut flown = None;
    let fly = |pressure: Pressure| {
        flown = Some(pressure);
        std::future::pending::<u32>()
    };
    let _refresh = flights.join(&"card", NOBODY, Urgency::Refresh, fly).unwrap();
    let flown = flown.unwrap();
    assert_eq!(flown.now(), Urgency::Refresh);
    let miss = flights.join(&"card", NOBODY, Urgency::Miss, never).unwrap();
    assert_eq!(flown.now(), Urgency::Miss);
    drop(miss);
    assert!(flights.join(&"card", NOBODY, Urgency::Ahead, never).is_ok());
    assert_eq!(
        flown.now(),
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
    assert_eq!(flights.detach(|key| *key == "card"), 1);
    let (land_again, landing) = oneshot::channel();
    let mut after =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { landing.await.unwrap() }).unwrap();
    assert_eq!((after.role, flights.under_way()), (Role::Leader, 2));
    land.send(1).unwrap();
    assert_eq!(before.landing().await, Ok(1));
    let mut follower =
        flights.join(&"card", NOBODY, Urgency::Miss, |_| async { unreachable!("a third flight") }).unwrap();
    land_again.send(2).unwrap();
    assert_eq!((after.landing().await, follower.landing().await), (Ok(2), Ok(2)));
}
