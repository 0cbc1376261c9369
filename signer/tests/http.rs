//! HTTP over any byte stream: requests byte for byte, responses in every framing and in pieces of any size.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cmiot_signer::http::{
    Decoder, Endpoint, ExchangeError, HttpError, Method, Response, exchange, exchange_async, receive,
    receive_into, receive_into_async, send,
};
use cmiot_signer::{
    AppId, BufferTooSmall, Card, CardKind, Ebid, PATH, Password, Sequence, SignedRequest, Signer, Stamp,
    Transid,
};
use embedded_io::ErrorKind;
use proptest::prelude::*;

fn with_request<T>(check: impl FnOnce(&SignedRequest<'_>) -> T) -> T {
    let (appid, ebid) = (AppId::parse("100001").unwrap(), Ebid::parse("0001000000009").unwrap());
    let password = Password::new(b"example-password").unwrap();
    let card = Card::parse(CardKind::Msisdn, "14765004176").unwrap();
    check(&Signer::new(&appid, &ebid, &password).sign(Stamp::FIRST, Sequence::FIRST, &card))
}

/// Decodes a response in pieces of `size` bytes, after which the connection is closed.
fn decode<'b>(wire: &[u8], size: usize, body: &'b mut [u8]) -> Result<Response<'b>, HttpError> {
    let mut decoder = Decoder::new();
    let mut complete = false;
    for piece in wire.chunks(size) {
        complete = decoder.feed(piece, body)?;
    }
    if !complete {
        decoder.close()?;
    }
    Ok(decoder.response(body))
}

/// Decodes in pieces of every size and asserts equal results.
fn every_way(wire: &str) -> Result<(u16, String, Option<Stamp>, bool), HttpError> {
    let once = |size| {
        let mut body = [0; 64];
        decode(wire.as_bytes(), size, &mut body)
            .map(|a| (a.status, String::from_utf8_lossy(a.body).into_owned(), a.date, a.reusable))
    };
    let whole = once(wire.len().max(1));
    for size in 1..wire.len() {
        assert_eq!(once(size), whole, "in pieces of {size}: {wire}");
    }
    whole
}

fn body_of(wire: &str) -> Result<String, HttpError> {
    every_way(wire).map(|(_, body, ..)| body)
}

#[test]
fn a_get_has_everything_in_its_first_line() {
    with_request(|request| {
        let mut out = [0; 512];
        let endpoint = Endpoint::new("proxy.example:8080", PATH).unwrap();
        let len = endpoint.write_into(request, &mut out).unwrap();
        let expected = format!(
            "GET {PATH}?{} HTTP/1.1\r\nHost: proxy.example:8080\r\nConnection: close\r\n\r\n",
            request.query()
        );
        assert_eq!(std::str::from_utf8(&out[..len]).unwrap(), expected);
        assert_eq!(endpoint.write_into(request, &mut out[..len - 1]), Err(BufferTooSmall));
    });
}

#[test]
fn signing_into_a_buffer_writes_the_same_request() {
    let (appid, ebid) = (AppId::parse("100001").unwrap(), Ebid::parse("0001000000009").unwrap());
    let password = Password::new(b"example-password").unwrap();
    let card = Card::parse(CardKind::Msisdn, "14765004176").unwrap();
    let signer = Signer::new(&appid, &ebid, &password);
    let request = signer.sign(Stamp::FIRST, Sequence::LAST, &card);
    for method in [Method::Get, Method::Post] {
        let endpoint = Endpoint::new("proxy.example:8080", PATH).unwrap().method(method);
        let (mut one, mut two) = ([b'.'; 512], [b'.'; 512]);
        let len = endpoint.write_into(&request, &mut one).unwrap();
        assert_eq!(endpoint.signed_len(&signer, &card), len);
        let sign = |out: &mut [u8]| endpoint.sign_into(&signer, Stamp::FIRST, Sequence::LAST, &card, out);
        assert_eq!(sign(&mut two[..len - 1]), Err(BufferTooSmall));
        assert_eq!(two, [b'.'; 512]);
        assert_eq!((sign(&mut two), two), (Ok(len), one));
    }
}

