//! Audit records: one per request, durable before the response is sent.

use cmiot_simulator::{Gate, Rule};

use crate::support::{
    ACCOUNT_APPID, GATEWAY_APPID, ICCID, IMSI, LookupRow, MSISDN, Proxy, Response, STATUS_PATH, Setup,
    carrier, eventually,
};

/// The record of the request with this transid; panics unless there is exactly one.
#[track_caller]
fn record(audit: &[LookupRow], transid: &str) -> LookupRow {
    let mut found = audit.iter().filter(|row| row.transid.as_deref() == Some(transid));
    let row = found.next().expect("a record").clone();
    assert_eq!(found.next(), None, "one record per request");
    row
}

#[tokio::test]
async fn a_look_ups_record_says_who_asked_what_and_what_came_of_it() {
    let carrier = carrier().await;
    carrier.set_rules([Rule::any().status("02")]);
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&ICCID);
    proxy.get(&query).await;
    let row = record(&proxy.audit(), query.transid());
    let expected = LookupRow {
        client: Some(GATEWAY_APPID.into()),
        group: Some("fleet".into()),
        account: Some("fleet".into()),
        peer: "127.0.0.1".into(),
        operation: Some("userstatusrealsingle".into()),
        card: Some(ICCID.number.into()),
        transid: Some(query.transid().into()),
        outcome: "miss".into(),
        reason: None,
        code: "0".into(),
        carrier_code: Some("0".into()),
        status: Some("02".into()),
        carrier_transid: Some(carrier.calls()[0].transid.clone()),
        authenticated: true,
        age_s: row.age_s,
        latency_ms: row.latency_ms,
    };
    assert_eq!(row, expected);
    assert!(row.age_s.is_some_and(|age| age >= 0.0) && row.latency_ms > 0.0, "{row:?}");

    let hit = proxy.sign(&ICCID);
    proxy.get(&hit).await;
    let row = record(&proxy.audit(), hit.transid());
    assert_eq!((row.outcome.as_str(), row.status.as_deref()), ("hit", Some("02")));
    assert_eq!(row.carrier_transid, None, "no call was made for it");
}

#[tokio::test]
async fn every_answer_has_its_record_already_when_it_comes() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("client.0.cards", vec!["1476", "4600"]).start().await;
    let signed = || proxy.sign(&MSISDN);
    let used = signed();
    proxy.get(&used).await.assert_normal();
    for (query, code, outcome, reason, authenticated) in [
        (signed(), "0", "hit", None, true),
        (used, "7", "refused", Some("transid-reused"), true),
        (signed().with("token", "x"), "7", "refused", Some("token"), false),
        (signed().with("ebid", "1"), "3", "refused", Some("ebid"), true),
        (signed().without("ebid"), "10", "refused", Some("missing-parameter"), true),
        (signed().without("token"), "10", "refused", Some("missing-parameter"), false),
        (signed().without("msisdn"), "10", "refused", Some("no-card"), false),
        (signed().and("imsi", IMSI.number), "10", "refused", Some("several-cards"), false),
        (signed().with("msisdn", "x"), "38", "refused", Some("card-format"), false),
        (proxy.sign(&ICCID), "8", "refused", Some("card"), true),
    ] {
        let before = proxy.audit().len();
        assert_eq!(proxy.get(&query).await.code(), code);
        let audit = proxy.audit();
        assert_eq!(audit.len(), before + 1, "{query:?}");
        let row = &audit[before];
        assert_eq!((row.code.as_str(), row.outcome.as_str()), (code, outcome), "{row:?}");
        assert_eq!((row.reason.as_deref(), row.authenticated), (reason, authenticated), "{row:?}");
        assert_eq!(row.transid.as_deref(), Some(query.transid()));
    }
}

