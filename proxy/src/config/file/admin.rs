//! The admin listener as written: `[admin]`, `[[admin.access]]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::listen::Listen;
use super::Tls;
use crate::units::schema::{FilePath, Name};

/// `[admin]`: the listener for health, metrics and the operators' requests.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// The address to listen on, as in `[gateway]`.
    pub listen: Listen,
    /// File with the bearer token of every role. Without it the proxy makes one at its first start: `admin.token` in
    /// `[store] dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub token_file: Option<PathBuf>,
    /// Turns the token off; accepted only where no other machine can connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<NoToken>,
    /// Names by which a request without a token may address this listener, in addition to `localhost` and IP addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("default" = []))]
    pub names: Vec<String>,
    /// Certificate and key; needed where other machines can connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Further tokens and certificates, each with one role.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Access>,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)).into(),
            token_file: None,
            token: None,
            names: Vec::new(),
            tls: None,
            access: Vec::new(),
        }
    }
}

/// The one value of `[admin] token`. A token itself is never in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoToken {
    /// No token is needed.
    None,
}

impl<'de> Deserialize<'de> for NoToken {
    fn deserialize<D: serde::de::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        // The text is not repeated: it may be a token.
        match super::Secret::deserialize(de)?.expose() {
            b"none" => Ok(Self::None),
            _ => Err(serde::de::Error::custom(
                "token: the only value is \"none\"; write a token into a file and name it with token_file",
            )),
        }
    }
}

/// `[[admin.access]]`: a token or a certificate, and what it allows.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The operator's name for it.
    #[schemars(with = "Name")]
    pub name: String,
    /// Its role.
    pub role: Role,
    /// File with its bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub token_file: Option<PathBuf>,
    /// A DNS name of its client certificate, instead of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// The permissions of an operator. `operate` and `audit` each include `view`, and neither includes the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// GET: metrics, statistics, peers.
    View,
    /// Also purge, fetch and check.
    Operate,
    /// Also read the audit, whole card numbers included.
    Audit,
}

impl Role {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Operate => "operate",
            Self::Audit => "audit",
        }
    }
}
