//! Request forms of real clients: each has one meaning or is refused.

use crate::support::{ICCID, MSISDN, Proxy, Response, STATUS_PATH, Setup, card_number, carrier};

#[tokio::test]
async fn a_post_may_carry_its_parameters_in_url_body_or_both() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for n in 0..=5 {
        let (url, body) = proxy.sign(&MSISDN).split(n);
        let target = if n == 0 { STATUS_PATH.to_owned() } else { format!("{STATUS_PATH}?{}", url.text()) };
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        proxy.post(&target, form, &body.text()).await.assert_normal();
    }
    // All parameters in both, with the same values.
    let query = proxy.sign(&MSISDN).text();
    proxy.post(&format!("{STATUS_PATH}?{query}"), "", &query).await.assert_normal();
}

#[tokio::test]
async fn every_response_names_the_transid_of_its_request() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let named = |response: &Response| response.header("cmiot-transid").map(str::to_owned);
    let query = proxy.sign(&MSISDN);
    let transid = query.transid().to_owned();
    // A miss, a used transid, and refusals at each stage of the checks.
    let (miss, used) = (proxy.get(&query).await, proxy.get(&query).await);
    miss.assert_normal();
    used.assert_refusal("7");
    let hit = proxy.sign(&MSISDN);
    let hit_transid = hit.transid().to_owned();
    assert_eq!(named(&proxy.get(&hit).await), Some(hit_transid));
    let text = query.text();
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let responses = [
        miss,
        used,
        proxy.get(&query.clone().with("token", "x")).await,
        proxy.get(&query.clone().without("ebid")).await,
        proxy.get(&query.clone().without("msisdn")).await,
        proxy.get(&query.clone().with("appid", "GW9999")).await,
        proxy.get_target(&format!("/v2/none?{text}"), "").await,
        proxy.get_target(&format!("http://elsewhere.example{STATUS_PATH}?{text}"), "").await,
        proxy.get_target(&format!("{STATUS_PATH}?{text}&token=x"), "").await,
        proxy.post("/v2/none", form, &text).await,
        proxy.post(STATUS_PATH, form, &text).await,
    ];
    for (at, response) in responses.iter().enumerate() {
        assert_eq!(named(response).as_ref(), Some(&transid), "response {at}: {}", response.text());
    }
    // Not of exact form, or not one transid.
    for query in [query.clone().with("transid", "20160713144515"), query.clone().without("transid")] {
        assert_eq!(named(&proxy.get(&query).await), None);
    }
    let two = format!("{STATUS_PATH}?{text}&transid={}", proxy.sign(&MSISDN).transid());
    assert_eq!(named(&proxy.get_target(&two, "").await), None);
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn parameters_come_in_any_order() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut names = ["appid", "transid", "ebid", "token", "msisdn"];
    for round in 0..10 {
        names.rotate_left(1);
        if round == 5 {
            names.reverse();
        }
        proxy.get(&proxy.sign(&MSISDN).in_order(names)).await.assert_normal();
    }
}

#[tokio::test]
async fn empty_means_absent_and_unknown_is_ignored() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let signed = || proxy.sign(&ICCID);
    proxy.get(&signed().and("msisdn", "").and("imsi", "")).await.assert_normal();
    proxy.get(&signed().and("appid", "").and("iccid", "")).await.assert_normal();
    proxy.get(&signed().and("callback", "x").and("_", "1").and("iccids", "1")).await.assert_normal();
    let padded = format!("&&{}&", signed().text());
    proxy.get_target(&format!("{STATUS_PATH}?{padded}"), "").await.assert_normal();
    let calls = carrier.calls();
    assert_eq!(calls.len(), 1, "one card, whatever the other parameters");
    assert_eq!(calls[0].path, STATUS_PATH);
}

#[tokio::test]
async fn percent_encoding_is_undone() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let query = proxy.sign(&MSISDN);
    let encode = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let encoded: Vec<String> = query
        .text()
        .split('&')
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            format!("{}={}", encode(name), encode(value))
        })
        .collect();
    proxy.get_target(&format!("{STATUS_PATH}?{}", encoded.join("&")), "").await.assert_normal();
    for broken in ["%", "%4", "%zz", "%00", "%ff%fe"] {
        proxy.get(&proxy.sign(&MSISDN).with("ebid", broken)).await.assert_refusal("10");
    }
}

#[tokio::test]
async fn slashes_may_be_doubled() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for path in ["/v2//userstatusrealsingle", "//v2/userstatusrealsingle", "//v2///userstatusrealsingle"] {
        proxy.get_target(&format!("{path}?{}", proxy.sign(&MSISDN).text()), "").await.assert_normal();
    }
    assert_eq!(carrier.count(), 1, "one operation, however it is written");
}

