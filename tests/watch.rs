//! Alarms in text and JSON, conditions in the log, and lines under systemd's journal: what an operator watches.

use std::time::Duration;

use cmiot_simulator::{Answer, Rule};
use tokio::process::Command;

use crate::support::{
    ACCOUNT_APPID, Clocked, MSISDN, Machine, Proxy, Setup, card_number, carrier, command, eventually, logged,
    within, write_config, write_secret,
};

/// The lines of a log that contain all these texts.
fn lines<'a>(log: &'a str, texts: &[&str]) -> Vec<&'a str> {
    log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).collect()
}

#[tokio::test]
async fn readiness_and_alarms_are_json_on_request() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let json = proxy.admin("/ready?format=json", "").await;
    assert_eq!((json.status, json.header("content-type")), (200, Some("application/json")));
    assert_eq!(json.text(), "{\"ready\":true,\"reason\":null,\"alarms\":[]}\n");
    assert_eq!(proxy.admin("/ready?format=xml", "").await.status, 400);
    carrier.set_rules([Rule::any().code("4")]);
    proxy.look_up(&MSISDN).await.assert_refusal_for("73", "code 4");
    let ready = proxy.admin("/ready", "Accept: application/json\r\n").await.json();
    assert_eq!((&ready["ready"], &ready["alarms"][0]["alarm"]), (&true.into(), &"account".into()));
    assert_eq!(ready["alarms"][0]["severity"], "error");
    let text = ready["alarms"][0]["text"].as_str().unwrap();
    assert!(text.contains("refuses account fleet with code 4") && text.contains("check --live"), "{text}");
    assert!(ready["alarms"][0]["since"].as_str().unwrap().ends_with("+08:00"));
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.value("cmiot_alarm", [("alarm", "account")]), Some(2.0));
    assert_eq!(metrics.value("cmiot_alarm", [("alarm", "clock")]), Some(0.0));
    assert_eq!(metrics.value("cmiot_alarms", []), Some(1.0));
}

