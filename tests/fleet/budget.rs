//! The budget of a fleet: its statements against a server, then proxies that share a day, a rate and the rests of an account.

use std::sync::Arc;
use std::time::Duration;

use cmiot_proxy::store::fleet::Link;
use cmiot_proxy::store::fleet::pace::{LEASE, Pace};
use cmiot_proxy::store::fleet::quota::DayLimits;
use cmiot_proxy::store::fleet::rest::RestKey;
use tokio::task::JoinSet;

use crate::harness::{Mode, Partition, Postgres, create_tables, link_of};
use crate::support::{eventually, within};

const LIMITS: DayLimits = DayLimits { limit: 1_000, ceiling: 940, reserves: 60 };

const PACE: Pace = Pace { per_second: 20, alone: 6, nodes: 3 };

/// The link of a node through a partition.
fn link(partition: &Partition, node: u8) -> Arc<Link> {
    link_of(node, vec![partition.host()], "5s", 4)
}

/// A server with the tables of a fleet, and a link to it.
async fn start() -> (Postgres, Partition, Arc<Link>) {
    let server = Postgres::start().await;
    create_tables(&server).await;
    let partition = Partition::to(&server);
    let link = link(&partition, 1);
    (server, partition, link)
}

/// Sets the clock of the fleet to a time that advances.
async fn set_clock(server: &Postgres, to: &str) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE
         AS $$ SELECT '{to}'::timestamptz + (clock_timestamp() - '{}'::timestamptz) $$",
        server.value("SELECT clock_timestamp()").await
    );
    server.sql(&sql).await;
}

#[tokio::test]
async fn fifty_callers_get_each_call_of_a_day_once() {
    let (server, partition, _) = start().await;
    let mut callers = JoinSet::new();
    for number in 0..50 {
        let link = link(&partition, number);
        callers.spawn(async move {
            let mut granted = 0;
            loop {
                let grant = link.lease_calls("100001", 7, LIMITS, None).await.unwrap();
                if grant.granted == 0 {
                    return granted;
                }
                granted += grant.granted;
            }
        });
    }
    let granted: u64 = within("all grants", callers.join_all()).await.iter().sum();
    assert_eq!(granted, 940);
    assert_eq!(server.value("SELECT leased FROM fleet.quota").await, "940");
}

#[tokio::test]
async fn a_day_begins_at_midnight_of_the_database_and_a_clock_that_is_set_back_grants_no_call_again() {
    let (server, _partition, link) = start().await;
    set_clock(&server, "2026-01-15T23:58:00+08:00").await;
    let late = link.lease_calls("100001", 1_000, LIMITS, None).await.unwrap();
    assert_eq!((late.granted, late.leased), (940, 940));
    assert!((86_280..86_400).contains(&late.today.since_midnight.as_secs()), "{late:?}");
    assert_eq!(link.lease_calls("100001", 1_000, LIMITS, None).await.unwrap().granted, 0);
    set_clock(&server, "2026-01-16T00:00:00+08:00").await;
    let next = link.lease_calls("100001", 500, LIMITS, None).await.unwrap();
    assert_eq!((next.today.day, next.granted), (late.today.day + 1, 500));
    assert!(next.today.since_midnight < Duration::from_secs(3_600), "{next:?}");
    set_clock(&server, "2026-01-15T23:58:30+08:00").await;
    let back = link.lease_calls("100001", 500, LIMITS, None).await.unwrap();
    assert_eq!((back.today.day, back.granted), (late.today.day, 0));
}

