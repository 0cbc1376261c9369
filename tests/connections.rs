//! Gateway connections: limits, timeouts, proxies in between, Unix sockets, TLS, HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use crate::support::{
    MSISDN, Pki, Proxy, STATUS_PATH, Setup, carrier, eventually, run, within, write_config, write_secret,
};

/// A signed lookup with these header lines.
fn request(proxy: &Proxy, headers: &str) -> String {
    format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: x\r\n{headers}\r\n", proxy.sign(&MSISDN).text())
}

/// Connects from another loopback address.
async fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    within("connecting", socket.connect(to)).await.unwrap()
}

/// An open connection from this address that has sent one lookup.
async fn held_from(peer: &str, proxy: &Proxy) -> TcpStream {
    let mut stream = connect_from(peer, proxy.address).await;
    stream.write_all(request(proxy, "").as_bytes()).await.unwrap();
    let mut some = [0; 512];
    assert!(stream.read(&mut some).await.unwrap() > 0);
    stream
}

/// Asserts that the proxy refuses or resets a connection from this address.
async fn assert_refused(peer: &str, proxy: &Proxy) {
    let response = all(&mut connect_from(peer, proxy.address).await).await;
    assert!(response.is_empty() || response.contains(r#""status":"73""#), "{response}");
}

/// Waits until the proxy serves a connection from this address.
async fn served_again(peer: &str, proxy: &Proxy) {
    eventually("a free connection", async || {
        let mut stream = connect_from(peer, proxy.address).await;
        stream.write_all(request(proxy, "Connection: close\r\n").as_bytes()).await.ok()?;
        all(&mut stream).await.contains("正确").then_some(())
    })
    .await;
}

/// All bytes until the peer closes or resets the connection.
async fn all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = within("reading", stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

/// Number of connections that ended for this reason.
async fn ended(proxy: &Proxy, reason: &str) -> f64 {
    let metrics = proxy.metrics().await;
    metrics.value("cmiot_connections_ended_total", [("reason", reason)]).unwrap_or_default()
}

#[tokio::test]
async fn one_peer_gets_its_share_of_connections_and_others_theirs() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.max_connections_per_peer", 2).start().await;
    let held = [held_from("127.0.0.9", &proxy).await, held_from("127.0.0.9", &proxy).await];
    assert_refused("127.0.0.9", &proxy).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    assert!(ended(&proxy, "full-peer").await > 0.0);
    drop(held);
    served_again("127.0.0.9", &proxy).await;
}

#[tokio::test]
async fn connections_in_all_have_a_limit_and_places_come_free() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.max_connections", 2).start().await;
    let held = [held_from("127.0.0.7", &proxy).await, held_from("127.0.0.8", &proxy).await];
    // Even an address without a connection is refused.
    assert_refused("127.0.0.9", &proxy).await;
    assert!(ended(&proxy, "full").await > 0.0);
    drop(held);
    served_again("127.0.0.9", &proxy).await;
}

#[tokio::test]
async fn streams_of_a_connection_have_a_limit_that_it_is_told() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (folder, setup) = Setup::with_carrier(&carrier).tls(&pki, "gateway", "gw.example");
    let proxy = Proxy::start_in(folder, setup.set("gateway.max_streams", 7)).await;
    let tcp = TcpStream::connect(proxy.address).await.unwrap();
    let name = ServerName::try_from("gw.example").unwrap();
    let mut stream = pki.client(None, b"h2").connect(name, tcp).await.unwrap();
    // RFC 9113, 3.4: the preface with empty SETTINGS.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    within("a frame", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!((head[3], head[4]), (4, 0), "the server's settings come first");
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    within("settings", stream.read_exact(&mut settings)).await.unwrap();
    // 6.5.2: MAX_CONCURRENT_STREAMS is 3.
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).map(|setting| &setting[2..]);
    assert_eq!(streams, Some([0, 0, 0, 7].as_slice()), "{settings:?}");
}

#[tokio::test]
async fn whoever_sends_nothing_or_half_a_head_is_let_go() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("gateway.first_byte_timeout", "100ms")
        .set("gateway.header_timeout", "100ms")
        .set("gateway.idle_timeout", "60s")
        .start()
        .await;
    // Between two requests, the limit is `idle` instead: this connection outlasts the timeouts below.
    let mut connection = proxy.connect().await;
    connection.send(request(&proxy, "")).await;
    connection.response().await.assert_normal();
    for sent in ["", "GET /v2/", "GET / HTTP/1.1\r\nX: "] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(all(&mut stream).await, "", "{sent:?}");
    }
    connection.send(request(&proxy, "")).await;
    connection.response().await.assert_normal();
    eventually("three timeouts", async || (ended(&proxy, "timeout").await == 3.0).then_some(())).await;
}

