//! The limits of a listener, checked: connections, requests, timeouts, trusted proxies and TLS.

use std::time::Duration;

use ipnet::IpNet;

use super::file;
use crate::tls;

/// The limits of a listener.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one peer; a trusted proxy may have all.
    pub max_connections_per_peer: usize,
    /// Requests on one connection, which is then closed in order.
    pub max_requests: u64,
    /// Requests at once on an HTTP/2 connection.
    pub max_streams: u32,
    pub timeouts: Timeouts,
    /// Networks of proxies that may name the client they connect for.
    pub trusted_proxies: Vec<IpNet>,
    /// Trusted proxies begin each connection with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Certificate and key; none for plain HTTP.
    pub tls: Option<tls::ServerTls>,
}

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From accept to the first byte.
    pub first_byte: Duration,
    /// From a request's first byte to the end of its head.
    pub header: Duration,
    /// For a body, and for a write that does not proceed.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
}

impl ListenConfig {
    /// The defaults of a gateways' listener, for tests.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let raw = file::Gateway::default();
        Self {
            max_connections: raw.max_connections,
            max_connections_per_peer: raw.max_connections_per_peer,
            max_requests: raw.max_requests_per_connection,
            max_streams: raw.max_streams,
            timeouts: Timeouts::of(&raw),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            tls: None,
        }
    }
}

impl Timeouts {
    pub(super) fn of(raw: &file::Gateway) -> Self {
        Self {
            first_byte: raw.first_byte_timeout.0,
            header: raw.header_timeout.0,
            body: raw.body_timeout.0,
            idle: raw.idle_timeout.0,
        }
    }
}