#[tokio::test]
async fn an_absolute_target_may_name_the_carrier_or_us() {
    let carrier = carrier().await;
    let proxy = Setup::calling(&format!("http://localhost:{}", carrier.addr().port()))
        .set("gateway.names", vec!["Proxy.Example"])
        .start()
        .await;
    for authority in [
        "localhost",          // the carrier's host, as it is configured
        "localhost:80",       // with a port
        "LOCALHOST",          // hosts have no case
        "proxy.example",      // a name of the proxy
        "proxy.example:8080", // with a port
        "127.0.0.1",          // an address of the proxy
        &proxy.address.to_string(),
    ] {
        let target = format!("http://{authority}{STATUS_PATH}?{}", proxy.sign(&MSISDN).text());
        proxy.get_target(&target, "").await.assert_normal();
    }
    for foreign in ["example.com", "localhost.example.com", "10.0.0.1", "[::2]:80"] {
        let target = format!("http://{foreign}{STATUS_PATH}?{}", proxy.sign(&MSISDN).text());
        proxy.get_target(&target, "").await.assert_refusal_for("10006", "421");
    }
}

#[tokio::test]
async fn the_real_carriers_host_is_ours_in_front_of_it() {
    // The carrier is not reachable from here, so the lookup fails after the request was accepted.
    let proxy = Setup::calling("http://api.iot.10086.cn").set("carrier.timeout", "1s").start().await;
    let target = format!("http://api.iot.10086.cn{STATUS_PATH}?{}", proxy.sign(&MSISDN).text());
    let response = proxy.get_target(&target, "").await;
    response.assert_refusal("73");
}

#[tokio::test]
async fn a_content_type_says_nothing() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for odd in [
        "application/x-www-form-urlencoded",
        "application/json;charset=UTF-8",
        "text/xml",
        "x",
        "",
        "multipart/form-data; boundary=x",
    ] {
        let header = format!("Content-Type: {odd}\r\n");
        proxy.get_with(&proxy.sign(&MSISDN), &header).await.assert_normal();
        proxy.post(STATUS_PATH, &header, &proxy.sign(&MSISDN).text()).await.assert_normal();
    }
}

#[tokio::test]
async fn a_get_may_declare_an_empty_body_but_not_carry_one() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy
        .get_with(&proxy.sign(&MSISDN), "Content-Type: application/json\r\nContent-Length: 0\r\n")
        .await
        .assert_normal();
    let query = proxy.sign(&MSISDN).text();
    let with_body = format!("GET {STATUS_PATH}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}");
    proxy.send(with_body).await.assert_refusal("10");
}

#[tokio::test]
async fn a_connection_serves_one_look_up_after_another() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut connection = proxy.connect().await;
    for n in 0..5 {
        let query = proxy.sign(&card_number(n)).text();
        match n % 2 {
            0 => connection.send(format!("GET {STATUS_PATH}?{query} HTTP/1.1\r\nHost: x\r\n\r\n")).await,
            _ => {
                let length = query.len();
                connection
                    .send(format!(
                        "POST {STATUS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{query}"
                    ))
                    .await;
            }
        }
        connection.response().await.assert_normal();
    }
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_open() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut connection = proxy.connect().await;
    connection.send(format!("GET {STATUS_PATH} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    connection.response().await.assert_refusal("10");
    connection
        .send(format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", proxy.sign(&MSISDN).text()))
        .await;
    connection.response().await.assert_normal();
}

#[tokio::test]
async fn pipelined_look_ups_are_answered_in_their_order() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let statuses = ["00", "01", "02", "03", "04"];
    carrier.set_rules(
        statuses
            .iter()
            .zip(0..)
            .map(|(status, n)| cmiot_simulator::Rule::card(card_number(n).number).status(*status)),
    );
    let sent: String = (0..5)
        .map(|n| {
            format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n\r\n", proxy.sign(&card_number(n)).text())
        })
        .collect();
    let mut connection = proxy.connect().await;
    connection.send(sent).await;
    for status in statuses {
        assert_eq!(connection.response().await.json()["result"][0]["STATUS"], status);
    }
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut connection = proxy.connect().await;
    let query = proxy.sign(&MSISDN).text();
    let length = query.len();
    for byte in
        format!("POST {STATUS_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{query}").bytes()
    {
        connection.send([byte]).await;
    }
    connection.response().await.assert_normal();
}

#[tokio::test]
async fn http_1_0_is_served_with_and_without_keep_alive() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let get =
        |headers: &str| format!("GET {STATUS_PATH}?{} HTTP/1.0\r\n{headers}\r\n", proxy.sign(&MSISDN).text());

    let mut connection = proxy.connect().await;
    connection.send(get("")).await;
    let response = connection.response().await;
    response.assert_normal();
    assert_eq!(response.version, "HTTP/1.0");
    assert!(connection.ends().await);

    let mut connection = proxy.connect().await;
    for _ in 0..2 {
        connection.send(get("Host: x\r\nConnection: keep-alive\r\n")).await;
        let response = connection.response().await;
        response.assert_normal();
        assert!(response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")));
    }
}

#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    // `printf ... | nc` and some modems close their sending direction after the request.
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut connection = proxy.connect().await;
    connection.send(format!("GET {STATUS_PATH}?{} HTTP/1.0\r\n\r\n", proxy.sign(&MSISDN).text())).await;
    connection.shut_down_sending().await;
    connection.response().await.assert_normal();
}

#[tokio::test]
async fn what_is_not_http_gets_a_bare_error() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for garbage in ["garbage\r\n\r\n", "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n"] {
        let mut connection = proxy.connect().await;
        connection.send(garbage).await;
        let response = connection.try_response().await;
        assert!(response.is_none_or(|response| (400..500).contains(&response.status)), "{garbage:?}");
    }
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(carrier.count(), 1);
}
