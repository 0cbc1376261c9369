//! The admin listener: health, metrics, tokens, roles, requests from browsers.

use cmiot_simulator::Rule;

use crate::support::{
    Connection, ICCID, MSISDN, Proxy, Setup, carrier, eventually, run, write_config, write_secret,
};

const TOKEN: &str = "an-operators-token-of-24";

#[tokio::test]
async fn live_and_ready_say_so() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (page, says) in [("/live", "live\n"), ("/ready", "ready\n")] {
        let response = proxy.admin(page, "").await;
        assert_eq!((response.status, response.text()), (200, says));
    }
    assert_eq!(proxy.admin("/nothing", "").await.status, 404);
    assert_eq!(proxy.admin("/v2/userstatusrealsingle", "").await.status, 404);
}

#[tokio::test]
async fn ready_does_not_depend_on_the_carrier() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    carrier.kill().await;
    proxy.look_up(&MSISDN).await.assert_refusal("73");
    assert_eq!(proxy.admin("/ready", "").await.status, 200);
}

#[tokio::test]
async fn a_proxy_whose_state_cannot_be_written_is_ready_for_what_it_holds_and_says_so() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let other = rusqlite::Connection::open(proxy.data().join("state.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    eventually("the alarm", || async {
        let ready = proxy.admin("/ready", "").await;
        assert_eq!(ready.status, 200, "{}", ready.text());
        ready.text().contains("alarm: state: ").then_some(())
    })
    .await;
    assert!(proxy.look_up(&MSISDN).await.cache().starts_with("hit"));
    other.execute_batch("ROLLBACK").unwrap();
    eventually("no alarm", || async { (proxy.admin("/ready", "").await.text() == "ready\n").then_some(()) })
        .await;
}

