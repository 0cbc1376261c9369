//! The credentials that the carrier issued, as written: `[[account]]`.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Secret;
use crate::units::schema::{AppId, Ebid, FilePath, Name};

/// The version of the carrier's API in which an account is called (`carrier/dialect.rs`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// API v2: each call is signed.
    #[default]
    V2,
    /// API v5: each call has a token that the carrier issues.
    V5,
}

/// The HTTP method of calls over API v5.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallMethod {
    /// JSON in the body.
    #[default]
    Post,
    /// A query in the URL, password and token included.
    Get,
}

/// The request for another token when the carrier returns the one that it has just refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRefresh {
    /// None: the token stays in use.
    #[default]
    Keep,
    /// One with `refresh=1`.
    Force,
}

/// The replies of other accounts after which an account is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// "No such card", or "not this customer's card".
    NotFound,
}

/// `[[account]]`: what the carrier issued.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "if" = { "properties": { "api": { "const": "v5" } }, "required": ["api"] },
    "then" = { "not": { "anyOf": [{ "required": ["ebid"] }, { "required": ["ebids"] }] } },
    "else" = { "required": ["ebid"] }
))]
pub struct Account {
    /// The operator's name for it, in logs and in the audit.
    #[schemars(with = "Name")]
    pub name: String,
    /// Accounts of one customer share a group; by default an account is a group of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The carrier's appid.
    #[schemars(with = "AppId")]
    pub appid: String,
    /// The version of the carrier's API: `v2`, or `v5`. Gateways speak v2 in both cases.
    #[serde(default, skip_serializing_if = "is_v2")]
    pub api: Dialect,
    /// The carrier's ebid for user-status lookups. An account of v2 needs it; one of v5 has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Ebid")]
    pub ebid: Option<String>,
    /// Of v5: scheme, host and optional port and path prefix of its calls; absent means that of `[carrier]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Of v5: the HTTP method, `post` by default. `get` writes password and token into the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<CallMethod>,
    /// Of v5: whether the proxy requests another token (`refresh=1`) when the carrier returns the one that it has just
    /// refused: `keep` (no, the default) or `force`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_refresh: Option<TokenRefresh>,
    /// Of v5: the STATUS for card states that v2 does not have, by the carrier's value: `untranslatable = { "6" = "00" }`.
    /// States without an entry are code 81. An entry for a state that v2 has is without effect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub untranslatable: BTreeMap<String, String>,
    /// In a group with accounts of both APIs, set on each account of the one that is called second: `not-found`, after the
    /// other one's reply that it has no such card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// A gateway may sign with these credentials themselves, for lookups only. If absent: only if no client is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier_credentials: Option<bool>,
    /// Its ebids for other operations, by their names: `ebids = { gprsrealsingle = "..." }`. Operations without one are
    /// not served.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Ebid>")]
    pub ebids: BTreeMap<String, String>,
    /// File that holds the password, relative to the configuration, or `"credential:NAME"`, a credential of the service
    /// manager, as for every file with a secret; one trailing line break is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The password itself. Accepted with a warning: a configuration gets copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// While the carrier changes the password, the file of the other one: the proxy uses the one that works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub next_password_file: Option<PathBuf>,
    /// Environment variable that holds the other password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_password_env: Option<String>,
    /// Calls that may start in any second; absent means unbounded. The nodes of a fleet share them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "calls per second"))]
    pub calls_per_second: Option<NonZeroU32>,
    /// Calls that may be in flight at once; absent means unbounded. In a fleet, each node may have this many divided by
    /// `nodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "calls"))]
    pub max_concurrent_calls: Option<NonZeroU32>,
    /// Calls from midnight to midnight at UTC+8, counted across restarts; absent means unbounded. The nodes of a fleet share
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "calls per day"))]
    pub calls_per_day: Option<NonZeroU64>,
}

fn is_v2(api: &Dialect) -> bool {
    *api == Dialect::V2
}
