//! Gateway firmware on an emulated chip, with its UART bridged to the real proxy as by a modem in transparent mode.
//!
//! The tests check the gateway's console and the calls that the carrier receives. `line` has the faults of a serial line.

mod line;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::chip::Program::{C, Rust};
use crate::support::chip::{Bridge, M0, M3, M4F, Program};
use crate::support::{MSISDN, Proxy, carrier, within};

#[tokio::test]
async fn every_chip_looks_a_card_up() {
    for board in [M3, M0, M4F] {
        let carrier = carrier().await;
        let proxy = Proxy::with_carrier(&carrier).await;
        let mut gateway = Rust(board).gateway(Bridge::Plain(proxy.address), &[]).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert!(gateway.has_said("lookup 1: normal after 1 attempt"), "{}", gateway.text());
        assert_eq!((carrier.count(), carrier.count_for(MSISDN.number)), (1, 1));
    }
}

#[tokio::test]
async fn the_second_look_up_costs_the_carrier_nothing() {
    for program in [Rust(M3), C] {
        let carrier = carrier().await;
        let proxy = Proxy::with_carrier(&carrier).await;
        let mut gateway = program.gateway(Bridge::Plain(proxy.address), &["lookups=2"]).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert_eq!((gateway.transids().len(), gateway.statuses()), (2, 2), "{}", gateway.text());
        assert_eq!(carrier.count(), 1);
    }
}

#[tokio::test]
async fn a_wrong_password_is_the_end_of_it() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut gateway = Rust(M3).gateway(Bridge::Plain(proxy.address), &["password=mistyped"]).await;
    assert_eq!(gateway.ends().await, Some(1), "{}", gateway.text());
    assert!(gateway.has_said("response 200: the carrier refused with code 7 (TOKEN"), "{}", gateway.text());
    assert_eq!((gateway.transids().len(), carrier.count()), (1, 0));
}

#[tokio::test]
async fn a_wrong_clock_is_set_from_the_refusal() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    // The example time of the carrier page, and a clock that was never set.
    for (clock, node) in [("clock=1413444630", "node=01"), ("clock=0", "node=02")] {
        let mut gateway = Rust(M3).gateway(Bridge::Plain(proxy.address), &[clock, node]).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert!(gateway.has_said("clock set to 20"), "{}", gateway.text());
        assert!(gateway.has_said("lookup 1: normal after 2 attempts"), "{}", gateway.text());
    }
}

/// A timeout that a busy machine does not reach while a response is on its way. The gateway in C counts polls of the line,
/// which take longer on such a machine; that in Rust counts milliseconds.
fn timeout(program: Program) -> &'static str {
    match program {
        C => "timeout=1000",
        Rust(_) => "timeout=3000",
    }
}

#[tokio::test]
async fn a_restarted_proxy_is_asked_again() {
    for program in [Rust(M3), C] {
        let carrier = carrier().await;
        let mut proxy = Proxy::with_carrier(&carrier).await;
        let modem = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bridge = Bridge::Reconnecting(modem.local_addr().unwrap());
        let mut gateway = program.gateway(bridge, &["lookups=2", timeout(program)]).await;

        exchange(&modem, proxy.address, |len| len).await;
        let address = modem.local_addr().unwrap();
        drop(modem);
        gateway.says("lookup").await;
        proxy.restart().await;
        // The modem was gone: the gateway times out and sends its request again.
        gateway.says("no response").await;
        let modem = TcpListener::bind(address).await.unwrap();
        exchange(&modem, proxy.address, |len| len).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert_eq!(gateway.statuses(), 2, "{}", gateway.text());
        assert_eq!(carrier.count(), 1, "the cache outlives a restart");
    }
}

#[tokio::test]
async fn half_an_answer_is_asked_for_again() {
    for program in [Rust(M3), C] {
        let carrier = carrier().await;
        let proxy = Proxy::with_carrier(&carrier).await;
        let modem = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bridge = Bridge::Reconnecting(modem.local_addr().unwrap());
        let mut gateway = program.gateway(bridge, &[timeout(program)]).await;

        exchange(&modem, proxy.address, |len| len / 2).await;
        gateway.says("no response").await;
        exchange(&modem, proxy.address, |len| len).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert_eq!(gateway.statuses(), 1, "{}", gateway.text());
        assert_eq!(carrier.count(), 1, "the other half was in the cache");
    }
}

#[tokio::test]
async fn no_sequence_comes_again_after_a_reset() {
    // QEMU keeps the flash over a reset, and no startup code clears this RAM.
    for program in [Rust(M0), Rust(M3), C] {
        let carrier = carrier().await;
        let proxy = Proxy::with_carrier(&carrier).await;
        let settings = ["reset=1", "lookups=3", "node=07"];
        let mut gateway = program.gateway(Bridge::Plain(proxy.address), &settings).await;
        assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
        assert!(gateway.has_said("reset"), "{}", gateway.text());
        let sequences: Vec<_> =
            gateway.transids().iter().map(|transid| &transid[transid.len() - 8..]).collect();
        assert_eq!(sequences[..3], ["07000000", "07000001", "07000002"]);
        assert_eq!(sequences[3..], ["07000016", "07000017", "07000018"], "from the next block on");
    }
}

#[tokio::test]
async fn a_gateway_in_c_sets_its_clock_and_looks_a_card_up() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut gateway = C.gateway(Bridge::Plain(proxy.address), &["clock=1413444630"]).await;
    assert_eq!(gateway.ends().await, Some(0), "{}", gateway.text());
    let [ask, refused, set, again, status] = &gateway.said[..] else { panic!("{}", gateway.text()) };
    let said = [ask, set, again, status].map(String::as_str);
    assert_eq!(said, ["ask 00000001", "clock set", "ask 00000002", "lookup: 00"]);
    assert!(refused.starts_with("refused 7 "), "{refused}");
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_gateway_in_c_is_told_of_its_wrong_password() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let mut gateway = C.gateway(Bridge::Plain(proxy.address), &["password=mistyped"]).await;
    assert_eq!(gateway.ends().await, Some(1), "{}", gateway.text());
    assert_eq!(gateway.said, ["ask 00000001", "refused 7 TOKEN鉴权不通过"]);
    assert_eq!(carrier.count(), 0);
}

/// Forwards one request of the gateway to the proxy, returns the first `part` bytes of the response, and closes the
/// connection. Ignores a request that a closed connection has cut off, since the gateway sends it again.
async fn exchange(modem: &TcpListener, proxy: SocketAddr, part: impl FnOnce(usize) -> usize) {
    let (request, mut line) = loop {
        let (mut line, _) = within("a call of the modem", modem.accept()).await.unwrap();
        if let Some(request) = head(&mut line).await
            && request.starts_with("GET ")
        {
            break (request, line);
        }
    };
    let mut responses = within("connecting", TcpStream::connect(proxy)).await.unwrap();
    responses.write_all(request.as_bytes()).await.unwrap();
    let mut response = head(&mut responses).await.expect("a response").into_bytes();
    let head = String::from_utf8_lossy(&response).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().unwrap()];
    within("the body", responses.read_exact(&mut body)).await.unwrap();
    response.extend(body);
    line.write_all(&response[..part(response.len())]).await.unwrap();
    line.flush().await.unwrap();
}

/// Reads up to the empty line; `None` if the connection ends first.
async fn head(line: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a request or a response", line.read_u8()).await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}
