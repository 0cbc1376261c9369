//! A client that writes its request by hand and returns every byte of the response.
//!
//! It signs with its own code over sha2, and has a timeout that only a broken test reaches.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cmiot_simulator::{Account, Config, Simulator};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const APPID: &str = "100001";
pub(crate) const EBID: &str = "0001000000009";
pub(crate) const PASSWORD: &str = "example-password";
pub(crate) const CARD: &str = "14765004176";
pub(crate) const STATUS_PATH: &str = "/v2/userstatusrealsingle";
pub(crate) const NORMAL: &str = r#"{"status":"0","message":"正确","result":[{"STATUS":"00"}]}"#;

/// A carrier with one account.
pub(crate) async fn carrier() -> Simulator {
    start(config()).await
}

pub(crate) async fn start(config: Config) -> Simulator {
    Simulator::start_local(config).await.expect("a port of the loopback")
}

pub(crate) fn config() -> Config {
    Config::new([Account::new(APPID, EBID, PASSWORD)])
}

/// The five public parameters and a card, each replaceable.
#[derive(Clone)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// A signed lookup of `msisdn` with a new transid.
    pub(crate) fn new(msisdn: &str) -> Self {
        static SEQUENCE: AtomicU32 = AtomicU32::new(1);
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        Self::signed(&format!("{APPID}20260101000000{sequence:08}"), PASSWORD).with("msisdn", msisdn)
    }

    /// With this transid, signed with this password, and no card.
    pub(crate) fn signed(transid: &str, password: &str) -> Self {
        let token = Sha256::digest(format!("{APPID}{password}{transid}"));
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(vec![
            ("appid", APPID.to_owned()),
            ("transid", transid.to_owned()),
            ("ebid", EBID.to_owned()),
            ("token", token),
        ])
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0.retain(|(one, _)| *one != name);
        self.and(name, value)
    }

    /// Adds the parameter, in addition to one of the same name.
    pub(crate) fn and(mut self, name: &'static str, value: &str) -> Self {
        self.0.push((name, value.to_owned()));
        self
    }

    pub(crate) fn value(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(one, _)| *one == name);
        found.map(|(_, value)| value.as_str()).expect("a parameter that was set")
    }

    pub(crate) fn text(&self) -> String {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }
}

/// All bytes received on a connection.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head in ASCII");
        Self { head, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(crate) fn code(&self) -> String {
        self.json()["status"].as_str().expect("status as a string").to_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body in JSON")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (one, value) = line.split_once(':')?;
            one.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Looks up the status of `CARD`.
pub(crate) async fn ask(carrier: &Simulator) -> Reply {
    get(carrier, STATUS_PATH, &Query::new(CARD)).await
}

/// A GET that closes its connection.
pub(crate) async fn get(carrier: &Simulator, path: &str, query: &Query) -> Reply {
    let target = format!("{path}?{}", query.text());
    send(carrier, &format!("GET {target} HTTP/1.1\r\nHost: carrier\r\nConnection: close\r\n\r\n")).await
}

pub(crate) async fn send(carrier: &Simulator, request: &str) -> Reply {
    let bytes = try_send(carrier, request).await.expect("an answer");
    Reply::read(&bytes)
}

/// Sends `request` and reads until the carrier closes.
pub(crate) async fn try_send(carrier: &Simulator, request: &str) -> io::Result<Vec<u8>> {
    let exchange = async {
        let mut stream = connect(carrier, request).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    patiently(exchange).await
}

/// Connects and sends `request`; the caller reads the response.
pub(crate) async fn connect(carrier: &Simulator, request: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(carrier.addr()).await?;
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// A request for `CARD` that allows further requests on its connection.
pub(crate) fn request() -> String {
    format!("GET {STATUS_PATH}?{} HTTP/1.1\r\nHost: carrier\r\n\r\n", Query::new(CARD).text())
}

/// Fails the test after a timeout.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("an end within 30 s")
}
