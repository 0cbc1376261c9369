//! Live, ready, and the numbers: for those who hold the token, where there is one.

use cmiot_simulator::Rule;

use crate::support::{ICCID, Line, MSISDN, Proxy, Setup, carrier, run, until, write_secret};

const TOKEN: &str = "an-operators-token-of-24";

#[tokio::test]
async fn live_and_ready_say_so() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    for (page, says) in [("/live", "live\n"), ("/ready", "ready\n")] {
        let answer = proxy.admin(page, "").await;
        assert_eq!((answer.status, answer.text()), (200, says));
    }
    assert_eq!(proxy.admin("/", "").await.status, 404);
    assert_eq!(proxy.admin("/v2/userstatusrealsingle", "").await.status, 404);
}

#[tokio::test]
async fn ready_does_not_depend_on_the_carrier() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    carrier.kill().await;
    proxy.ask(&MSISDN).await.is_refusal("73");
    assert_eq!(proxy.admin("/ready", "").await.status, 200);
}

#[tokio::test]
async fn a_proxy_whose_state_cannot_be_written_is_live_but_not_ready() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    let other = rusqlite::Connection::open(proxy.data().join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let not_ready = proxy.admin("/ready", "").await;
    assert_eq!(not_ready.status, 503);
    assert!(not_ready.text().contains("state.db"), "{}", not_ready.text());
    assert_eq!(proxy.admin("/live", "").await.status, 200);
    other.execute_batch("ROLLBACK").unwrap();
    until("to be ready again", || async { (proxy.admin("/ready", "").await.status == 200).then_some(()) })
        .await;
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    proxy.ask(&MSISDN).await.is_normal();
    proxy.ask(&MSISDN).await.is_normal();
    proxy.get(&proxy.sign(&MSISDN).with("token", "x")).await.is_refusal("7");
    carrier.set_rules([Rule::any().code("71")]);
    proxy.ask(&ICCID).await;
    let metrics = proxy.admin("/metrics", "").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(
        metrics.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    for line in [
        "cmiot_look_ups_total{outcome=\"hit\",reason=\"\"} 1",
        "cmiot_look_ups_total{outcome=\"miss\",reason=\"\"} 2",
        "cmiot_look_ups_total{outcome=\"refused\",reason=\"token\"} 1",
        "cmiot_carrier_calls_total{account=\"fleet\",code=\"0\"} 1",
        "cmiot_carrier_calls_total{account=\"fleet\",code=\"71\"} 1",
        "cmiot_carrier_call_seconds_count 2",
        "cmiot_look_up_seconds_count{outcome=\"hit\"} 1",
        "cmiot_flights 0",
        "cmiot_audit_queue 0",
        "cmiot_cache_entries 1",
        "# EOF",
    ] {
        until(line, || async {
            // Entries are counted by a ticker.
            proxy.admin("/metrics", "").await.text().lines().any(|it| it == line).then_some(())
        })
        .await;
    }
    for secret in [MSISDN.number, ICCID.number, "GW0001", "100001"] {
        assert!(!metrics.text().contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_token_guards_the_numbers_but_not_the_health() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("admin.token"), &format!("{TOKEN}\n"));
    let setup = Setup::before(&carrier).set("admin.token_file", "admin.token");
    let proxy = Proxy::start_in(folder, setup).await;
    assert_eq!(proxy.admin("/metrics", &format!("Authorization: Bearer {TOKEN}\r\n")).await.status, 200);
    for wrong in [
        String::new(),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Cookie: {TOKEN}\r\n"),
    ] {
        let refused = proxy.admin("/metrics", &wrong).await;
        assert_eq!(refused.status, 401, "{wrong}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        assert!(!refused.text().contains("cmiot_"));
    }
    for page in ["/live", "/ready"] {
        assert_eq!(proxy.admin(page, "").await.status, 200);
    }
    assert!(!proxy.log().contains(TOKEN));
}

#[tokio::test]
async fn the_log_has_the_path_of_a_page_and_never_its_query() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    assert_eq!(proxy.admin("/peers?key=not-to-be-logged", "").await.status, 200);
    let log = proxy.log();
    assert!(log.lines().any(|line| line.contains("/peers") && line.contains("status=200")), "{log}");
    assert!(!log.contains("not-to-be-logged"), "{log}");
}

#[tokio::test]
async fn a_body_must_be_short_and_come() {
    let carrier = carrier().await;
    let proxy = Setup::before(&carrier).set("gateway.body", "200ms").start().await;
    for page in ["/cache/show", "/cache/purge", "/cache/fetch", "/audit/query"] {
        for (length, sent, says) in [(40, "{\"msisdn\":", "late"), (5_000, "", "4 KiB")] {
            let mut line = Line::to(proxy.admin_address()).await;
            let sent = if sent.is_empty() { " ".repeat(length) } else { sent.to_owned() };
            line.send(format!("POST {page} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{sent}"))
                .await;
            let answer = line.answer().await;
            assert_eq!(answer.status, 400, "{page}");
            assert!(answer.text().contains(says), "{page}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn beyond_loopback_there_must_be_a_token() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::before(&carrier).set("admin.listen", "0.0.0.0:0");
    std::fs::write(folder.path().join("cmiot-proxy.toml"), setup.text()).unwrap();
    let refused = run(folder.path(), &["serve", "--config", "cmiot-proxy.toml"], &[]).await;
    refused.failed(1, ["cmiot-proxy.toml", "[admin] listen", "token_file"]);
}
