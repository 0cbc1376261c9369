//! Credentials and permissions of gateways, as written: `[[client]]`, the clients file, `[[derive]]`.

use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use crate::units::schema::{AppId, Ebid, FilePath, Name, Network};
use crate::units::{HumanDuration, Secret, Window, peers};

/// `[[client]]`: the credentials of a gateway, and its permissions.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The group whose accounts answer it.
    pub group: String,
    /// The appid that it signs with.
    #[schemars(with = "AppId")]
    pub appid: String,
    /// The ebid that it sends; by default that of the group's first account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Ebid")]
    pub ebid: Option<String>,
    /// File that holds the password, relative to the configuration; one trailing line break is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The password itself. Accepted with a warning: a configuration gets copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// File that holds the password before this one: both are valid while a rotation lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub previous_password_file: Option<PathBuf>,
    /// Environment variable that holds the password before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_password_env: Option<String>,
    /// The password before this one, itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_password: Option<Secret>,
    /// Networks that it may send requests from; absent means all.
    #[serde(default, deserialize_with = "some_peers", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Network>", length(min = 1))]
    pub peers: Vec<IpNet>,
    /// Operations that it may request, by the last part of their paths; absent means every lookup. An action has to be named.
    #[serde(default, deserialize_with = "some_names", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(min = 1))]
    pub operations: Vec<String>,
    /// Prefixes of the cards that it may look up; absent, and without a `cards_file`, means all.
    #[serde(default, deserialize_with = "some_names", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(min = 1))]
    pub cards: Vec<String>,
    /// File of whole card numbers that it may look up, one per line, in addition to `cards`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub cards_file: Option<PathBuf>,
    /// Lookups per second that it may make on average; absent means unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "lookups per second"))]
    pub rate: Option<u32>,
    /// Lookups that it may make at once; by default `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "lookups"))]
    pub burst: Option<u32>,
    /// The response to a transid that was used before.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "refuse"))]
    pub replay: ReplayMode,
    /// The transids that are accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(extend("default" = "strict"))]
    pub format: Format,
    /// The smallest `max-age` that it may demand, instead of `[cache] max_age_floor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_floor: Option<HumanDuration>,
    /// The largest `max-stale` that it may send, instead of `[cache] max_stale_ceiling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_stale_ceiling: Option<HumanDuration>,
    /// The greatest distance of a transid's stamp from the clock, instead of `[gateway] clock_skew`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew: Option<Window>,
    /// A DNS name of the client certificate that it must connect with (mutual TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// A clients file in TOML: `[[client]]` tables and nothing else.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientsFile {
    /// The clients.
    #[serde(default, rename = "client")]
    pub clients: Vec<Client>,
}

/// `[[derive]]`: a million gateways without a list. The password of an appid is the lower-case hex of
/// HMAC-SHA256(key, "cmiot-derive-1" ‖ epoch as 4 bytes, big end first ‖ appid).
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    /// The group whose accounts answer these gateways.
    pub group: String,
    /// The prefix of their appids; the longest matching prefix applies.
    #[schemars(with = "AppId")]
    pub appid_prefix: String,
    /// File that holds the key, 32 bytes at least; one trailing line break is not part of it.
    #[schemars(with = "FilePath")]
    pub key_file: PathBuf,
    /// The current epoch; passwords of the one before it are valid too.
    #[schemars(extend("x-unit" = "number"))]
    pub epoch: u32,
    /// The ebid that they send; by default that of the group's first account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Ebid")]
    pub ebid: Option<String>,
    /// The permissions of each of them.
    #[serde(default, alias = "rights")]
    pub permissions: RawPermissions,
}

/// The permissions of a client. In a `[[client]]` each key is in the table itself, in a `[[derive]]` under
/// `permissions`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPermissions {
    /// Networks that it may send requests from; absent means all.
    #[serde(deserialize_with = "some_peers", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Network>", length(min = 1))]
    pub peers: Vec<IpNet>,
    /// Operations that it may request, by the last part of their paths; absent means every lookup. An action has to be named.
    #[serde(deserialize_with = "some_names", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(min = 1))]
    pub operations: Vec<String>,
    /// Prefixes of the cards that it may look up; absent, and without a `cards_file`, means all.
    #[serde(deserialize_with = "some_names", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Name>", length(min = 1))]
    pub cards: Vec<String>,
    /// File of whole card numbers that it may look up, one per line, in addition to `cards`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub cards_file: Option<PathBuf>,
    /// Lookups per second that it may make on average; absent means unbounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "lookups per second"))]
    pub rate: Option<u32>,
    /// Lookups that it may make at once; by default `rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "lookups"))]
    pub burst: Option<u32>,
    /// The response to a transid that was used before.
    pub replay: ReplayMode,
    /// The transids that are accepted.
    pub format: Format,
    /// The smallest `max-age` that it may demand, instead of `[cache] max_age_floor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_floor: Option<HumanDuration>,
    /// The largest `max-stale` that it may send, instead of `[cache] max_stale_ceiling`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_stale_ceiling: Option<HumanDuration>,
    /// The greatest distance of a transid's stamp from the clock, instead of `[gateway] clock_skew`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew: Option<Window>,
}

/// The response to a transid that was used before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplayMode {
    /// It is refused.
    #[default]
    Refuse,
    /// With the same card and path it gets the response of the first request, so that a lost response can be requested again.
    SameAnswer,
    /// It is answered, and noted: for clients that always send the same transid.
    Observe,
}

/// The transids that are accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// appid, YYYYMMDDHHMISS and 8 digits.
    #[default]
    Strict,
    /// Any 1-48 letters and digits: what the carrier page's own Java and Python samples send.
    Lenient,
}

impl Client {
    /// The part that says what it may ask.
    pub fn raw_permissions(&self) -> RawPermissions {
        RawPermissions {
            peers: self.peers.clone(),
            operations: self.operations.clone(),
            cards: self.cards.clone(),
            cards_file: self.cards_file.clone(),
            rate: self.rate,
            burst: self.burst,
            replay: self.replay,
            format: self.format,
            max_age_floor: self.max_age_floor,
            max_stale_ceiling: self.max_stale_ceiling,
            clock_skew: self.clock_skew,
        }
    }
}

/// The problem of an emptied list: absent means all, so that it would permit everything.
const EMPTY: &str = "an empty list, or an empty text in it, is not accepted: delete the key to permit all, or name what is \
                     permitted";

/// Reads `peers` that is present.
fn some_peers<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<IpNet>, D::Error> {
    let read = peers(de)?;
    if read.is_empty() { Err(D::Error::custom(EMPTY)) } else { Ok(read) }
}

/// Reads `cards` or `operations` that is present.
fn some_names<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<String>, D::Error> {
    let read = Vec::<String>::deserialize(de)?;
    let has_blank = read.iter().any(|name| name.trim().is_empty());
    if read.is_empty() || has_blank { Err(D::Error::custom(EMPTY)) } else { Ok(read) }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
