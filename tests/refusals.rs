//! Refusals by the proxy: HTTP 200, in the carrier's envelope, with the carrier's code for the reason.
//!
//! A refusal costs no carrier call; most tests end by checking that.

use crate::support::{
    Card, GATEWAY_PASSWORD, ICCID, IMSI, MSISDN, Proxy, Query, STATUS_PATH, Setup, TIMEOUT, carrier,
};

#[tokio::test]
async fn a_missing_parameter_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for name in ["appid", "transid", "ebid", "token"] {
        proxy.get(&proxy.sign(&MSISDN).without(name)).await.assert_refusal_for("10", name);
        proxy.get(&proxy.sign(&MSISDN).with(name, "")).await.assert_refusal_for("10", name);
    }
    proxy.get_target(STATUS_PATH, "").await.assert_refusal("10");
    proxy.post(STATUS_PATH, "", "").await.assert_refusal("10");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn no_card_or_two_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.get(&proxy.sign(&MSISDN).without("msisdn")).await.assert_refusal_for("10", "none of");
    proxy.get(&proxy.sign(&MSISDN).with("msisdn", "")).await.assert_refusal_for("10", "none of");
    for other in [ICCID, IMSI] {
        let two = proxy.sign(&MSISDN).and(other.kind, other.number);
        proxy.get(&two).await.assert_refusal_for("10", "more than one");
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn a_doubled_parameter_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for name in ["appid", "transid", "ebid", "token", "msisdn"] {
        let signed = proxy.sign(&MSISDN);
        let same = signed.clone().and(if name == "msisdn" { "msisdn" } else { name }, signed.value(name));
        proxy.get(&same).await.assert_refusal_for("10", "twice");
        proxy.get(&proxy.sign(&MSISDN).and(name, "1")).await.assert_refusal_for("10", "twice");

        // Different values in URL and body.
        let query = proxy.sign(&MSISDN).text();
        proxy
            .post(&format!("{STATUS_PATH}?{query}"), "", &format!("{name}=1"))
            .await
            .assert_refusal_for("10", "twice");
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn broken_percent_encoding_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for broken in ["%", "%4", "%zz", "%4x", "%ff%fe"] {
        for query in [proxy.sign(&MSISDN).and("x", broken), proxy.sign(&MSISDN).with("msisdn", broken)] {
            proxy.get(&query).await.assert_refusal_for("10", "encoding");
            proxy.post(STATUS_PATH, "", &query.text()).await.assert_refusal_for("10", "encoding");
        }
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn a_nul_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let encoded = proxy.sign(&MSISDN).and("x", "a%00b");
    proxy.get(&encoded).await.assert_refusal_for("10", "encoding");
    proxy.post(STATUS_PATH, "", &encoded.text()).await.assert_refusal_for("10", "encoding");
    // In a request target, hyper refuses a NUL; in a body, the proxy does.
    let bare = proxy.sign(&MSISDN).and("x", "a\0b");
    proxy.post(STATUS_PATH, "", &bare.text()).await.assert_refusal_for("10", "encoding");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn a_malformed_transid_is_a_10_whatever_its_token() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let good = proxy.gateway.transid();
    let appid = &proxy.gateway.appid;
    let tail = &good[appid.len()..];
    for transid in [
        tail.to_owned(),                           // no appid
        format!("OTHER1{tail}"),                   // another appid
        format!("{}{tail}", appid.to_lowercase()), // lower case
        good[..good.len() - 1].to_owned(),         // too short
        format!("{good}0"),                        // too long
        format!("{good}%80%00%00"),                // the beginning of a length extension
        format!("{appid}20260230000000{:08}", 1),  // no such day
        format!("{appid}20260101240000{:08}", 1),  // no such hour
        format!("{appid}20260101000000{:08}", 0),  // the sequence begins at 1
        format!("{appid}2026010100000x{:08}", 1),
        good.replace(appid.as_str(), &format!("{appid}+")),
    ] {
        proxy.get(&proxy.gateway.sign_transid(&MSISDN, &transid)).await.assert_refusal("10");
    }
    proxy.get(&proxy.gateway.sign_transid(&MSISDN, &good)).await.assert_normal();
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_malformed_appid_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for appid in ["GW-001", "GW%20001", "%E5%BA%94", "AAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let gateway = proxy.gateway.named(appid, "x");
        proxy.get(&gateway.sign(&MSISDN)).await.assert_refusal("10");
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn a_malformed_card_is_a_38() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (kind, number) in [
        ("msisdn", "14765004176000"),
        ("msisdn", "1476500417x"),
        ("msisdn", "+8614765004"),
        ("msisdn", "%E4%B8%80"),
        ("iccid", "898600D699133000414"),
        ("iccid", "898600D69913300041466"),
        ("iccid", "898600G6991330004146"),
        ("imsi", "4600796500041760"),
        ("imsi", "46007965000417a"),
    ] {
        proxy.look_up(&Card::new(kind, number)).await.assert_refusal("38");
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn an_unknown_appid_and_a_wrong_token_are_one_and_the_same_7() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let stranger = proxy.gateway.named("STRANGER1", "whatever");
    let unknown = proxy.get(&stranger.sign(&MSISDN)).await;
    unknown.assert_refusal_for("7", "appid or token");

    let signed = proxy.sign(&MSISDN);
    let of_another = proxy.sign(&MSISDN).value("token").to_owned();
    let short = signed.value("token")[..63].to_owned();
    for token in ["0".repeat(64), of_another, short, "x".into(), format!("%20{}", signed.value("token"))] {
        let wrong = proxy.get(&signed.clone().with("token", &token)).await;
        wrong.assert_refusal("7");
        assert_eq!(wrong.body, unknown.body);
        assert_eq!(wrong.header("proxy-status"), unknown.header("proxy-status"));
    }
    // An unknown appid with the password of a known client.
    let borrowed = proxy.gateway.named("STRANGER1", GATEWAY_PASSWORD);
    proxy.get(&borrowed.sign(&MSISDN)).await.assert_refusal_for("7", "appid or token");
    // The transid is still unused; the token may be upper case.
    let upper = signed.value("token").to_uppercase();
    proxy.get(&signed.with("token", &upper)).await.assert_normal();
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn nothing_about_a_card_is_told_to_who_cannot_sign() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let cached = proxy.get(&proxy.sign(&MSISDN).with("token", &"0".repeat(64))).await;
    let not_cached = proxy.get(&proxy.sign(&ICCID).with("token", &"0".repeat(64))).await;
    cached.assert_refusal("7");
    assert_eq!(cached.body, not_cached.body);
    assert_eq!(cached.header("proxy-status"), not_cached.header("proxy-status"));
}

#[tokio::test]
async fn another_ebid_is_a_3_and_only_after_the_token() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let wrong = proxy.sign(&MSISDN).with("ebid", "0001000000008");
    proxy.get(&wrong).await.assert_refusal_for("3", "ebid");
    let both_wrong = wrong.with("token", &"0".repeat(64));
    proxy.get(&both_wrong).await.assert_refusal("7");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn an_unknown_path_is_a_10006() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&MSISDN).text();
    for path in [
        "/",
        "/v2",
        "/v2/nosuchoperation",
        "/v1/userstatusrealsingle",
        "/v2/userstatusrealsingle/x",
        "/metrics",
    ] {
        proxy.get_target(&format!("{path}?{query}"), "").await.assert_refusal_for("10006", "404");
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn another_method_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let query = proxy.sign(&MSISDN).text();
        let sent = format!("{method} {STATUS_PATH}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        proxy.send(sent).await.assert_refusal_for("10", "neither GET nor POST");
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn what_is_too_long_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&MSISDN).text();
    let long = "x".repeat(2_048);
    proxy.get_target(&format!("{STATUS_PATH}?{query}&x={long}"), "").await.assert_refusal_for("10", "2 KiB");
    let long = "x".repeat(4_096);
    proxy.post(STATUS_PATH, "", &format!("{query}&x={long}")).await.assert_refusal_for("10", "4 KiB");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn a_body_of_undeclared_length_is_a_10() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&MSISDN).text();
    let chunks = format!("{:x}\r\n{query}\r\n0\r\n\r\n", query.len());
    for length in ["", "Content-Length: 5\r\n"] {
        let head =
            format!("POST {STATUS_PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{length}\r\n");
        proxy.send(format!("{head}{chunks}")).await.assert_refusal_for("10", "Transfer-Encoding");
    }
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn a_body_that_never_comes_is_a_10() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.body_timeout", "200ms").start().await;
    let mut connection = proxy.connect().await;
    connection
        .send(format!("POST {STATUS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\nappid="))
        .await;
    connection.response().await.assert_refusal_for("10", "cut off");
}

#[tokio::test]
async fn only_if_cached_is_a_73_unless_it_is() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let only_if_cached = "Cache-Control: max-stale, only-if-cached\r\n";
    proxy.get_with(&proxy.sign(&MSISDN), only_if_cached).await.assert_refusal_for("73", "status-code=504");
    assert_eq!(carrier.count(), 0);
    proxy.look_up(&MSISDN).await.assert_normal();
    let hit = proxy.get_with(&proxy.sign(&MSISDN), only_if_cached).await;
    hit.assert_normal();
    assert!(hit.cache().starts_with("hit"), "{hit:?}");
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_only_where_that_helps() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let wrong = Query::of([("appid", "x")]);
    assert_eq!(proxy.get(&wrong).await.header("retry-after"), None);
    assert_eq!(proxy.get(&proxy.sign(&MSISDN).with("ebid", "1")).await.header("retry-after"), None);
    carrier.kill().await;
    let down = proxy.look_up(&MSISDN).await;
    down.assert_refusal("73");
    let wait: u64 = down.header("retry-after").expect("waiting helps").parse().expect("seconds");
    assert!((1..=TIMEOUT.as_secs()).contains(&wait), "{wait}");
}

#[tokio::test]
async fn texts_are_those_of_the_carriers_table() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (query, text) in [
        (proxy.sign(&MSISDN).without("ebid"), "请求参数不正确，请参考能力调用文档"),
        (proxy.sign(&Card::new("msisdn", "x")), "码号信息错误，请检查MSISDN、ICCID、IMSI是否正确"),
        (proxy.sign(&MSISDN).with("token", "x"), "TOKEN鉴权不通过"),
        (proxy.sign(&MSISDN).with("ebid", "1"), "订购关系鉴权不通过"),
    ] {
        assert_eq!(proxy.get(&query).await.json()["message"], text);
    }
}
