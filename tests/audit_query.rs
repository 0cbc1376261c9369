//! `POST /audit/query` of the admin listener: filters, pages, the token.

use serde_json::{Value, json};

use crate::support::{
    GATEWAY_APPID, ICCID, IMSI, MSISDN, Proxy, Response, Setup, card_number, carrier, write_secret,
};

const TOKEN: &str = "an-operators-token-of-24";

/// The records of a response, and its cursor.
fn page(response: &Response) -> (Vec<Value>, Option<i64>) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    let mut lines: Vec<Value> =
        response.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let cursor = lines.pop_if(|line| line.get("cursor").is_some());
    (lines, cursor.and_then(|line| line["cursor"].as_i64()))
}

async fn found(proxy: &Proxy, asked: &Value) -> Vec<Value> {
    page(&proxy.admin_post("/audit/query", "", &asked.to_string()).await).0
}

#[tokio::test]
async fn every_filter_picks_what_it_names() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let asked = proxy.sign(&MSISDN);
    proxy.get(&asked).await.assert_normal();
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.look_up(&ICCID).await.assert_normal();
    proxy.get(&proxy.sign(&IMSI).with("token", "x")).await.assert_refusal("7");
    let count = async |asked: Value| found(&proxy, &asked).await.len();
    assert_eq!(count(json!({})).await, 4);
    assert_eq!(count(json!({"msisdn": MSISDN.number})).await, 2);
    assert_eq!(count(json!({"iccid": ICCID.number})).await, 1);
    assert_eq!(count(json!({"imsi": IMSI.number})).await, 1);
    assert_eq!(count(json!({"client": GATEWAY_APPID})).await, 4);
    assert_eq!(count(json!({"account": "fleet"})).await, 2);
    assert_eq!(count(json!({"peer": "127.0.0.1"})).await, 4);
    assert_eq!(count(json!({"peer": "192.0.2.1"})).await, 0);
    assert_eq!(count(json!({"transid": asked.transid()})).await, 1);
    assert_eq!(count(json!({"transid": carrier.calls()[0].transid})).await, 1);
    assert_eq!(count(json!({"outcome": "hit"})).await, 1);
    assert_eq!(count(json!({"code": "7"})).await, 1);
    assert_eq!(count(json!({"status": "00"})).await, 3);
    assert_eq!(count(json!({"until": "2026-01-01T00:00:00+08:00"})).await, 0);
    assert_eq!(
        count(json!({"since": "2026-01-01T00:00:00Z", "msisdn": MSISDN.number, "outcome": "miss"})).await,
        1
    );
    let newest = &found(&proxy, &json!({"limit": 1})).await[0];
    assert_eq!((newest["code"].as_str(), newest["reason"].as_str()), (Some("7"), Some("token")));
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap_while_more_is_written() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for n in 0..7 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let asked = match cursor {
            None => json!({"limit": 3}),
            Some(cursor) => json!({"limit": 3, "before": cursor}),
        };
        let (rows, next) = page(&proxy.admin_post("/audit/query", "", &asked.to_string()).await);
        seen.extend(rows.iter().filter_map(|row| row["id"].as_i64()));
        proxy.look_up(&MSISDN).await.assert_normal();
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "newest first, each once: {seen:?}");
}

#[tokio::test]
async fn only_the_token_opens_it_and_a_card_in_a_url_is_no_question() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("admin.token"), &format!("{TOKEN}\n"));
    let proxy =
        Proxy::start_in(folder, Setup::with_carrier(&carrier).set("admin.token_file", "admin.token")).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let body = json!({"msisdn": MSISDN.number}).to_string();
    assert_eq!(page(&proxy.admin_post("/audit/query", &bearer, &body).await).0.len(), 1);
    for wrong in ["", "Authorization: Bearer x\r\n"] {
        let refused = proxy.admin_post("/audit/query", wrong, &body).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
        assert!(!refused.text().contains(MSISDN.number));
    }
    let got = proxy.admin(&format!("/audit/query?msisdn={}", MSISDN.number), &bearer).await;
    assert_eq!(got.status, 405);
    // A query string is an error, since its filter would not be applied.
    let target = format!("/audit/query?msisdn={}", ICCID.number);
    assert_eq!(proxy.admin_post(&target, &bearer, "{}").await.status, 400);
    for (wrong, said) in [
        (r#"{"limit": 1001}"#, "1 to 1000"),
        (r#"{"limit": -1}"#, "whole number"),
        (r#"{"before": 0}"#, "before"),
        (r#"{"before": -1}"#, "before"),
        (r#"{"since": "1969-01-01T00:00:00Z"}"#, "before 1970"),
        (r#"{"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}"#, "not before until"),
        (r#"{"outcome": "hits"}"#, "collapsed"),
        (r#"{"status": "normal"}"#, "00 normal"),
    ] {
        let response = proxy.admin_post("/audit/query", &bearer, wrong).await;
        assert_eq!(response.status, 400, "{wrong}");
        assert!(response.text().contains(said), "{wrong}: {}", response.text());
    }
    for wrong in [r#"{"card": "1"}"#, r#"{"msisdn": "x"}"#, r#"{"limit": 0}"#, "[", &"x".repeat(5_000)] {
        let response = proxy.admin_post("/audit/query", &bearer, wrong).await;
        assert_eq!(response.status, 400, "{wrong:.20}: {}", response.text());
    }
    // The gateways' listener does not serve the page.
    assert_eq!(proxy.post("/audit/query", &bearer, &body).await.code(), "10006");
    assert!(!proxy.log().contains(MSISDN.number));
}

#[tokio::test]
async fn the_page_is_in_the_openapi_document() {
    let document = include_str!("../docs/openapi.yaml");
    let page = document.split("  /audit/query:").nth(1).expect("the page");
    for field in [
        "msisdn", "iccid", "imsi", "client", "account", "peer", "transid", "outcome", "code", "status",
        "since", "until", "before", "limit", "cursor",
    ] {
        assert!(page.contains(&format!("{field}:")), "{field}");
    }
}
