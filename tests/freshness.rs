//! Freshness lifetimes per kind of reply, with a manual clock, so that ages and remaining lifetimes are exact.

use std::time::Duration;

use cmiot_simulator::Rule;

use crate::support::{Card, MSISDN, Setup, card_number, carrier};

#[tokio::test]
async fn age_and_remaining_freshness_follow_the_clock() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start_clocked().await;
    assert_eq!(proxy.look_up(&MSISDN).await.age(), 0);
    for (passed, age) in [(0, 0), (7, 7), (13, 20), (39, 59)] {
        proxy.clock.advance(Duration::from_secs(passed));
        let hit = proxy.look_up(&MSISDN).await;
        assert_eq!(hit.age(), age);
        assert_eq!(hit.cache(), format!("hit; ttl={}", 60 - age));
    }
    assert_eq!(carrier.count(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn each_answer_is_fresh_as_long_as_its_kind() {
    // The default lifetime per kind, as in the README, in seconds.
    const KINDS: [(&str, u64); 11] = [
        ("status=00", 60),
        ("status=01", 15),
        ("status=02", 15),
        ("status=03", 60),
        ("status=04", 3_600),
        ("status=05", 60),
        ("status=06", 15),
        ("status=07", 15),
        ("status=99", 60),
        ("status=42", 15),
        ("code=12", 60),
    ];
    let carrier = carrier().await;
    carrier.set_rules(KINDS.iter().zip(0..).map(|((response, _), n)| {
        Rule::parse(&format!("card={} {response}", card_number(n).number)).unwrap()
    }));
    for ((response, fresh), n) in KINDS.into_iter().zip(0..) {
        let proxy = Setup::with_carrier(&carrier).start_clocked().await;
        let card: Card<String> = card_number(n);
        carrier.reset_counts();
        proxy.look_up(&card).await;
        proxy.clock.advance(Duration::from_secs(fresh) - Duration::from_millis(1));
        let fresh_still = proxy.look_up(&card).await;
        assert!(fresh_still.cache().starts_with("hit; ttl=0"), "{response}: {fresh_still:?}");
        assert_eq!(carrier.count(), 1, "{response}");
        proxy.clock.advance(Duration::from_millis(1));
        proxy.look_up(&card).await;
        carrier.wait_for_calls(2).await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_configured_lifetime_counts() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().status("02")]);
    let proxy = Setup::with_carrier(&carrier).freshness("barred", "1h 30m", "0s", "0s").start_clocked().await;
    proxy.look_up(&MSISDN).await;
    proxy.clock.advance(Duration::from_secs(5_399));
    assert_eq!(proxy.look_up(&MSISDN).await.cache(), "hit; ttl=1");
    proxy.clock.advance(Duration::from_secs(1));
    assert_eq!(proxy.look_up(&MSISDN).await.cache(), "fwd=uri-miss; stored");
    assert_eq!(carrier.count(), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn a_lifetime_of_zero_keeps_nothing() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).freshness("normal", "0s", "0s", "0s").start_clocked().await;
    for calls in 1..=3 {
        assert_eq!(proxy.look_up(&MSISDN).await.cache(), "fwd=uri-miss");
        assert_eq!(carrier.count(), calls);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_clock_stepped_back_a_little_makes_nothing_younger_than_new() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start_clocked().await;
    proxy.look_up(&MSISDN).await;
    proxy.clock.step(-2);
    let hit = proxy.look_up(&MSISDN).await;
    assert_eq!(hit.age(), 0);
    assert!(hit.cache().starts_with("hit"), "{hit:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn what_was_answered_in_the_future_is_asked_for_anew() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start_clocked().await;
    // A step of a day forwards, then back, of the gateways' clocks too.
    for (step, status) in [(86_400, "00"), (-86_400, "02")] {
        proxy.clock.step(step);
        carrier.set_rules([Rule::any().status(status)]);
        let response = proxy.look_up(&MSISDN).await;
        assert_eq!(response.cache(), "fwd=uri-miss; stored", "{response:?}");
        assert_eq!(response.age(), 0);
    }
    assert_eq!(carrier.count(), 2);
    assert_eq!(proxy.look_up(&MSISDN).await.cache(), "hit; ttl=15");
    proxy.stop().await;
}
