//! Stale responses: when they are served, and how they are marked.

use std::time::Duration;

use cmiot_simulator::{Account, Answer, Gate, Rule};

use crate::support::{ACCOUNT_APPID, Clocked, EBID, MSISDN, Setup, carrier, eventually};

/// Fresh for one minute, then one hour of stale-if-error, without stale-while-revalidate.
fn for_an_hour(carrier: &cmiot_simulator::Simulator) -> Setup {
    Setup::with_carrier(carrier).freshness("normal", "60s", "0s", "1h")
}

/// A proxy with an entry that has been stale for eight seconds.
async fn with_a_stale_answer(carrier: &cmiot_simulator::Simulator) -> Clocked {
    let proxy = for_an_hour(carrier).start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.clock.advance(Duration::from_secs(68));
    proxy
}

/// The Cache-Status of that entry.
const STALE: &str = "hit; ttl=-8";

#[tokio::test]
async fn an_outage_is_bridged_for_as_long_as_allowed() {
    let carrier = carrier().await;
    let proxy = with_a_stale_answer(&carrier).await;
    carrier.kill().await;
    let stale = proxy.look_up(&MSISDN).await;
    stale.assert_normal();
    assert_eq!((stale.cache(), stale.age()), ("hit; ttl=-8; detail=connect", 68));
    assert_eq!(stale.header("proxy-status"), None, "the carrier said it once");

    proxy.clock.advance(Duration::from_secs(3_591));
    assert_eq!(proxy.look_up(&MSISDN).await.cache(), "hit; ttl=-3599; detail=connect");
    proxy.clock.advance(Duration::from_secs(1));
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "destination_unavailable");
    proxy.stop().await;
}

#[tokio::test]
async fn an_outage_that_ends_ends_the_staleness() {
    let carrier = carrier().await;
    let proxy = with_a_stale_answer(&carrier).await;
    carrier.kill().await;
    assert_eq!(proxy.look_up(&MSISDN).await.cache(), "hit; ttl=-8; detail=connect");
    carrier.restart().await.unwrap();
    carrier.set_rules([Rule::any().status("02")]);
    let anew = proxy.look_up(&MSISDN).await;
    assert_eq!((anew.cache(), anew.age()), ("fwd=stale; stored", 0));
    assert_eq!(anew.json()["result"][0]["STATUS"], "02");
    proxy.stop().await;
}