#[tokio::test]
async fn a_breaker_and_a_cool_down_have_a_line_at_their_begin_and_at_their_end() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier)
        .set("breaker.failures", 2)
        .set("breaker.open", "50ms")
        .set("breaker.cool_down", "50ms");
    let proxy = setup.start().await;
    for (rule, breaker, began, ended) in [
        (Rule::any().then(Answer::html(503)), "transport", "breaker opened", "breaker closed"),
        (Rule::any().code("72"), "cool-down", "cool-down: the carrier throttles", "cool-down ended"),
    ] {
        carrier.set_rules([rule]);
        for n in 0..3 {
            assert_ne!(proxy.look_up(&card_number(n)).await.code(), "0");
        }
        carrier.set_rules([]);
        eventually("an answer", || async {
            (proxy.look_up(&card_number(9)).await.code() == "0").then_some(())
        })
        .await;
        proxy.admin_post("/cache/purge", "Content-Type: application/json\r\n", "{\"all\":true}").await;
        let log = proxy.log();
        let field = format!("breaker=\"{breaker}\"");
        assert_eq!(lines(&log, &["WARN", began, "account=\"fleet\"", &field]).len(), 1, "{log}");
        assert_eq!(lines(&log, &["INFO", ended, &field, "since=20", "lasted="]).len(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_spent_day_and_a_throttled_client_have_a_line_at_their_begin_and_at_their_end() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier).set("account.0.calls_per_day", 1).set("client.0.rate", 1);
    let proxy = Clocked::start(&setup).await;
    proxy.look_up(&card_number(0)).await.assert_normal();
    eventually("a throttled request", || async {
        (proxy.look_up(&card_number(0)).await.code() == "72").then_some(())
    })
    .await;
    assert!(logged("WARN") && logged("throttling: requests above the client's `rate`"));
    assert!(logged("client=\"GW0001\""));
    proxy.clock.advance(Duration::from_secs(70));
    proxy.look_up(&card_number(1)).await.assert_refusal_for("72", "budget");
    assert!(logged("budget: the calls of this day are spent"));
    assert!(!logged("calls left again"));
    // Noon, and midnight at UTC+8.
    proxy.clock.advance(Duration::from_secs(12 * 3_600));
    eventually("the ends", || async { logged("budget: the account has calls left again").then_some(()) })
        .await;
    assert!(
        logged("since=2026-01-15T12:01:10.000+08:00 lasted=43200s refused=1"),
        "start, duration and count"
    );
    assert!(logged("throttling ended") && logged("since=2026-01-15T12:00:00.000+08:00"));
    proxy.stop().await;
}

#[tokio::test]
async fn a_majority_of_stale_lookups_is_an_alarm() {
    let carrier = carrier().await;
    let proxy = Clocked::start(&Setup::with_carrier(&carrier)).await;
    let old: Vec<_> = (0..30).map(|n| proxy.sign(&card_number(n))).collect();
    proxy.clock.advance(Duration::from_secs(3_600));
    let alarm = async || proxy.admin("/ready").await.text().contains("alarm: stale-transids: ");
    for query in &old {
        proxy.get(query).await.assert_refusal("7");
    }
    assert!(!alarm().await, "not before the minute has ended");
    eventually("the alarm", || async {
        proxy.clock.advance(Duration::from_secs(60));
        alarm().await.then_some(())
    })
    .await;
    eventually("the end of the alarm", || async {
        proxy.clock.advance(Duration::from_secs(60));
        (!alarm().await).then_some(())
    })
    .await;
    assert!(logged("the alarm has ended") && logged("alarm=\"stale-transids\""));
    proxy.stop().await;
}

#[tokio::test]
async fn a_second_password_is_a_warning_until_it_is_the_first() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("next"), "the-next-password");
    let setup = Setup::with_carrier(&carrier).set("account.0.next_password_file", "next");
    let proxy = Proxy::start_in(folder, setup).await;
    assert!(carrier.set_password(ACCOUNT_APPID, "the-next-password"));
    proxy.look_up(&MSISDN).await.assert_normal();
    let ready = proxy.admin("/ready?format=json", "").await.json();
    assert_eq!(ready["alarms"][0]["alarm"], "password", "{ready}");
    assert_eq!(ready["alarms"][0]["severity"], "warning");
    let log = proxy.log();
    assert_eq!(lines(&log, &["WARN", "alarm=\"password\""]).len(), 1, "{log}");
    assert!(lines(&log, &["ERROR", "alarm="]).is_empty(), "{log}");
}

#[tokio::test]
async fn a_disk_near_its_limit_is_a_warning_before_it_is_an_error() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("audit.min_free", "4MiB").start_on_small_disk(32).await;
    let severity = async || {
        let ready = proxy.admin("/ready?format=json", "").await.json();
        let alarms = ready["alarms"].as_array().unwrap();
        let disk = alarms.iter().find(|alarm| alarm["alarm"] == "disk");
        disk.map(|disk| disk["severity"].as_str().unwrap().to_owned())
    };
    assert_eq!(severity().await, None);
    for (free, expected) in [(5 << 20, "warning"), (2 << 20, "error")] {
        proxy.fill_disk(free);
        eventually(expected, || async { (severity().await.as_deref() == Some(expected)).then_some(()) })
            .await;
    }
    let ready = eventually("the alarm about the audit", || async {
        let ready = proxy.admin("/ready", "").await;
        ready.text().contains("alarm: audit: audit records cannot be written").then_some(ready)
    })
    .await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    let metrics = proxy.metrics().await;
    assert!(metrics.value("cmiot_store_free_bytes", []).unwrap() < 4_194_304.0);
    assert_eq!(metrics.value("cmiot_audit_min_free_bytes", []), Some(4_194_304.0));
    proxy.empty_disk();
    eventually("the end of the alarm", || async { severity().await.is_none().then_some(()) }).await;
}

