//! SIGKILL under load, and the start afterwards.

use std::collections::{HashMap, HashSet};

use tokio::task::JoinSet;

use crate::support::{
    Connection, GatewayClient, Proxy, STATUS_PATH, Setup, card_number, carrier, eventually,
};

/// Number of concurrent gateways.
const GATEWAYS: u32 = 16;
/// Number of cards that they look up.
const CARDS: u32 = 40;

/// Sends lookups on one connection until the proxy is gone; returns the transids of those with a response.
async fn keep_asking(client: GatewayClient, first: u32) -> Vec<String> {
    let mut answered = Vec::new();
    let mut connection: Connection = client.connect().await;
    for n in first.. {
        let query = client.sign(&card_number(n % CARDS));
        let sent = format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text());
        if connection.try_send(sent).await.is_err() {
            break;
        }
        match connection.try_response().await {
            Some(response) => {
                response.assert_normal();
                answered.push(query.transid().to_owned());
            }
            None => break,
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answered_request_is_missing_from_the_audit() {
    let carrier = carrier().await;
    // Mostly hits, and some calls, since the freshness lifetime is short.
    let mut proxy = Setup::with_carrier(&carrier).freshness("normal", "1s", "0s", "1h").start().await;
    let mut asking = JoinSet::new();
    for n in 0..GATEWAYS {
        asking.spawn(keep_asking(proxy.clone(), n * 7));
    }
    eventually("a load", || async { (proxy.audit().len() > 500).then_some(()) }).await;
    proxy.kill9().await;
    let answered: Vec<String> = asking.join_all().await.concat();
    assert!(answered.len() > 400, "{} responses", answered.len());

    proxy.start_again().await;
    let audit = proxy.audit();
    let mut recorded: HashMap<&str, u32> = HashMap::new();
    for row in &audit {
        *recorded.entry(row.transid.as_deref().unwrap()).or_default() += 1;
    }
    let missing: Vec<&String> = answered.iter().filter(|it| !recorded.contains_key(it.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new());
    assert!(recorded.values().all(|times| *times == 1), "one record per request");
    let sent: HashSet<String> = carrier.calls().into_iter().map(|call| call.transid).collect();
    let known =
        |row: &crate::support::LookupRow| row.carrier_transid.as_ref().is_none_or(|it| sent.contains(it));
    assert!(audit.iter().all(known), "every call in the audit was made");
    assert_eq!(carrier.duplicates(), []);
    proxy.look_up(&card_number(0)).await.assert_normal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_answers_keep_their_age() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    for n in 0..CARDS {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    eventually("an age of two seconds", || async {
        (proxy.look_up(&card_number(CARDS - 1)).await.age() >= 2).then_some(())
    })
    .await;
    let mut asking = JoinSet::new();
    for n in 0..GATEWAYS {
        asking.spawn(keep_asking(proxy.clone(), n));
    }
    let before = proxy.audit().len();
    eventually("a load", || async { (proxy.audit().len() > before + 200).then_some(()) }).await;
    proxy.kill9().await;
    asking.join_all().await;
    proxy.start_again().await;
    for n in 0..CARDS {
        let kept = proxy.look_up(&card_number(n)).await;
        kept.assert_normal();
        assert!(kept.cache().starts_with("hit; ttl=") && kept.age() >= 2, "{kept:?}");
    }
    assert_eq!(carrier.count(), u64::from(CARDS));
}
