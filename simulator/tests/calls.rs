//! Responses to valid calls, in every framing that real clients use.

use std::time::Duration;

use cmiot_simulator::{CardKind, Clock, Config, Operation, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{
    APPID, CARD, NORMAL, Query, STATUS_PATH, ask, carrier, config, connect, get, patiently, request, send,
    start,
};

#[tokio::test]
async fn a_signed_look_up_is_answered_as_on_the_carriers_page() {
    let carrier = carrier().await;
    let reply = ask(&carrier).await;
    assert!(reply.head.starts_with("HTTP/1.1 200 OK"), "{}", reply.head);
    assert_eq!(reply.header("content-type"), Some("application/json;charset=UTF-8"));
    assert_eq!(reply.text(), NORMAL);
}

#[tokio::test]
async fn all_three_identifiers_are_served() {
    let carrier = carrier().await;
    for (kind, number) in [
        (CardKind::Msisdn, "1064830000000"),
        (CardKind::Iccid, "898602c99816c0445401"),
        (CardKind::Imsi, "460079650004176"),
    ] {
        let query = Query::new("").with(kind.parameter(), number);
        assert_eq!(get(&carrier, STATUS_PATH, &query).await.text(), NORMAL);
        assert_eq!(carrier.count_for(number), 1, "{number}");
    }
    let seen: Vec<_> = carrier.calls().into_iter().filter_map(|call| call.card).collect();
    assert_eq!(seen[1].to_string(), "898602C99816C0445401");
}

#[tokio::test]
async fn every_framing_of_the_sample_clients_is_read() {
    let carrier = carrier().await;
    let query = || Query::new(CARD).text();
    let form = query();
    let host = carrier.addr();
    for request in [
        format!("GET {STATUS_PATH}?{} HTTP/1.0\r\n\r\n", query()),
        format!("GET /v2//userstatusrealsingle?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", query()),
        format!(
            "GET http://{host}{STATUS_PATH}?{} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
            query()
        ),
        format!(
            "POST {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            query()
        ),
        format!(
            "POST {STATUS_PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        ),
        format!(
            "GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n",
            query()
        ),
    ] {
        let reply = send(&carrier, &request).await;
        assert_eq!(reply.text(), NORMAL, "{request}");
    }
    assert_eq!(carrier.count_code("0"), 6);
}

#[tokio::test]
async fn one_connection_carries_many_calls() {
    let carrier = carrier().await;
    let mut stream = connect(&carrier, &request()).await.unwrap();
    for calls in 1..=3 {
        patiently(carrier.wait_for_calls(calls)).await;
        let mut seen = Vec::new();
        while !seen.ends_with(NORMAL.as_bytes()) {
            assert_ne!(patiently(stream.read_buf(&mut seen)).await.unwrap(), 0);
        }
        stream.write_all(request().as_bytes()).await.unwrap();
    }
    assert_eq!(carrier.counts().connections, 1);
}

#[tokio::test]
async fn every_sister_operation_answers_and_the_action_is_counted_apart() {
    let carrier = carrier().await;
    for operation in Operation::ALL {
        let reply = get(&carrier, &format!("/v2/{}", operation.name()), &Query::new(CARD)).await;
        assert_eq!(reply.code(), "0", "{operation:?}");
        let fields = reply.json()["result"][0].as_object().map_or(0, serde_json::Map::len);
        assert_ne!(fields, 0, "{operation:?}");
        assert_eq!(carrier.count_operation(operation), 1, "{operation:?}");
    }
    assert_eq!((carrier.count(), carrier.counts().actions), (9, 1));
}

#[tokio::test]
async fn a_call_is_entered_in_the_book() {
    let clock = Clock::new(|| Duration::from_secs(1_767_196_800));
    let carrier = start(Config { clock, ..config() }).await;
    let query = Query::new(CARD);
    let reply = get(&carrier, STATUS_PATH, &query).await;
    assert_eq!(reply.header("date"), Some("Wed, 31 Dec 2025 16:00:00 GMT"));
    let calls = carrier.calls();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!(call.at, Duration::ZERO);
    assert_eq!((call.path.as_str(), call.operation), (STATUS_PATH, Some(Operation::Status)));
    assert_eq!((call.appid.as_str(), call.transid.as_str()), (APPID, query.value("transid")));
    assert_eq!(call.card.as_ref().map(|card| card.number.as_str()), Some(CARD));
    assert_eq!((call.code.as_deref(), call.outcome), (Some("0"), Outcome::Answered));
    assert!(!format!("{calls:?}{carrier:?}").contains(query.value("token")));
}

#[tokio::test]
async fn an_old_deployment_has_a_prefix() {
    let carrier = start(Config { prefix: "/iot/".to_owned(), ..config() }).await;
    assert_eq!(carrier.base_url(), format!("http://{}/iot", carrier.addr()));
    assert_eq!(get(&carrier, &format!("/iot{STATUS_PATH}"), &Query::new(CARD)).await.code(), "0");
    assert_eq!(get(&carrier, STATUS_PATH, &Query::new(CARD)).await.code(), "10006");
}