#[tokio::test]
async fn stale_goes_before_every_failure_that_may_pass() {
    const NO_RESPONSE: &str = "hit; ttl=-8; detail=";
    const RESPONSE: &str = "fwd=stale; ttl=-8; detail=";
    let carrier = carrier().await;
    for (said, handled) in [
        ("code=71", RESPONSE),
        ("code=72", RESPONSE),
        ("code=75", RESPONSE),
        ("code=1", RESPONSE),
        ("code=73", RESPONSE),
        ("code=99", RESPONSE),
        ("code=20", RESPONSE),
        ("code=3", RESPONSE),
        ("code=4", RESPONSE),
        ("code=6", RESPONSE),
        ("code=7", RESPONSE),
        ("code=8", RESPONSE),
        ("http=502", "fwd=stale; fwd-status=502; ttl=-8; detail=http-status"),
        ("garbage", NO_RESPONSE),
        ("reset", NO_RESPONSE),
        ("close", NO_RESPONSE),
        ("truncate=10", NO_RESPONSE),
        ("body=hello", RESPONSE),
        ("oversized=1MiB", RESPONSE),
    ] {
        carrier.set_rules([]);
        let proxy = with_a_stale_answer(&carrier).await;
        carrier.set_rules([Rule::parse(said).unwrap()]);
        let stale = proxy.look_up(&MSISDN).await;
        stale.assert_normal();
        assert!(stale.cache().starts_with(handled), "{said}: {stale:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_no_goes_before_stale() {
    let carrier = carrier().await;
    for code in ["12", "10", "38", "203"] {
        carrier.set_rules([]);
        let proxy = with_a_stale_answer(&carrier).await;
        carrier.set_rules([Rule::any().code(code)]);
        assert_eq!(proxy.look_up(&MSISDN).await.code(), code);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn our_own_credentials_refused_are_nobodys_business_while_something_is_stale() {
    let carrier = carrier().await;
    let proxy = with_a_stale_answer(&carrier).await;
    carrier.set_accounts([Account::new(ACCOUNT_APPID, EBID, "the-carrier-changed-it")]);
    assert_eq!(proxy.look_up(&MSISDN).await.cache(), "fwd=stale; ttl=-8; detail=carrier-credentials");
    proxy.stop().await;
}

#[tokio::test]
async fn a_slow_carrier_is_not_waited_for_when_something_is_stale() {
    let carrier = carrier().await;
    let gate = Gate::new();
    let proxy = for_an_hour(&carrier).set("carrier.stale_timeout", "50ms").start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.clock.advance(Duration::from_secs(68));
    carrier.set_rules([Rule::any().status("02").gate(&gate)]);
    // All lookups get the stale response and share one call.
    for _ in 0..3 {
        assert_eq!(proxy.look_up(&MSISDN).await.cache(), "hit; ttl=-8; detail=deadline");
    }
    assert_eq!(carrier.count(), 2);
    // Its reply is stored in the end.
    gate.open();
    carrier.wait_until_idle().await;
    let kept = eventually("the flight to land", || async {
        let response = proxy.look_up(&MSISDN).await;
        (!response.cache().starts_with(STALE)).then_some(response)
    })
    .await;
    assert_eq!(kept.json()["result"][0]["STATUS"], "02");
    assert_eq!(carrier.count(), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn while_it_is_asked_anew_stale_is_answered_at_once() {
    let carrier = carrier().await;
    let gate = Gate::new();
    let proxy = Setup::with_carrier(&carrier).freshness("normal", "60s", "5m", "1h").start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.clock.advance(Duration::from_secs(68));
    carrier.set_rules([Rule::any().status("02").gate(&gate)]);
    for _ in 0..5 {
        assert_eq!(proxy.look_up(&MSISDN).await.cache(), STALE);
    }
    carrier.wait_for_calls(2).await;
    gate.open();
    let anew = eventually("the flight to land", || async {
        let response = proxy.look_up(&MSISDN).await;
        (response.cache() != STALE).then_some(response)
    })
    .await;
    assert_eq!((anew.cache(), anew.age()), ("hit; ttl=15", 0));
    assert_eq!(anew.json()["result"][0]["STATUS"], "02");
    assert_eq!(carrier.count(), 2);
    proxy.stop().await;
}

#[tokio::test]
async fn stale_is_marked_from_the_first_moment_on() {
    let carrier = carrier().await;
    let proxy = for_an_hour(&carrier).start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    carrier.kill().await;
    proxy.clock.advance(Duration::from_millis(60_001));
    let stale = proxy.look_up(&MSISDN).await;
    assert!(stale.cache().starts_with("hit; ttl=-"), "only a negative ttl says stale: {stale:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_stale_answer_serves_through_a_restart_too() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).freshness("normal", "1s", "0s", "1h").start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    carrier.set_rules([Rule::any().then(Answer::Close)]);
    proxy.restart().await;
    let stale = eventually("staleness", || async {
        let response = proxy.look_up(&MSISDN).await;
        response.assert_normal();
        (response.age() >= 2).then_some(response)
    })
    .await;
    assert!(stale.cache().starts_with("hit; ttl=-"), "{stale:?}");
}

#[tokio::test]
async fn only_if_cached_takes_nothing_stale() {
    let carrier = carrier().await;
    let proxy = with_a_stale_answer(&carrier).await;
    let response = proxy.get_with(&proxy.sign(&MSISDN), "Cache-Control: only-if-cached\r\n").await;
    response.assert_refusal_for("73", "504");
    assert_eq!(carrier.count(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_no_serves_no_longer_than_it_is_fresh() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().code("12")]);
    let proxy = Setup::with_carrier(&carrier).start_clocked().await;
    assert_eq!(proxy.look_up(&MSISDN).await.code(), "12");
    carrier.kill().await;
    proxy.clock.advance(Duration::from_secs(60));
    proxy.look_up(&MSISDN).await.assert_refusal("73");
    proxy.stop().await;
}

#[tokio::test]
async fn a_success_without_a_status_replaces_no_status_that_is_known() {
    let carrier = carrier().await;
    let proxy = with_a_stale_answer(&carrier).await;
    for empty in
        [r#"{"status":"0","message":"正确","result":[]}"#, r#"{"status":"0","message":"正确","result":[{}]}"#]
    {
        carrier.set_rules([Rule::any().then(Answer::body(empty))]);
        let relayed = proxy.look_up(&MSISDN).await;
        assert_eq!((relayed.text(), relayed.cache()), (empty, "fwd=stale"));
    }
    carrier.kill().await;
    let stale = proxy.look_up(&MSISDN).await;
    stale.assert_normal();
    assert_eq!(stale.cache(), "hit; ttl=-8; detail=connect");
    proxy.stop().await;
}