#[test]
fn a_post_has_its_parameters_behind_a_right_length() {
    with_request(|request| {
        let mut out = [0; 512];
        let endpoint = Endpoint::new("[::1]", PATH).unwrap().method(Method::Post).keep_alive(true);
        let len = endpoint.write_into(request, &mut out).unwrap();
        let query = request.query();
        let expected = format!(
            "POST {PATH} HTTP/1.1\r\nHost: [::1]\r\nConnection: keep-alive\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{query}",
            query.len()
        );
        assert_eq!(std::str::from_utf8(&out[..len]).unwrap(), expected);
    });
}

#[test]
fn nothing_breaks_out_of_a_line() {
    for host in ["", "a b", "a\r\nX: y", "http://a", "a/b", "ü"] {
        assert_eq!(Endpoint::new(host, PATH), Err(HttpError::BadHost), "{host:?}");
    }
    for path in ["", "v2", "/a b", "/a\r\nX: y", "/a?b", "/a#b", "/用"] {
        assert_eq!(Endpoint::new("a", path), Err(HttpError::BadPath), "{path:?}");
    }
}

#[test]
fn a_body_by_length() {
    let wire = "HTTP/1.1 200 OK\r\nDate: Thu, 16 Oct 2014 07:30:30 GMT\r\ncontent-length:  5 \r\n\r\nhello";
    let date = Some(Stamp::parse("20141016153030").unwrap());
    assert_eq!(every_way(wire), Ok((200, "hello".to_string(), date, true)));
    assert_eq!(body_of("HTTP/1.1 200\nContent-Length: 0\n\n").as_deref(), Ok(""));
    assert_eq!(body_of("HTTP/1.1 204 No Content\r\n\r\n").as_deref(), Ok(""));
    for cut in 1..=4 {
        assert_eq!(body_of(&wire[..wire.len() - cut]), Err(HttpError::Truncated));
    }
}

#[test]
fn a_body_by_chunks() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let wire = format!("{head}3\r\nhel\r\n002;ext=\"1\"\r\nlo\r\n0\r\nTrailer: x\r\n\r\n");
    assert_eq!(every_way(&wire), Ok((200, "hello".to_string(), None, true)));
    for cut in 1..wire.len() - head.len() {
        assert_eq!(body_of(&wire[..wire.len() - cut]), Err(HttpError::Truncated), "without the last {cut}");
    }
    for bad in ["x\r\n", "\r\n", "-1\r\n", "3\r\nhell\r\n", "12345678\r\n", "0x3\r\nhel\r\n0\r\n\r\n"] {
        assert_eq!(body_of(&format!("{head}{bad}")), Err(HttpError::Malformed), "{bad:?}");
    }
}

#[test]
fn a_body_by_the_end_of_the_connection() {
    let answer = every_way("HTTP/1.0 502 Bad Gateway\r\nServer: x\r\n\r\nhello");
    assert_eq!(answer, Ok((502, "hello".to_string(), None, false)));
    assert_eq!(every_way("HTTP/1.1 200 OK\r\n\r\n"), Ok((200, String::new(), None, false)));
}

#[test]
fn interim_answers_are_passed_over() {
    let wire = "HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
                HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(body_of(wire).as_deref(), Ok("hello"));
    assert_eq!(body_of("HTTP/1.1 101 Switching Protocols\r\n\r\n"), Err(HttpError::Malformed));
    assert_eq!(body_of("HTTP/1.1 100 Continue\r\n\r\n"), Err(HttpError::Truncated));
}