#[tokio::test]
async fn a_connection_makes_so_many_requests_and_is_closed_in_order() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("gateway.max_requests_per_connection", 2).start().await;
    let mut connection = proxy.connect().await;
    connection.send(request(&proxy, "")).await;
    assert_eq!(connection.response().await.header("connection"), None);
    connection.send(request(&proxy, "")).await;
    let last = connection.response().await;
    last.assert_normal();
    assert_eq!(last.header("connection"), Some("close"));
    assert!(connection.ends().await);
}

#[tokio::test]
async fn what_is_not_http_is_counted_to_its_peer() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    for _ in 0..3 {
        let mut stream = connect_from("127.0.0.7", proxy.address).await;
        stream.write_all(b"garbage\r\n\r\n").await.unwrap();
        all(&mut stream).await;
    }
    eventually("three counted", async || {
        let page = proxy.admin("/peers", "").await.json();
        let peer = page["peers"].as_array()?.iter().find(|peer| peer["peer"] == "127.0.0.7")?;
        (peer["not_http"] == 3).then_some(())
    })
    .await;
    assert_eq!(ended(&proxy, "unparsed").await, 3.0);
}

#[tokio::test]
async fn x_forwarded_for_is_believed_of_trusted_proxies_alone() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("gateway.trusted_proxies", vec!["127.0.0.3/32"])
        .set("client.0.peers", vec!["198.51.100.0/24"])
        .start()
        .await;
    let ask = async |from: &str, headers: &str| {
        let mut stream = connect_from(from, proxy.address).await;
        let request = request(&proxy, &format!("{headers}Connection: close\r\n"));
        stream.write_all(request.as_bytes()).await.unwrap();
        all(&mut stream).await
    };
    let named = "X-Forwarded-For: 203.0.113.1, 198.51.100.7\r\n";
    assert!(ask("127.0.0.3", named).await.contains("正确"));
    assert!(ask("127.0.0.4", named).await.contains(r#""status":"6""#));
    assert!(ask("127.0.0.3", "").await.contains(r#""status":"6""#));
    assert_eq!(proxy.audit()[0].peer, "198.51.100.7");
    assert!(carrier.calls().iter().all(|call| !format!("{call:?}").to_lowercase().contains("forwarded")));
}

#[tokio::test]
async fn a_trusted_balancer_says_for_whom_it_connects() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier)
        .set("gateway.trusted_proxies", vec!["127.0.0.3/32"])
        .set("gateway.proxy_protocol", true)
        .set("client.0.peers", vec!["198.51.100.0/24", "127.0.0.1/32"])
        .start()
        .await;
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([198, 51, 100, 7, 127, 0, 0, 1, 1, 0, 0, 80]);
    let mut stream = connect_from("127.0.0.3", proxy.address).await;
    stream.write_all(&header).await.unwrap();
    stream.write_all(request(&proxy, "Connection: close\r\n").as_bytes()).await.unwrap();
    assert!(all(&mut stream).await.contains("正确"));
    assert_eq!(proxy.audit()[0].peer, "198.51.100.7");
    // The header is required from a trusted proxy, and invalid from any other address.
    let mut stream = connect_from("127.0.0.3", proxy.address).await;
    stream.write_all(request(&proxy, "").as_bytes()).await.unwrap();
    assert_eq!(all(&mut stream).await, "");
    let mut stream = connect_from("127.0.0.4", proxy.address).await;
    stream.write_all(&header).await.unwrap();
    assert!(!all(&mut stream).await.contains("200 OK"));
    proxy.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    let setup = Setup::with_carrier(&carrier).set("admin.listen", format!("unix:{}", path.display()));
    let clocked = setup.start_clocked().await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(all(&mut stream).await.ends_with("live\n"));
    clocked.stop().await;
}

/// A proxy with TLS as `gw.example`, optional client certificates, and a client that needs one.
async fn tls_proxy(pki: &Pki, carrier: &cmiot_simulator::Simulator) -> Proxy {
    let (folder, setup) = Setup::with_carrier(carrier).tls(pki, "gateway", "gw.example");
    write_secret(&folder.path().join("root.pem"), &pki.root_pem());
    let setup = setup
        .set("gateway.tls.client_ca_file", "root.pem")
        .set("gateway.tls.client_certificate_optional", true)
        .set("client.0.certificate", "GW0001.example");
    Proxy::start_in(folder, setup).await
}

#[tokio::test]
async fn a_client_must_show_its_certificate_where_it_has_one() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let proxy = tls_proxy(&pki, &carrier).await;
    let issued = |name: &str| {
        let (certificate, key, ..) = pki.issue(name);
        Some((certificate, key))
    };
    for (shows, expected) in [
        (issued("gw0001.example"), "正确"),
        (issued("gw0002.example"), r#""status":"6""#),
        (None, r#""status":"6""#),
    ] {
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        let name = ServerName::try_from("gw.example").unwrap();
        let mut stream = pki.client(shows, b"http/1.1").connect(name, tcp).await.unwrap();
        stream.write_all(request(&proxy, "Connection: close\r\n").as_bytes()).await.unwrap();
        let response = all(&mut stream).await;
        assert!(response.contains(expected), "{response}");
    }
}

#[tokio::test]
async fn http_2_asks_many_at_once_on_one_connection() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let proxy = tls_proxy(&pki, &carrier).await;
    let (certificate, key, ..) = pki.issue("gw0001.example");
    let tcp = TcpStream::connect(proxy.address).await.unwrap();
    let name = ServerName::try_from("gw.example").unwrap();
    let stream = pki.client(Some((certificate, key)), b"h2").connect(name, tcp).await.unwrap();
    asks_many_at_once(stream, "https", &proxy, &carrier).await;
}

#[tokio::test]
async fn http_2_needs_no_tls_where_it_is_known_before() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    asks_many_at_once(stream, "http", &proxy, &carrier).await;
}

