//! Rules, gates and limits on a running carrier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cmiot_simulator::{Answer, Clock, Config, Gate, Operation, Rule, Simulator, Throttle};
use tokio::io::AsyncReadExt;

use crate::client::{
    CARD, NORMAL, Query, STATUS_PATH, ask, carrier, config, connect, get, patiently, request, start, try_send,
};

#[tokio::test]
async fn rules_can_be_added_replaced_and_used_up() {
    let carrier = start(Config { rules: vec!["code=71 times=1".parse().unwrap()], ..config() }).await;
    carrier.add_rule(Rule::card(CARD).status("02"));
    assert_eq!(ask(&carrier).await.code(), "71");
    assert_eq!(ask(&carrier).await.json()["result"][0]["STATUS"], "02");
    carrier.put_rule_first(Rule::any().status("04").times(1));
    assert_eq!(ask(&carrier).await.json()["result"][0]["STATUS"], "04");
    carrier.set_rules([]);
    assert_eq!(ask(&carrier).await.text(), NORMAL);
}

#[tokio::test]
async fn every_status_and_any_code_can_be_answered() {
    let carrier = carrier().await;
    for status in ["00", "01", "02", "03", "04", "05", "06", "07", "99", "unheard of"] {
        carrier.set_rules([Rule::any().status(status)]);
        assert_eq!(ask(&carrier).await.json()["result"][0]["STATUS"], status);
    }
    for code in ["1", "8", "12", "01016", "999999999"] {
        carrier.set_rules([Rule::any().code(code)]);
        let reply = ask(&carrier).await;
        assert_eq!((reply.code().as_str(), &reply.json()["result"]), (code, &serde_json::json!([])));
    }
    carrier.set_rules([Rule::any().operation(Operation::Session).status("")]);
    let reply = get(&carrier, "/v2/gprsrealsingle", &Query::new(CARD)).await;
    assert_eq!(reply.json()["result"][0]["GPRSSTATUS"], "");
}

#[tokio::test]
async fn a_gate_holds_calls_until_they_are_let_pass() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let carrier = carrier.clone();
            tokio::spawn(async move { ask(&carrier).await.code() })
        })
        .collect();
    patiently(carrier.wait_for_calls(5)).await;
    assert_eq!((carrier.counts().in_flight, carrier.max_in_flight()), (5, 5));
    gate.release(2);
    let counts = patiently(carrier.wait_until(|counts| counts.answered > 1)).await;
    assert_eq!((counts.answered, counts.in_flight), (2, 3));
    gate.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "0");
    }
    assert_eq!(ask(&carrier).await.code(), "0", "an open gate stays open");
    assert_eq!((carrier.count(), carrier.max_in_flight()), (6, 5));
}

#[tokio::test(start_paused = true)]
async fn latency_is_waited_for() {
    // With tokio's time paused, ten minutes pass when nothing else is left to do.
    let carrier = start(Config { latency: Duration::from_secs(600), ..config() }).await;
    carrier.set_rules([Rule::card("1").latency(Duration::from_secs(60)).then(Answer::Close)]);
    let before = tokio::time::Instant::now();
    let slow = connect_and_read(&carrier, &request()).await;
    assert!(slow.ends_with(NORMAL.as_bytes()) && before.elapsed() >= Duration::from_secs(600));
    let before = tokio::time::Instant::now();
    let own = format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", Query::new("1").text());
    assert_eq!(connect_and_read(&carrier, &own).await, b"");
    assert!((60..600).contains(&before.elapsed().as_secs()), "a rule's own latency replaces it");
}

/// Without the client's timeout, which the paused clock would trigger.
async fn connect_and_read(carrier: &Simulator, request: &str) -> Vec<u8> {
    let request = request.replace("Host", "Connection: close\r\nHost");
    let mut stream = connect(carrier, &request).await.expect("a connection");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("an orderly close");
    bytes
}

#[tokio::test]
async fn the_clock_dates_answers_and_rules_can_skew_it() {
    let clock = Clock::new(|| Duration::from_secs(1_767_196_800));
    let carrier = start(Config { clock, date_offset: 60, ..config() }).await;
    assert_eq!(ask(&carrier).await.header("date"), Some("Wed, 31 Dec 2025 16:01:00 GMT"));
    carrier.set_date_offset(0);
    carrier.set_rules([Rule::any().date_offset(-3600).times(1), Rule::any().date_offset(i64::MAX).times(1)]);
    assert_eq!(ask(&carrier).await.header("date"), Some("Wed, 31 Dec 2025 15:00:00 GMT"));
    assert_eq!(ask(&carrier).await.header("date"), Some("Fri, 31 Dec 9999 23:59:59 GMT"));
    assert_eq!(ask(&carrier).await.header("date"), Some("Wed, 31 Dec 2025 16:00:00 GMT"));
}

#[tokio::test]
async fn limits_are_kept_by_the_clock_handed_in() {
    let now = Arc::new(AtomicU64::new(1_767_196_800_000));
    let clock = Clock::new({
        let now = Arc::clone(&now);
        move || Duration::from_millis(now.load(Ordering::Relaxed))
    });
    let throttle = Throttle { per_second: Some(2), per_day: Some(3), ..Throttle::default() };
    let carrier = start(Config { clock, throttle, ..config() }).await;
    let mut codes = Vec::new();
    for step in [0, 0, 0, 1000, 1000, 86_400_000] {
        now.fetch_add(step, Ordering::Relaxed);
        codes.push(ask(&carrier).await.code());
    }
    assert_eq!(codes, ["0", "0", "72", "0", "75", "0"]);
    carrier.set_throttle(Throttle { total_per_second: Some(0), ..Throttle::default() });
    assert_eq!(ask(&carrier).await.code(), "71");
    carrier.set_throttle(Throttle::default());
    assert_eq!(ask(&carrier).await.code(), "0");
}

#[tokio::test]
async fn counts_start_anew() {
    let carrier = carrier().await;
    ask(&carrier).await;
    carrier.reset_counts();
    assert_eq!((carrier.count(), carrier.count_for(CARD), carrier.calls().len()), (0, 0, 0));
    ask(&carrier).await;
    assert_eq!((carrier.count(), carrier.count_for(CARD), carrier.count_code("0")), (1, 1, 1));
}

#[tokio::test]
async fn a_request_too_long_to_be_one_is_not_a_call() {
    let carrier = carrier().await;
    let body = "x".repeat(70_000);
    let post =
        format!("POST {STATUS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // Closed with input unread, the connection may be reset.
    assert_eq!(try_send(&carrier, &post).await.unwrap_or_default(), b"");
    assert_eq!(carrier.count(), 0);
}