#[tokio::test]
async fn a_crowded_admin_listener_answers_503_in_its_own_words() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut connections = Vec::new();
    for _ in 0..64 {
        connections.push(Connection::to(proxy.admin_address()).await);
    }
    for page in ["/live", "/ready", "/metrics"] {
        let shed = proxy.admin(page, "").await;
        assert_eq!(shed.status, 503);
        assert!(shed.text().contains("admin listener") && !shed.text().contains("status"), "{}", shed.text());
    }
    drop(connections);
    eventually("a free connection", || async {
        (proxy.admin("/ready", "").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.get(&proxy.sign(&MSISDN).with("token", "x")).await.assert_refusal("7");
    carrier.set_rules([Rule::any().code("71")]);
    proxy.look_up(&ICCID).await;
    let openmetrics = proxy.admin("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n").await;
    assert_eq!(
        openmetrics.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(openmetrics.text().ends_with("# EOF\n"));
    assert_eq!(
        openmetrics.metrics().value("cmiot_lookup_duration_seconds_count", [("outcome", "hit")]),
        Some(1.0)
    );
    let response = proxy.admin("/metrics", "").await;
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = response.metrics();
    for (outcome, reason, count) in [("hit", "", 1.0), ("miss", "", 2.0), ("refused", "token", 1.0)] {
        let labels = [("outcome", outcome), ("reason", reason)];
        assert_eq!(metrics.value("cmiot_lookups_total", labels), Some(count), "{labels:?}");
    }
    for code in ["0", "71"] {
        let labels = [("account", "fleet"), ("code", code)];
        assert_eq!(metrics.value("cmiot_carrier_calls_total", labels), Some(1.0), "{code}");
    }
    assert_eq!(metrics.value("cmiot_carrier_call_duration_seconds_count", []), Some(2.0));
    assert_eq!(metrics.value("cmiot_lookup_duration_seconds_count", [("outcome", "hit")]), Some(1.0));
    assert_eq!(metrics.value("cmiot_flights", []), Some(0.0));
    // A periodic task sets these gauges.
    eventually("the gauges", || async {
        let metrics = proxy.metrics().await;
        let gauges = ["cmiot_audit_queue", "cmiot_cache_entries"].map(|name| metrics.value(name, []));
        (gauges == [Some(0.0), Some(1.0)]).then_some(())
    })
    .await;
    for secret in [MSISDN.number, ICCID.number, "GW0001", "100001"] {
        assert!(!response.text().contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_token_guards_the_numbers_but_not_the_health() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("admin.token"), &format!("{TOKEN}\n"));
    let setup = Setup::with_carrier(&carrier).set("admin.token_file", "admin.token");
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
    let proxy = Proxy::with_carrier(&carrier).await;
    assert_eq!(proxy.admin("/peers?key=not-to-be-logged", "").await.status, 200);
    let log = proxy.log();
    assert!(log.lines().any(|line| line.contains("/peers") && line.contains("status=200")), "{log}");
    assert!(!log.contains("not-to-be-logged"), "{log}");
}

#[tokio::test]
async fn a_body_must_be_short_and_come() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.body_timeout", "200ms").start().await;
    for page in ["/cache/show", "/cache/purge", "/cache/fetch", "/audit/query"] {
        for (length, sent, says) in [(40, "{\"msisdn\":", "late"), (5_000, "", "4 KiB")] {
            let mut connection = Connection::to(proxy.admin_address()).await;
            let sent = if sent.is_empty() { " ".repeat(length) } else { sent.to_owned() };
            let token = proxy.generated_token().unwrap();
            let head = format!("POST {page} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
            connection.send(format!("{head}Content-Length: {length}\r\n\r\n{sent}")).await;
            let response = connection.response().await;
            assert_eq!(response.status, 400, "{page}");
            assert!(response.text().contains(says), "{page}: {}", response.text());
        }
    }
}

#[tokio::test]
async fn beyond_loopback_there_must_be_a_token() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::with_carrier(&carrier).set("admin.listen", "0.0.0.0:0");
    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    let refused = run(folder.path(), &["serve", "--config", "cmiot-proxy.toml"], &[]).await;
    refused.failed(1, ["cmiot-proxy.toml", "[admin] listen", "token_file"]);
}

#[tokio::test]
async fn a_token_is_made_at_the_first_start_and_found_by_the_commands() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    let path = proxy.data().join("admin.token");
    let token = proxy.generated_token().unwrap();
    assert!(token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o777, 0o600);
    assert!(proxy.log().contains(&path.display().to_string()), "the log has its path: {}", proxy.log());
    let none = "Authorization: none\r\n";
    // The page of the root asks a browser to log in: tests/pages.rs.
    for page in ["/peers", "/cache/stats", "/nothing"] {
        assert_eq!(proxy.admin(page, none).await.status, 401, "{page}");
    }
    for page in ["/live", "/ready", "/metrics"] {
        assert_eq!(proxy.admin(page, none).await.status, 200, "{page}");
    }
    assert_eq!(proxy.admin("/peers", "").await.status, 200);
    let lower = format!("Authorization: bearer {token}\r\n");
    assert_eq!(proxy.admin("/peers", &lower).await.status, 200);
    let url = format!("http://{}", proxy.admin_address());
    let config = proxy.config().display().to_string();
    let folder = proxy.config().parent().unwrap().to_owned();
    run(&folder, &["cache", "stats", "--config", &config, "--url", &url], &[]).await.success();
    proxy.restart().await;
    assert_eq!(proxy.generated_token().unwrap(), token, "the token stays");
}

#[tokio::test]
async fn a_page_in_a_browser_reaches_nothing() {
    let carrier = carrier().await;
    let page = "Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\nContent-Type: text/plain\r\n";
    for (setup, refused) in [
        (Setup::with_carrier(&carrier), 401),
        (Setup::with_carrier(&carrier).set("admin.token", "none"), 403),
    ] {
        let proxy = setup.start().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        let calls = carrier.count();
        for (path, body) in [
            ("/cache/purge", "{\"all\":true}"),
            ("/cache/fetch", "{\"msisdn\":\"14765009999\"}"),
            ("/audit/query", "{\"limit\":1}"),
            ("/config/reload", ""),
        ] {
            let response = proxy.admin_post(path, &format!("Authorization: none\r\n{page}"), body).await;
            assert_eq!(response.status, refused, "{path}: {}", response.text());
        }
        // DNS rebinding: the page's host name resolves to the listener's address.
        let mut connection = Connection::to(proxy.admin_address()).await;
        connection.send("GET /metrics HTTP/1.1\r\nHost: page.example:8081\r\n\r\n").await;
        assert_eq!(connection.response().await.status, 403);
        assert_eq!(carrier.count(), calls);
    }
}

#[tokio::test]
async fn without_a_token_a_tool_on_this_machine_is_served() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("admin.token", "none").start().await;
    assert!(proxy.generated_token().is_none(), "no token is generated");
    assert_eq!(proxy.admin("/peers", "").await.status, 200);
    let json = "Content-Type: application/json\r\n";
    assert_eq!(proxy.admin_post("/cache/purge", json, "{\"all\":true}").await.status, 200);
}

#[tokio::test]
async fn a_role_opens_its_pages_and_the_missing_one_is_named() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Setup::with_carrier(&carrier);
    for role in ["view", "operate", "audit"] {
        let name = format!("the-token-of-{role}");
        write_secret(&folder.path().join(&name), &name);
        let entry: toml::Table =
            format!("name = \"{role}\"\nrole = \"{role}\"\ntoken_file = \"{name}\"").parse().unwrap();
        setup = setup.push("admin.access", entry);
    }
    let proxy = Proxy::start_in(folder, setup).await;
    let all = "{\"all\":true}";
    for (role, peers, purge, query) in
        [("view", 200, 403, 403), ("operate", 200, 200, 403), ("audit", 200, 403, 200)]
    {
        let token = format!("Authorization: Bearer the-token-of-{role}\r\n");
        assert_eq!(proxy.admin("/peers", &token).await.status, peers, "{role}");
        let purged = proxy.admin_post("/cache/purge", &token, all).await;
        let queried = proxy.admin_post("/audit/query", &token, "{}").await;
        assert_eq!((purged.status, queried.status), (purge, query), "{role}");
        assert_eq!(purged.text().contains("role operate"), purge == 403, "{}", purged.text());
        assert_eq!(queried.text().contains("role audit"), query == 403, "{}", queried.text());
    }
}