#[test]
fn a_connection_is_reusable_only_when_both_sides_know_where_they_are() {
    let reusable = |version: &str, header: &str, tail: &str| {
        let wire = format!("{version} 200 OK\r\n{header}Content-Length: 2\r\n\r\nok{tail}");
        every_way(&wire).map(|(.., reusable)| reusable)
    };
    assert_eq!(reusable("HTTP/1.1", "", ""), Ok(true));
    assert_eq!(reusable("HTTP/1.1", "Connection: Keep-Alive\r\n", ""), Ok(true));
    assert_eq!(reusable("HTTP/1.1", "Connection: x, CLOSE\r\n", ""), Ok(false));
    assert_eq!(reusable("HTTP/1.0", "", ""), Ok(false));
    assert_eq!(reusable("HTTP/1.1", "", "surplus"), Ok(false));
}

#[test]
fn contradictory_framing_is_refused() {
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 9999999999\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        " Content-Length: 5\r\n",
        "Content-Length: 5\r\n 0\r\n",
        "Content-Length: 5\r\nX\r\n : y\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "no colon\r\n",
    ] {
        assert_eq!(
            body_of(&format!("HTTP/1.1 200 OK\r\n{headers}\r\nhello")),
            Err(HttpError::Malformed),
            "{headers}"
        );
    }
    // Equal duplicates count once.
    let twice = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(body_of(twice).as_deref(), Ok("hello"));
}

#[test]
fn what_is_no_http_is_refused() {
    for wire in ["HTTP/2 200\r\n", "HTTP/1.1 20 OK\r\n", "HTTP/1.1 600 OK\r\n", "HTTP/1.1 2000\r\n"] {
        assert_eq!(body_of(wire), Err(HttpError::Malformed), "{wire:?}");
    }
    for wire in ["", "\r\n"] {
        assert_eq!(body_of(wire), Err(HttpError::Truncated), "{wire:?}");
    }
}

#[test]
fn an_echo_and_a_message_of_the_modem_are_named() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for noise in
        ["\r\nCONNECT 115200\r\n", "\r\nRING\r\n", "+CREG: 1\r\n", "GET /v2?x HTTP/1.1\r\nHost: h\r\n\r\n"]
    {
        assert_eq!(body_of(&format!("{noise}{response}")), Err(HttpError::NotHttp), "{noise:?}");
    }
    assert!(HttpError::NotHttp.to_string().contains("ATE0"));
    // The line end that a modem sends after its message, without the message.
    assert_eq!(body_of(&format!("\r\n\n{response}")).as_deref(), Ok("ok"));
}

#[test]
fn a_folded_field_is_one_line() {
    let body = |headers: &str| body_of(&format!("HTTP/1.1 200 OK\r\n{headers}\r\nhello"));
    for headers in [
        "ETag: \"a\"\r\n\tcontent-length: 1\r\nContent-Length: 5\r\n",
        "Content-Length:\r\n 5\r\n",
        "Content-Length: 5\r\n \t\r\nServer: x\r\n",
        "X: y\r\n Content-Length: 1\r\n  and more\r\nContent-Length: 5\n",
    ] {
        assert_eq!(body(headers).as_deref(), Ok("hello"), "{headers}");
    }
    let wire = "HTTP/1.1 200 OK\r\nDate: Thu, 16 Oct\r\n 2014 07:30:30 GMT\r\nConnection: x,\r\n\tclose\r\n\
                Content-Length: 0\r\n\r\n";
    let date = Some(Stamp::parse("20141016153030").unwrap());
    assert_eq!(every_way(wire), Ok((200, String::new(), date, false)));
}

#[test]
fn leading_zeros_count_for_nothing() {
    let zeros = "0".repeat(40);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{zeros}3\r\nhel\r\n00000002\r\nlo\r\n{zeros}\r\n\r\n"
    );
    assert_eq!(body_of(&chunked).as_deref(), Ok("hello"));
    let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {zeros}5\r\n\r\nhello");
    assert_eq!(body_of(&length).as_deref(), Ok("hello"));
    // A size whose end was not read could be any.
    let long = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}5\r\nhello", "0".repeat(100));
    assert_eq!(body_of(&long), Err(HttpError::Malformed));
}

