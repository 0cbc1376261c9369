//! How long an answer serves, by what it says, on a clock set by hand.
//!
//! Ages and remaining freshness are exact here: only the test moves the clock.

use std::time::Duration;

use cmiot_simulator::Rule;

use crate::support::{Card, MSISDN, Setup, card_number, carrier};

#[tokio::test]
async fn age_and_remaining_freshness_follow_the_clock() {
    let carrier = carrier().await;
    let proxy = Setup::before(&carrier).start_clocked().await;
    assert_eq!(proxy.ask(&MSISDN).await.age(), 0);
    for (passed, age) in [(0, 0), (7, 7), (13, 20), (39, 59)] {
        proxy.clock.advance(Duration::from_secs(passed));
        let hit = proxy.ask(&MSISDN).await;
        assert_eq!(hit.age(), age);
        assert_eq!(hit.cache(), format!("hit; ttl={}", 60 - age));
    }
    assert_eq!(carrier.count(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn each_answer_is_fresh_as_long_as_its_kind() {
    // What the README says of each kind by default, in seconds.
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
    carrier.set_rules(
        KINDS.iter().zip(0..).map(|((answer, _), n)| {
            Rule::parse(&format!("card={} {answer}", card_number(n).number)).unwrap()
        }),
    );
    for ((answer, fresh), n) in KINDS.into_iter().zip(0..) {
        let proxy = Setup::before(&carrier).start_clocked().await;
        let card: Card<String> = card_number(n);
        carrier.reset_counts();
        proxy.ask(&card).await;
        proxy.clock.advance(Duration::from_secs(fresh) - Duration::from_millis(1));
        let fresh_still = proxy.ask(&card).await;
        assert!(fresh_still.cache().starts_with("hit; ttl=0"), "{answer}: {fresh_still:?}");
        assert_eq!(carrier.count(), 1, "{answer}");
        proxy.clock.advance(Duration::from_millis(1));
        proxy.ask(&card).await;
        carrier.wait_for_calls(2).await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_configured_lifetime_counts() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().status("02")]);
    let proxy = Setup::before(&carrier).keep("barred", "1h 30m", "0s", "0s").start_clocked().await;
    proxy.ask(&MSISDN).await;
    proxy.clock.advance(Duration::from_secs(5_399));
    assert_eq!(proxy.ask(&MSISDN).await.cache(), "hit; ttl=1");
    proxy.clock.advance(Duration::from_secs(1));
    assert_eq!(proxy.ask(&MSISDN).await.cache(), "fwd=uri-miss; stored");
    assert_eq!(carrier.count(), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn a_lifetime_of_zero_keeps_nothing() {
    let carrier = carrier().await;
    let proxy = Setup::before(&carrier).keep("normal", "0s", "0s", "0s").start_clocked().await;
    for calls in 1..=3 {
        assert_eq!(proxy.ask(&MSISDN).await.cache(), "fwd=uri-miss");
        assert_eq!(carrier.count(), calls);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_clock_stepped_back_a_little_makes_nothing_younger_than_new() {
    let carrier = carrier().await;
    let proxy = Setup::before(&carrier).start_clocked().await;
    proxy.ask(&MSISDN).await;
    proxy.clock.step(-2);
    let hit = proxy.ask(&MSISDN).await;
    assert_eq!(hit.age(), 0);
    assert!(hit.cache().starts_with("hit"), "{hit:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn what_was_answered_in_the_future_is_asked_for_anew() {
    let carrier = carrier().await;
    let proxy = Setup::before(&carrier).start_clocked().await;
    // A day ahead, then set right: with the gateways' clocks alike.
    for (step, status) in [(86_400, "00"), (-86_400, "02")] {
        proxy.clock.step(step);
        carrier.set_rules([Rule::any().status(status)]);
        let answer = proxy.ask(&MSISDN).await;
        assert_eq!(answer.cache(), "fwd=uri-miss; stored", "{answer:?}");
        assert_eq!(answer.age(), 0);
    }
    assert_eq!(carrier.count(), 2);
    assert_eq!(proxy.ask(&MSISDN).await.cache(), "hit; ttl=15");
    proxy.stop().await;
}
