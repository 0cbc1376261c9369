//! Killed in mid-load and started again.

use std::collections::{HashMap, HashSet};

use tokio::task::JoinSet;

use crate::support::{Door, Line, Proxy, STATUS_PATH, Setup, card_number, carrier, until};

/// How many gateways ask at once, and how many cards they ask about.
const GATEWAYS: u32 = 16;
const CARDS: u32 = 40;

/// One gateway asks on and on, on one connection; the transids that were answered, when the proxy is gone.
async fn keep_asking(door: Door, first: u32) -> Vec<String> {
    let mut answered = Vec::new();
    let mut line: Line = door.connect().await;
    for n in first.. {
        let query = door.sign(&card_number(n % CARDS));
        let sent = format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text());
        if line.try_send(sent).await.is_err() {
            break;
        }
        match line.try_answer().await {
            Some(answer) => {
                answer.is_normal();
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
    // Nearly everything is a hit, some of it a call: lifetimes end in mid-load.
    let mut proxy = Setup::before(&carrier).keep("normal", "1s", "0s", "1h").start().await;
    let mut asking = JoinSet::new();
    for n in 0..GATEWAYS {
        asking.spawn(keep_asking(proxy.clone(), n * 7));
    }
    until("a load", || async { (proxy.audit().len() > 500).then_some(()) }).await;
    proxy.kill9().await;
    let answered: Vec<String> = asking.join_all().await.concat();
    assert!(answered.len() > 400, "{} answers", answered.len());

    proxy.start_again().await;
    let audit = proxy.audit();
    let mut recorded: HashMap<&str, u32> = HashMap::new();
    for row in &audit {
        *recorded.entry(row.transid.as_deref().unwrap()).or_default() += 1;
    }
    let missing: Vec<&String> = answered.iter().filter(|it| !recorded.contains_key(it.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new());
    assert!(recorded.values().all(|times| *times == 1), "one record a request");
    let sent: HashSet<String> = carrier.calls().into_iter().map(|call| call.transid).collect();
    let known = |row: &crate::support::Row| row.carrier_transid.as_ref().is_none_or(|it| sent.contains(it));
    assert!(audit.iter().all(known), "every call in the audit was made");
    assert_eq!(carrier.duplicates(), []);
    proxy.ask(&card_number(0)).await.is_normal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_answers_keep_their_age() {
    let carrier = carrier().await;
    let mut proxy = Proxy::before(&carrier).await;
    for n in 0..CARDS {
        proxy.ask(&card_number(n)).await.is_normal();
    }
    until("answers of some age", || async {
        (proxy.ask(&card_number(CARDS - 1)).await.age() >= 2).then_some(())
    })
    .await;
    let mut asking = JoinSet::new();
    for n in 0..GATEWAYS {
        asking.spawn(keep_asking(proxy.clone(), n));
    }
    let before = proxy.audit().len();
    until("a load", || async { (proxy.audit().len() > before + 200).then_some(()) }).await;
    proxy.kill9().await;
    asking.join_all().await;
    proxy.start_again().await;
    for n in 0..CARDS {
        let kept = proxy.ask(&card_number(n)).await;
        kept.is_normal();
        assert!(kept.cache().starts_with("hit; ttl=") && kept.age() >= 2, "{kept:?}");
    }
    assert_eq!(carrier.count(), u64::from(CARDS));
}