#[tokio::test]
async fn records_that_wait_long_for_their_commit_are_a_warning() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier).set("gateway.deadline", "1s");
    let proxy = setup.start_on_failing_disk().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.set_disk_fault("stall");
    let (client, query) = (proxy.clone(), proxy.sign(&MSISDN));
    let waiting = tokio::spawn(async move { client.get(&query).await });
    eventually("the warning", || async {
        let ready = proxy.admin("/ready?format=json", "").await.json();
        let alarms = ready["alarms"].as_array().unwrap();
        let lag = alarms.iter().find(|alarm| alarm["alarm"] == "audit-lag");
        lag.filter(|lag| lag["severity"] == "warning").map(|_| ())
    })
    .await;
    proxy.set_disk_fault("none");
    waiting.await.unwrap();
}

#[tokio::test]
async fn lines_have_a_priority_and_no_timestamp_in_the_journal() {
    let carrier = carrier().await;
    let named = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";
    for (script, journal) in [(named, true), ("JOURNAL_STREAM=1:1 exec \"$0\" \"$@\"", false)] {
        for format in ["text", "json"] {
            let setup = Setup::with_carrier(&carrier).set("log.format", format);
            let machine = Machine::wrapped_by(["sh", "-c", script]);
            let proxy = Proxy::start_on_machine(tempfile::tempdir().unwrap(), setup, machine).await;
            proxy.look_up(&MSISDN).await.assert_normal();
            let log = proxy.log();
            let line = lines(&log, &["lookup", "outcome"])[0];
            // The timestamp is at UTC; no other field of the line is a time.
            let dated = line.split(['"', ' ']).any(|word| word.starts_with("20") && word.ends_with('Z'));
            assert_eq!(dated, !journal, "{script}: {line}");
            // journald takes the priority from text lines; an object of the JSON format stays one.
            let warned = lines(&log, &["WARN"])[0];
            for (line, priority) in [(line, "<6>"), (warned, "<4>")] {
                assert_eq!(line.starts_with(priority), journal && format == "text", "{script}: {line}");
            }
            assert!(format == "text" || log.lines().all(|line| line.starts_with('{')), "{log}");
        }
    }
}

#[tokio::test]
async fn each_line_of_an_error_of_the_start_has_its_priority_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    write_config(
        &folder.path().join("proxy.toml"),
        "[store]\ndir = \"data\"\nwrong = 1\n[audit]\nalso = 1\n",
    );
    let named = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";
    for (script, prefix) in [(named, "<3>"), ("exec \"$0\" \"$@\"", "")] {
        // Standard error is a pipe, as a stream of the journal is a socket.
        let serve = command(folder.path());
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(serve.as_std().get_program());
        shell.args(["serve", "--config", "proxy.toml"]).current_dir(folder.path());
        let output = within("the end of the start", shell.output()).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.lines().count() > 1, "{error}");
        assert!(error.starts_with(&format!("{prefix}cmiot-proxy: ")), "{error}");
        assert!(error.lines().all(|line| line.starts_with(prefix) && !line.starts_with("<3><3>")), "{error}");
    }
}

#[tokio::test]
async fn lookups_have_the_client_and_a_level_of_their_own() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier);
    let proxy = setup.start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.get(&proxy.sign(&MSISDN).with("token", &"ab".repeat(32))).await.assert_refusal("7");
    let log = proxy.log();
    assert_eq!(
        lines(&log, &["INFO", " lookup ", "outcome=\"miss\"", " client=\"GW0001\""]).len(),
        1,
        "{log}"
    );
    assert_eq!(lines(&log, &[" lookup ", "reason=\"token\"", "claimed=\"GW0001\""]).len(), 1, "{log}");
    crate::reload::reload(&proxy, &setup.clone().set("log.lookups", "off")).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    assert!(lines(&proxy.log(), &[" lookup ", "outcome=\"hit\""]).is_empty());
    crate::reload::reload(&proxy, &setup.clone().set("log.lookups_per_second", 0)).await;
    for _ in 0..20 {
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    let counted = eventually("the count", || async {
        lines(&proxy.log(), &["lookups without a line", "count="]).first().map(|line| (*line).to_owned())
    })
    .await;
    assert!(counted.contains("INFO"), "{counted}");
    assert!(lines(&proxy.log(), &[" lookup ", "outcome=\"hit\""]).is_empty(), "fewer than a hundred");
}
