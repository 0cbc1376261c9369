//! The credentials that the carrier issued, as written: `[[account]]`.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Secret;
use crate::units::schema::{AppId, Ebid, FilePath, Name};

/// The version of the carrier's API in which an account is called (`carrier/dialect.rs`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Dialect {
    /// API v2.
    #[default]
    V2,
}

/// `[[account]]`: what the carrier issued.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
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
    /// The carrier's ebid for user-status lookups.
    #[schemars(with = "Ebid")]
    pub ebid: String,
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
