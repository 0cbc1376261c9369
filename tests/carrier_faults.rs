//! Carrier faults: a reply without a valid envelope is a 73, is not stored, and its first bytes are logged.

use std::path::Path;

use bytes::Bytes;
use cmiot_simulator::{Account, Answer, Rule};
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};

use crate::support::{
    ACCOUNT_APPID, EBID, MSISDN, NORMAL, Proxy, Setup, TIMEOUT, carrier, run, say, scripted,
};

/// A fault, its error in Proxy-Status (RFC 9209), and a part of its log line.
const FAILURES: [(&str, &str, &str); 12] = [
    ("http=502", "http_protocol_error", "<html>"),
    ("http=200", "http_protocol_error", "<html>"),
    ("http=404", "http_protocol_error", "<html>"),
    ("body={\"status\":\"0\",\"mess", "http_protocol_error", "{\"status\":\"0\",\"mess"),
    ("body={\"message\":\"no status\",\"result\":[]}", "http_protocol_error", "no status"),
    ("body=[]", "http_protocol_error", "[]"),
    ("body={\"status\":\"\",\"message\":\"\",\"result\":[]}", "http_protocol_error", "message"),
    ("oversized=65537", "http_response_body_size", "max_body"),
    ("truncate=20", "connection_terminated", "connection"),
    ("garbage", "", "connection"),
    ("reset", "connection_terminated", "connection"),
    ("close", "connection_terminated", "connection"),
];

#[tokio::test]
async fn what_is_no_envelope_is_a_73_and_never_kept() {
    let carrier = carrier().await;
    for (fault, called, logged) in FAILURES {
        let proxy = Proxy::with_carrier(&carrier).await;
        carrier.set_rules([Rule::parse(fault).unwrap()]);
        let failed = proxy.look_up(&MSISDN).await;
        failed.assert_refusal_for("73", called);
        assert!(failed.header("retry-after").is_some(), "{fault}");
        let log = proxy.log();
        let line = log
            .lines()
            .find(|line| line.contains("carrier call failed"))
            .unwrap_or_else(|| panic!("{fault}: {log}"));
        assert!(line.replace("\\\"", "\"").contains(logged), "{fault}: {line}");

        carrier.set_rules([]);
        let after = proxy.look_up(&MSISDN).await;
        after.assert_normal();
        assert_eq!(after.cache(), "fwd=uri-miss; stored", "{fault}");
    }
}

/// Fault, bytes and body of a call's row.
type RecordedReply = (Option<String>, Option<i64>, Option<Vec<u8>>);

/// The fault, the length and the kept body of each call's row.
fn calls(segment: &Path) -> Vec<RecordedReply> {
    let segment = Connection::open_with_flags(segment, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "SELECT (SELECT text FROM name WHERE id = call.fault), bytes, body FROM call ORDER BY id";
    let mut rows = segment.prepare(sql).unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn the_audit_keeps_what_the_carrier_answered_also_if_it_is_no_envelope() {
    let carrier = carrier().await;
    let page = |http_status, bytes: &[u8]| Answer::Body {
        http_status,
        content_type: "text/html".to_owned(),
        bytes: Bytes::copy_from_slice(bytes),
    };
    let long = "x".repeat(5_000);
    let answers = [
        (NORMAL.as_bytes(), None, Answer::Default),
        (b"<html>14765004176</html>", Some("not-an-envelope"), page(200, b"<html>14765004176</html>")),
        (b"[]", Some("not-an-envelope"), page(200, b"[]")),
        (b"{\"result\":[]}", Some("not-an-envelope"), page(200, b"{\"result\":[]}")),
        (b"\xb4\xed\xce\xf3\0", Some("not-an-envelope"), page(200, b"\xb4\xed\xce\xf3\0")),
        (b"<html>502</html>", Some("http-status"), page(502, b"<html>502</html>")),
        (b"", Some("http-status"), page(503, b"")),
        (long.as_bytes(), Some("http-status"), page(500, long.as_bytes())),
    ];
    // Their bodies have no end.
    let without = [(Answer::Oversized(65_537), "too-long"), (Answer::Truncate(20), "broken")];
    for mode in ["full", "hash", "none"] {
        let setup = Setup::with_carrier(&carrier).set("audit.bodies", mode).set("breaker.failures", 100);
        let proxy = setup.freshness("normal", "0s", "0s", "0s").start().await;
        let mut expected = Vec::new();
        for (body, fault, answer) in &answers {
            carrier.set_rules([Rule::any().then(answer.clone())]);
            proxy.look_up(&MSISDN).await;
            let hash = Sha256::digest(body);
            let kept = match mode {
                "full" if body.len() > 4_096 => Some([&[4][..], &hash, &body[..4_096]].concat()),
                "full" => Some([&[3][..], body].concat()),
                "hash" => Some([&[1][..], &hash].concat()),
                _ => None,
            };
            let bytes = i64::try_from(body.len()).unwrap();
            expected.push((fault.map(str::to_owned), Some(bytes), kept));
        }
        for (answer, fault) in &without {
            carrier.set_rules([Rule::any().then(answer.clone())]);
            proxy.look_up(&MSISDN).await;
            expected.push((Some((*fault).to_owned()), None, None));
        }
        assert_eq!(calls(&proxy.audit_file()), expected, "{mode}");
        let dir = proxy.data();
        let verify = ["audit", "verify", "--dir", dir.to_str().unwrap()];
        assert!(run(Path::new("."), &verify, &[]).await.success().out.contains("chain ok"));
    }
}

#[tokio::test]
async fn a_page_that_repeats_the_call_is_kept_without_its_token() {
    // The log shows the first bytes of a page, and no log of a test may have the name of the parameter.
    let page = |head: &str| format!("<!--{}-->{head}", "-".repeat(120));
    let url = scripted(move |head, _, _, stream| async move { say(stream, &page(&head)).await }).await;
    let proxy = Setup::calling(&url).set("audit.bodies", "full").start().await;
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "http_protocol_error");
    let (fault, _, body) = calls(&proxy.audit_file()).remove(0);
    let body = String::from_utf8(body.unwrap()).unwrap();
    assert_eq!(fault.as_deref(), Some("not-an-envelope"));
    assert!(body.contains("&token=***&") && body.contains(MSISDN.number), "{body}");
}

#[tokio::test]
async fn an_answer_of_the_longest_size_is_one() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().then(Answer::Oversized(64 << 10))]);
    let proxy = Proxy::with_carrier(&carrier).await;
    let response = proxy.look_up(&MSISDN).await;
    assert_eq!((response.code().as_str(), response.body.len()), ("0", 64 << 10));
}

