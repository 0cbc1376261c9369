//! HTTP/1 by hand: bytes out as a test writes them, answers in with every header.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// A connection.
pub(crate) struct Line {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Line {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let stream = soon("connecting", TcpStream::connect(address)).await.expect("a listener");
        Self { stream, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("sending", self.stream.write_all(bytes.as_ref())).await.expect("a peer that reads");
    }

    /// The same to a peer that may be gone.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        soon("sending", self.stream.write_all(bytes.as_ref())).await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }

    /// Hangs up without a word: what is under way is broken off (TCP RST).
    pub(crate) fn hang_up(self) {
        self.stream.set_zero_linger().expect("an open connection");
    }

    /// The next answer; there must be one.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer before the connection ends")
    }

    /// The next answer, or nothing when the connection ends first.
    pub(crate) async fn try_answer(&mut self) -> Option<Answer> {
        let head = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break self.unread.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !self.read().await {
                return None;
            }
        };
        let mut answer = Answer::head(&head);
        if answer.status >= 200 {
            let length = answer.header("content-length").expect("answers have a length");
            let length: usize = length.parse().expect("a number");
            while self.unread.len() < length {
                if !self.read().await {
                    return None;
                }
            }
            answer.body = self.unread.drain(..length).collect();
        }
        Some(answer)
    }

    /// Whether the other side ends the connection without another byte.
    pub(crate) async fn ends(&mut self) -> bool {
        self.unread.is_empty() && !self.read().await
    }

    /// Reads some more; false at the end, however it came.
    async fn read(&mut self) -> bool {
        let mut some = [0; 16 << 10];
        let read = soon("reading", self.stream.read(&mut some)).await.unwrap_or(0);
        self.unread.extend_from_slice(&some[..read]);
        read > 0
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
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

    /// A header's value; a header that stands twice is a mistake.
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

    /// The envelope's code.
    pub(crate) fn code(&self) -> String {
        self.json()["status"].as_str().expect("status is a string").to_owned()
    }

    /// What the cache says of itself, without its name.
    pub(crate) fn cache(&self) -> &str {
        let status = self.header("cache-status").unwrap_or_default();
        status.strip_prefix("cmiot-proxy; ").unwrap_or(status)
    }

    /// The age in seconds; what has none was not the carrier's.
    pub(crate) fn age(&self) -> u64 {
        self.header("age").expect("an age").parse().expect("whole seconds")
    }

    /// Asserts that this is the carrier's answer for a card in order.
    #[track_caller]
    pub(crate) fn is_normal(&self) {
        assert_eq!((self.status, self.text()), (200, super::NORMAL), "{self:?}");
    }

    /// Asserts that the proxy itself said this code, in the form that every real client reads.
    #[track_caller]
    pub(crate) fn is_refusal(&self, code: &str) {
        assert_eq!(self.status, 200, "{self:?}");
        let body = self.json();
        let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["status", "message", "result"]);
        assert_eq!(body["status"], code, "{self:?}");
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(body["result"], serde_json::json!([]));
        assert_eq!(self.header("content-type"), Some("application/json;charset=UTF-8"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("cache-status"), None, "nothing of the carrier's is in it");
        assert_eq!(self.header("age"), None);
        let proxy_status = self.header("proxy-status").expect("a reason for machines");
        assert!(proxy_status.starts_with("cmiot-proxy; error="), "{proxy_status}");
    }

    /// Asserts as [`Self::is_refusal`], and that the reason for machines holds this.
    #[track_caller]
    pub(crate) fn is_refusal_since(&self, code: &str, reason: &str) {
        self.is_refusal(code);
        let proxy_status = self.header("proxy-status").unwrap_or_default();
        assert!(proxy_status.contains(reason), "{proxy_status} does not say {reason}");
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
