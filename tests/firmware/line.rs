//! Faults of a serial line: late and replayed responses, messages of the modem, noise, a `Date` of an attacker.
//!
//! The test is the far end of the line, and sends its bytes when the gateway has reached a known point, so that no test
//! depends on a duration. A response without `cmiot-transid` is a carrier's; the proxy's name their request.

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::{head, timeout};
use crate::support::chip::Program::{C, Rust};
use crate::support::chip::{Bridge, Gateway, M3, Program};
use crate::support::within;

/// A time that the gateways' clocks show: 2026-11-28.
const CLOCK: &str = "clock=1795946400";

#[tokio::test]
async fn a_late_response_is_not_taken_for_the_next_ones() {
    for program in [Rust(M3), C] {
        let (mut gateway, mut line) = start(program, "2").await;
        line.request().await;
        gateway.says("no response").await;
        // It comes in the pause before the next request.
        line.send(&carrier("01")).await;
        line.request().await;
        line.send(&carrier("02")).await;
        line.request().await;
        line.send(&carrier("03")).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert_eq!(statuses(&gateway), ["02", "03"], "{}", gateway.text());
    }
}

#[tokio::test]
async fn a_later_response_is_not_either() {
    for program in [Rust(M3), C] {
        let (mut gateway, mut line) = start(program, "2").await;
        line.request().await;
        gateway.says("no response").await;
        // It comes after the next request, right before the response to that.
        line.request().await;
        line.send(&[carrier("01"), carrier("02")].concat()).await;
        line.request().await;
        line.send(&carrier("03")).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert!(gateway.has_said("discarded the response to an earlier request"), "{}", gateway.text());
        assert_eq!(statuses(&gateway), ["02", "03"], "{}", gateway.text());
    }
}

#[tokio::test]
async fn a_response_that_names_another_request_is_refused() {
    for program in [Rust(M3), C] {
        let (mut gateway, mut line) = start(program, "2").await;
        let first = line.request().await;
        line.send(&proxy(&first, "01")).await;
        // A replay of the first response to the second request, and then the second's own, which is not waited for.
        let second = line.request().await;
        line.send(&[proxy(&first, "01"), proxy(&second, "02")].concat()).await;
        gateway.says("no response").await;
        let third = line.request().await;
        line.send(&proxy(&third, "03")).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert_eq!(statuses(&gateway), ["01", "03"], "{}", gateway.text());
        assert!(gateway.text().contains("earlier request"), "{}", gateway.text());
    }
}

#[tokio::test]
async fn noise_costs_a_request_and_never_a_wrong_status() {
    noise(Rust(M3), 0, 2).await;
}

#[tokio::test]
async fn other_noise_costs_no_more() {
    noise(Rust(M3), 1, 2).await;
}

#[tokio::test]
async fn noise_costs_a_gateway_in_c_no_more() {
    // It counts polls of the line instead of milliseconds, and each failure costs millions of them.
    noise(C, 0, 3).await;
}

/// Disturbs the first response of each lookup, by every `step`-th case from `first` on.
async fn noise(program: Program, first: usize, step: usize) {
    let whole = carrier("00");
    let body = whole.len() - BODY_LEN;
    let with = |at: usize, noise: &str| [&whole[..at], noise.as_bytes(), &whole[at..]].concat();
    let html = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 13\r\n\r\n<html></html>";
    let cases: [(&str, Vec<u8>, usize); 12] = [
        ("nothing", Vec::new(), 2),
        ("half of the body", whole[..body + 10].to_vec(), 2),
        ("a message in the body", with(body + 20, "\r\n+CREG: 1,\"1A2B\",\"0102\"\r\n"), 2),
        ("a message in the head", with(body - 2, "\r\n+CREG: 1\r\n"), 2),
        ("the end of the connection", [&whole[..body + 20], b"\r\nNO CARRIER\r\n"].concat(), 2),
        ("a call", with(0, "\r\nRING\r\n\r\n+CLIP: \"1\",129\r\n"), 2),
        ("a connection", with(0, "\r\nCONNECT 115200\r\n"), 2),
        ("bytes that are no text", [b"\xFF\0\xFF", &whole[..]].concat(), 2),
        ("a lost byte", [&whole[..body + 14], &whole[body + 15..]].concat(), 2),
        ("a byte twice", [&whole[..body + 15], &whole[body + 14..]].concat(), 2),
        ("a page of a front end", html.to_vec(), 2),
        ("a message after it", [&whole[..], b"\r\nCLOSED\r\n"].concat(), 1),
    ];
    let cases: Vec<_> = cases.into_iter().skip(first).step_by(step).collect();
    let (mut gateway, mut line) = start(program, &cases.len().to_string()).await;
    for (what, disturbed, requests) in &cases {
        println!("{what}");
        line.request().await;
        line.send(disturbed).await;
        if *requests == 2 {
            let request = line.request().await;
            // It names its request: after silence, one without a name could be the response to the first one.
            line.send(&proxy(&request, "00")).await;
        }
    }
    assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
    assert_eq!(statuses(&gateway), vec!["00"; cases.len()], "{}", gateway.text());
    let requests: usize = cases.iter().map(|(.., requests)| requests).sum();
    assert_eq!(gateway.transids().len(), requests, "{}", gateway.text());
}

