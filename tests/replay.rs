//! Replay protection: a transid gets one response, inside a window around the clock, through restarts and clock steps.

use std::time::Duration;

use cmiot_proxy::clock::Time;
use tokio::task::JoinSet;

use crate::support::{Clocked, ICCID, MSISDN, Proxy, Setup, carrier, eventually};

#[tokio::test]
async fn a_captured_url_is_of_no_use() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_normal();
    proxy.get(&query).await.assert_refusal_for("7", "used before");
    // Token and transid do not cover the card, so another card makes no new request.
    let of_another_card = query.without("msisdn").with(ICCID.kind, ICCID.number);
    proxy.get(&of_another_card).await.assert_refusal_for("7", "used before");
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn of_many_at_once_with_one_transid_one_is_answered() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&MSISDN);
    let mut lookups = JoinSet::new();
    for _ in 0..20 {
        let (client, query) = (proxy.clone(), query.clone());
        lookups.spawn(async move { client.get(&query).await.code() });
    }
    let codes = lookups.join_all().await;
    assert_eq!(codes.iter().filter(|code| *code == "0").count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| *code == "7").count(), 19, "{codes:?}");
}

#[tokio::test]
async fn a_stamp_too_far_from_the_clock_is_a_7_on_either_side() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.clock_skew", "5m").start_clocked().await;
    let now = proxy.gateway.now();
    for (stamp, fine) in [(now - 301, false), (now - 300, true), (now + 300, true), (now + 301, false)] {
        let response =
            proxy.get(&proxy.gateway.sign_transid(&MSISDN, &proxy.gateway.transid_at(stamp))).await;
        if fine { response.assert_normal() } else { response.assert_refusal_for("7", "stamp") }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_transid_that_left_the_window_does_not_come_back() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.clock_skew", "5m").start_clocked().await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_normal();
    proxy.clock.advance(Duration::from_secs(301));
    proxy.get(&query).await.assert_refusal_for("7", "stamp");
    // The table forgets the transid when its client's next one comes.
    proxy.look_up(&MSISDN).await.assert_normal();
    // Inside the window again: only the memory of used transids refuses it.
    proxy.clock.step(-301);
    let again = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_refusal("7");
    // After the proxy has read the audit again, it knows this transid, and accepts new ones of this second.
    eventually("a new transid to be accepted", || async {
        (proxy.get(&again).await.code() == "0").then_some(())
    })
    .await;
    proxy.get(&query).await.assert_refusal_for("7", "used before");
    proxy.stop().await;
}

#[tokio::test]
async fn a_restart_forgets_no_transid() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    let drained = proxy.sign(&MSISDN);
    proxy.get(&drained).await.assert_normal();
    proxy.restart().await;
    proxy.get(&drained).await.assert_refusal_for("7", "used before");

    let killed = proxy.sign(&MSISDN);
    proxy.get(&killed).await.assert_normal();
    proxy.kill9().await;
    proxy.start_again().await;
    proxy.get(&killed).await.assert_refusal_for("7", "used before");
    proxy.get(&drained).await.assert_refusal_for("7", "used before");
    proxy.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn what_was_refused_before_it_was_burnt_may_come_again() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).set("client.0.cards", vec!["1476"]).start().await;
    let query = proxy.sign(&ICCID);
    proxy.get(&query).await.assert_refusal("8");
    proxy.get(&query).await.assert_refusal("8");
    proxy.restart().await;
    proxy.get(&query).await.assert_refusal("8");
    // The same transid, with a card that the client may look up.
    proxy.get(&query.without("iccid").with(MSISDN.kind, MSISDN.number)).await.assert_normal();
}

#[tokio::test]
async fn a_look_up_that_failed_has_used_its_transid() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    carrier.kill().await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_refusal("73");
    proxy.get(&query).await.assert_refusal_for("7", "used before");
}

/// The gateways' time plus this many seconds.
fn moved(proxy: &Clocked, seconds: i64) -> Time {
    Time::from_secs(i64::try_from(proxy.gateway.now()).unwrap() + seconds)
}

#[tokio::test]
async fn a_wrong_day_ahead_refuses_nobody_afterwards_and_lets_no_replay_through() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start_clocked().await;
    let before = proxy.sign(&MSISDN);
    proxy.get(&before).await.assert_normal();
    proxy.clock.step(86_400);
    let ahead = proxy.sign(&MSISDN);
    proxy.get(&ahead).await.assert_normal();
    proxy.get(&before).await.assert_refusal_for("7", "used before");
    proxy.clock.step(-86_400);
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.get(&before).await.assert_refusal_for("7", "used before");
    proxy.clock.step(86_400);
    proxy.get(&ahead).await.assert_refusal_for("7", "used before");
    proxy.stop().await;
}

#[tokio::test]
async fn a_start_with_the_clock_ahead_forgets_no_transid() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier);
    let proxy = setup.start_clocked().await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_normal();
    let ahead = moved(&proxy, 3_600);
    let proxy = proxy.restart_at(ahead, &setup).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.clock.step(-3_600);
    proxy.get(&query).await.assert_refusal("7");
    proxy.clock.advance(Duration::from_secs(1));
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.stop().await;
}

#[tokio::test]
async fn a_start_behind_the_newest_record_is_an_alarm() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier);
    let proxy = setup.start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let behind = moved(&proxy, -3_600);
    let proxy = proxy.restart_at(behind, &setup).await;
    let ready = proxy.admin("/ready").await;
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("alarm: clock: the wall clock was 3600 s behind"), "{}", ready.text());
    // A gateway with the same clock still gets a response.
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.stop().await;
}

#[tokio::test]
async fn a_narrower_window_after_a_restart_lets_no_replay_of_the_wider_one_through() {
    let carrier = carrier().await;
    let (wide, narrow) =
        (Setup::with_carrier(&carrier).set("gateway.clock_skew", "1h"), Setup::with_carrier(&carrier));
    for reloaded in [false, true] {
        let proxy = if reloaded {
            let proxy = narrow.start_clocked().await;
            proxy.reload(&wide);
            proxy
        } else {
            wide.start_clocked().await
        };
        // From a gateway with a clock 50 minutes ahead.
        let ahead = proxy.gateway.transid_at(proxy.gateway.now() + 3_000);
        let ahead = proxy.gateway.sign_transid(&MSISDN, &ahead);
        proxy.get(&ahead).await.assert_normal();
        proxy.clock.advance(Duration::from_secs(2_900));
        proxy.look_up(&MSISDN).await.assert_normal();
        if reloaded {
            proxy.reload(&narrow);
        }
        let mut proxy = proxy;
        for _ in 0..2 {
            let at = moved(&proxy, 10);
            proxy = proxy.restart_at(at, &narrow).await;
            proxy.get(&ahead).await.assert_refusal_for("7", "used before");
            proxy.look_up(&MSISDN).await.assert_normal();
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_transid_that_was_refused_as_used_stays_refused_after_a_restart() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).set("gateway.deadline", "1s").start().await;
    proxy.look_up(&MSISDN).await.assert_normal();

    // The first request with this transid is refused without a record, since the segment is locked.
    let query = proxy.sign(&MSISDN);
    let other = rusqlite::Connection::open(proxy.audit_file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    proxy.get(&query).await.assert_refusal_for("73", "audit unavailable");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    eventually("the audit to be writable again", || async {
        (proxy.look_up(&MSISDN).await.code() == "0").then_some(())
    })
    .await;
    proxy.get(&query).await.assert_refusal_for("7", "used before");

    proxy.restart().await;
    proxy.get(&query).await.assert_refusal_for("7", "used before");
}
