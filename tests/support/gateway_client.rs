//! HTTP client of the gateways' listener.

use std::net::SocketAddr;

use super::{Card, Connection, Gateway, Query, Response, STATUS_PATH};

/// A gateway's HTTP client for one proxy.
#[derive(Clone, Debug)]
pub(crate) struct GatewayClient {
    pub(crate) address: SocketAddr,
    pub(crate) gateway: Gateway,
}

impl GatewayClient {
    /// A lookup of `card`, signed by the configured gateway.
    pub(crate) fn sign<N: AsRef<str>>(&self, card: &Card<N>) -> Query {
        self.gateway.sign(card)
    }

    /// Looks a card up.
    pub(crate) async fn look_up<N: AsRef<str>>(&self, card: &Card<N>) -> Response {
        self.get(&self.sign(card)).await
    }

    /// Sends a query unchanged, by GET.
    pub(crate) async fn get(&self, query: &Query) -> Response {
        self.get_with(query, "").await
    }

    /// Sends a query by GET with more header lines, each ended by CR LF.
    pub(crate) async fn get_with(&self, query: &Query, headers: &str) -> Response {
        self.get_target(&format!("{STATUS_PATH}?{}", query.text()), headers).await
    }

    /// GETs a request target.
    pub(crate) async fn get_target(&self, target: &str, headers: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address)).await
    }

    /// POSTs a body with its Content-Length to a request target.
    pub(crate) async fn post(&self, target: &str, headers: &str, body: &str) -> Response {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        self.send(format!("{head}{headers}Content-Length: {length}\r\n\r\n{body}")).await
    }

    /// Sends bytes on a new connection and returns the first response.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut connection = self.connect().await;
        connection.send(bytes).await;
        connection.response().await
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::to(self.address).await
    }
}
