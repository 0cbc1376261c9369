//! Connecting to the carrier: TLS trust and versions, HTTP proxies.

use std::sync::{Arc, Mutex};

use cmiot_simulator::Simulator;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{ICCID, MSISDN, Pki, Proxy, Setup, carrier, run, write_config, write_secret};

/// Starts a TLS terminator for the carrier, with the name `127.0.0.1`; returns its URL.
async fn behind_tls(
    carrier: &Simulator,
    (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let carrier = carrier.addr();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust it closes the connection.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut carrier = TcpStream::connect(carrier).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut carrier).await;
            });
        }
    });
    url
}

/// Starts an HTTP proxy; returns its URL and the request lines that it receives.
async fn http_proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let text = String::from_utf8(head.clone()).unwrap();
            let line = text.lines().next().unwrap().to_owned();
            let target = line.split(' ').nth(1).unwrap().to_owned();
            let authority = target.trim_start_matches("http://").split('/').next().unwrap();
            let mut there = TcpStream::connect(authority).await.unwrap();
            if line.starts_with("CONNECT") {
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            } else {
                there.write_all(&head).await.unwrap();
            }
            lines.lock().unwrap().push(line);
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut there).await });
        }
    });
    (url, asked)
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// A proxy that calls this URL, with PEM files in its folder.
async fn proxy_for(url: &str, files: &[(&str, &str)], settings: &[(&str, &str)]) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write_secret(&folder.path().join(name), text);
    }
    let setup = settings.iter().fold(Setup::calling(url), |setup, (key, value)| setup.set(key, *value));
    Proxy::start_in(folder, setup).await
}

#[tokio::test]
async fn a_further_root_vouches_for_the_carrier_and_without_it_nobody_does() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (certificate, key, ..) = pki.issue("127.0.0.1");
    let url = behind_tls(&carrier, (certificate, key), BOTH).await;
    let root = pki.root_pem();
    let trusting = proxy_for(&url, &[("root.pem", &root)], &[("carrier.tls.ca_file", "root.pem")]).await;
    trusting.look_up(&MSISDN).await.assert_normal();
    let other = Pki::new().root_pem();
    for stranger in [
        proxy_for(&url, &[], &[]).await,
        proxy_for(&url, &[("root.pem", &other)], &[("carrier.tls.ca_file", "root.pem")]).await,
    ] {
        stranger.look_up(&MSISDN).await.assert_refusal_for("73", "tls");
    }
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_pinned_certificate_is_the_only_one() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (certificate, key, pem, _) = pki.issue("127.0.0.1");
    let url = behind_tls(&carrier, (certificate, key), BOTH).await;
    let (_, _, other, _) = pki.issue("127.0.0.1");
    let root = pki.root_pem();
    let pinned = proxy_for(&url, &[("carrier.pem", &pem)], &[("carrier.tls.pin_file", "carrier.pem")]).await;
    pinned.look_up(&MSISDN).await.assert_normal();
    let files = [("carrier.pem", other.as_str()), ("root.pem", &root)];
    let settings = [("carrier.tls.pin_file", "carrier.pem"), ("carrier.tls.ca_file", "root.pem")];
    let another = proxy_for(&url, &files, &settings).await;
    another.look_up(&MSISDN).await.assert_refusal_for("73", "tls");
}

#[tokio::test]
async fn an_older_tls_than_configured_is_not_spoken() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (certificate, key, ..) = pki.issue("127.0.0.1");
    let url = behind_tls(&carrier, (certificate, key), &[&rustls::version::TLS12]).await;
    let root = pki.root_pem();
    for (oldest, speaks) in [("1.2", true), ("1.3", false)] {
        let settings = [("carrier.tls.ca_file", "root.pem"), ("carrier.tls.min_version", oldest)];
        let proxy = proxy_for(&url, &[("root.pem", &root)], &settings).await;
        assert_eq!(proxy.look_up(&MSISDN).await.code() == "0", speaks, "{oldest}");
    }
}

#[tokio::test]
async fn a_configured_proxy_is_asked_in_absolute_form_or_tunnelled_through() {
    let (carrier, pki) = (carrier().await, Pki::new());
    let (http, asked) = http_proxy().await;
    let plain = proxy_for(&carrier.base_url(), &[], &[("carrier.proxy", &http)]).await;
    plain.look_up(&MSISDN).await.assert_normal();
    let target = format!("GET {}/v2/userstatusrealsingle?", carrier.base_url());
    assert!(asked.lock().unwrap()[0].starts_with(&target), "{asked:?}");

    let (certificate, key, ..) = pki.issue("127.0.0.1");
    let url = behind_tls(&carrier, (certificate, key), BOTH).await;
    let root = pki.root_pem();
    let settings = [("carrier.tls.ca_file", "root.pem"), ("carrier.proxy", &http)];
    let tunnelled = proxy_for(&url, &[("root.pem", &root)], &settings).await;
    tunnelled.look_up(&ICCID).await.assert_normal();
    let connect = format!("CONNECT {} HTTP/1.1", url.trim_start_matches("https://"));
    assert_eq!(asked.lock().unwrap()[1..], [connect]);
    assert_eq!(carrier.count(), 2);
}

#[tokio::test]
async fn a_proxy_that_is_down_is_named_in_the_log_and_a_73() {
    let carrier = carrier().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = proxy_for(&carrier.base_url(), &[], &[("carrier.proxy", &format!("http://{nobody}"))]).await;
    proxy.look_up(&MSISDN).await.assert_refusal("73");
    assert!(proxy.log().contains("[carrier] proxy: "), "{}", proxy.log());
    assert_eq!(carrier.count(), 0);
}

#[tokio::test]
async fn no_proxy_is_taken_from_the_environment() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    write_config(&folder.path().join("c.toml"), &Setup::with_carrier(&carrier).text());
    let nobody = "http://127.0.0.1:1";
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let environment = names.map(|name| (name, nobody));
    let arguments = ["check", "--config", "c.toml", "--live", "--card", MSISDN.number];
    run(folder.path(), &arguments, &environment).await.success();
    assert_eq!(carrier.count(), 1);
}

#[tokio::test]
async fn a_proxy_is_a_scheme_a_host_and_a_port() {
    for wrong in ["10.0.0.1:3128", "https://10.0.0.1", "http://user:secret@10.0.0.1", "http://10.0.0.1/x"] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::calling("http://127.0.0.1:1").set("carrier.proxy", wrong);
        write_config(&folder.path().join("c.toml"), &setup.text());
        run(folder.path(), &["check", "--config", "c.toml"], &[]).await.failed(1, ["[carrier] proxy"]);
    }
}
