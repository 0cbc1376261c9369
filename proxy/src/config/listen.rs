//! The address of a listener, and its limits.
//!
//! An address is `"127.0.0.1:8080"`, `"unix:/run/cmiot-proxy/gateway.sock"`, or a socket that systemd hands over:
//! `"systemd:NAME"`, by the `FileDescriptorName=` of its socket unit.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

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

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// An address and port.
    Tcp(SocketAddr),
    /// A socket in the file system; a relative path is relative to the working folder.
    Unix(PathBuf),
    /// A socket that systemd bound and hands over under this name.
    Systemd(String),
}

impl Listen {
    /// The IP address, where there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix(_) | Self::Systemd(_) => None,
        }
    }

    /// Whether only this machine can reach it. What systemd bound is not known here, so it counts as reachable.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
            Self::Systemd(_) => false,
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => return Ok(Self::Unix(path.into())),
            Some(("systemd", name)) if !name.is_empty() => return Ok(Self::Systemd(name.to_owned())),
            _ => {}
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            de::Error::custom(format_args!(
                "`{text}` is not an address: write one such as \"127.0.0.1:8080\", \"[::]:8080\", \"unix:PATH\" or \
                 \"systemd:NAME\""
            ))
        })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.collect_str(self)
    }
}
