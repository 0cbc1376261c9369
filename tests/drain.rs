//! Drain: requests in flight get their response, and nothing new starts.

use cmiot_simulator::{Gate, Rule};

use crate::support::{Connection, ICCID, MSISDN, Machine, Proxy, Setup, carrier, eventually};

#[tokio::test]
async fn a_request_under_way_is_answered_and_the_exit_is_clean() {
    for signal in ["TERM", "INT"] {
        let carrier = carrier().await;
        let gate = Gate::new();
        carrier.set_rules([Rule::any().gate(&gate)]);
        let mut proxy = Proxy::with_carrier(&carrier).await;
        let (client, query) = (proxy.clone(), proxy.sign(&MSISDN));
        let sent = query.clone();
        let asking = tokio::spawn(async move { client.get(&sent).await });
        carrier.wait_for_calls(1).await;
        let mut idle = proxy.connect().await;

        proxy.signal(signal).await;
        eventually("no new connection", || async { no_listener(&proxy).await.then_some(()) }).await;
        assert!(idle.ends().await, "an idle connection is closed");
        gate.open();
        asking.await.unwrap().assert_normal();
        let status = proxy.ended().await;
        assert_eq!(status.code(), Some(0), "{}", proxy.log());
        let audit = proxy.audit();
        assert_eq!(audit.len(), 1);
        assert_eq!(audit[0].transid.as_deref(), Some(query.transid()));
        // The WALs are checkpointed.
        for entry in std::fs::read_dir(proxy.data()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert!(!name.ends_with("-wal") || entry.metadata().unwrap().len() == 0, "{name}");
        }
    }
}

#[tokio::test]
async fn ready_is_503_while_the_proxy_drains_on_open_and_new_connections() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let mut proxy = Proxy::with_carrier(&carrier).await;
    let mut asked = waiting(&proxy).await;
    carrier.wait_for_calls(1).await;
    let ready = "GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut open = Connection::to(proxy.admin_address()).await;
    open.send(ready.to_owned()).await;
    assert_eq!(open.response().await.status, 200);

    proxy.signal("TERM").await;
    eventually("no new connection", || async { no_listener(&proxy).await.then_some(()) }).await;
    for _ in 0..2 {
        open.send(ready.to_owned()).await;
        for ready in [open.response().await, proxy.admin("/ready", "").await] {
            assert_eq!((ready.status, ready.text()), (503, "not ready: the proxy drains\n"));
        }
    }
    assert_eq!(proxy.admin("/live", "").await.status, 200);
    // No new work starts that the end of the process would interrupt.
    assert_eq!(proxy.admin_post("/config/reload", "", "{}").await.status, 503);
    let card = format!(r#"{{"iccid": "{}"}}"#, ICCID.number);
    assert_eq!(proxy.admin_post("/cache/fetch", "", &card).await.status, 503);
    assert_eq!(carrier.count(), 1);

    gate.open();
    asked.response().await.assert_normal();
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn a_flight_that_nobody_waits_for_lands_first() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let mut proxy = Setup::with_carrier(&carrier).set("gateway.deadline", "100ms").start().await;
    proxy.look_up(&MSISDN).await.assert_refusal("73");
    proxy.signal("TERM").await;
    eventually("no new connection", || async { no_listener(&proxy).await.then_some(()) }).await;
    gate.open();
    assert_eq!(proxy.ended().await.code(), Some(0));
    proxy.start_again().await;
    let kept = proxy.look_up(&MSISDN).await;
    assert!(kept.cache().starts_with("hit"), "{kept:?}");
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn the_grace_time_ends_a_drain() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().gate(&Gate::new())]);
    let mut proxy = Setup::with_carrier(&carrier).set("gateway.drain_timeout", "200ms").start().await;
    let mut connection = waiting(&proxy).await;
    carrier.wait_for_calls(1).await;
    proxy.signal("TERM").await;
    assert_eq!(proxy.ended().await.code(), Some(0));
    connection.response().await.assert_refusal_for("73", "shutdown");
    assert!(proxy.log().contains("grace"), "{}", proxy.log());
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    for signals in [["TERM", "TERM"], ["TERM", "INT"], ["INT", "INT"]] {
        let carrier = carrier().await;
        carrier.set_rules([Rule::any().gate(&Gate::new())]);
        let mut proxy = Setup::with_carrier(&carrier).set("gateway.drain_timeout", "10m").start().await;
        let mut connection = waiting(&proxy).await;
        carrier.wait_for_calls(1).await;
        proxy.signal(signals[0]).await;
        eventually("a drain", || async { proxy.log().contains("draining").then_some(()) }).await;
        proxy.signal(signals[1]).await;
        assert_eq!(proxy.ended().await.code(), Some(1), "{signals:?}");
        assert!(connection.try_response().await.is_none());
    }
}

#[tokio::test]
async fn connections_without_a_request_end_with_the_grace_time() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).set("gateway.drain_timeout", "200ms").start().await;
    let mut held = Vec::new();
    for address in [proxy.address, proxy.admin_address()] {
        for begun in [&b"GET /v2/userstatus"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
            let mut connection = Connection::to(address).await;
            connection.send(begun).await;
            held.push(connection);
        }
    }
    // Accepted after those.
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(proxy.admin("/live", "").await.status, 200);
    proxy.signal("TERM").await;
    assert_eq!(proxy.ended().await.code(), Some(0));
    let log = proxy.log();
    assert!(log.contains("grace") && !log.contains("did not end"), "{log}");
}

#[tokio::test]
async fn a_silent_resolver_does_not_outlive_a_drain() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine::hanging(folder.path(), "none");
    let setup = Setup::calling("http://carrier.invalid").set("gateway.drain_timeout", "200ms");
    let mut proxy = Proxy::start_on_machine(folder, setup, machine).await;
    let mut connection = waiting(&proxy).await;
    eventually("the call", async || (proxy.metrics().await.value("cmiot_flights", [])? == 1.0).then_some(()))
        .await;
    proxy.signal("TERM").await;
    assert_eq!(proxy.ended().await.code(), Some(0));
    connection.response().await.assert_refusal("73");
    assert!(proxy.log().contains("drained"), "{}", proxy.log());
}

/// A connection with a lookup in flight.
async fn waiting(proxy: &Proxy) -> Connection {
    let mut connection = proxy.connect().await;
    let query = proxy.sign(&MSISDN).text();
    connection.send(format!("GET /v2/userstatusrealsingle?{query} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    connection
}

async fn no_listener(proxy: &Proxy) -> bool {
    tokio::net::TcpStream::connect(proxy.address).await.is_err()
}
