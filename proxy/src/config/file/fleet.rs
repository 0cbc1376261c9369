//! `[fleet]` as written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::HumanDuration;
use crate::units::schema::{FilePath, Positive};

/// `[fleet]`: the PostgreSQL database through which several proxies act as one.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Servers, as `"HOST:PORT"` or `"unix:FOLDER"`; of several, the one that accepts writes is used.
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
    /// The database.
    #[serde(default = "default_database")]
    pub database: String,
    /// The role that this node connects as.
    #[serde(default = "default_user")]
    pub user: String,
    /// File with the password of the role, or `"credential:NAME"`; absent with peer authentication on a Unix socket or a
    /// client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub password_file: Option<PathBuf>,
    /// File with the key of the fleet, 64 hexadecimal digits, the same on each node: keys of cards are derived with it, so
    /// that shared tables hold no card number in the clear.
    #[schemars(with = "FilePath")]
    pub key_file: PathBuf,
    /// The greatest number of nodes: limits are divided by it while a node is alone.
    #[schemars(range(min = 1, max = 100), extend("x-unit" = "nodes"))]
    pub nodes: u32,
    /// Whether replays are refused across nodes (`"shared"`, one batched round trip per lookup), or per node (`"local"`).
    #[serde(default)]
    pub replay: FleetReplay,
    /// Whether lookups are served while the database is away.
    #[serde(default)]
    pub when_alone: WhenAlone,
    /// Time for one statement that a request waits for. After a time-out no request asks the database, until it has answered
    /// again.
    #[serde(default = "default_timeout")]
    #[schemars(with = "Positive")]
    pub timeout: HumanDuration,
    /// Connections for requests.
    #[serde(default = "default_pool")]
    #[schemars(range(min = 1, max = 64), extend("x-unit" = "connections"))]
    pub pool: u32,
    /// Percent of each account's day budget that each node keeps for the time when it is alone; `nodes` times it is at most
    /// 90.
    #[serde(default = "default_reserve")]
    #[schemars(range(max = 10), extend("x-unit" = "percent"))]
    pub reserve_percent: u32,
    /// The rows of the audit that are copied to the central database.
    #[serde(default)]
    pub audit: FleetAudit,
    /// TLS towards the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<FleetTls>,
}

/// The scope of the check against replays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FleetReplay {
    /// A transid is accepted once in the fleet.
    #[default]
    Shared,
    /// A transid is accepted once per node.
    Local,
}

/// The treatment of lookups while the database is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenAlone {
    /// Lookups are served; a captured request may be accepted once per node that is alone.
    #[default]
    Serve,
    /// Lookups are refused with 73 under `replay = "shared"`.
    Refuse,
}

/// The rows of the audit that are copied to the central database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FleetAudit {
    /// None.
    None,
    /// The anchors.
    Anchors,
    /// Anchors, carrier calls, refusals and notes.
    #[default]
    Calls,
    /// Everything, records included.
    All,
}

/// `[fleet.tls]`: TLS towards the database; with this table it is required.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetTls {
    /// Roots of the server's certificate, in PEM, in addition to the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub key_file: Option<PathBuf>,
}

fn default_database() -> String {
    "cmiot".to_owned()
}

fn default_user() -> String {
    "cmiot_node".to_owned()
}

fn default_timeout() -> HumanDuration {
    HumanDuration::millis(100)
}

fn default_pool() -> u32 {
    4
}

fn default_reserve() -> u32 {
    2
}
