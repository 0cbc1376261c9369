//! Replies of API v5: the replies that gateways get, and both in the audit.

use cmiot_simulator::{Answer, Operation, Rule, v5};
use rusqlite::Connection;

use super::{account, carrier, setup};
use crate::support::{EBID, ICCID, IMSI, MSISDN, Response, card_number, eventually};

/// The columns of a carrier call that concern a reply.
type CallRow = (String, Option<String>, Option<String>, Option<String>, Option<String>);

fn calls(segment: &std::path::Path) -> Vec<CallRow> {
    let audit = Connection::open(segment).unwrap();
    let mut found =
        audit.prepare("SELECT operation, card, code, status, body FROM carrier_call ORDER BY id").unwrap();
    let rows =
        found.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[track_caller]
fn assert_status(response: &Response, status: &str) {
    let body = format!(r#"{{"status":"0","message":"正确","result":[{{"STATUS":"{status}"}}]}}"#);
    assert_eq!(response.text(), body);
    assert_eq!(response.header("content-type"), Some("application/json;charset=UTF-8"));
    assert_eq!(response.header("proxy-status"), None);
}

#[tokio::test]
async fn a_card_of_either_platform_has_the_status_of_v2_and_the_audit_has_both() {
    let carrier = carrier(account()).await;
    let mut proxy = setup(&carrier).set("audit.bodies", "full").start().await;
    let cases = [("02", "02"), ("2", "00"), ("4", "02"), ("04", "04"), ("1", "07"), ("99", "99")];
    for (n, (written, told)) in (0..).zip(cases) {
        carrier.set_rules([Rule::any().status(written)]);
        let missed = proxy.look_up(&card_number(n)).await;
        assert_status(&missed, told);
        assert_eq!(missed.cache(), "fwd=uri-miss; stored; detail=translated");
        let hit = proxy.look_up(&card_number(n)).await;
        assert_status(&hit, told);
        assert!(
            hit.cache().starts_with("hit; ttl=") && hit.cache().ends_with("; detail=translated"),
            "{hit:?}"
        );
    }
    let counts = carrier.v5().counts();
    assert_eq!((counts.fetches, counts.queries), (1, 6), "one token for all");
    assert_eq!((counts.malformed_transids, counts.malformed_cards, counts.secrets_in_urls), (0, 0, 0));
    proxy.restart().await;
    let hit = proxy.look_up(&card_number(1)).await;
    assert_status(&hit, "00");
    assert!(hit.cache().ends_with("; detail=translated"), "the file has it too: {}", hit.cache());
    let rows = proxy.audit();
    let answered = rows.iter().filter(|row| row.status.as_deref() == Some("00")).count();
    assert_eq!(answered, 3);
    assert!(rows.iter().all(|row| row.code == "0" && row.carrier_code.as_deref() == Some("0")));
    let rows = calls(&proxy.audit_file());
    let (operation, card, code, _, body) = &rows[0];
    assert_eq!((operation.as_str(), card, code.as_deref(), body), ("token", &None, Some("0"), &None));
    let states: Vec<_> = rows[1..].iter().map(|(_, _, _, status, _)| status.as_deref().unwrap()).collect();
    assert_eq!(states, cases.map(|(written, _)| written), "what the carrier wrote");
    assert!(rows[2].4.as_ref().unwrap().contains(r#""cardStatus":"2""#), "the carrier's own body");
}

#[tokio::test]
async fn a_state_that_v2_does_not_have_is_81_and_stored_unless_the_operator_decides() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).set("account.0.untranslatable.6", "00").start().await;
    carrier.set_rules([Rule::any().status("6")]);
    assert_status(&proxy.look_up(&card_number(0)).await, "00");
    for (n, written) in [(1, "7"), (2, "3"), (3, "08"), (4, "x\"y"), (5, "密")] {
        carrier.set_rules([Rule::any().status(written)]);
        let missed = proxy.look_up(&card_number(n)).await;
        assert_eq!((missed.code().as_str(), missed.json()["result"].as_array().unwrap().len()), ("81", 0));
        assert_eq!(missed.cache(), "fwd=uri-miss; stored; detail=\"translated, negative\"");
        let said = missed.header("proxy-status").unwrap().to_owned();
        assert!(said.starts_with("cmiot-proxy; details=\"carrier cardStatus "), "{said}");
        assert_eq!(said.matches('"').count(), 2, "{said}");
        let hit = proxy.look_up(&card_number(n)).await;
        assert_eq!((hit.code().as_str(), hit.header("proxy-status")), ("81", Some(said.as_str())));
    }
    assert_eq!(carrier.v5().counts().queries, 6, "each is stored");
}

#[tokio::test]
async fn a_card_that_is_not_there_is_refused_by_the_kind_that_the_gateway_used() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).start().await;
    carrier.set_rules([Rule::any().code("11011")]);
    for (card, code) in [(MSISDN, "12"), (IMSI, "24"), (ICCID, "25")] {
        let response = proxy.look_up(&card).await;
        assert_eq!(response.code(), code);
        assert_eq!(response.header("proxy-status"), Some("cmiot-proxy; details=\"carrier code 11011\""));
        assert_eq!(proxy.look_up(&card).await.code(), code);
    }
    assert_eq!(carrier.v5().counts().queries, 3, "stored for a short time");
    let row = proxy.audit().pop().unwrap();
    assert_eq!((row.code.as_str(), row.carrier_code.as_deref()), ("25", Some("11011")));
}

