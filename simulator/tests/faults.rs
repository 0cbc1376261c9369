//! Faults: the bytes of each on the wire.

use std::io;

use cmiot_simulator::{Answer, Outcome, Rule, Simulator};
use tokio::io::AsyncReadExt;

use crate::client::{NORMAL, Query, STATUS_PATH, ask, carrier, connect, get, patiently, request, try_send};

async fn scripted(rule: Rule) -> Simulator {
    let carrier = carrier().await;
    carrier.set_rules([rule]);
    carrier
}

fn outcomes(carrier: &Simulator) -> Vec<Outcome> {
    carrier.calls().into_iter().map(|call| call.outcome).collect()
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let carrier = scripted(Rule::any().then(Answer::Reset)).await;
    let error = try_send(&carrier, &request()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!((outcomes(&carrier), carrier.counts().broken), (vec![Outcome::Broken], 1));
}

#[tokio::test]
async fn a_close_comes_before_any_byte() {
    let carrier = scripted(Rule::any().then(Answer::Close)).await;
    assert_eq!(try_send(&carrier, &request()).await.unwrap(), b"");
    assert_eq!(outcomes(&carrier), [Outcome::Broken]);
}

#[tokio::test]
async fn a_truncated_body_promises_more_than_it_sends() {
    let carrier = scripted(Rule::any().then(Answer::Truncate(10))).await;
    let reply = ask(&carrier).await;
    assert_eq!(reply.header("content-length"), Some(NORMAL.len().to_string().as_str()));
    assert_eq!(reply.body, &NORMAL.as_bytes()[..10]);
    assert_eq!(outcomes(&carrier), [Outcome::Broken]);
}

#[tokio::test]
async fn a_stalled_body_stays_open_until_the_caller_leaves() {
    let carrier = scripted(Rule::any().then(Answer::Stall(10))).await;
    let mut stream = connect(&carrier, &request()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(&NORMAL.as_bytes()[..10]) {
        assert_ne!(patiently(stream.read_buf(&mut seen)).await.unwrap(), 0);
    }
    assert_eq!(outcomes(&carrier), [Outcome::InFlight]);
    drop(stream);
    patiently(carrier.wait_until_idle()).await;
    assert_eq!(outcomes(&carrier), [Outcome::Abandoned]);
}

#[tokio::test]
async fn a_hang_ends_when_the_caller_leaves() {
    let carrier = scripted(Rule::any().then(Answer::Hang)).await;
    let stream = connect(&carrier, &request()).await.unwrap();
    patiently(carrier.wait_for_calls(1)).await;
    assert_eq!((outcomes(&carrier), carrier.counts().in_flight), (vec![Outcome::InFlight], 1));
    drop(stream);
    patiently(carrier.wait_until_idle()).await;
    assert_eq!((outcomes(&carrier), carrier.counts().abandoned), (vec![Outcome::Abandoned], 1));
}

#[tokio::test]
async fn garbage_is_not_http() {
    let carrier = scripted(Rule::any().then(Answer::Garbage)).await;
    let bytes = try_send(&carrier, &request()).await.unwrap();
    assert!(!bytes.is_empty() && !bytes.starts_with(b"HTTP"), "{bytes:?}");
}

#[tokio::test]
async fn a_front_ends_error_page_is_html() {
    let carrier = scripted(Rule::any().then(Answer::html(502))).await;
    let reply = ask(&carrier).await;
    assert!(reply.head.starts_with("HTTP/1.1 502"), "{}", reply.head);
    assert_eq!(reply.header("content-type"), Some("text/html"));
    assert!(reply.text().starts_with("<html>"));
    assert_eq!(carrier.calls()[0].code, None);
}

#[tokio::test]
async fn any_body_is_sent_byte_for_byte() {
    let body = b"{ \"result\":[], \"status\":\"0\" , \xff".to_vec();
    let carrier = scripted(Rule::any().body(body.clone())).await;
    let reply = ask(&carrier).await;
    assert!(reply.head.starts_with("HTTP/1.1 200 OK"), "{}", reply.head);
    assert_eq!(reply.body, body);
}

#[tokio::test]
async fn a_body_with_an_impossible_head_still_comes() {
    let answer = Answer::Body { http_status: 42, content_type: "a\nb".to_owned(), bytes: "x".into() };
    let carrier = scripted(Rule::any().then(answer)).await;
    let reply = ask(&carrier).await;
    assert!(reply.head.starts_with("HTTP/1.1 500"), "{}", reply.head);
    assert_eq!((reply.header("content-type"), reply.text()), (None, "x"));
}

#[tokio::test]
async fn an_oversized_body_does_not_declare_its_length() {
    let carrier = scripted(Rule::any().then(Answer::Oversized(300_000))).await;
    let reply = ask(&carrier).await;
    assert_eq!(reply.header("content-length"), None);
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert!(reply.body.len() > 300_000, "{}", reply.body.len());
    assert_eq!(outcomes(&carrier), [Outcome::Answered]);
}

#[tokio::test]
async fn text_can_be_escaped_and_status_a_number() {
    let carrier = scripted(Rule::any().escaped().numeric()).await;
    let reply = ask(&carrier).await;
    assert_eq!(reply.text(), r#"{"status":0,"message":"\u6b63\u786e","result":[{"STATUS":"00"}]}"#);
}

#[tokio::test]
async fn a_wrong_token_stays_wrong_whatever_is_scripted() {
    let carrier = scripted(Rule::any().status("02").times(1)).await;
    let wrong = Query::new("1").with("token", "wrong");
    assert_eq!(get(&carrier, STATUS_PATH, &wrong).await.code(), "7");
    assert_eq!(ask(&carrier).await.json()["result"][0]["STATUS"], "02", "and uses no rule up");
}
