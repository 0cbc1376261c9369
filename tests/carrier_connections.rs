//! Connections to the carrier: a broken connection costs at most one retry; exhausted file descriptors are no carrier fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{
    Connection, MSISDN, Machine, NORMAL, Proxy, STATUS_PATH, Setup, card_number, carrier, eventually, say,
    scripted,
};

#[tokio::test]
async fn a_reused_connection_that_is_reset_before_any_byte_costs_nobody_an_answer() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let url = scripted(move |_, _, n, stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if n > 0 {
                // An RST, as from a balancer that has dropped the connection's state.
                stream.set_zero_linger().unwrap();
                return None;
            }
            say(stream, NORMAL).await
        }
    })
    .await;
    let proxy = Setup::calling(&url).start().await;
    for n in 0..4 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    assert_eq!(
        calls.load(Ordering::Relaxed),
        1 + 3 * 2,
        "one call on a new connection, then three retries after a reset"
    );
}

#[tokio::test]
async fn connections_that_die_together_open_no_breaker() {
    const CONNECTIONS: usize = 8;
    let together = Arc::new(tokio::sync::Barrier::new(CONNECTIONS));
    let url = scripted(move |_, connection, n, stream| {
        let together = Arc::clone(&together);
        async move {
            if connection < CONNECTIONS {
                together.wait().await;
                if n > 0 {
                    stream.set_zero_linger().unwrap();
                    return None;
                }
            }
            say(stream, NORMAL).await
        }
    })
    .await;
    let proxy = Setup::calling(&url).set("breaker.failures", 3).start().await;
    for round in 0..2 {
        let mut asking = JoinSet::new();
        for n in 0..CONNECTIONS {
            let (client, card) =
                (proxy.clone(), card_number(u32::try_from(round * CONNECTIONS + n).unwrap()));
            asking.spawn(async move { client.look_up(&card).await.assert_normal() });
        }
        asking.join_all().await;
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_response_is_not_asked_once_more() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let url = scripted(move |_, _, _, mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-").await.unwrap();
            // So that the proxy reads these bytes before the reset.
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.set_zero_linger().unwrap();
            None
        }
    })
    .await;
    let proxy = Setup::calling(&url).start().await;
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "connection_terminated");
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
            // Long enough that concurrent calls need one connection each.
            tokio::time::sleep(Duration::from_millis(100)).await;
            say(stream, NORMAL).await
        }
    })
    .await;
    let setup = Setup::calling(&url).set("carrier.timeout", "1s").set("breaker.failures", 100);
    let proxy = setup.start().await;
    let mut asking = JoinSet::new();
    for n in 0..6 {
        let client = proxy.clone();
        asking.spawn(async move { client.look_up(&card_number(n)).await.assert_normal() });
    }
    asking.join_all().await;
    assert!(newest.load(Ordering::Relaxed) > 2);
    hole.store(newest.load(Ordering::Relaxed), Ordering::Relaxed);
    proxy.look_up(&card_number(10)).await.assert_refusal_for("73", "http_response_timeout");
    for n in 11..16 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
}

#[tokio::test]
async fn compression_is_declined() {
    let url = scripted(|head, _, _, stream| async move {
        let declined = head.to_ascii_lowercase().contains("\r\naccept-encoding: identity\r\n");
        say(stream, if declined { NORMAL } else { "\x1f\u{8b}" }).await
    })
    .await;
    Setup::calling(&url).start().await.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn interim_responses_without_end_are_ended() {
    let url = scripted(|_, _, _, mut stream| async move {
        while stream.write_all(&b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(50)).await.is_ok() {}
        None
    })
    .await;
    // Without a limit of interim responses the deadline would end the call, with another reason.
    let proxy = Setup::calling(&url).start().await;
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "carrier call failed: interim");
    let url = scripted(|_, _, _, mut stream| async move {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").await.unwrap();
        say(stream, NORMAL).await
    })
    .await;
    Setup::calling(&url).start().await.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn descriptors_that_are_used_up_are_ours_and_open_no_breaker() {
    let carrier = carrier().await;
    let machine = Machine::wrapped_by(["prlimit", "--nofile=48:48"]);
    let setup = Setup::with_carrier(&carrier).set("breaker.open", "60s").set("breaker.max_open", "60s");
    let proxy = Proxy::start_on_machine(tempfile::tempdir().unwrap(), setup, machine).await;
    let mut connection = Connection::to(proxy.address).await;
    let target = |n: u32| {
        format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", proxy.sign(&card_number(n)).text())
    };
    connection.send("GET /v2/no-such HTTP/1.1\r\nHost: x\r\n\r\n").await;
    connection.response().await.assert_refusal("10006");
    let mut connections = Vec::new();
    for _ in 0..64 {
        connections.push(TcpStream::connect(proxy.address).await.unwrap());
    }
    let open = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    eventually("no descriptor left", || async { (open() >= 48).then_some(()) }).await;
    let mut refused = 0;
    for n in 0..100 {
        connection.send(target(n)).await;
        let response = connection.response().await;
        // A file that the proxy closed in between was one descriptor for this call.
        if response.code() != "0" {
            response.assert_refusal_for("73", "descriptors");
            refused += 1;
        }
    }
    assert!(refused >= 10, "{refused}");
    // Several times the pause after a failed accept(2).
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(connections);
    eventually("a free descriptor", || async {
        let response = proxy.look_up(&card_number(200)).await;
        (response.code() == "0").then_some(())
    })
    .await;
    assert_eq!(proxy.log().matches("cannot accept").count(), 1, "{}", proxy.log());
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
        // The first account has the largest remaining budget.
        let setup = Setup::calling(&url).set("account.0.group", "fleet").set("account.0.calls_per_day", 1000);
        let proxy = others(others(setup, "200002", 100), "300003", 10).start().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        assert_eq!(both.swap(0, Ordering::Relaxed), 2, "{code}");
        only_one.store(false, Ordering::Relaxed);
        proxy.look_up(&card_number(1)).await;
        assert_eq!(both.load(Ordering::Relaxed), 2, "{code}: the second account, then one other");
    }
}
