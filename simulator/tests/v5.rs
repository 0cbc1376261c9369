//! API v5: fetches of tokens, queries, and what a carrier may do to a token.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cmiot_simulator::v5::{self, Account, Refresh, Ttl};
use cmiot_simulator::{Answer, Config, Gate, Operation, Rule, Simulator, Throttle};

use crate::client::{Reply, carrier, connect, patiently, send, start, try_send};

const APPID: &str = "200001";
const PASSWORD: &str = "example-password";
const CARD: &str = "14400000001";
const STATUS: &str =
    r#"{"status":"0","message":"正确","result":[{"cardStatus":"00","lastChangeDate":"20260516103000"}]}"#;

fn account() -> Account {
    Account::new(APPID, PASSWORD)
}

async fn with(account: Account) -> Simulator {
    start(Config { v5_accounts: vec![account], ..Config::new([]) }).await
}

fn transid_of(appid: &str) -> String {
    static SEQUENCE: AtomicU32 = AtomicU32::new(1);
    format!("{appid}20260101000000{:08}", SEQUENCE.fetch_add(1, Ordering::Relaxed))
}

type Fields<'a> = &'a [(&'a str, &'a str)];

fn post_text(path: &str, fields: Fields<'_>) -> String {
    let body: serde_json::Map<_, _> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let body = serde_json::Value::Object(body).to_string();
    format!(
        "POST /v5/ec/{path} HTTP/1.1\r\nHost: carrier\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn post(carrier: &Simulator, path: &str, fields: Fields<'_>) -> Reply {
    send(carrier, &post_text(path, fields)).await
}

async fn get(carrier: &Simulator, path: &str, query: &str) -> Reply {
    send(
        carrier,
        &format!("GET /v5/ec/{path}?{query} HTTP/1.1\r\nHost: carrier\r\nConnection: close\r\n\r\n"),
    )
    .await
}

fn fetch_text(refresh: &str) -> String {
    let transid = transid_of(APPID);
    post_text(
        "get/token",
        &[("appid", APPID), ("password", PASSWORD), ("transid", &transid), ("refresh", refresh)],
    )
}

async fn fetch(carrier: &Simulator, refresh: &str) -> Reply {
    send(carrier, &fetch_text(refresh)).await
}

fn token_of(reply: &Reply) -> String {
    reply.json()["result"][0]["token"].as_str().expect("a token").to_owned()
}

async fn token(carrier: &Simulator) -> String {
    token_of(&fetch(carrier, "0").await)
}

async fn query(carrier: &Simulator, token: &str) -> Reply {
    let transid = transid_of(APPID);
    post(carrier, "query/sim-status", &[("transid", &transid), ("token", token), ("msisdn", CARD)]).await
}

#[tokio::test]
async fn a_fetched_token_authorizes_queries_by_post_and_get() {
    let carrier = with(account()).await;
    let reply = fetch(&carrier, "0").await;
    assert_eq!(reply.header("content-type"), Some("application/json;charset=UTF-8"));
    assert_eq!(reply.json()["result"][0]["ttl"], "3600");
    let token = token_of(&reply);
    assert_eq!(query(&carrier, &token).await.text(), STATUS);
    let by_get = format!("transid={}&token={token}&iccid=898602c99816c0445401", transid_of(APPID));
    assert_eq!(get(&carrier, "query/sim-status", &by_get).await.text(), STATUS);

    let counts = carrier.v5().counts();
    assert_eq!((counts.fetches, counts.fetches_refused, counts.tokens), (1, 0, 1));
    assert_eq!((counts.queries, counts.queries_refused, counts.secrets_in_urls), (2, 0, 1));
    assert_eq!(carrier.v5().tokens(APPID)[0].queries, 2);
    assert_eq!(carrier.count_operation(v5::Operation::Token.into()), 1);
    assert_eq!(carrier.count_for("898602C99816C0445401"), 1);
    let calls = carrier.calls();
    assert!(calls.iter().all(|call| call.appid == APPID), "{calls:?}");
    assert!(!format!("{calls:?}{carrier:?}{:?}", carrier.v5().tokens(APPID)).contains(&token));
}

#[tokio::test]
async fn a_token_is_fetched_by_get_with_an_encoded_password() {
    let carrier = with(Account::new(APPID, "a+b&c").token_prefix("+/=\"")).await;
    let query = format!("appid={APPID}&password=a%2Bb%26c&transid={}", transid_of(APPID));
    let token = token_of(&get(&carrier, "get/token", &query).await);
    assert!(token.starts_with("+/=\""), "{token}");
    assert_eq!(self::query(&carrier, &token).await.code(), "0");
    assert_eq!(carrier.v5().counts().secrets_in_urls, 1);
}

#[tokio::test]
async fn every_operation_answers_and_the_action_is_counted_apart() {
    let carrier = with(account()).await;
    let token = token(&carrier).await;
    for operation in v5::Operation::ALL.into_iter().filter(|one| *one != v5::Operation::Token) {
        let transid = transid_of(APPID);
        let fields = [("transid", transid.as_str()), ("token", &token), ("imsi", "460079650004176")];
        let reply = post(&carrier, operation.path(), &fields).await;
        assert_eq!(reply.code(), "0", "{operation:?}");
        let results = reply.json()["result"].as_array().map_or(0, Vec::len);
        assert_eq!(results, usize::from(!operation.is_action()), "{operation:?}");
        assert_eq!(carrier.count_operation(operation.into()), 1, "{operation:?}");
    }
    assert_eq!((carrier.count(), carrier.counts().actions), (10, 1));
}

#[tokio::test]
async fn each_fault_of_a_fetch_has_its_code() {
    let carrier = with(account()).await;
    let good = transid_of(APPID);
    for (fields, code) in [
        ([("appid", ""), ("password", PASSWORD), ("transid", &good), ("refresh", "0")], "11000"),
        ([("appid", APPID), ("password", ""), ("transid", &good), ("refresh", "0")], "11000"),
        ([("appid", APPID), ("password", PASSWORD), ("transid", ""), ("refresh", "0")], "11000"),
        ([("appid", APPID), ("password", PASSWORD), ("transid", &good), ("refresh", "2")], "11000"),
        ([("appid", APPID), ("password", PASSWORD), ("transid", "1"), ("refresh", "0")], "11000"),
        (
            [("appid", APPID), ("password", PASSWORD), ("transid", &transid_of("1")), ("refresh", "0")],
            "11000",
        ),
        ([("appid", "200002"), ("password", PASSWORD), ("transid", &good), ("refresh", "0")], "12004"),
        ([("appid", APPID), ("password", "wrong"), ("transid", &good), ("refresh", "0")], "12022"),
    ] {
        let reply = post(&carrier, "get/token", &fields).await;
        assert_eq!(reply.code(), code, "{fields:?}");
        assert_eq!(reply.json()["result"], serde_json::json!([]), "{fields:?}");
    }
    let counts = carrier.v5().counts();
    assert_eq!((counts.fetches, counts.fetches_refused, counts.tokens), (8, 8, 0));
    assert_eq!(counts.malformed_transids, 1);
}

#[tokio::test]
async fn each_fault_of_a_query_has_its_code() {
    let carrier = with(account()).await;
    carrier.v5().set_account(Account::new("200002", "other"));
    let token = token(&carrier).await;
    let good = transid_of(APPID);
    let with_card =
        |transid, token, card| [("transid", transid), ("token", token), ("msisdn", card), ("imsi", "")];
    let two = [("transid", good.as_str()), ("token", &token), ("msisdn", CARD), ("imsi", "460079650004176")];
    for (fields, code) in [
        (with_card("", &token, CARD), "11000"),
        (with_card(&good, "", CARD), "11000"),
        (with_card(&good, &token, ""), "11000"),
        (with_card(&good, &token, "1440000000x"), "11000"),
        (two, "11000"),
        (with_card("20260101", &token, CARD), "11000"),
        (with_card(&good, "garbage", CARD), "12021"),
        (with_card(&transid_of("200002"), &token, CARD), "12021"),
    ] {
        assert_eq!(post(&carrier, "query/sim-status", &fields).await.code(), code, "{fields:?}");
    }
    let counts = carrier.v5().counts();
    assert_eq!((counts.malformed_cards, counts.malformed_transids, counts.foreign_tokens), (3, 1, 1));
    assert_eq!(counts.queries_refused, 2);
    for path in ["get/sim-status", "query/sim-status/batch", "query/nothing"] {
        assert_eq!(post(&carrier, path, &[]).await.code(), "10006", "{path}");
    }
}

#[tokio::test]
async fn a_post_is_read_from_its_json_body_only() {
    let carrier = with(account()).await;
    let form = format!("appid={APPID}&password={PASSWORD}&transid={}", transid_of(APPID));
    for (target, kind, body) in [
        (format!("get/token?{form}"), "application/json", "{}"),
        ("get/token".to_owned(), "application/x-www-form-urlencoded", form.as_str()),
        ("get/token".to_owned(), "application/json", "[]"),
    ] {
        let length = body.len();
        let request = format!(
            "POST /v5/ec/{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        assert_eq!(send(&carrier, &request).await.code(), "11000", "{target} {kind}");
    }
    assert_eq!(carrier.v5().counts().secrets_in_urls, 1);
}

#[tokio::test]
async fn a_token_dies_at_once_after_calls_or_on_command() {
    for (account, passes) in [(account().dies_after_calls(0), 0), (account().dies_after_calls(2), 2)] {
        let carrier = with(account).await;
        let token = token(&carrier).await;
        for call in 0..passes + 2 {
            let expected = if call < passes { "0" } else { "12021" };
            assert_eq!(query(&carrier, &token).await.code(), expected, "call {call} of {passes}");
        }
        assert_eq!((carrier.v5().counts().queries_refused, carrier.v5().tokens(APPID)[0].refused), (2, 2));
    }
    let carrier = with(account()).await;
    let dead = token(&carrier).await;
    assert!(carrier.v5().end_tokens(APPID) && !carrier.v5().end_tokens("nobody"));
    assert_eq!(query(&carrier, &dead).await.code(), "12021");
    let fresh = token(&carrier).await;
    assert_ne!(fresh, dead);
    assert_eq!(query(&carrier, &fresh).await.code(), "0");
}

#[tokio::test]
async fn another_program_that_fetches_revokes_the_token_or_not() {
    for (account, code) in [(account(), "12021"), (account().keeps_old_tokens(), "0")] {
        let carrier = with(account).await;
        let token = token(&carrier).await;
        assert!(carrier.v5().fetch_elsewhere(APPID) && !carrier.v5().fetch_elsewhere("nobody"));
        assert_eq!(query(&carrier, &token).await.code(), code);
        let counts = carrier.v5().counts();
        assert_eq!((counts.fetches, counts.fetches_elsewhere, counts.tokens), (1, 1, 2));
        assert!(carrier.v5().tokens(APPID)[1].is_from_elsewhere);
    }
}

#[tokio::test]
async fn refresh_is_honoured_or_ignored() {
    for (refresh, sent, same) in [
        (Refresh::Honoured, "0", true),
        (Refresh::Honoured, "1", false),
        (Refresh::AlwaysNew, "0", false),
        (Refresh::AlwaysPresent, "1", true),
    ] {
        let carrier = with(account().refresh(refresh)).await;
        let first = token(&carrier).await;
        let second = token_of(&fetch(&carrier, sent).await);
        assert_eq!(first == second, same, "{refresh:?} {sent}");
        assert_eq!(query(&carrier, &second).await.code(), "0", "{refresh:?} {sent}");
    }
}

#[tokio::test]
async fn a_dead_token_can_come_again_until_it_is_refreshed() {
    let carrier = with(account().returns_dead_tokens()).await;
    let dead = token(&carrier).await;
    carrier.v5().end_tokens(APPID);
    assert_eq!(token(&carrier).await, dead);
    assert_eq!(query(&carrier, &dead).await.code(), "12021");
    let fresh = token_of(&fetch(&carrier, "1").await);
    assert_eq!(query(&carrier, &fresh).await.code(), "0");
}

#[tokio::test]
async fn the_ttl_has_every_shape() {
    for (form, expected) in [
        (Ttl::Text, Some(serde_json::json!("90"))),
        (Ttl::Number, Some(serde_json::json!(90))),
        (Ttl::Absent, None),
        (Ttl::Json("\"0\"".to_owned()), Some(serde_json::json!("0"))),
        (Ttl::Json("\"soon\"".to_owned()), Some(serde_json::json!("soon"))),
        (Ttl::Json("null".to_owned()), Some(serde_json::Value::Null)),
    ] {
        let carrier = with(account().ttl(Duration::from_secs(90)).ttl_form(form.clone())).await;
        let reply = fetch(&carrier, "0").await;
        assert_eq!(reply.json()["result"][0].get("ttl"), expected.as_ref(), "{form:?}");
    }
}

#[tokio::test]
async fn a_token_has_up_to_512_bytes() {
    let carrier = with(account().token_length(9999)).await;
    let token = token(&carrier).await;
    assert_eq!(token.len(), 512);
    assert_eq!(query(&carrier, &token).await.code(), "0");
}

#[tokio::test]
async fn both_alphabets_and_unknown_codes_are_scripted() {
    let carrier = with(account()).await;
    let token = token(&carrier).await;
    for status in ["02", "2", "6", "99", "x"] {
        carrier.set_rules([Rule::any().status(status)]);
        assert_eq!(query(&carrier, &token).await.json()["result"][0]["cardStatus"], status);
    }
    for code in ["12021", "13000", "99999"] {
        carrier.set_rules([Rule::card(CARD).operation(v5::Operation::SimStatus.into()).code(code).times(1)]);
        assert_eq!(query(&carrier, &token).await.code(), code);
        assert_eq!(query(&carrier, &token).await.code(), "0", "only once");
    }
    assert_eq!(carrier.v5().counts().queries_refused, 1);
}

#[tokio::test]
async fn the_token_endpoint_fails_as_scripted_and_issues_nothing() {
    let carrier = with(account().refuses_with_token()).await;
    carrier.set_rules([Rule::token().code("12022").times(1), Rule::token().status("-1").times(1)]);
    let refused = fetch(&carrier, "0").await;
    assert_eq!((refused.code(), token_of(&refused)), ("12022".to_owned(), "-1".to_owned()));
    let odd = fetch(&carrier, "0").await;
    assert_eq!((odd.code(), token_of(&odd)), ("0".to_owned(), "-1".to_owned()));
    for answer in [Answer::Close, Answer::Garbage] {
        carrier.set_rules([Rule::token().then(answer.clone())]);
        let bytes = try_send(&carrier, &fetch_text("0")).await.unwrap();
        assert!(!bytes.starts_with(b"HTTP"), "{answer:?}");
    }
    carrier.set_rules([Rule::token().then(Answer::html(502))]);
    assert!(fetch(&carrier, "0").await.head.starts_with("HTTP/1.1 502"));
    carrier.set_rules([Rule::any().code("71")]);
    assert_eq!(fetch(&carrier, "0").await.code(), "0", "a rule for lookups is none for fetches");
    assert_eq!(carrier.v5().counts().tokens, 1);
    assert_eq!(carrier.v5().counts().fetches_refused, 4);
}

#[tokio::test]
async fn a_fetch_waits_at_a_gate_or_hangs() {
    let carrier = with(account()).await;
    let gate = Gate::new();
    carrier.set_rules([Rule::token().gate(&gate).times(1), Rule::token().then(Answer::Hang)]);
    let held = tokio::spawn({
        let carrier = carrier.clone();
        async move { fetch(&carrier, "0").await }
    });
    patiently(carrier.wait_for_calls(1)).await;
    assert_eq!(carrier.counts().answered, 0);
    gate.open();
    assert_eq!(held.await.unwrap().code(), "0");
    let hanging = connect(&carrier, &fetch_text("0")).await.unwrap();
    patiently(carrier.wait_for_calls(2)).await;
    drop(hanging);
    patiently(carrier.wait_until(|counts| counts.abandoned == 1)).await;
}

#[tokio::test]
async fn limits_are_13000_and_count_fetches() {
    let carrier = with(account()).await;
    carrier.set_throttle(Throttle::per_day(1));
    let token = token(&carrier).await;
    assert_eq!(query(&carrier, &token).await.code(), "13000");
    assert_eq!(fetch(&carrier, "0").await.code(), "13000");
}

#[tokio::test]
async fn a_password_can_be_changed_under_way() {
    let carrier = with(account()).await;
    let token = token(&carrier).await;
    assert!(carrier.v5().set_password(APPID, "new") && !carrier.v5().set_password("nobody", "new"));
    assert_eq!(fetch(&carrier, "0").await.code(), "12022");
    assert_eq!(query(&carrier, &token).await.code(), "0", "its tokens stay");
}

#[tokio::test]
async fn repeated_transids_are_listed_and_the_two_apis_keep_apart() {
    let carrier = with(account()).await;
    let token = token(&carrier).await;
    let transid = transid_of(APPID);
    for _ in 0..2 {
        let fields = [("transid", transid.as_str()), ("token", &token), ("msisdn", CARD)];
        assert_eq!(post(&carrier, "query/sim-status", &fields).await.code(), "0");
    }
    assert_eq!(carrier.duplicates()[0].transid, transid);
    let other = self::carrier().await;
    assert_eq!(fetch(&other, "0").await.code(), "12004");
    assert_eq!(Operation::find("25S04"), Some(Operation::V5(v5::Operation::SimStatus)));
}
