//! The sample clients of the carrier's page, byte for byte: request line, headers, and parameters in their order.
//!
//! Orders and framings were taken from the runtimes themselves: Java's `HashMap` and `HttpURLConnection` (JDK 8 and
//! 17), Python 2.7's keyword `dict` and `urllib2`, libcurl as PHP sets it up, .NET Framework's `WebRequest`. The
//! page's own credentials are used verbatim in the last tests: as they are, none of them may pass.

use crate::support::{Answer, Card, ICCID, Line, MSISDN, Proxy, Query, carrier};

const HOST: &str = "api.iot.10086.cn";

/// `HttpURLConnection`, over a query in the order of Java's `HashMap`.
fn java(query: &Query, agent: &str, accept: &str) -> String {
    format!(
        "GET /v2/userstatusrealsingle?{} HTTP/1.1\r\nUser-Agent: {agent}\r\nHost: {HOST}\r\nAccept: {accept}\r\nConnection: keep-alive\r\n\r\n",
        query.in_order(["iccid", "transid", "appid", "ebid", "token"]).text()
    )
}

/// PHP's curl, over a query in the order of the sample's array.
fn php(query: &Query) -> String {
    format!(
        "GET /v2/userstatusrealsingle?{} HTTP/1.1\r\nHost: {HOST}\r\nAccept: */*\r\n\r\n",
        query.in_order(["token", "appid", "transid", "ebid", "iccid"]).text()
    )
}

/// Python 2's `urllib2`, over a query in the order of its `dict`.
fn python(query: &Query) -> String {
    format!(
        "GET /v2/userstatusrealsingle?{} HTTP/1.1\r\nAccept-Encoding: identity\r\nHost: {HOST}\r\nConnection: close\r\nUser-Agent: Python-urllib/2.7\r\n\r\n",
        query.in_order(["msisdn", "ebid", "transid", "token", "appid"]).text()
    )
}

/// .NET's `WebRequest`: POST with everything in the URL, no body and no Content-Type.
fn dotnet(query: &Query, headers: &str) -> String {
    format!(
        "POST /v2/userstatusrealsingle?{} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n{headers}\r\n",
        query.in_order(["appid", "transid", "ebid", "token", "msisdn"]).text()
    )
}

/// The first answer that is not an interim one.
async fn final_answer(line: &mut Line) -> Answer {
    loop {
        let answer = line.answer().await;
        if answer.status >= 200 {
            return answer;
        }
    }
}

#[tokio::test]
async fn javas_http_url_connection_is_served() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    for (agent, accept) in [
        ("Java/1.8.0_181", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"),
        ("Java/17.0.15", "text/html, image/gif, image/jpeg, */*; q=0.2"),
    ] {
        // It keeps the connection and sends its next look-up there.
        let mut line = proxy.connect().await;
        for _ in 0..2 {
            line.send(java(&proxy.sign(&ICCID), agent, accept)).await;
            line.answer().await.is_normal();
        }
    }
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn phps_curl_is_served() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    proxy.send(php(&proxy.sign(&ICCID))).await.is_normal();
}

#[tokio::test]
async fn pythons_urllib_is_served_and_its_connection_closed() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    let mut line = proxy.connect().await;
    line.send(python(&proxy.sign(&MSISDN))).await;
    let answer = line.answer().await;
    answer.is_normal();
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(line.ends().await, "urllib2 reads to the end of the connection");
}

#[tokio::test]
async fn dotnets_web_request_is_served() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    for headers in [
        "Connection: Keep-Alive\r\n",
        "Expect: 100-continue\r\nConnection: Keep-Alive\r\n", // some versions do, though there is no body
        "",                                                   // the later requests of one connection
    ] {
        let mut line = proxy.connect().await;
        for _ in 0..2 {
            line.send(dotnet(&proxy.sign(&MSISDN), headers)).await;
            final_answer(&mut line).await.is_normal();
        }
    }
}

#[tokio::test]
async fn a_form_that_waits_for_leave_to_send_its_body_is_served() {
    // curl and .NET do so with bodies of some size.
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    let body = proxy.sign(&MSISDN).text();
    let mut line = proxy.connect().await;
    line.send(format!(
        "POST /v2/userstatusrealsingle HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    ))
    .await;
    assert_eq!(line.answer().await.status, 100);
    line.send(body).await;
    line.answer().await.is_normal();
}

#[tokio::test]
async fn the_pages_own_values_do_not_pass() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    let token = "d016e144c0dd7bdaf1925b314f95823d5fb50723e94e27df632d9d46d7ea3875";
    // Eleven characters after the appid where there must be 22.
    let java_and_php = Query::of([
        ("appid", "A0B40O5"),
        ("ebid", "0001000000427"),
        ("transid", "A0B40O520161121001"),
        ("token", token),
        ("iccid", "898602B0011430000544"),
    ]);
    for sent in [java(&java_and_php, "Java/1.8.0_181", "*/*"), php(&java_and_php)] {
        proxy.send(sent).await.is_refusal_since("10", "transid");
    }
    // A transid without its appid.
    let python_s = Query::of([
        ("appid", "A0B40MI"),
        ("ebid", "0006000000345"),
        ("transid", "2016071314451512365445"),
        ("token", "71b23df3b9dcaf49bdc45e2d2df95fec86ec06eb18723f1806bcf30193dbc918"),
        ("msisdn", "14765004732"),
    ]);
    proxy.send(python(&python_s)).await.is_refusal_since("10", "transid");
    // Well formed, and of 2017.
    let dotnet_s = Query::of([
        ("appid", "0NZ"),
        ("transid", "0NZ2017051611163080000001"),
        ("ebid", "0001000000559"),
        ("token", "4b524a2958e823bd9245f733dc9a38a14784baef5151edf0f532296611c07564"),
        ("msisdn", "1064830000000"),
    ]);
    proxy.send(dotnet(&dotnet_s, "")).await.is_refusal_since("7", "stamp");
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn the_pages_prose_does_not_pass_but_its_cards_do() {
    let carrier = carrier().await;
    let proxy = Proxy::before(&carrier).await;
    // The example of each parameter's description; the token is broken by a blank there, joined here.
    let described = Query::of([
        ("appid", "100001"),
        ("transid", "1000012014101615303080000001"),
        ("ebid", "2300000000000001"),
        ("token", "4962ad69adcbf490c9f749fff734b5706a874ebab1120aaa23c9d288290534ca"),
        ("msisdn", "14765004176"),
    ]);
    proxy.get(&described).await.is_refusal_since("7", "stamp");
    for (kind, number) in [
        ("msisdn", "14765004176"),
        ("iccid", "898600D6991330004146"),
        ("imsi", "460079650004176"),
        ("iccid", "898602B0011430000544"),
        ("msisdn", "14765004732"),
        ("msisdn", "1064830000000"),
    ] {
        proxy.ask(&Card::new(kind, number)).await.is_normal();
    }
    // "xxx" in each place, as the page's URLs have it.
    let places = Query::of([
        ("appid", "xxx"),
        ("ebid", "xxx"),
        ("transid", "xxx"),
        ("token", "xxx"),
        ("msisdn", "xxx"),
    ]);
    proxy.get(&places).await.is_refusal("10");
}
