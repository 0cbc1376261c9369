//! A lookup: the body and the headers of its response.

use cmiot_simulator::Rule;

use crate::support::{ICCID, IMSI, MSISDN, NORMAL, Proxy, carrier};

#[tokio::test]
async fn a_card_is_looked_up_by_each_of_its_numbers() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for card in [MSISDN, ICCID, IMSI] {
        proxy.look_up(&card).await.assert_normal();
        assert_eq!(carrier.count_for(card.number), 1);
    }
    assert_eq!(carrier.count(), 3);
}

#[tokio::test]
async fn the_carriers_body_is_relayed_byte_for_byte() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (card, body) in [
        (MSISDN, r#"{"status":"0","message":"\u6b63\u786e","result":[{"STATUS":"02"}]}"#),
        (
            ICCID,
            "{\n    \"result\":[ {\"STATUS\":\"77\",\"MORE\":1} ],\n    \"status\":\"0\",\"message\":\"正确\", \"x\":{}}\n",
        ),
        (IMSI, r#"{"status":"12","message":"号码不存在","result":[{"hint":"x"}]}"#),
    ] {
        carrier.set_rules([Rule::any().body(body)]);
        assert_eq!(proxy.look_up(&card).await.text(), body);
        assert_eq!(proxy.look_up(&card).await.text(), body, "and from the cache too");
    }
}

#[tokio::test]
async fn every_status_is_relayed() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (n, status) in ["00", "01", "02", "03", "04", "05", "06", "07", "99"].into_iter().enumerate() {
        let card = crate::support::card_number(n as u32);
        carrier.set_rules([Rule::any().status(status)]);
        let response = proxy.look_up(&card).await;
        assert_eq!(response.json()["result"][0]["STATUS"], status);
        assert_eq!(response.code(), "0");
    }
}

#[tokio::test]
async fn an_answer_says_where_it_comes_from() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;

    let miss = proxy.look_up(&MSISDN).await;
    assert_eq!(miss.header("content-type"), Some("application/json;charset=UTF-8"));
    assert_eq!(miss.header("cache-control"), Some("no-store"));
    assert_eq!(miss.header("content-length"), Some(NORMAL.len().to_string().as_str()));
    assert_eq!(miss.header("cache-status"), Some("cmiot-proxy; fwd=uri-miss; stored"));
    assert!(miss.header("date").is_some_and(|date| date.ends_with(" GMT")), "{:?}", miss.headers);
    assert_eq!(miss.header("proxy-status"), None, "the carrier replied");
    assert_eq!(miss.header("retry-after"), None);
    assert_eq!(miss.age(), 0);

    let hit = proxy.look_up(&MSISDN).await;
    assert!(hit.cache().starts_with("hit; ttl="), "{:?}", hit.headers);
    assert_eq!(hit.header("proxy-status"), None);
    assert!(hit.header("date").is_some() && hit.header("age").is_some());
    assert_eq!(hit.body, miss.body);
}
