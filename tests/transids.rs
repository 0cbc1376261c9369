//! Transids of the proxy's own calls: never sent twice, through restarts, kills and clock steps.

use std::collections::HashSet;

use tokio::task::JoinSet;

use crate::support::{ACCOUNT_APPID, GATEWAY_APPID, MSISDN, Proxy, Setup, card_number, carrier};

#[tokio::test]
async fn a_gateways_transid_is_never_sent_upstream() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&MSISDN);
    proxy.get(&query).await.assert_normal();
    let calls = carrier.calls();
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(call.appid, ACCOUNT_APPID);
    assert!(
        call.transid.starts_with(ACCOUNT_APPID) && call.transid.len() == ACCOUNT_APPID.len() + 22,
        "{call:?}"
    );
    let (theirs, ours) = (&query.transid()[GATEWAY_APPID.len()..], &call.transid[ACCOUNT_APPID.len()..]);
    assert_ne!(theirs, ours);
}

#[tokio::test]
async fn transids_are_distinct_over_restarts_and_kills() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).freshness("normal", "0s", "0s", "0s").start().await;
    let mut asked = 0;
    for round in 0..4 {
        let mut lookups = JoinSet::new();
        for n in 0..30 {
            let client = proxy.clone();
            lookups.spawn(async move { client.look_up(&card_number(n)).await.assert_normal() });
        }
        lookups.join_all().await;
        asked += 30;
        if round % 2 == 0 {
            proxy.kill9().await;
            proxy.start_again().await;
        } else {
            proxy.restart().await;
        }
    }
    assert_eq!(carrier.duplicates(), []);
    let calls = carrier.calls();
    let distinct: HashSet<&str> = calls.iter().map(|call| call.transid.as_str()).collect();
    assert_eq!((calls.len(), distinct.len()), (asked, asked));
}

#[tokio::test]
async fn proxies_that_share_an_account_count_apart() {
    let carrier = carrier().await;
    for node in [0, 7, 99] {
        let proxy = Setup::with_carrier(&carrier).set("carrier.node", node).start().await;
        for n in 0..3 {
            proxy.look_up(&card_number(n)).await.assert_normal();
        }
        for call in &carrier.calls()[carrier.calls().len() - 3..] {
            let digits = &call.transid[call.transid.len() - 8..];
            assert_eq!(digits[..2], format!("{node:02}"), "{call:?}");
        }
    }
    assert_eq!(carrier.duplicates(), []);
}

#[tokio::test]
async fn a_retry_has_a_transid_of_its_own() {
    let carrier = carrier().await;
    carrier.set_rules([cmiot_simulator::Rule::parse("close times=1").unwrap()]);
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(carrier.count(), 2);
    assert_eq!(carrier.duplicates(), []);
    // The audit names the call that got a reply.
    let answered = carrier.calls()[1].transid.clone();
    assert_eq!(proxy.audit()[0].carrier_transid, Some(answered));
}

#[tokio::test]
async fn a_clock_that_is_stepped_repeats_none() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).freshness("normal", "0s", "0s", "0s").start_clocked().await;
    for step in [0, -3_600, 3_599, 1, 3_600, -90_000] {
        proxy.clock.step(step);
        for n in 0..5 {
            proxy.look_up(&card_number(n)).await.assert_normal();
        }
    }
    assert_eq!(carrier.count(), 30);
    assert_eq!(carrier.duplicates(), []);
    proxy.stop().await;
}
