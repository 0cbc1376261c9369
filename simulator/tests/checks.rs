//! Refusals of the carrier: codes, and the order of the checks.

use cmiot_simulator::{Account, Config, Operation, Repeated};

use crate::client::{
    APPID, CARD, EBID, NORMAL, PASSWORD, Query, STATUS_PATH, ask, carrier, config, get, send, start,
};

#[tokio::test]
async fn each_fault_has_its_code() {
    let carrier = carrier().await;
    let good = || Query::new(CARD);
    for (query, code) in [
        (good().with("appid", ""), "10"),
        (good().with("transid", ""), "10"),
        (good().with("token", ""), "10"),
        (good().with("transid", &"1".repeat(49)), "10"),
        (good().and("appid", "100002"), "10"),
        (good().with("appid", "100002"), "4"),
        (good().with("token", &"0".repeat(64)), "7"),
        (good().with("token", "garbage"), "7"),
        (good().with("ebid", ""), "10"),
        (good().with("ebid", "0001000000008"), "3"),
        (good().with("msisdn", ""), "10"),
        (good().with("imsi", "460079650004176"), "10"),
        (good().with("msisdn", "147650041766666"), "38"),
        (good().with("msisdn", "").with("iccid", "898600D69913300041"), "38"),
    ] {
        let reply = get(&carrier, STATUS_PATH, &query).await;
        assert!(reply.head.starts_with("HTTP/1.1 200 OK"), "{}", reply.head);
        assert_eq!(reply.code(), code, "{}", query.text());
        assert_eq!(reply.json()["result"], serde_json::json!([]), "{}", query.text());
    }
    assert_eq!((carrier.count_code("7"), carrier.count_code("38"), carrier.count_code("0")), (2, 2, 0));
}

#[tokio::test]
async fn the_first_fault_in_the_carriers_order_is_named() {
    let carrier = carrier().await;
    let mut query = Query::new("x").with("ebid", "1").with("token", "t").with("appid", "nobody");
    let mut codes = Vec::new();
    codes.push(get(&carrier, "/v2/nothing", &query).await.code());
    codes.push(get(&carrier, STATUS_PATH, &query).await.code());
    query = query.with("appid", APPID);
    codes.push(get(&carrier, STATUS_PATH, &query).await.code());
    let signed = Query::signed(query.value("transid"), PASSWORD);
    query = query.with("token", signed.value("token"));
    codes.push(get(&carrier, STATUS_PATH, &query).await.code());
    query = query.with("ebid", EBID);
    codes.push(get(&carrier, STATUS_PATH, &query).await.code());
    query = query.with("msisdn", CARD);
    codes.push(get(&carrier, STATUS_PATH, &query).await.code());
    assert_eq!(codes, ["10006", "4", "7", "3", "38", "0"]);
}

#[tokio::test]
async fn a_method_that_the_carrier_has_not_gets_an_error_page() {
    let carrier = carrier().await;
    let target = format!("{STATUS_PATH}?{}", Query::new(CARD).text());
    let reply =
        send(&carrier, &format!("DELETE {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    assert!(reply.head.starts_with("HTTP/1.1 405"), "{}", reply.head);
}

#[tokio::test]
async fn a_token_is_taken_in_either_case_and_with_an_odd_transid() {
    let carrier = carrier().await;
    let query = Query::new(CARD);
    let upper = query.clone().with("token", &query.value("token").to_uppercase());
    assert_eq!(get(&carrier, STATUS_PATH, &upper).await.text(), NORMAL);
    let odd = Query::signed("20141016153", PASSWORD).with("msisdn", CARD);
    assert_eq!(get(&carrier, STATUS_PATH, &odd).await.text(), NORMAL);
}

#[tokio::test]
async fn told_to_be_strict_it_refuses_an_odd_transid() {
    let carrier = start(Config { strict_transid: true, ..config() }).await;
    let odd = Query::signed("20141016153", PASSWORD).with("msisdn", CARD);
    assert_eq!(get(&carrier, STATUS_PATH, &odd).await.code(), "10");
    assert_eq!(ask(&carrier).await.code(), "0");
}

#[tokio::test]
async fn a_repeated_transid_is_tolerated_and_listed() {
    let carrier = carrier().await;
    let query = Query::new(CARD);
    for _ in 0..3 {
        assert_eq!(get(&carrier, STATUS_PATH, &query).await.code(), "0");
    }
    ask(&carrier).await;
    let transid = query.value("transid").to_owned();
    assert_eq!(carrier.duplicates(), [Repeated { appid: APPID.to_owned(), transid, calls: 3 }]);
    assert_eq!(carrier.counts().repeated, 2);
}

#[tokio::test]
async fn a_repeated_transid_can_be_refused() {
    let carrier = start(Config { refuse_repeats: true, ..config() }).await;
    let query = Query::new(CARD);
    assert_eq!(get(&carrier, STATUS_PATH, &query).await.code(), "0");
    assert_eq!(get(&carrier, STATUS_PATH, &query).await.code(), "7");
}

#[tokio::test]
async fn an_operation_may_have_an_ebid_of_its_own() {
    let account = Account::new(APPID, EBID, PASSWORD).with_ebid(Operation::Power, "0001000000008");
    let carrier = start(Config::new([account])).await;
    let path = "/v2/onandoffrealsingle";
    assert_eq!(get(&carrier, path, &Query::new(CARD)).await.code(), "3");
    assert_eq!(get(&carrier, path, &Query::new(CARD).with("ebid", "0001000000008")).await.code(), "0");
}

#[tokio::test]
async fn a_password_can_be_changed_under_way_without_forgetting_transids() {
    let carrier = carrier().await;
    let old = Query::new(CARD);
    assert!(carrier.set_password(APPID, "new"));
    assert_eq!(get(&carrier, STATUS_PATH, &old).await.code(), "7");
    let new = Query::signed(old.value("transid"), "new").with("msisdn", CARD);
    assert_eq!(get(&carrier, STATUS_PATH, &new).await.code(), "0");
    assert_eq!(carrier.duplicates().len(), 1);
    assert!(!carrier.set_password("nobody", "new"));
}

#[tokio::test]
async fn accounts_can_be_replaced_under_way() {
    let carrier = carrier().await;
    carrier.set_accounts([]);
    assert_eq!(ask(&carrier).await.code(), "4");
}
