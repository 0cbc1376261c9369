//! The log: lines per request, JSON, a blocked or full output, and no secrets even at the level `trace`.
//!
//! `support/proxy.rs` checks the output of every proxy of these tests for secrets; a test here checks that check.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use cmiot_simulator::Rule;
use rustix::fs::OFlags;
use serde_json::Value;

use crate::support::{
    ACCOUNT_PASSWORD, Card, GATEWAY_PASSWORD, ICCID, IMSI, MSISDN, Machine, Proxy, Setup, card_number,
    carrier, eventually, secrets,
};

/// Sends lookups with all kinds of outcomes; returns their number.
async fn all_outcomes(carrier: &cmiot_simulator::Simulator, proxy: &Proxy) -> usize {
    let mut asked = 0;
    for card in [MSISDN, ICCID, IMSI] {
        proxy.look_up(&card).await.assert_normal();
        proxy.look_up(&card).await.assert_normal();
        asked += 2;
    }
    let used = proxy.sign(&MSISDN);
    proxy.get(&used).await.assert_normal();
    for refused in [
        used,
        proxy.sign(&MSISDN).with("token", &"ab".repeat(32)),
        proxy.sign(&MSISDN).with("ebid", "1"),
        proxy.sign(&MSISDN).and("iccid", ICCID.number),
        proxy.sign(&MSISDN).with("appid", "%zz"),
        proxy.sign(&Card::new("msisdn", "1476500417699999")),
    ] {
        assert_ne!(proxy.get(&refused).await.code(), "0");
        asked += 1;
    }
    for (rule, n) in
        ["code=7", "code=71", "http=502", "reset", "close", "garbage", "body=hello"].into_iter().zip(0..)
    {
        carrier.set_rules([Rule::parse(rule).unwrap()]);
        assert_ne!(proxy.look_up(&card_number(n)).await.code(), "0");
        asked += 1;
    }
    proxy.post("/v2/userstatusrealsingle", "", &proxy.sign(&MSISDN).text()).await.assert_normal();
    asked + 2
}

#[tokio::test]
async fn each_request_is_one_line_at_info_with_its_card_masked() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let asked = all_outcomes(&carrier, &proxy).await;
    let log = proxy.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" lookup outcome=")).collect();
    assert_eq!(lines.len(), asked, "{log}");
    assert!(lines.iter().all(|line| line.contains("INFO") && line.contains("outcome=")), "{log}");
    assert!(lines.iter().any(|line| line.contains("1476****176")), "the masked card: {log}");
}

#[tokio::test]
async fn json_logs_are_one_object_a_line() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("log.format", "json").start().await;
    let asked = all_outcomes(&carrier, &proxy).await;
    let log = proxy.log();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let look_ups: Vec<&Value> = events.iter().filter(|event| event["message"] == "lookup").collect();
    assert_eq!(look_ups.len(), asked);
    for event in look_ups {
        assert_eq!(event["level"], "INFO");
        for key in ["timestamp", "outcome", "peer", "latency_us"] {
            assert!(!event[key].is_null(), "{key}: {event}");
        }
    }
}

#[tokio::test]
async fn not_even_trace_shows_a_secret() {
    for format in ["text", "json"] {
        let carrier = carrier().await;
        let setup = Setup::with_carrier(&carrier).set("log.format", format);
        let mut proxy = Proxy::start_tracing(setup).await;
        all_outcomes(&carrier, &proxy).await;
        proxy.signal("TERM").await;
        assert!(proxy.ended().await.success());
        let log = proxy.log();
        assert!(log.contains("drained"), "{log}");
    }
}

/// Creates a named pipe for the log of a proxy; returns its reading end.
fn pipe(folder: &Path) -> File {
    let path = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    OpenOptions::new().read(true).custom_flags(nonblocking).open(path).unwrap()
}

