//! The address of a listener: `"127.0.0.1:8080"`, `"unix:/run/cmiot-proxy/gateway.sock"`, or a socket that systemd hands
//! over: `"systemd:NAME"`, by the `FileDescriptorName=` of its socket unit.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

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

impl JsonSchema for Listen {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^(unix:.+|systemd:.+|[0-9.]+:[0-9]{1,5}|\\[[0-9A-Fa-f:.%]+\\]:[0-9]{1,5})$";
        json_schema!({ "type": "string", "title": "listening address", "pattern": pattern })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.collect_str(self)
    }
}
