//! Connections to the carrier: one that has died costs one call and no answer, and nobody is blamed for what is ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{
    Ground, Line, MSISDN, NORMAL, Proxy, STATUS_PATH, Setup, card_number, carrier, say, scripted, until,
};

#[tokio::test]
async fn a_reused_connection_that_is_reset_before_any_byte_costs_nobody_an_answer() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let url = scripted(move |_, _, n, stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if n > 0 {
                // An RST, as a balancer sends that has forgotten the connection.
                stream.set_zero_linger().unwrap();
                return None;
            }
            say(stream, NORMAL).await
        }
    })
    .await;
    let proxy = Setup::calling(&url).start().await;
    for n in 0..4 {
        proxy.ask(&card_number(n)).await.is_normal();
    }
    assert_eq!(
        calls.load(Ordering::Relaxed),
        1 + 3 * 2,
        "each on a new connection, the first time and once more"
    );
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_response_is_not_asked_once_more() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let url = scripted(move |_, _, _, mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-").await.unwrap();
            // Read before the reset comes: the close waits for a byte that does not.
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.set_zero_linger().unwrap();
            None
        }
    })
    .await;
    let proxy = Setup::calling(&url).start().await;
    proxy.ask(&MSISDN).await.is_refusal_since("73", "connection_terminated");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_firewall_that_forgets_all_connections_costs_one_call_and_not_one_a_connection() {
    let hole = Arc::new(AtomicUsize::new(0));
    let newest = Arc::new(AtomicUsize::new(0));
    let (dead, seen) = (Arc::clone(&hole), Arc::clone(&newest));
    let url = scripted(move |_, connection, _, stream| {
        let (dead, seen) = (Arc::clone(&dead), Arc::clone(&seen));
        async move {
            seen.fetch_max(connection + 1, Ordering::Relaxed);
            if connection < dead.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            // Long enough for calls at once to need a connection each.
            tokio::time::sleep(Duration::from_millis(100)).await;
            say(stream, NORMAL).await
        }
    })
    .await;
    let setup = Setup::calling(&url).set("carrier.timeout", "1s").set("breaker.failures", 100);
    let proxy = setup.start().await;
    let mut asking = JoinSet::new();
    for n in 0..6 {
        let door = proxy.clone();
        asking.spawn(async move { door.ask(&card_number(n)).await.is_normal() });
    }
    asking.join_all().await;
    assert!(newest.load(Ordering::Relaxed) > 2);
    hole.store(newest.load(Ordering::Relaxed), Ordering::Relaxed);
    proxy.ask(&card_number(10)).await.is_refusal_since("73", "http_response_timeout");
    for n in 11..16 {
        proxy.ask(&card_number(n)).await.is_normal();
    }
}

#[tokio::test]
async fn compression_is_declined() {
    let url = scripted(|head, _, _, stream| async move {
        let declined = head.to_ascii_lowercase().contains("\r\naccept-encoding: identity\r\n");
        say(stream, if declined { NORMAL } else { "\x1f\u{8b}" }).await
    })
    .await;
    Setup::calling(&url).start().await.ask(&MSISDN).await.is_normal();
}

#[tokio::test]
async fn interim_responses_without_end_are_ended() {
    let url = scripted(|_, _, _, mut stream| async move {
        while stream.write_all(&b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(50)).await.is_ok() {}
        None
    })
    .await;
    // Without a bound only the deadline would end it, with another cause.
    let proxy = Setup::calling(&url).start().await;
    proxy.ask(&MSISDN).await.is_refusal_since("73", "carrier call failed: interim");
    let url = scripted(|_, _, _, mut stream| async move {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").await.unwrap();
        say(stream, NORMAL).await
    })
    .await;
    Setup::calling(&url).start().await.ask(&MSISDN).await.is_normal();
}

#[tokio::test]
async fn descriptors_that_are_used_up_are_ours_and_open_no_breaker() {
    let carrier = carrier().await;
    let ground = Ground::before(["prlimit", "--nofile=48:48"]);
    let setup = Setup::before(&carrier).set("breaker.open", "60s").set("breaker.open_longest", "60s");
    let proxy = Proxy::start_on(tempfile::tempdir().unwrap(), setup, ground).await;
    let mut line = Line::to(proxy.address).await;
    let target = |n: u32| {
        format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", proxy.sign(&card_number(n)).text())
    };
    line.send("GET /v2/no-such HTTP/1.1\r\nHost: x\r\n\r\n").await;
    line.answer().await.is_refusal("10006");
    let mut crowd = Vec::new();
    for _ in 0..64 {
        crowd.push(TcpStream::connect(proxy.address).await.unwrap());
    }
    let open = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    until("no descriptor left", || async { (open() >= 48).then_some(()) }).await;
    for n in 0..10 {
        line.send(target(n)).await;
        line.answer().await.is_refusal_since("73", "descriptors");
    }
    drop(crowd);
    until("a free descriptor", || async {
        let answer = proxy.ask(&card_number(200)).await;
        (answer.code() == "0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_account_that_is_throttled_or_refused_leaves_the_miss_to_another_of_its_group_once() {
    for code in ["71", "7", "3"] {
        let (only_one, both) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (one, calls) = (Arc::clone(&only_one), Arc::clone(&both));
        let url = scripted(move |head, _, _, stream| {
            calls.fetch_add(1, Ordering::Relaxed);
            let refused = head.contains("appid=100001&") || !one.load(Ordering::Relaxed);
            async move {
                let no = format!(r#"{{"status":"{code}","message":"","result":[]}}"#);
                say(stream, if refused { &no } else { NORMAL }).await
            }
        })
        .await;
        let others = |setup: Setup, appid: &str, left: u32| {
            let written = format!(
                "name = \"a{appid}\"\ngroup = \"fleet\"\nappid = \"{appid}\"\nebid = \"0001000000009\"\npassword = \"the-carriers-side-of-it\"\ncalls_per_day = {left}"
            );
            setup.add("account", &written)
        };
        // The first has the most left, as long as it may be asked.
        let setup = Setup::calling(&url).set("account.0.group", "fleet").set("account.0.calls_per_day", 1000);
        let proxy = others(others(setup, "200002", 100), "300003", 10).start().await;
        proxy.ask(&MSISDN).await.is_normal();
        assert_eq!(both.swap(0, Ordering::Relaxed), 2, "{code}");
        only_one.store(false, Ordering::Relaxed);
        proxy.ask(&card_number(1)).await;
        assert_eq!(both.load(Ordering::Relaxed), 2, "{code}: the second, and once another");
    }
}