/// Number of log lines that the proxy dropped.
async fn dropped(proxy: &Proxy) -> f64 {
    proxy.metrics().await.value("cmiot_log_lines_dropped_total", []).unwrap()
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_stops_nothing() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let reader = pipe(folder.path());
    let mut proxy =
        Proxy::start_on_machine(folder, Setup::with_carrier(&carrier), Machine::redirected("2>pipe")).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    drop(reader);
    for n in 0..5 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    proxy.signal("HUP").await;
    proxy.look_up(&card_number(9)).await.assert_normal();
    assert_eq!(proxy.admin("/ready", "").await.text(), "ready\n");
    eventually("dropped lines", || async { (dropped(&proxy).await > 0.0).then_some(()) }).await;
    proxy.signal("TERM").await;
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn a_log_that_is_not_read_stops_nothing_and_says_later_what_is_missing() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let mut reader = pipe(folder.path());
    let proxy =
        Proxy::start_on_machine(folder, Setup::with_carrier(&carrier), Machine::redirected("2>pipe")).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    // A pipe buffers 64 KiB, the queue a few MiB. Each admin request logs a line with its path.
    let page = format!("/{}", "x".repeat(7000));
    let mut asked = 0;
    while dropped(&proxy).await == 0.0 {
        proxy.admin(&page, "").await;
        asked += 1;
        assert!(asked < 5_000, "the queue is unbounded");
    }
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(proxy.admin("/live", "").await.text(), "live\n");
    let mut log = Vec::new();
    eventually("a line about the dropped lines", || {
        // The pipe is non-blocking: an empty pipe is an error.
        let _ = reader.read_to_end(&mut log);
        let found = String::from_utf8_lossy(&log).contains("lines of the log were dropped");
        async move { found.then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn a_full_log_does_not_keep_the_proxy_from_ending() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let _unread = pipe(folder.path());
    let mut proxy =
        Proxy::start_on_machine(folder, Setup::with_carrier(&carrier), Machine::redirected("2>pipe")).await;
    let page = format!("/{}", "x".repeat(7000));
    for _ in 0..20 {
        proxy.admin(&page, "").await;
    }
    proxy.signal("TERM").await;
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn a_log_on_a_full_disk_stops_nothing() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let mut proxy =
        Proxy::start_on_machine(folder, Setup::with_carrier(&carrier), Machine::redirected("2>/dev/full"))
            .await;
    proxy.look_up(&MSISDN).await.assert_normal();
    eventually("dropped lines", || async { (dropped(&proxy).await > 0.0).then_some(()) }).await;
    proxy.signal("TERM").await;
    assert!(proxy.ended().await.success());
}

#[tokio::test]
async fn refusals_without_credentials_have_few_lines_and_a_count() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier).set("audit.refusals", 3);
    let mut proxy = Proxy::start(setup).await;
    for n in 0..30 {
        proxy.get(&proxy.sign(&card_number(n)).with("token", &"ab".repeat(32))).await.assert_refusal("7");
    }
    proxy.signal("TERM").await;
    assert!(proxy.ended().await.success());
    let log = proxy.log();
    assert_eq!(log.lines().filter(|line| line.contains(" lookup outcome=")).count(), 3, "{log}");
    let count = log.lines().find(|line| line.contains("further refusals")).unwrap();
    assert!(count.contains("count=27") && count.contains("peer=127.0.0.1"), "{count}");
}

#[tokio::test]
async fn a_log_that_is_no_terminal_has_no_colours() {
    let carrier = carrier().await;
    // The harness sets NO_COLOR otherwise.
    let machine = Machine::wrapped_by(["env", "-u", "NO_COLOR"]);
    let proxy =
        Proxy::start_on_machine(tempfile::tempdir().unwrap(), Setup::with_carrier(&carrier), machine).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let log = proxy.log();
    assert!(log.contains("outcome=\"miss\"") && !log.contains('\x1b'), "{log}");
}

/// Whether dropping this proxy panics because of a leaked secret.
fn leak_found(proxy: Proxy) -> bool {
    let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(proxy)));
    dropped.is_err_and(|panic| panic.downcast_ref::<String>().is_some_and(|text| text.contains(" shows ")))
}

#[tokio::test]
async fn a_leak_is_found_out_wherever_it_is() {
    let carrier = carrier().await;
    for name in ["log", "out"] {
        for kind in 0..5 {
            let proxy = Proxy::with_carrier(&carrier).await;
            let query = proxy.sign(&ICCID);
            proxy.get(&query).await.assert_normal();
            let call = carrier.calls().pop().unwrap();
            let leak = [
                GATEWAY_PASSWORD,
                ACCOUNT_PASSWORD,
                query.value("token"),
                &secrets::token(&call.appid, ACCOUNT_PASSWORD, &call.transid),
                ICCID.number,
            ];
            let path = proxy.config().with_file_name(name);
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            writeln!(file, "thread panicked: oh ({})", leak[kind]).unwrap();
            assert!(leak_found(proxy), "{} in {name}", leak[kind]);
        }
    }
    // A label of the metrics, by an account that is named like a password.
    let named = |name: &str| {
        Setup::with_carrier(&carrier).set("account.0.name", name).set("account.0.group", "fleet")
    };
    let proxy = named(GATEWAY_PASSWORD).start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let metrics = proxy.admin("/metrics", "").await;
    assert!(metrics.text().contains(GATEWAY_PASSWORD), "{}", metrics.text());
    assert!(leak_found(proxy));
    let proxy = named("a-name").start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    assert!(!leak_found(proxy));
}
