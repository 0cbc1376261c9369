//! Stop, kill and restart, from the caller's side.

use std::io;
use std::time::Duration;

use cmiot_simulator::{Answer, Gate, Outcome, Rule};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{NORMAL, ask, carrier, connect, patiently, request, try_send};

#[tokio::test]
async fn a_kill_drops_calls_and_refuses_connections() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let mut stream = connect(&carrier, &request()).await.unwrap();
    patiently(carrier.wait_for_calls(1)).await;
    patiently(carrier.kill()).await;
    assert_eq!(carrier.counts().abandoned, 1);
    let mut rest = Vec::new();
    assert_eq!(patiently(stream.read_to_end(&mut rest)).await.unwrap_or(0), 0);
    let refused = TcpStream::connect(carrier.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn after_a_restart_it_answers_at_the_same_port_and_counts_on() {
    let carrier = carrier().await;
    let addr = carrier.addr();
    assert_eq!(ask(&carrier).await.text(), NORMAL);
    for calls in 2..=3 {
        patiently(carrier.kill()).await;
        carrier.restart().await.unwrap();
        assert_eq!(ask(&carrier).await.text(), NORMAL);
        assert_eq!((carrier.addr(), carrier.count()), (addr, calls));
    }
    carrier.restart().await.unwrap();
    assert_eq!(ask(&carrier).await.text(), NORMAL, "restarted while it ran");
}

#[tokio::test]
async fn a_stop_lets_slow_answers_finish() {
    let carrier = carrier().await;
    carrier.set_latency(Duration::from_millis(50));
    let caller = tokio::spawn({
        let carrier = carrier.clone();
        async move { try_send(&carrier, &request()).await }
    });
    patiently(carrier.wait_for_calls(1)).await;
    patiently(carrier.stop()).await;
    let bytes = caller.await.unwrap().unwrap();
    assert!(bytes.ends_with(NORMAL.as_bytes()), "the keep-alive connection is closed after its answer");
    assert_eq!(carrier.counts().answered, 1);
    assert!(TcpStream::connect(carrier.addr()).await.is_err());
}

#[tokio::test]
async fn a_stop_breaks_off_what_would_never_end() {
    for rule in
        [Rule::any().then(Answer::Hang), Rule::any().gate(&Gate::new()), Rule::any().then(Answer::Stall(1))]
    {
        let carrier = carrier().await;
        carrier.set_rules([rule]);
        let _stream = connect(&carrier, &request()).await.unwrap();
        patiently(carrier.wait_for_calls(1)).await;
        patiently(carrier.stop()).await;
        assert_eq!(carrier.calls()[0].outcome, Outcome::Broken);
    }
}

#[tokio::test]
async fn a_stop_closes_idle_connections() {
    let carrier = carrier().await;
    let mut unused = connect(&carrier, "").await.unwrap();
    let mut used = connect(&carrier, &request()).await.unwrap();
    patiently(carrier.wait_until(|counts| counts.answered == 1 && counts.connections == 2)).await;
    patiently(carrier.stop()).await;
    let mut bytes = Vec::new();
    assert_eq!(patiently(unused.read_to_end(&mut bytes)).await.unwrap(), 0);
    patiently(used.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.ends_with(NORMAL.as_bytes()));
}

#[tokio::test]
async fn dropping_the_last_handle_ends_it() {
    let carrier = carrier().await;
    let (addr, other) = (carrier.addr(), carrier.clone());
    let mut stream = TcpStream::connect(addr).await.unwrap();
    drop(carrier);
    assert_eq!(ask(&other).await.text(), NORMAL, "one handle is left");
    drop(other);
    assert_eq!(patiently(stream.read_buf(&mut Vec::new())).await.unwrap_or(0), 0);
}