#[tokio::test]
async fn a_carrier_that_is_down_is_a_73() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    carrier.kill().await;
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "destination_unavailable");
    carrier.restart().await.unwrap();
    proxy.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn a_carrier_that_says_nothing_is_a_73_after_its_timeout() {
    let carrier = carrier().await;
    for silence in [Answer::Hang, Answer::Stall(10)] {
        carrier.set_rules([Rule::any().then(silence)]);
        let proxy = Setup::with_carrier(&carrier).set("carrier.timeout", "300ms").start().await;
        proxy.look_up(&MSISDN).await.assert_refusal_for("73", "http_response_timeout");
    }
}

#[tokio::test]
async fn a_gateway_is_answered_within_its_deadline_and_the_call_goes_on() {
    let carrier = carrier().await;
    let gate = cmiot_simulator::Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Setup::with_carrier(&carrier).set("gateway.deadline", "300ms").start().await;
    let late = proxy.look_up(&MSISDN).await;
    late.assert_refusal_for("73", "the call goes on");
    assert!(late.header("retry-after").is_some());
    gate.open();
    carrier.wait_until_idle().await;
    crate::support::eventually("a hit", || async {
        proxy.look_up(&MSISDN).await.cache().starts_with("hit").then_some(())
    })
    .await;
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn our_own_credentials_refused_are_a_73_that_names_the_code_for_the_operator() {
    let carrier = carrier().await;
    for code in ["3", "4", "5", "6", "7", "8"] {
        let proxy = Proxy::with_carrier(&carrier).await;
        carrier.set_rules([Rule::any().code(code)]);
        let refused = proxy.look_up(&MSISDN).await;
        // The carrier's code would mean that the gateway's own credentials are wrong.
        refused.assert_refusal_for("73", &format!("code {code}"));
        assert!(refused.header("retry-after").is_some());
        // One refused call is enough: the proxy sends no more of them and raises an alarm.
        let calls = carrier.count();
        proxy.look_up(&MSISDN).await.assert_refusal_for("73", &format!("code {code}"));
        assert_eq!(carrier.count(), calls);
        let ready = proxy.admin("/ready", "").await;
        assert!(ready.text().starts_with("ready\nalarm: ") && ready.text().contains(&format!("code {code}")));
        assert_eq!(proxy.metrics().await.value("cmiot_alarms", []), Some(1.0));
        assert!(proxy.log().contains("check --live"), "the log names the remedy");
    }
    carrier.set_rules([]);
    carrier.set_accounts([Account::new(ACCOUNT_APPID, EBID, "the-carrier-changed-it")]);
    Proxy::with_carrier(&carrier).await.look_up(&MSISDN).await.assert_refusal_for("73", "code 7");
    carrier.set_accounts([]);
    Proxy::with_carrier(&carrier).await.look_up(&MSISDN).await.assert_refusal_for("73", "code 4");
}

#[tokio::test]
async fn a_connection_that_the_carrier_closed_while_idle_costs_nobody_an_answer() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    for n in 0..5 {
        // Closes all pooled connections; the listener is back immediately.
        carrier.restart().await.unwrap();
        proxy.look_up(&crate::support::card_number(n)).await.assert_normal();
    }
}

#[tokio::test]
async fn a_carriers_redirect_is_not_followed() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    carrier.set_rules([Rule::any().then(Answer::html(302))]);
    proxy.look_up(&MSISDN).await.assert_refusal("73");
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_base_url_may_have_a_prefix() {
    let account = Account::new(ACCOUNT_APPID, EBID, crate::support::ACCOUNT_PASSWORD);
    let config =
        cmiot_simulator::Config { prefix: "/iot/api".into(), ..cmiot_simulator::Config::new([account]) };
    let carrier = cmiot_simulator::Simulator::start_local(config).await.unwrap();
    let proxy = Setup::calling(&format!("{}/", carrier.base_url())).start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(carrier.calls()[0].path, "/iot/api/v2/userstatusrealsingle");
}

#[tokio::test]
async fn a_clock_apart_from_the_carriers_raises_an_alarm() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    assert!(!proxy.log().contains("differs from the carrier's Date"));
    carrier.set_date_offset(600);
    proxy.look_up(&crate::support::IMSI).await.assert_normal();
    assert!(proxy.log().contains("differs from the carrier's Date"));
    let drift = proxy.metrics().await.value("cmiot_clock_drift_seconds", []).unwrap();
    assert!((drift - 600.0).abs() < TIMEOUT.as_secs_f64(), "{drift}");
}
