//! What a gateway sees of a proxy: an address, and answers to what it sends there.

use std::net::SocketAddr;

use super::{Answer, Card, Gateway, Line, Query, STATUS_PATH};

/// The gateways' side of a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) gateway: Gateway,
}

impl Door {
    /// A signed look-up of `card` as the known gateway makes it.
    pub(crate) fn sign<N: AsRef<str>>(&self, card: &Card<N>) -> Query {
        self.gateway.sign(card)
    }

    /// Asks about a card.
    pub(crate) async fn ask<N: AsRef<str>>(&self, card: &Card<N>) -> Answer {
        self.get(&self.sign(card)).await
    }

    /// Sends a query as it is, by GET.
    pub(crate) async fn get(&self, query: &Query) -> Answer {
        self.get_with(query, "").await
    }

    /// The same with more header lines, each ended by CR LF.
    pub(crate) async fn get_with(&self, query: &Query, headers: &str) -> Answer {
        self.get_target(&format!("{STATUS_PATH}?{}", query.text()), headers).await
    }

    /// GETs a request target.
    pub(crate) async fn get_target(&self, target: &str, headers: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address)).await
    }

    /// POSTs a body to a request target, its length declared.
    pub(crate) async fn post(&self, target: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        self.send(format!("{head}{headers}Content-Length: {length}\r\n\r\n{body}")).await
    }

    /// Sends bytes on a connection of their own and returns the first answer.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut line = self.connect().await;
        line.send(bytes).await;
        line.answer().await
    }

    pub(crate) async fn connect(&self) -> Line {
        Line::to(self.address).await
    }
}