#[test]
fn identity_is_no_coding() {
    let wire = "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(body_of(wire).as_deref(), Ok("hello"));
}

#[test]
fn a_response_to_another_request_is_refused() {
    let transid = Transid::parse("1000012014101615303080000001").unwrap();
    let read = |header: &str, size| {
        let wire = format!("HTTP/1.1 200 OK\r\n{header}Content-Length: 5\r\n\r\nhello");
        let (mut decoder, mut body) = (Decoder::for_transid(&transid), [0; 8]);
        let mut fed = Ok(false);
        for piece in wire.as_bytes().chunks(size) {
            fed = decoder.feed(piece, &mut body);
        }
        fed
    };
    for size in [1, 7, 1000] {
        // The carrier sends none.
        assert_eq!(read("", size), Ok(true));
        assert_eq!(read("cmiot-transid: 1000012014101615303080000001\r\n", size), Ok(true));
        assert_eq!(read("CMIOT-Transid:1000012014101615303080000001 \r\n", size), Ok(true));
        for other in [
            "1000012014101615303080000002",
            "1000012014101615303180000001",
            "000001",
            "",
            "1000012014101615303080000001, 1000012014101615303080000002",
            &"1".repeat(90),
        ] {
            assert_eq!(
                read(&format!("cmiot-transid: {other}\r\n"), size),
                Err(HttpError::OtherRequest),
                "{other}"
            );
        }
        let twice =
            "cmiot-transid: 1000012014101615303080000001\r\ncmiot-transid: 1000012014101615303080000002\r\n";
        assert_eq!(read(twice, size), Err(HttpError::OtherRequest));
    }
    // The longest transid still fits a line.
    let longest = Transid::parse("ABCDEFGHIJKLMNOPQRSTUVWXYZ2014101615303080000001").unwrap();
    let wire = format!("HTTP/1.1 200 OK\r\ncmiot-transid:  {longest}\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(Decoder::for_transid(&longest).feed(wire.as_bytes(), &mut []), Ok(true));
    // A parser without a request takes any.
    let named = |wire: &[u8]| {
        let mut decoder = Decoder::for_transid(&longest);
        assert_eq!(decoder.feed(wire, &mut []), Ok(true));
        decoder.response(&[]).named
    };
    assert!(named(wire.as_bytes()));
    assert!(!named(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(Decoder::new().feed(wire.as_bytes(), &mut []), Ok(true));
}

#[test]
fn an_interim_response_does_not_unbind_the_request() {
    let transid = Transid::parse("1000012014101615303080000001").unwrap();
    let mut decoder = Decoder::for_transid(&transid);
    let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncmiot-transid: 1000012014101615303080000002\r\n\r\n";
    assert_eq!(decoder.feed(wire, &mut []), Err(HttpError::OtherRequest));
}

#[test]
fn an_error_stays() {
    let (mut decoder, mut body) = (Decoder::new(), [0; 8]);
    assert_eq!(decoder.feed(b"+CREG: 1\r\n", &mut body), Err(HttpError::NotHttp));
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(decoder.feed(response, &mut body), Err(HttpError::NotHttp));
    assert_eq!(decoder.close(), Err(HttpError::NotHttp));
    let response = decoder.response(&body);
    assert_eq!((response.status, response.body, response.reusable), (0, &b""[..], false));
}

#[test]
fn head_and_body_are_bounded() {
    let answer = |header: usize, body: usize| {
        let wire = format!(
            "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: {body}\r\n\r\n{}",
            "x".repeat(header),
            "b".repeat(body)
        );
        let mut buffer = [0; 64];
        decode(wire.as_bytes(), 50, &mut buffer).map(|answer| answer.body.len())
    };
    assert_eq!(answer(8000, 64), Ok(64));
    assert_eq!(answer(8192, 64), Err(HttpError::HeadTooLong));
    assert_eq!(answer(10, 65), Err(HttpError::BodyTooLong));
}

/// A connection that accepts and returns a few bytes at a time, and is pending once per two async calls.
struct Line {
    sent: Vec<u8>,
    answer: Vec<u8>,
    per_call: usize,
    writes: usize,
}

impl Line {
    fn new(answer: &[u8], per_call: usize) -> Self {
        Self { sent: Vec::new(), answer: answer.to_vec(), per_call, writes: 0 }
    }
}

impl embedded_io::ErrorType for Line {
    type Error = Infallible;
}

impl embedded_io::Read for Line {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        let len = self.per_call.min(out.len()).min(self.answer.len());
        for (slot, byte) in out.iter_mut().zip(self.answer.drain(..len)) {
            *slot = byte;
        }
        Ok(len)
    }
}

impl embedded_io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        let len = self.per_call.min(bytes.len());
        self.sent.extend(&bytes[..len]);
        self.writes += 1;
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

struct AsyncLine(Line);

impl embedded_io::ErrorType for AsyncLine {
    type Error = Infallible;
}

impl embedded_io_async::Read for AsyncLine {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        wait_once().await;
        embedded_io::Read::read(&mut self.0, out)
    }
}

impl embedded_io_async::Write for AsyncLine {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        wait_once().await;
        embedded_io::Write::write(&mut self.0, bytes)
    }

    async fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

async fn wait_once() {
    let mut waited = false;
    std::future::poll_fn(
        |_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending },
    )
    .await;
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

#[test]
fn blocking_and_async_exchange_the_same_bytes() {
    with_request(|request| {
        let endpoint = Endpoint::new("proxy", PATH).unwrap();
        let mut expected = [0; 512];
        let len = endpoint.write_into(request, &mut expected).unwrap();
        for per_call in [1, 7, 1000] {
            let line = || Line::new(ANSWER, per_call);
            let (mut blocking, mut waiting) = (line(), AsyncLine(line()));
            let (mut one, mut two) = ([0; 16], [0; 16]);
            let answer = exchange(&mut blocking, &endpoint, request, &mut one).unwrap();
            assert_eq!(answer.body, b"hello");
            assert_eq!(block_on(exchange_async(&mut waiting, &endpoint, request, &mut two)), Ok(answer));
            assert_eq!(blocking.sent, &expected[..len]);
            assert_eq!(waiting.0.sent, &expected[..len]);
        }
    });
}

#[test]
fn a_dead_connection_differs_from_a_malformed_response() {
    with_request(|request| {
        let endpoint = Endpoint::new("proxy", PATH).unwrap();
        let mut body = [0; 16];
        let mut line = Line::new(b"", 0);
        assert_eq!(exchange(&mut line, &endpoint, request, &mut body), Err(ExchangeError::Closed));
        let mut line = Line::new(&ANSWER[..30], 9);
        let cut = exchange(&mut line, &endpoint, request, &mut body);
        assert_eq!(cut, Err(ExchangeError::Http(HttpError::Truncated)));
    });
}

#[test]
fn a_request_leaves_in_few_writes() {
    with_request(|request| {
        for method in [Method::Get, Method::Post] {
            let endpoint = Endpoint::new("192.168.1.10:8080", PATH).unwrap().method(method);
            let mut line = Line::new(ANSWER, 1000);
            exchange(&mut line, &endpoint, request, &mut [0; 512]).unwrap();
            assert_eq!((line.writes, line.sent.len()), (1, endpoint.request_len(request)));
            // A body's buffer that the request does not fit.
            let mut small = Line::new(ANSWER, 1000);
            exchange(&mut small, &endpoint, request, &mut [0; 128]).unwrap();
            let mut none = Line::new(ANSWER, 1000);
            send(&mut none, &endpoint, request).unwrap();
            assert_eq!(
                (small.writes, none.writes),
                (endpoint.request_len(request).div_ceil(128), endpoint.request_len(request).div_ceil(64))
            );
            assert!(small.sent == line.sent && none.sent == line.sent);
        }
    });
}

/// A driver that returns each of these in turn: bytes, nothing, or an error.
struct Driver(Vec<Result<&'static [u8], ErrorKind>>);

impl embedded_io::ErrorType for Driver {
    type Error = ErrorKind;
}

impl embedded_io::Read for Driver {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, ErrorKind> {
        if self.0.is_empty() {
            return Ok(0);
        }
        let bytes = self.0.remove(0)?;
        out[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl embedded_io_async::Read for Driver {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, ErrorKind> {
        embedded_io::Read::read(self, out)
    }
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

#[test]
fn an_idle_driver_and_an_interruption_lose_nothing() {
    with_request(|request| {
        let reads = vec![
            Ok(&b""[..]),
            Ok(HEAD),
            Ok(b""),
            Err(ErrorKind::Interrupted),
            Ok(b"hel"),
            Ok(b""),
            Ok(b""),
            Ok(b"lo"),
        ];
        let mut body = [0; 8];
        assert_eq!(
            receive(&mut Driver(reads), request, &mut body).map(|response| response.body),
            Ok(&b"hello"[..])
        );
    });
}

#[test]
fn after_a_time_out_the_rest_can_be_read() {
    let reads = || Driver(vec![Ok(HEAD), Ok(b"hel"), Err(ErrorKind::TimedOut), Ok(b"lo")]);
    let (mut driver, mut decoder, mut body) = (reads(), Decoder::new(), [0; 8]);
    assert_eq!(
        receive_into(&mut driver, &mut decoder, &mut body),
        Err(ExchangeError::Io(ErrorKind::TimedOut))
    );
    assert_eq!(receive_into(&mut driver, &mut decoder, &mut body), Ok(()));
    assert_eq!(decoder.response(&body).body, b"hello");

    let (mut driver, mut decoder, mut body) = (reads(), Decoder::new(), [0; 8]);
    let timed_out = block_on(receive_into_async(&mut driver, &mut decoder, &mut body));
    assert_eq!(timed_out, Err(ExchangeError::Io(ErrorKind::TimedOut)));
    assert_eq!(block_on(receive_into_async(&mut driver, &mut decoder, &mut body)), Ok(()));
    assert_eq!(decoder.response(&body).body, b"hello");

    // Empty reads without end are the end of the connection; the decoder is still usable.
    let (mut driver, mut decoder) = (Driver(vec![Ok(HEAD), Ok(b"hel")]), Decoder::new());
    let closed = receive_into(&mut driver, &mut decoder, &mut body);
    assert_eq!(closed, Err(ExchangeError::Http(HttpError::Truncated)));
    driver.0.push(Ok(b"lo"));
    assert_eq!(receive_into(&mut driver, &mut decoder, &mut body), Ok(()));
}

proptest! {
    #[test]
    fn pieces_make_no_difference_and_nothing_panics(
        wire in "(HTTP/1\\.[01] [0-9]{3} [a-z]{0,4}\r?\n)?((( ?(Content-Length|Transfer-Encoding|Connection|Date|X|cmiot-transid): ?(chunked|close|[0-9]{1,3}|[a-z]{0,80}))|.{0,5})\r?\n){0,4}\r?\n([0-9a-f]{1,2}\r\n)?.{0,40}",
        size in 1usize..20
    ) {
        let (mut one, mut two) = ([0; 64], [0; 64]);
        prop_assert_eq!(decode(wire.as_bytes(), size, &mut one), decode(wire.as_bytes(), 4096, &mut two));
    }

    #[test]
    fn any_bytes_are_taken(wire in any::<Vec<u8>>()) {
        let _ = decode(&wire, 7, &mut [0; 64]);
    }
}