#[tokio::test]
async fn what_cannot_be_read_has_its_record_too() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (target, code, reason) in [
        ("/", "10006", "unknown-path"),
        (STATUS_PATH, "10", "missing-parameter"),
        ("/v2/userstatusrealsingle?appid=%zz", "10", "encoding"),
        ("http://example.com/v2/userstatusrealsingle", "10006", "foreign-host"),
    ] {
        let before = proxy.audit().len();
        assert_eq!(proxy.get_target(target, "").await.code(), code);
        let audit = proxy.audit();
        assert_eq!(audit.len(), before + 1, "{target}");
        assert_eq!((audit[before].reason.as_deref(), audit[before].code.as_str()), (Some(reason), code));
    }
}

#[tokio::test]
async fn a_failures_record_names_what_the_carrier_said() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("breaker.credentials_open", "1ms").start().await;
    let ask = async |rule: &str| -> (Response, LookupRow) {
        carrier.set_rules([Rule::parse(rule).unwrap()]);
        let query = proxy.sign(&MSISDN);
        let response = proxy.get(&query).await;
        (response, record(&proxy.audit(), query.transid()))
    };
    let (response, row) = ask("code=6").await;
    assert_eq!(response.code(), "73");
    assert_eq!((row.code.as_str(), row.carrier_code.as_deref()), ("73", Some("6")));
    assert_eq!((row.outcome.as_str(), row.reason.as_deref()), ("failed", Some("carrier-credentials")));
    let (_, row) = ask("http=502").await;
    assert_eq!((row.reason.as_deref(), row.carrier_code.as_deref()), (Some("http-status"), None));
    assert!(row.carrier_transid.is_some_and(|transid| transid.starts_with(ACCOUNT_APPID)), "a call was made");
    let (response, row) = ask("code=71").await;
    assert_eq!(
        (response.code(), row.code.as_str(), row.carrier_code.as_deref()),
        ("71".into(), "71", Some("71"))
    );
}

#[tokio::test]
async fn who_hangs_up_has_asked_all_the_same() {
    let carrier = carrier().await;
    let gate = Gate::new();
    carrier.set_rules([Rule::any().gate(&gate)]);
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&MSISDN);
    let mut connection = proxy.connect().await;
    connection.send(format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.text())).await;
    carrier.wait_for_calls(1).await;
    connection.reset();
    gate.open();
    let row = eventually("its record", || async {
        proxy.audit().into_iter().find(|row| row.transid.as_deref() == Some(query.transid()))
    })
    .await;
    assert_eq!(row.card.as_deref(), Some(MSISDN.number));
}

#[tokio::test]
async fn without_its_record_no_answer_leaves() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.deadline", "1s").start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let rows = proxy.audit().len();

    // Another program holds a write transaction on the segment, as a careless backup does.
    let other = rusqlite::Connection::open(proxy.audit_file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = proxy.look_up(&MSISDN).await;
    refused.assert_refusal_for("73", "audit unavailable");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(proxy.audit().len(), rows);

    other.execute_batch("ROLLBACK").unwrap();
    eventually("a response with code 0", || async {
        (proxy.look_up(&MSISDN).await.code() == "0").then_some(())
    })
    .await;
    eventually("the proxy to be ready again", || async {
        (proxy.admin("/ready", "").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_record_is_never_altered_or_deleted() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let before = proxy.audit();
    let other = rusqlite::Connection::open(proxy.audit_file()).unwrap();
    for forbidden in [
        "UPDATE record SET code = '0'",
        "DELETE FROM record",
        "UPDATE name SET text = 'x'",
        "DELETE FROM name",
        "DELETE FROM batch",
    ] {
        let error = other.execute(forbidden, []).unwrap_err().to_string();
        assert!(error.contains("never"), "{forbidden}: {error}");
    }
    assert_eq!(proxy.audit(), before);
}

#[tokio::test]
async fn the_length_of_the_wal_is_told_while_it_grows() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    eventually("a WAL of some length", || async {
        proxy.look_up(&MSISDN).await.assert_normal();
        let length = proxy.metrics().await.value("cmiot_audit_wal_bytes", [])?;
        (length > 0.0).then_some(())
    })
    .await;
}