/// Sends twenty lookups of one card on one HTTP/2 connection; asserts one carrier call.
async fn asks_many_at_once<S>(stream: S, scheme: &str, proxy: &Proxy, carrier: &cmiot_simulator::Simulator)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let asked = (0..20).map(|_| {
        let target = format!("{scheme}://127.0.0.1{STATUS_PATH}?{}", proxy.sign(&MSISDN).text());
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let request = hyper::Request::get(target).body(Empty::<Bytes>::new()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        })
    });
    for response in asked.collect::<Vec<_>>() {
        assert_eq!(within("a response", response).await.unwrap(), crate::support::NORMAL);
    }
    assert_eq!(carrier.count(), 1);
    connection.abort();
}

#[tokio::test]
async fn a_renewed_certificate_and_a_changed_list_count_without_a_restart() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let proxy = tls_proxy(&pki, &carrier).await;
    let shows = || {
        let (certificate, key, ..) = pki.issue("gw0001.example");
        Some((certificate, key))
    };
    let connect = async |name: &'static str| {
        let tcp = TcpStream::connect(proxy.address).await.unwrap();
        pki.client(shows(), b"http/1.1").connect(ServerName::try_from(name).unwrap(), tcp).await
    };
    let mut open = connect("gw.example").await.unwrap();
    assert!(connect("new.example").await.is_err());
    let folder = proxy.config().parent().unwrap().to_owned();
    let (_, _, certificate, key) = pki.issue("new.example");
    write_secret(&folder.join("cert.pem"), &certificate);
    write_secret(&folder.join("key.pem"), &key);
    proxy.signal("HUP").await;
    eventually("the new certificate", async || connect("new.example").await.ok().map(drop)).await;
    // The connection from before the reload stays open.
    open.write_all(request(&proxy, "Connection: close\r\n").as_bytes()).await.unwrap();
    assert!(all(&mut open).await.contains("正确"));
}

