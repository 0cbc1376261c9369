//! What a log tells, and what it never does. (That every proxy of these tests logs no secret is seen to in
//! `support/proxy.rs`; here with everything switched on.)

use cmiot_simulator::Rule;
use serde_json::Value;

use crate::support::{Card, ICCID, IMSI, MSISDN, Proxy, Setup, card_number, carrier, holds_no_secret};

/// A bit of everything that can happen.
async fn all_sorts(carrier: &cmiot_simulator::Simulator, proxy: &Proxy) -> usize {
    let mut asked = 0;
    for card in [MSISDN, ICCID, IMSI] {
        proxy.ask(&card).await.is_normal();
        proxy.ask(&card).await.is_normal();
        asked += 2;
    }
    let used = proxy.sign(&MSISDN);
    proxy.get(&used).await.is_normal();
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
        assert_ne!(proxy.ask(&card_number(n)).await.code(), "0");
        asked += 1;
    }
    proxy.post("/v2/userstatusrealsingle", "", &proxy.sign(&MSISDN).text()).await.is_normal();
    asked + 2
}

#[tokio::test]
async fn each_request_is_one_line_at_info_with_its_card_masked() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    let asked = all_sorts(&carrier, &proxy).await;
    let log = proxy.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("look-up")).collect();
    assert_eq!(lines.len(), asked, "{log}");
    assert!(lines.iter().all(|line| line.contains("INFO") && line.contains("outcome=")), "{log}");
    assert!(lines.iter().any(|line| line.contains("1476****176")), "enough of a card to find it by: {log}");
}

#[tokio::test]
async fn json_logs_are_one_object_a_line() {
    let carrier = carrier().await;
    let proxy = Setup::before(&carrier).set("log.format", "json").start().await;
    let asked = all_sorts(&carrier, &proxy).await;
    let log = proxy.log();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let look_ups: Vec<&Value> = events.iter().filter(|event| event["message"] == "look-up").collect();
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
        let setup = Setup::before(&carrier).set("log.format", format);
        let mut proxy = Proxy::start_tracing(setup).await;
        all_sorts(&carrier, &proxy).await;
        proxy.signal("TERM").await;
        assert!(proxy.ended().await.success());
        let log = proxy.log();
        assert!(log.contains("drained"), "{log}");
        holds_no_secret(&log);
    }
}