#[tokio::test]
async fn an_unknown_code_yields_to_a_stale_entry_and_is_never_stored() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).freshness("normal", "0.01s", "0s", "1h").start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    carrier.set_rules([Rule::any().code("77777")]);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let stale = proxy.look_up(&MSISDN).await;
    stale.assert_normal();
    assert!(stale.cache().contains("detail=\"translated, unknown\""), "{}", stale.cache());
    for _ in 0..2 {
        let response = proxy.look_up(&card_number(7)).await;
        assert_eq!((response.code().as_str(), response.cache()), ("1", "fwd=uri-miss; detail=translated"));
        let said = response.header("proxy-status").unwrap();
        assert!(said.contains("carrier code 77777"), "{said}");
        assert!(response.header("retry-after").is_some());
    }
    carrier.set_rules([Rule::any().code("10006")]);
    assert_eq!(proxy.look_up(&card_number(8)).await.code(), "73");
    let log = proxy.log();
    assert!(log.contains("code=10006"), "{log}");
    assert_eq!(
        log.lines()
            .filter(|line| line.contains("not in the table of codes") && line.contains("77777"))
            .count(),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn each_operation_of_v2_is_served_by_its_twin() {
    let carrier = carrier(account()).await;
    let all = [
        ("gprsrealsingle", r#"{"GPRSSTATUS":"01","IP":"10.32.0.17","APN":"CMIOT","RAT":"6"}"#),
        ("userstatusrealsingle", r#"{"STATUS":"00"}"#),
        ("gprsusedinfosingle", r#"{"total_gprs":"10240"}"#),
        ("onandoffrealsingle", r#"{"status":"1"}"#),
        ("balancerealsingle", r#"{"balance":"12.50"}"#),
        ("smsusedinfosingle", r#"{"sms":"3"}"#),
        (
            "querycardopentime",
            r#"{"msisdn":"14765004176","opentime":"2017-05-16","activetime":"2017-05-17"}"#,
        ),
        ("smsstatusreset", r#"{"status":"0"}"#),
    ];
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).chain(["querycardlifecycle"]).collect();
    let proxy = setup(&carrier).set("client.0.operations", names).start().await;
    let ask = async |name: &str| {
        let query = proxy.sign(&MSISDN).with("ebid", EBID);
        proxy.get_target(&format!("/v2/{name}?{}", query.text()), "").await
    };
    for (name, fields) in all {
        let response = ask(name).await;
        let body = format!(r#"{{"status":"0","message":"正确","result":[{fields}]}}"#);
        assert_eq!(response.text(), body, "{name}");
    }
    assert_eq!(carrier.count_operation(Operation::V5(v5::Operation::SmsReset)), 1);
    ask("querycardlifecycle").await.assert_refusal_for("3", "operation");
}

#[tokio::test]
async fn figures_of_usage_are_fresh_by_the_platform_that_the_status_shows() {
    let carrier = carrier(account()).await;
    let names = vec!["userstatusrealsingle", "gprsusedinfosingle"];
    let proxy = setup(&carrier).set("client.0.operations", names).start_clocked().await;
    let usage = async |n: u32| {
        let query = proxy.sign(&card_number(n)).with("ebid", EBID);
        proxy.get_target(&format!("/v2/gprsusedinfosingle?{}", query.text()), "").await
    };
    for (n, state) in [(0, Some("00")), (1, Some("2")), (2, None)] {
        if let Some(state) = state {
            carrier.set_rules([Rule::any().status(state)]);
            proxy.look_up(&card_number(n)).await;
            carrier.set_rules([]);
        }
        assert_eq!(usage(n).await.cache(), "fwd=uri-miss; stored; detail=translated");
    }
    proxy.clock.advance(std::time::Duration::from_secs(120));
    for (n, is_fresh) in [(0, true), (1, false), (2, false)] {
        let response = usage(n).await;
        assert_eq!(
            response.cache().starts_with("hit; ttl=") && !response.cache().contains("ttl=-"),
            is_fresh,
            "{n}"
        );
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_busy_and_a_throttled_carrier_have_the_codes_of_v2() {
    let carrier = carrier(account()).await;
    let proxy =
        setup(&carrier).set("breaker.cool_down", "1ms").set("breaker.max_cool_down", "1ms").start().await;
    carrier.set_rules([Rule::any().code("13000").times(1)]);
    let throttled = proxy.look_up(&MSISDN).await;
    assert_eq!((throttled.code().as_str(), throttled.header("retry-after").is_some()), ("73", true));
    carrier.set_rules([Rule::any().code("19010").times(1)]);
    eventually("the end of the cool-down", async || {
        let response = proxy.look_up(&MSISDN).await;
        (response.code() == "0").then_some(())
    })
    .await;
    assert_eq!(carrier.count_code("19010"), 1, "a busy code is retried once");
}

#[tokio::test]
async fn a_path_that_the_carrier_does_not_have_is_an_alarm_until_it_answers() {
    let carrier = carrier(account()).await;
    let proxy = setup(&carrier).start().await;
    let ready = async || proxy.admin("/ready?format=json", "").await.json();
    carrier.set_rules([Rule::any().code("10006")]);
    assert_eq!(proxy.look_up(&MSISDN).await.code(), "73");
    let alarmed = ready().await;
    let alarm = &alarmed["alarms"][0];
    assert_eq!((&alarmed["ready"], &alarm["alarm"]), (&true.into(), &"account".into()));
    assert_eq!(alarm["severity"], "error");
    let text = alarm["text"].as_str().unwrap();
    assert!(
        text.contains("userstatusrealsingle with code 10006") && text.contains("correct base_url"),
        "{text}"
    );
    let chinese = proxy.admin("/ready", "Accept-Language: zh-CN\r\n").await;
    assert!(chinese.text().contains("请更正该账号或 [carrier] 的 base_url"), "{}", chinese.text());
    // A fault says nothing about the path.
    carrier.set_rules([Rule::any().then(Answer::html(503))]);
    proxy.look_up(&MSISDN).await.assert_refusal("73");
    assert_eq!(ready().await["alarms"].as_array().unwrap().len(), 1);
    // Another operation may have a path where this one has none.
    carrier.set_rules([Rule::any().operation(Operation::V5(v5::Operation::SimStatus)).code("10006")]);
    let card = format!(r#"{{"msisdn":"{}"}}"#, MSISDN.number);
    assert_eq!(proxy.admin_post("/cards/stop-reason", "", &card).await.status, 200);
    assert_eq!(ready().await["alarms"].as_array().unwrap().len(), 1);
    carrier.set_rules([]);
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(ready().await["alarms"].as_array().unwrap().len(), 0);
}