#[tokio::test]
async fn reserves_and_calls_from_before_the_fleet_are_counted_before_any_block() {
    let (_server, _partition, link) = start().await;
    let grants = link.reserve_calls("100001", 20, LIMITS, None, 7).await.unwrap();
    assert_eq!(grants.len(), 8);
    assert!(grants.iter().all(|grant| grant.granted == 20));
    let today = grants[0].day;
    let known = Some(grants[7].day);
    assert_eq!(link.reserve_calls("100001", 20, LIMITS, known, 7).await.unwrap(), []);
    // Others, and one too many.
    for expected in [20, 20, 0] {
        let grants = link.reserve_calls("100001", 20, LIMITS, None, 0).await.unwrap();
        assert_eq!((grants[0].day, grants[0].granted), (today, expected));
    }
    // A node that made 900 calls of this day without the fleet.
    let grant = link.lease_calls("100001", 100, LIMITS, Some((today, 900))).await.unwrap();
    assert_eq!((grant.granted, grant.leased), (40, 940));
    // Those of an earlier day do not count.
    let grant = link.lease_calls("100002", 100, LIMITS, Some((today - 1, 900))).await.unwrap();
    assert_eq!((grant.granted, grant.leased), (100, 100));
    // Reserves that were granted under a greater limit come first.
    let less = DayLimits { limit: 100, ceiling: 94, reserves: 6 };
    link.reserve_calls("100003", 20, LIMITS, None, 0).await.unwrap();
    assert_eq!(link.lease_calls("100003", 100, less, None).await.unwrap().granted, 80);
}

#[tokio::test]
async fn a_reply_that_is_lost_wastes_its_block() {
    let (server, partition, link) = start().await;
    // The connection is open before the responses stall.
    link.probe("SELECT 1", &[], Duration::from_secs(5)).await.unwrap();
    partition.set(Mode::StallResponses);
    let asking = tokio::spawn({
        let link = Arc::clone(&link);
        async move { link.lease_calls("100001", 100, LIMITS, None).await }
    });
    eventually("the grant to be committed", async || {
        let granted = server.sql("SELECT leased FROM fleet.quota").await;
        (!granted.is_empty()).then_some(())
    })
    .await;
    partition.cut().await;
    within("the lost reply", asking).await.unwrap().unwrap_err();
    let grant =
        eventually("another connection", async || link.lease_calls("100001", 100, LIMITS, None).await.ok())
            .await;
    assert_eq!((grant.granted, grant.leased), (100, 200));
}

#[tokio::test]
async fn a_server_that_is_killed_forgets_no_grant() {
    let (mut server, _partition, link) = start().await;
    let mut granted = 0;
    for _ in 0..3 {
        granted += eventually("a grant", async || {
            link.probe("SELECT 1", &[], Duration::from_secs(5)).await.ok()?;
            link.lease_calls("100001", 100, LIMITS, None).await.ok()
        })
        .await
        .granted;
        assert_eq!(granted, server.value("SELECT leased FROM fleet.quota").await.parse::<u64>().unwrap());
        server.kill();
        server.start_again().await;
    }
}

/// Makes nodes pacers.
async fn beat_all(links: &[(u8, &Link)]) {
    for (node, link) in links {
        let seen = link.beat(*node, None).await.unwrap().at;
        link.beat(*node, Some(seen)).await.unwrap();
    }
}

/// Waits until the slots of a new row may be booked.
async fn first_slots(link: &Link, node: u8) {
    eventually("slots", async || (link.book("100001", node, PACE, 1).await.unwrap().slots > 0).then_some(()))
        .await;
}

#[tokio::test]
async fn slots_are_a_stretched_interval_apart_over_all_nodes() {
    let (server, partition, link) = start().await;
    // A clock that stands: all statements are of one moment.
    server.sql("CREATE TABLE clock AS SELECT clock_timestamp() AS t; GRANT SELECT ON clock TO PUBLIC").await;
    server
        .sql(
            "CREATE OR REPLACE FUNCTION fleet.now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS 'SELECT t FROM public.clock'",
        )
        .await;
    let others = [self::link(&partition, 2), self::link(&partition, 3)];
    let all = [(1, &*link), (2, &*others[0]), (3, &*others[1])];
    beat_all(&all).await;
    assert_eq!(link.book("100001", 1, PACE, 1).await.unwrap().slots, 0, "slots may have been lost");
    server.sql("UPDATE clock SET t = t + interval '3 seconds'").await;
    beat_all(&all).await;
    let mut slots = Vec::new();
    'booking: loop {
        for (node, link) in all {
            let booking = link.book("100001", node, PACE, 3).await.unwrap();
            assert_eq!(booking.step, Duration::from_micros(52_500));
            if booking.slots == 0 {
                break 'booking;
            }
            assert_eq!(booking.slots, 3);
            slots.extend((0..booking.slots).map(|n| booking.first + i64::from(n) * 52_500));
        }
    }
    let even: Vec<_> = (0..slots.len() as i64).map(|n| n * 52_500).collect();
    assert_eq!(slots, even, "none twice and none left out");
    assert!(*slots.last().unwrap() >= 1_000_000, "slots are booked up to a second ahead");
    // At most a quarter of a second by one booking.
    server.sql("UPDATE clock SET t = t + interval '2 seconds'").await;
    assert_eq!(link.book("100001", 1, PACE, 50).await.unwrap().slots, 5);
    // The third node is gone: its share is not given out.
    server.sql("UPDATE clock SET t = t + interval '3 seconds'").await;
    beat_all(&all[..2]).await;
    let booking = link.book("100001", 1, PACE, 1).await.unwrap();
    assert_eq!((booking.slots, booking.step), (1, Duration::from_micros(75_000)));
    // It is no pacer, so it may be alone.
    assert_eq!(others[1].book("100001", 3, PACE, 1).await.unwrap().slots, 0);
    // The clock is set back by an hour: the next slots come after those that were given out.
    server.sql("UPDATE clock SET t = t - interval '1 hour'").await;
    beat_all(&all).await;
    let booking = link.book("100001", 1, PACE, 1).await.unwrap();
    assert_eq!((booking.slots, booking.first), (0, 250_000 + 52_500));
}

