//! The sample clients of the carrier page, byte for byte: request line, headers, order of the parameters.
//!
//! Orders and framing are those of the runtimes: Java's `HashMap` and `HttpURLConnection` (JDK 8 and 17), Python 2.7's
//! keyword `dict` and `urllib2`, libcurl as PHP configures it, .NET Framework's `WebRequest`. The last tests send the
//! example credentials of the page, which are all invalid.

use crate::support::{Card, Connection, ICCID, MSISDN, Proxy, Query, Response, carrier};

const HOST: &str = "api.iot.10086.cn";

/// Java's `HttpURLConnection`, with parameters in the order of a `HashMap`.
fn java(query: &Query, agent: &str, accept: &str) -> String {
    format!(
        "GET /v2/userstatusrealsingle?{} HTTP/1.1\r\nUser-Agent: {agent}\r\nHost: {HOST}\r\nAccept: {accept}\r\nConnection: keep-alive\r\n\r\n",
        query.in_order(["iccid", "transid", "appid", "ebid", "token"]).text()
    )
}

/// PHP's curl, with parameters in the order of the sample's array.
fn php(query: &Query) -> String {
    format!(
        "GET /v2/userstatusrealsingle?{} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n",
        query.in_order(["token", "appid", "transid", "ebid", "iccid"]).text()
    )
}

/// Python 2's `urllib2`, with parameters in the order of its `dict`.
fn python(query: &Query) -> String {
    format!(
        "GET /v2/userstatusrealsingle?{} HTTP/1.1\r\nAccept-Encoding: identity\r\nHost: {HOST}\r\nConnection: close\r\nUser-Agent: Python-urllib/2.7\r\n\r\n",
        query.in_order(["msisdn", "ebid", "transid", "token", "appid"]).text()
    )
}

/// .NET's `WebRequest`: a POST with all parameters in the URL, without a body and a Content-Type.
fn dotnet(query: &Query, headers: &str) -> String {
    format!(
        "POST /v2/userstatusrealsingle?{} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n{headers}\r\n",
        query.in_order(["appid", "transid", "ebid", "token", "msisdn"]).text()
    )
}

/// The first response that is not an interim response.
async fn final_response(connection: &mut Connection) -> Response {
    loop {
        let response = connection.response().await;
        if response.status >= 200 {
            return response;
        }
    }
}

#[tokio::test]
async fn javas_http_url_connection_is_served() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for (agent, accept) in [
        ("Java/1.8.0_181", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"),
        ("Java/17.0.15", "text/html, image/gif, image/jpeg, */*; q=0.2"),
    ] {
        // It sends its next lookup on the same connection.
        let mut connection = proxy.connect().await;
        for _ in 0..2 {
            connection.send(java(&proxy.sign(&ICCID), agent, accept)).await;
            connection.response().await.assert_normal();
        }
    }
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn phps_curl_is_served() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.send(php(&proxy.sign(&ICCID))).await.assert_normal();
}

#[tokio::test]
async fn pythons_urllib_is_served_and_its_connection_closed() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut connection = proxy.connect().await;
    connection.send(python(&proxy.sign(&MSISDN))).await;
    let response = connection.response().await;
    response.assert_normal();
    assert_eq!(response.header("connection"), Some("close"));
    assert!(connection.ends().await, "urllib2 reads to the end of the connection");
}

#[tokio::test]
async fn dotnets_web_request_is_served() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for headers in [
        "Connection: Keep-Alive\r\n",
        "Expect: 100-continue\r\nConnection: Keep-Alive\r\n", // some versions, even without a body
        "",                                                   // later requests of a connection
    ] {
        let mut connection = proxy.connect().await;
        for _ in 0..2 {
            connection.send(dotnet(&proxy.sign(&MSISDN), headers)).await;
            final_response(&mut connection).await.assert_normal();
        }
    }
}

#[tokio::test]
async fn a_form_that_waits_for_leave_to_send_its_body_is_served() {
    // curl and .NET send Expect: 100-continue with larger bodies.
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let body = proxy.sign(&MSISDN).text();
    let mut connection = proxy.connect().await;
    connection.send(format!(
        "POST /v2/userstatusrealsingle HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    ))
    .await;
    assert_eq!(connection.response().await.status, 100);
    connection.send(body).await;
    connection.response().await.assert_normal();
}

#[tokio::test]
async fn the_pages_own_values_do_not_pass() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let token = "d016e144c0dd7bdaf1925b314f95823d5fb50723e94e27df632d9d46d7ea3875";
    // 11 characters after the appid instead of 22.
    let java_and_php = Query::of([
        ("appid", "A0B40O5"),
        ("ebid", "0001000000427"),
        ("transid", "A0B40O520161121001"),
        ("token", token),
        ("iccid", "898602B0011430000544"),
    ]);
    for sent in [java(&java_and_php, "Java/1.8.0_181", "*/*"), php(&java_and_php)] {
        proxy.send(sent).await.assert_refusal_for("10", "transid");
    }
    // A transid without its appid.
    let python_page = Query::of([
        ("appid", "A0B40MI"),
        ("ebid", "0006000000345"),
        ("transid", "2016071314451512365445"),
        ("token", "71b23df3b9dcaf49bdc45e2d2df95fec86ec06eb18723f1806bcf30193dbc918"),
        ("msisdn", "14765004732"),
    ]);
    proxy.send(python(&python_page)).await.assert_refusal_for("10", "transid");
    // Well formed, with a stamp in 2017.
    let dotnet_page = Query::of([
        ("appid", "0NZ"),
        ("transid", "0NZ2017051611163080000001"),
        ("ebid", "0001000000559"),
        ("token", "4b524a2958e823bd9245f733dc9a38a14784baef5151edf0f532296611c07564"),
        ("msisdn", "1064830000000"),
    ]);
    proxy.send(dotnet(&dotnet_page, "")).await.assert_refusal_for("7", "stamp");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn the_pages_prose_does_not_pass_but_its_cards_do() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    // The examples of the parameter table. The token has a space on the page.
    let described = Query::of([
        ("appid", "100001"),
        ("transid", "1000012014101615303080000001"),
        ("ebid", "2300000000000001"),
        ("token", "4962ad69adcbf490c9f749fff734b5706a874ebab1120aaa23c9d288290534ca"),
        ("msisdn", "14765004176"),
    ]);
    proxy.get(&described).await.assert_refusal_for("7", "stamp");
    for (kind, number) in [
        ("msisdn", "14765004176"),
        ("iccid", "898600D6991330004146"),
        ("imsi", "460079650004176"),
        ("iccid", "898602B0011430000544"),
        ("msisdn", "14765004732"),
        ("msisdn", "1064830000000"),
    ] {
        proxy.look_up(&Card::new(kind, number)).await.assert_normal();
    }
    // "xxx" as each value, as in the page's URLs.
    let placeholders = Query::of([
        ("appid", "xxx"),
        ("ebid", "xxx"),
        ("transid", "xxx"),
        ("token", "xxx"),
        ("msisdn", "xxx"),
    ]);
    proxy.get(&placeholders).await.assert_refusal("10");
}
