//! The content of a backup as its manifest describes it, and the roles of its files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::store::audit::month::Month;
use crate::store::audit::{anchor, is_note};
use crate::store::schema::Kind;
use crate::store::{cache, state};

/// The manifest's name in a backup.
pub(super) const MANIFEST: &str = "manifest.json";

/// The version of the manifest that this program writes.
pub(super) const FORMAT: u32 = 1;

/// The program and the configuration that make or restore a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The version of the program.
    pub version: String,
    /// The appids of the accounts. A backup belongs to a configuration that has one of them.
    pub accounts: Vec<String>,
    /// The number of the proxy in its transids, 0 to 99.
    pub node: u8,
    /// The user who runs the command, for the note in the audit.
    pub by: String,
    /// The present time.
    pub now: Time,
}

/// The content of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this manifest.
    pub format: u32,
    /// The version of the program that made the backup.
    pub version: String,
    /// The time at which it began, in microseconds since 1970.
    pub at: i64,
    /// The same time for people.
    pub time: String,
    /// The appids of the accounts.
    pub accounts: Vec<String>,
    /// The number of the proxy in its transids.
    pub node: u8,
    /// The public key of the audit's anchors, in hex.
    pub anchor_key: Option<String>,
    /// The identifiers of the identity keys, by month.
    pub identity_keys: BTreeMap<String, String>,
    /// Whether the keys themselves are in the backup.
    pub keys: bool,
    /// The end of the audit.
    pub head: Option<ManifestHead>,
    /// The files, in the order in which they were copied.
    pub files: Vec<ManifestFile>,
}

/// The last row of the audit and the head of its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestHead {
    /// The segment: `2026-01`.
    pub segment: String,
    /// The number of its last row.
    pub last: i64,
    /// The hash of its last batch, in hex.
    pub head: String,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash, in hex.
    pub sha256: String,
    /// The version of its schema, if it is a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<i64>,
}

/// The role of a file in a store's folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Database(Kind),
    /// Files that auditors read: anchors and their public key.
    Evidence,
    AnchorKey,
    IdentityKey(Month),
    Note,
}

impl Role {
    /// The role of a file by its name; none for a name that a backup does not have.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            state::FILE => return Some(Self::Database(Kind::State)),
            cache::FILE => return Some(Self::Database(Kind::Cache)),
            anchor::LOG | anchor::PUBLIC => return Some(Self::Evidence),
            anchor::KEY => return Some(Self::AnchorKey),
            note if is_note(note) => return Some(Self::Note),
            _ => {}
        }
        let (month, extension) = name.strip_prefix("audit-")?.rsplit_once('.')?;
        let month = Month::parse(month)?;
        match extension {
            "db" => Some(Self::Database(Kind::Audit)),
            "key" => Some(Self::IdentityKey(month)),
            _ => None,
        }
    }

    pub(super) fn is_key(self) -> bool {
        matches!(self, Self::AnchorKey | Self::IdentityKey(_))
    }
}