#[tokio::test]
async fn a_beat_that_is_late_extends_nothing() {
    let (server, _partition, link) = start().await;
    let seen = link.beat(1, None).await.unwrap().at;
    let pacers = "SELECT count(*) FROM fleet.pacer WHERE until > fleet.now()";
    assert_eq!(server.value(pacers).await, "0", "a beat that has seen no clock makes no pacer");
    let lease = i64::try_from(LEASE.as_micros()).unwrap();
    let early = link.beat(1, Some(seen)).await.unwrap();
    let until = "SELECT (extract(epoch FROM until) * 1000000)::bigint FROM fleet.pacer";
    assert_eq!(server.value(until).await, (seen + lease).to_string());
    link.beat(1, Some(early.at)).await.unwrap();
    link.beat(1, Some(seen)).await.unwrap();
    assert_eq!(server.value(until).await, (early.at + lease).to_string(), "the order does not matter");
    link.beat(2, Some(seen - lease)).await.unwrap();
    link.beat(3, Some(seen + 60_000_000)).await.unwrap();
    assert_eq!(server.value("SELECT count(*) FROM fleet.pacer").await, "1", "too late, or of another clock");
}

#[tokio::test]
async fn a_server_that_is_killed_gives_no_slot_twice() {
    let (mut server, _partition, link) = start().await;
    beat_all(&[(1, &link)]).await;
    first_slots(&link, 1).await;
    server.kill();
    server.start_again().await;
    assert_eq!(server.value("SELECT count(*) FROM fleet.pace").await, "0");
    eventually("the server", async || link.probe("SELECT 1", &[], Duration::from_secs(5)).await.ok()).await;
    beat_all(&[(1, &link)]).await;
    let booking = link.book("100001", 1, PACE, 1).await.unwrap();
    assert_eq!(booking.slots, 0, "those that were given out may be a second ahead");
    assert!(booking.first >= 250_000, "{booking:?}");
}

#[tokio::test]
async fn rests_reach_all_nodes_and_end_for_all() {
    let (server, partition, link) = start().await;
    let other = self::link(&partition, 2);
    let key = |what: &str| RestKey {
        appid: "100001".to_owned(),
        what: what.to_owned(),
        credentials: b"name".to_vec(),
    };
    link.put_rest(1, &key("credentials"), Duration::from_secs(60), Some("4")).await.unwrap();
    link.put_rest(1, &key("credentials"), Duration::from_secs(90), Some("5")).await.unwrap();
    let rests = other.beat(2, None).await.unwrap().rests;
    assert_eq!(rests.len(), 1);
    assert_eq!((&rests[0].key, rests[0].code.as_deref(), rests[0].node), (&key("credentials"), Some("5"), 1));
    assert!(rests[0].left > 60_000_000 && rests[0].left <= 90_000_000, "{rests:?}");
    other.end_rest(&key("credentials")).await.unwrap();
    assert_eq!(link.beat(1, None).await.unwrap().rests, []);
    assert_eq!(server.value("SELECT count(*) FROM fleet.rest").await, "0");
}
