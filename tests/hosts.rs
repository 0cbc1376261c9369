//! Host names and addresses in requests, over HTTP/1 and HTTP/2, with and without TLS; HEAD.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{MSISDN, NORMAL, Pki, Proxy, STATUS_PATH, Setup, carrier, within};

/// Sends a request on a new connection, and reads the whole response.
async fn send<S>(stream: S, version: Version, request: Request<Empty<Bytes>>) -> Response<Bytes>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let answered = async {
        let response = if version == Version::HTTP_2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let (head, body) = response.into_parts();
        // Content in a response to HEAD, or less than Content-Length, is an error here.
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    };
    within("a response", answered).await
}

/// A GET in the form of this version, for a URL with this authority.
fn get(version: Version, scheme: &str, authority: &str, target: &str) -> Request<Empty<Bytes>> {
    let request = if version == Version::HTTP_2 {
        Request::get(format!("{scheme}://{authority}{target}")).version(version)
    } else {
        Request::get(target).header("host", authority)
    };
    request.body(Empty::new()).unwrap()
}

fn target(proxy: &Proxy) -> String {
    format!("{STATUS_PATH}?{}", proxy.sign(&MSISDN).text())
}

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

#[tokio::test]
async fn whatever_a_gateway_calls_us_it_is_answered() {
    let carrier = carrier().await;
    for (listen, families) in [
        ("127.0.0.1:0", &["127.0.0.1"][..]),
        ("0.0.0.0:0", &["127.0.0.1"]),
        ("[::]:0", &["127.0.0.1", "::1"]),
    ] {
        // By name, since the proxy also accepts the carrier's host in a request.
        let setup = Setup::calling(&format!("http://localhost:{}", carrier.addr().port()));
        let proxy = setup.set("gateway.listen", listen).start().await;
        for address in families {
            let at = SocketAddr::new(address.parse().unwrap(), proxy.address.port());
            let port = at.port();
            let authorities = [
                at.to_string(),
                format!("localhost:{port}"),
                format!("gw.example:{port}"),
                "gw.example".to_owned(),
                "api.iot.10086.cn".to_owned(),
                format!("192.0.2.7:{port}"),
                format!("[2001:db8::7]:{port}"),
            ];
            for (version, authority) in VERSIONS.iter().flat_map(|v| authorities.iter().map(move |a| (*v, a)))
            {
                let stream = TcpStream::connect(at).await.unwrap();
                let response = send(stream, version, get(version, "http", authority, &target(&proxy))).await;
                assert_eq!(response.body(), NORMAL, "{listen}: {version:?} {authority}");
            }
        }
    }
}

#[tokio::test]
async fn over_tls_a_name_is_as_good_by_either_version() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (folder, setup) = Setup::with_carrier(&carrier).tls(&pki, "gateway", "gw.example");
    let proxy = Proxy::start_in(folder, setup).await;
    for (version, alpn) in VERSIONS.iter().zip([&b"http/1.1"[..], b"h2"]) {
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        let name = ServerName::try_from("gw.example").unwrap();
        let stream = pki.client(None, alpn).connect(name, tcp).await.unwrap();
        let authority = format!("gw.example:{}", proxy.address.port());
        let response = send(stream, *version, get(*version, "https", &authority, &target(&proxy))).await;
        assert_eq!(response.body(), NORMAL, "{version:?}");
    }
}

#[tokio::test]
async fn a_host_that_is_named_twice_is_refused() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let twice = proxy.get_with(&proxy.sign(&MSISDN), "Host: gw.example\r\n").await;
    twice.assert_refusal_for("10", "Host given twice");
    assert_eq!(proxy.audit()[0].reason.as_deref(), Some("host"));
    // In HTTP/2 they are `:authority` and Host (RFC 9113 8.3.1).
    let mut request = get(Version::HTTP_2, "http", "gw.example", &target(&proxy));
    request.headers_mut().insert("host", "other.example".parse().unwrap());
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let response = send(stream, Version::HTTP_2, request).await;
    assert!(response.body().starts_with(br#"{"status":"10","#), "{response:?}");
    assert_eq!(carrier.count(), 0);
    assert_eq!(proxy.admin("/metrics", "Host: 127.0.0.1\r\n").await.status, 400);
}

#[tokio::test]
async fn head_has_the_head_of_get_and_no_content() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let (gateway, admin) = (proxy.address, proxy.admin_address());
    let pages = ["/live", "/ready", "/metrics"].map(|page| (admin, page.to_owned(), 200));
    let all = pages.into_iter().chain([(gateway, target(&proxy), 200), (admin, "/nowhere".to_owned(), 0)]);
    for (at, path, status) in all {
        for version in VERSIONS {
            let mut request = get(version, "http", &at.to_string(), &path);
            *request.method_mut() = Method::HEAD;
            let response = send(TcpStream::connect(at).await.unwrap(), version, request).await;
            assert!(status == 0 || response.status() == status, "{version:?} {path}: {response:?}");
            assert!(response.body().is_empty(), "{version:?} {path}");
            let length = response.headers()["content-length"].to_str().unwrap();
            assert!(length.parse::<u64>().unwrap() > 0, "{version:?} {path}: {length}");
        }
    }
    // After the head of the response to HEAD, the next response follows directly.
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = |method| format!("{method} /live HTTP/1.1\r\nHost: {admin}\r\n");
    let both = format!("{}\r\n{}Connection: close\r\n\r\n", request("HEAD"), request("GET"));
    stream.write_all(both.as_bytes()).await.unwrap();
    let mut text = String::new();
    within("both", stream.read_to_string(&mut text)).await.unwrap();
    assert_eq!((text.matches("200 OK").count(), text.matches("live").count()), (2, 1), "{text}");
    // HEAD is no lookup: it causes no call.
    assert_eq!(carrier.count(), 0);
}