#[tokio::test]
async fn a_bad_configuration_is_refused_as_a_whole_and_the_old_one_stays() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let good = std::fs::read_to_string(proxy.config()).unwrap();
    let second = "[[client]]\ngroup = 'fleet'\nappid = 'GW2'\npassword = 'the-newcomers'\n";
    let newcomer = proxy.gateway.named("GW2", "the-newcomers");

    std::fs::write(proxy.config(), format!("{good}\n{second}\n[gatway]\n")).unwrap();
    proxy.signal("HUP").await;
    eventually("the refusal", async || {
        let refused = proxy.metrics().await.value("cmiot_config_reloads_total", [("result", "refused")]);
        refused.is_some_and(|count| count > 0.0).then_some(())
    })
    .await;
    assert!(proxy.log().contains("the old one stays"));
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.get(&newcomer.sign(&MSISDN)).await.assert_refusal("7");

    // Without a signal: the proxy notices the change of the file.
    std::fs::write(proxy.config(), format!("{good}\n{second}")).unwrap();
    eventually("the newcomer", async || {
        let response = proxy.get(&newcomer.sign(&MSISDN)).await;
        (response.code() == "0").then_some(())
    })
    .await;
    proxy.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn operators_may_be_served_over_tls() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (folder, setup) = Setup::with_carrier(&carrier).tls(&pki, "admin", "admin.example");
    let proxy = Proxy::start_in(folder, setup).await;
    let output = std::fs::read_to_string(proxy.config().with_file_name("out")).unwrap();
    assert!(output.contains("gateway http://") && output.contains("admin https://"), "{output}");
    let tcp = TcpStream::connect(proxy.admin_address()).await.unwrap();
    let name = ServerName::try_from("admin.example").unwrap();
    let mut stream = pki.client(None, b"http/1.1").connect(name, tcp).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(all(&mut stream).await.ends_with("live\n"));
    // A request without TLS gets no page.
    let mut plain = TcpStream::connect(proxy.admin_address()).await.unwrap();
    plain.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    let _ = within("the end of the connection", plain.read_to_end(&mut response)).await;
    assert!(!String::from_utf8_lossy(&response).contains("live"));
}

#[tokio::test]
async fn operators_on_other_machines_need_a_token_and_tls() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_secret(&folder.path().join("admin.token"), "0123456789abcdef");
    for setup in [
        Setup::with_carrier(&carrier).set("admin.listen", "0.0.0.0:0"),
        Setup::with_carrier(&carrier).set("admin.listen", "0.0.0.0:0").set("admin.token_file", "admin.token"),
    ] {
        write_config(&folder.path().join("c.toml"), &setup.text());
        let run = crate::support::run(folder.path(), &["check", "--config", "c.toml"], &[]).await;
        run.failed(1, ["[admin] listen", "[admin.tls]"]);
    }
}

#[tokio::test]
async fn a_connection_on_which_nothing_was_sent_is_not_counted() {
    // The PROXY protocol's LOCAL command, as for a balancer's health check: no address.
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let (carrier, pki) = (carrier().await, Pki::new());
    let behind = Setup::with_carrier(&carrier)
        .set("gateway.trusted_proxies", vec!["127.0.0.0/8"])
        .set("gateway.proxy_protocol", true)
        .start()
        .await;
    let (plain, tls) = (Proxy::with_carrier(&carrier).await, tls_proxy(&pki, &carrier).await);
    for (proxy, sent) in [(&plain, b"".as_slice()), (&tls, b""), (&behind, b""), (&behind, LOCAL)] {
        for reset in [true, false] {
            let mut stream = TcpStream::connect(proxy.address).await.unwrap();
            stream.write_all(sent).await.unwrap();
            if reset {
                stream.set_zero_linger().unwrap();
            }
        }
    }
    for proxy in [&plain, &tls, &behind] {
        // This connection is counted, after those above.
        TcpStream::connect(proxy.address).await.unwrap().write_all(b"PRI").await.unwrap();
        let all_ended = async || -> f64 {
            proxy.metrics().await.all("cmiot_connections_ended_total").map(|sample| sample.value).sum()
        };
        eventually("the last connection", async || (all_ended().await > 0.0).then_some(())).await;
        assert_eq!(all_ended().await, 1.0);
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_an_alarm() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let proxy = tls_proxy(&pki, &carrier).await;
    assert!(!proxy.admin("/ready", "").await.text().contains("alarm: certificate"));
    let (pem, key) = Pki::expired("gw.example");
    let folder = proxy.config().parent().unwrap().to_owned();
    write_secret(&folder.join("cert.pem"), &pem);
    write_secret(&folder.join("key.pem"), &key);
    proxy.signal("HUP").await;
    eventually("the alarm", async || {
        let ready = proxy.admin("/ready", "").await;
        assert_eq!(ready.status, 200);
        ready.text().contains("[gateway.tls] cert_file: a certificate expired at 2020-01-0").then_some(())
    })
    .await;
    let labels = [("key", "[gateway.tls] cert_file")];
    let expires = proxy.metrics().await.value("cmiot_certificate_expiry_timestamp_seconds", labels).unwrap();
    // 2020-01-01T00:00:00Z
    assert_eq!(expires, 1_577_836_800.0);
    let config = proxy.config().display().to_string();
    let checked = run(&folder, &["check", "--config", &config], &[]).await.success();
    assert!(checked.err.contains("expired at 2020-01-0"), "{}", checked.err);
}