#[tokio::test]
async fn an_echo_is_named_and_the_lookup_repeated() {
    for program in [Rust(M3), C] {
        let (mut gateway, mut line) = start(program, "1").await;
        let request = line.request().await;
        line.send(&[request.as_bytes(), &carrier("01")].concat()).await;
        gateway.says("no response").await;
        assert!(gateway.text().contains("echo") && gateway.text().contains("ATE0"), "{}", gateway.text());
        line.request().await;
        line.send(&carrier("02")).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert_eq!(statuses(&gateway), ["02"], "{}", gateway.text());
    }
}

#[tokio::test]
async fn an_attackers_date_leaves_the_clock_as_it_is() {
    for program in [Rust(M3), C] {
        for date in ["Wed, 01 Jan 2031 00:00:00 GMT", "Thu, 01 Jan 2026 00:00:00 GMT"] {
            let (mut gateway, mut line) = start(program, "1").await;
            line.request().await;
            let body = r#"{"status":"7","message":"x","result":[]}"#;
            let length = body.len();
            let refusal =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nDate: {date}\r\n\r\n{body}");
            line.send(refusal.as_bytes()).await;
            assert_eq!(gateway.ends().await, Some(1), "{}", gateway.text());
            assert!(gateway.has_said("clock kept"), "{}", gateway.text());
            assert_eq!(gateway.transids().len(), 1, "{}", gateway.text());
        }
    }
}

/// The far end of a line.
struct Line(TcpStream);

impl Line {
    /// The gateway's next request.
    async fn request(&mut self) -> String {
        let request = head(&mut self.0).await.expect("a request");
        assert!(request.starts_with("GET "), "{request}");
        request
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }
}

/// Starts a gateway that makes this many lookups, and accepts its line.
async fn start(program: Program, lookups: &str) -> (Gateway, Line) {
    let modem = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bridge = Bridge::Plain(modem.local_addr().unwrap());
    let lookups = format!("lookups={lookups}");
    let gateway = program.gateway(bridge, &[&lookups, CLOCK, timeout(program)]).await;
    let (line, _) = within("a call of the modem", modem.accept()).await.unwrap();
    (gateway, Line(line))
}

/// A carrier's response with this STATUS.
fn carrier(status: &str) -> Vec<u8> {
    response(status, "")
}

/// The proxy's response to a request, which names it.
fn proxy(request: &str, status: &str) -> Vec<u8> {
    let (_, rest) = request.split_once("transid=").expect("a transid");
    let transid = rest.split('&').next().unwrap_or_default();
    response(status, &format!("cmiot-transid: {transid}\r\n"))
}

fn response(status: &str, header: &str) -> Vec<u8> {
    let body = format!(r#"{{"status":"0","message":"正确","result":[{{"STATUS":"{status}"}}]}}"#);
    assert_eq!(body.len(), BODY_LEN);
    format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_LEN}\r\n{header}\r\n{body}").into_bytes()
}

const BODY_LEN: usize = 60;

/// The STATUS of each lookup, in order.
fn statuses(gateway: &Gateway) -> Vec<&str> {
    let status = |line: &'_ String| -> Option<usize> {
        let known = line.starts_with("response 200: 0") && line.len() == "response 200: 00".len();
        (known || line.starts_with("lookup: ")).then(|| line.len() - 2)
    };
    gateway.said.iter().filter_map(|line| line.get(status(line)?..)).collect()
}
