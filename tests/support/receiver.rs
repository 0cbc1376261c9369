//! A receiver of webhooks: records each request, and responds as the test says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::eventually;

/// The secret of the tests' webhooks, and the key in it.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_dGhlLXdlYmhvb2tzLXNpZGUtb2YtaXQtaW4tYnl0ZXM=";
pub(crate) const WEBHOOK_KEY: &[u8] = b"the-webhooks-side-of-it-in-bytes";

/// The response to a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// This status.
    Status(u16),
    /// 302 to this URL.
    Redirect(String),
    /// None: the connection stays open.
    Silence,
}

/// A request that was received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    head: String,
    body: String,
}

impl Received {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).expect("the header").1
    }

    /// The `webhook-id`.
    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Asserts that its signature is that of Standard Webhooks with [`WEBHOOK_SECRET`], computed with sha2.
    pub(crate) fn assert_signed(&self) {
        assert_eq!(self.header("webhook-signature"), self.signature(WEBHOOK_KEY));
    }

    /// The signature of Standard Webhooks with a key, computed with sha2.
    pub(crate) fn signature(&self, key: &[u8]) -> String {
        let signed = format!("{}.{}.{}", self.id(), self.header("webhook-timestamp"), self.body);
        format!("v1,{}", data_encoding::BASE64.encode(&hmac(key, signed.as_bytes())))
    }
}

/// RFC 2104 over SHA-256, for a key of one block at most.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// A listener on the loopback.
#[derive(Clone)]
pub(crate) struct Receiver {
    scheme: &'static str,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    received: Vec<Received>,
    next: VecDeque<Reply>,
    otherwise: Reply,
}

impl Receiver {
    /// Responds 204 unless the test sets another response.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Like [`Self::start`], with TLS.
    pub(crate) async fn start_tls(tls: TlsAcceptor) -> Self {
        Self::start_with(Some(tls)).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = State { received: Vec::new(), next: VecDeque::new(), otherwise: Reply::Status(204) };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let receiver = Self { scheme, address, state: Arc::new(Mutex::new(state)) };
        let serving = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (one, tls) = (serving.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => one.serve(stream).await,
                        // A client that does not trust it closes the connection.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                one.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        receiver
    }

    /// A URL of it.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}/events", self.scheme, self.address)
    }

    /// The responses to the next requests.
    pub(crate) fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.lock().next.extend(replies);
    }

    /// The response to each request after those.
    pub(crate) fn reply_always(&self, reply: Reply) {
        self.lock().otherwise = reply;
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.lock().received.clone()
    }

    /// All requests, once there are so many.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        eventually("the messages", async || Some(self.received()).filter(|all| all.len() >= count)).await
    }

    async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let mut request =
                Received { head: String::from_utf8(head).expect("a head"), body: String::new() };
            let mut body = vec![0; request.header("content-length").parse().expect("a length")];
            if stream.read_exact(&mut body).await.is_err() {
                return;
            }
            request.body = String::from_utf8(body).expect("JSON is UTF-8");
            let reply = {
                let mut state = self.lock();
                state.received.push(request);
                state.next.pop_front().unwrap_or_else(|| state.otherwise.clone())
            };
            let head = match reply {
                Reply::Status(status) => format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"),
                Reply::Redirect(to) => {
                    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
                }
                Reply::Silence => std::future::pending().await,
            };
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with it")
    }
}
