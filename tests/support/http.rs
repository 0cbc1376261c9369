//! HTTP/1 over a raw socket: requests byte for byte as a test writes them, responses with all their headers.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// A client's TCP connection.
pub(crate) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("a listener");
        Self { stream, unread: Vec::new() }
    }

    /// A connection to a listener that may be gone.
    #[allow(dead_code, reason = "the tests of a fleet use it")]
    pub(crate) async fn try_to(address: SocketAddr) -> std::io::Result<Self> {
        let stream = within("connecting", TcpStream::connect(address)).await?;
        Ok(Self { stream, unread: Vec::new() })
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.stream.write_all(bytes.as_ref())).await.expect("a peer that reads");
    }

    /// Sends to a peer that may have closed the connection.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("sending", self.stream.write_all(bytes.as_ref())).await
    }

    /// Closes the sending direction.
    pub(crate) async fn shut_down_sending(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }

    /// Closes the connection with a TCP RST.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("an open connection");
    }

    /// The next response; panics if the connection ends first.
    pub(crate) async fn response(&mut self) -> Response {
        self.try_response().await.expect("a response before the connection ends")
    }

    /// The next response, or `None` if the connection ends first.
    pub(crate) async fn try_response(&mut self) -> Option<Response> {
        let head = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break self.unread.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !self.read().await {
                return None;
            }
        };
        let mut response = Response::head(&head);
        if response.status >= 200 {
            let length = response.header("content-length").expect("a Content-Length");
            let length: usize = length.parse().expect("a number");
            while self.unread.len() < length {
                if !self.read().await {
                    return None;
                }
            }
            response.body = self.unread.drain(..length).collect();
        }
        Some(response)
    }

    /// All that was received, up to a text and beyond it; panics if the connection ends before.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        while find(&self.unread, text.as_bytes()).is_none() {
            assert!(self.read().await, "{text} does not come: {}", String::from_utf8_lossy(&self.unread));
        }
        String::from_utf8(self.unread.clone()).expect("streams are UTF-8")
    }

    /// Whether the peer closes the connection without another byte.
    pub(crate) async fn ends(&mut self) -> bool {
        self.unread.is_empty() && !self.read().await
    }

    /// Reads more bytes; false at the end of the connection or on an error.
    async fn read(&mut self) -> bool {
        let mut some = [0; 16 << 10];
        let read = within("reading", self.stream.read(&mut some)).await.unwrap_or(0);
        self.unread.extend_from_slice(&some[..read]);
        read > 0
    }
}

/// An HTTP response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    fn head(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).expect("a head is ASCII");
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let mut words = lines.next().expect("a status line").split(' ');
        let version = words.next().expect("a version").to_owned();
        let status = words.next().and_then(|word| word.parse().ok()).expect("a status");
        let headers = lines
            .map(|line| line.split_once(':').expect("name: value"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { version, status, headers, body: Vec::new() }
    }

    /// A header's value; panics if the header is repeated.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(one, _)| one == name);
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} twice: {:?}", self.headers);
        first
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("bodies are UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The code of the envelope.
    pub(crate) fn code(&self) -> String {
        self.json()["status"].as_str().expect("status is a string").to_owned()
    }

    /// The value of Cache-Status without the cache's name.
    pub(crate) fn cache(&self) -> &str {
        let status = self.header("cache-status").unwrap_or_default();
        status.strip_prefix("cmiot-proxy; ").unwrap_or(status)
    }

    /// The Age header in seconds; panics without one.
    pub(crate) fn age(&self) -> u64 {
        self.header("age").expect("an age").parse().expect("whole seconds")
    }

    /// Asserts the carrier's reply for a normal card.
    #[track_caller]
    pub(crate) fn assert_normal(&self) {
        assert_eq!((self.status, self.text()), (200, super::NORMAL), "{self:?}");
    }

    /// Asserts a refusal by the proxy with this code, in the form that real clients parse.
    #[track_caller]
    pub(crate) fn assert_refusal(&self, code: &str) {
        assert_eq!(self.status, 200, "{self:?}");
        let body = self.json();
        let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["status", "message", "result"]);
        assert_eq!(body["status"], code, "{self:?}");
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(body["result"], serde_json::json!([]));
        assert_eq!(self.header("content-type"), Some("application/json;charset=UTF-8"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("cache-status"), None, "a refusal has no carrier content");
        assert_eq!(self.header("age"), None);
        let proxy_status = self.header("proxy-status").expect("a Proxy-Status");
        assert!(proxy_status.starts_with("cmiot-proxy; error="), "{proxy_status}");
    }

    /// Asserts a refusal with this code whose Proxy-Status contains `reason`.
    #[track_caller]
    pub(crate) fn assert_refusal_for(&self, code: &str, reason: &str) {
        self.assert_refusal(code);
        let proxy_status = self.header("proxy-status").unwrap_or_default();
        assert!(proxy_status.contains(reason), "{reason} is not in {proxy_status}");
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
