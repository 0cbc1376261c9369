//! The configuration as written: every key of the TOML file with its default. Unknown keys are errors.
//!
//! A [`ConfigFile`] has only been read; [`Config`](super::Config) is what has been checked. Written back
//! (`cmiot-proxy check`), it is the effective configuration with its secrets redacted.

mod admin;
mod client;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::audit::Audit;
use super::breaker::Breaker;
use super::listen::Listen;
use super::operation;
use super::{ConfigError, Location, text};
use crate::lifetimes::Lifetimes;
use crate::units::{HumanDuration, Secret, Size, Window, peers};

pub use admin::{Access, Admin, NoToken, Role};
pub use client::{Client, ClientsFile, Derive, Format, RawPermissions, ReplayMode};

/// The whole file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Where gateways ask.
    #[serde(default)]
    pub gateway: Gateway,
    /// Where operators look.
    #[serde(default)]
    pub admin: Admin,
    /// What is kept on disk.
    #[serde(default)]
    pub store: Store,
    /// Whom the proxy asks.
    #[serde(default)]
    pub carrier: Carrier,
    /// What an account bears before calls stop for a while.
    #[serde(default)]
    pub breaker: Breaker,
    /// What is kept in memory.
    #[serde(default)]
    pub cache: Cache,
    /// How long an answer stays fresh, and may be answered stale, by what the carrier said.
    #[serde(default)]
    pub freshness: Lifetimes,
    /// The audit's promises.
    #[serde(default)]
    pub audit: Audit,
    /// The log on standard error.
    #[serde(default)]
    pub log: Log,
    /// What may be asked for, where it differs from what is built in.
    #[serde(default, rename = "operation", skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<operation::RawOperation>,
    /// The credentials that the carrier issued.
    #[serde(default, rename = "account")]
    pub accounts: Vec<Account>,
    /// The credentials that gateways sign with.
    #[serde(default, rename = "client", skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Client>,
    /// Credentials that need no list: a gateway's password follows from its appid.
    #[serde(default, rename = "derive", skip_serializing_if = "Vec::is_empty")]
    pub derives: Vec<Derive>,
    /// What the process may do with its secrets.
    #[serde(default)]
    pub process: Process,
}

impl ConfigFile {
    /// Reads the text of a file; `path` is only for the error.
    ///
    /// # Errors
    /// [`ConfigError`] with line and column for what is not TOML, unknown or of the wrong type.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::read_toml(path, text)
    }

    /// Whether a password stands in it.
    pub(super) fn holds_secret(&self) -> bool {
        let clients = self.clients.iter().flat_map(|client| [&client.password, &client.previous_password]);
        clients.chain(self.accounts.iter().map(|account| &account.password)).any(Option::is_some)
    }

    /// TOML of any shape, wrong in the words of a [`ConfigError`].
    pub(super) fn read_toml<T: serde::de::DeserializeOwned>(
        path: &Path,
        text: &str,
    ) -> Result<T, ConfigError> {
        let text = text::without_mark(text);
        toml::from_str(text).map_err(|e| {
            let place = e.span().map(|span| Location::of(text, span.start));
            ConfigError::new(path, place, e.message().to_owned())
        })
    }
}

/// `[gateway]`: the listener that speaks the carrier's wire format.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Where to listen: `"ADDRESS:PORT"`, `"unix:PATH"`, or `"systemd:NAME"` for an inherited socket.
    pub listen: Listen,
    /// Hosts that are ours in an absolute-form target, beside the carrier's own and the listening address.
    pub names: Vec<String>,
    /// From request to answer: queue, flight and retry together. Shorter than a gateway's own 25 s.
    pub deadline: HumanDuration,
    /// How far a transid's stamp may be from the proxy's clock, either way; `"any"` needs `replay = "observe"`.
    pub clock_skew: Window,
    /// Further clients: a `.csv` or `.toml` file, relative to the configuration; `cmiot-proxy client` edits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients_file: Option<PathBuf>,
    /// Appids that are refused whatever they sign with, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_file: Option<PathBuf>,
    /// Transids remembered in all; some 20 bytes each, and 150 more under `same-answer`. Full: 72, never forgotten early.
    pub replay_entries: usize,
    /// Transids remembered for a client without a `rate`; with one it is rate x window. Below its group's share.
    pub replay_share: usize,
    /// Transids remembered for the clients of one group together; by default, and at most, three quarters of
    /// `replay_entries`. With one group it is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_group_share: Option<usize>,
    /// Networks that may ask; empty means all.
    #[serde(deserialize_with = "peers")]
    pub peers: Vec<IpNet>,
    /// Connections open at once; further ones are turned away with a 73.
    pub max_connections: usize,
    /// Connections open at once from one address; `trusted_proxies` may have all.
    pub max_connections_per_peer: usize,
    /// Requests on one connection, which is then closed in order.
    pub max_requests_per_connection: u64,
    /// Requests at once on an HTTP/2 connection.
    pub max_streams: u32,
    /// A new connection that sends nothing for this long is closed.
    pub first_byte: HumanDuration,
    /// A request whose head is not complete after this long ends its connection; a TLS handshake likewise.
    pub header: HumanDuration,
    /// A body that is not complete after this long is refused; an answer that is not read ends its connection.
    pub body: HumanDuration,
    /// A connection that rests between requests for this long is closed.
    pub idle: HumanDuration,
    /// Networks of proxies and balancers whose `X-Forwarded-For` is believed; of nobody else is it looked at.
    #[serde(deserialize_with = "peers")]
    pub trusted_proxies: Vec<IpNet>,
    /// `trusted_proxies` begin each connection with a PROXY protocol header, version 2.
    pub proxy_protocol: bool,
    /// How long a drain waits for the answers under way.
    pub grace: HumanDuration,
    /// Certificate and key; without it plain HTTP is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
            names: Vec::new(),
            deadline: HumanDuration::secs(20),
            clock_skew: Window::secs(300),
            clients_file: None,
            revoked_file: None,
            replay_entries: 4_000_000,
            replay_share: 1_000_000,
            replay_group_share: None,
            peers: Vec::new(),
            max_connections: 10_000,
            max_connections_per_peer: 1_000,
            max_requests_per_connection: 100_000,
            max_streams: 100,
            first_byte: HumanDuration::secs(10),
            header: HumanDuration::secs(10),
            body: HumanDuration::secs(10),
            idle: HumanDuration::secs(75),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            grace: HumanDuration::secs(30),
            tls: None,
        }
    }
}

/// `[gateway.tls]`, `[admin.tls]`: PEM files, read again when they change.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and those between it and a root.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// Roots of client certificates; without it none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// A client may also connect without a certificate.
    #[serde(default)]
    pub client_certificate_optional: bool,
}

/// `[store]`: the databases.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Folder of cache.db, state.db and audit-YYYY-MM.db.
    pub dir: PathBuf,
}

impl Default for Store {
    fn default() -> Self {
        Self { dir: PathBuf::from("data") }
    }
}

/// `[carrier]`: whom the proxy asks, and how patiently.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Carrier {
    /// Scheme, host, optional port and path prefix; the operation's `/v2/...` is appended.
    pub base_url: String,
    /// The HTTP proxy to go through, such as `http://10.0.0.1:3128`; the environment is never asked for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// To a TCP connection; TLS counts into `timeout`.
    pub connect_timeout: HumanDuration,
    /// Of one flight. It may outlive the gateway's wait: its answer is stored.
    pub timeout: HumanDuration,
    /// 0..=99: the first two digits of the sequence, so that several proxies may share an account.
    pub node: u8,
    /// Local address to call from: the one that the carrier has allow-listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<IpAddr>,
    /// A longer answer is not the carrier's.
    pub max_body: Size,
    /// An entry that may be answered stale is, after waiting this long for the flight.
    pub stale_wait: HumanDuration,
    /// Askers of one card that wait for one flight.
    pub max_waiters_per_card: usize,
    /// Requests of one client that wait for flights, and flights that it started. Below its group's share of flights.
    pub max_waiters_per_client: usize,
    /// Flights under way at once, those that wait for an account's budget included.
    pub max_flights: usize,
    /// Flights for the clients of one group; by default, and at most, three quarters of `max_flights`. With one group it
    /// is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_flights_per_group: Option<usize>,
    /// Flights that wait for one account's budget; refreshes get half of the places.
    pub queue: usize,
    /// How long a flight waits for it.
    pub queue_wait: HumanDuration,
    /// Clock drift against the carrier's `Date` that raises the alarm.
    pub drift_alarm: HumanDuration,
    /// Whom to take for the carrier, beside what the platform's roots vouch for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<CarrierTls>,
}

/// `[carrier.tls]`: whom to take for the carrier.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CarrierTls {
    /// Further roots, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The one certificate, in PEM, that is accepted, whoever signed it; roots do not matter then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_file: Option<PathBuf>,
    /// The oldest version of TLS to speak.
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

impl Default for Carrier {
    fn default() -> Self {
        Self {
            base_url: "https://api.iot.10086.cn".to_owned(),
            proxy: None,
            connect_timeout: HumanDuration::secs(10),
            timeout: HumanDuration::secs(25),
            node: 0,
            bind: None,
            max_body: Size(64 << 10),
            stale_wait: HumanDuration::secs(2),
            max_waiters_per_card: 10_000,
            max_waiters_per_client: 500,
            max_flights: 1_000,
            max_flights_per_group: None,
            queue: 1_000,
            queue_wait: HumanDuration::secs(5),
            drift_alarm: HumanDuration::secs(60),
            tls: None,
        }
    }
}

/// `[cache]`: the memory tier over cache.db.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Entries in memory; the least recently asked for leave first and stay in cache.db. One whose body is longer than
    /// 256 bytes counts once for each of them.
    pub memory_entries: u64,
    /// Answers in cache.db; beyond, the oldest leave it.
    pub file_entries: u64,
    /// An older answer leaves cache.db: it holds card numbers, and an answer is of no use once it may not be stale any
    /// longer.
    pub file_age: HumanDuration,
    /// How much earlier or later than written, in percent, an entry stops being fresh: by its key, so that a fleet
    /// does not expire at once and a restart agrees.
    pub ttl_jitter_percent: u32,
    /// Percent of an account's `calls_per_second` that may refresh entries which are still fresh; 0 for none.
    pub refresh_ahead_percent: u32,
    /// Hits that make an entry one to be refreshed ahead.
    pub refresh_ahead_hits: u32,
    /// An entry younger than this is fresh enough for every gateway: a smaller `max-age`, and `no-cache`, count as this.
    pub max_age_floor: HumanDuration,
    /// CSV file of cards that have several numbers, one card a line: look-ups by any of them share an entry and a call,
    /// which asks for the first. Each number says its kind: `msisdn:...`, `iccid:...`, `imsi:...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_file: Option<PathBuf>,
    /// Something stale for longer than this is not answered without asking, whatever `max-stale` a gateway sends.
    pub max_stale_ceiling: HumanDuration,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            memory_entries: 100_000,
            file_entries: 2_000_000,
            file_age: HumanDuration::secs(30 * 86_400),
            ttl_jitter_percent: 10,
            refresh_ahead_percent: 10,
            refresh_ahead_hits: 3,
            max_age_floor: HumanDuration::secs(10),
            alias_file: None,
            max_stale_ceiling: HumanDuration::secs(86_400),
        }
    }
}

/// `[process]`: what may be done with secrets.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Secret files that every user of the machine can read are used all the same.
    pub allow_world_readable_secrets: bool,
    /// A crash may leave a core dump, which holds passwords, and a debugger may attach.
    pub allow_core_dumps: bool,
}

/// `[log]`: one line a request on standard error.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[[account]]`: what the carrier issued.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The operator's name for it, in logs and in the audit.
    pub name: String,
    /// Accounts that one customer holds share a group; by default an account is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The carrier's appid.
    pub appid: String,
    /// The carrier's ebid for user-status look-ups.
    pub ebid: String,
    /// A gateway may sign with these credentials themselves, for lookups only. Absent means: where nothing names a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier_credentials: Option<bool>,
    /// Its ebids for other operations, by their names: `ebids = { gprsrealsingle = "..." }`. Only what has one is asked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ebids: BTreeMap<String, String>,
    /// File that holds the password, relative to the configuration; one trailing line break is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The password itself. Works, and is warned about: a configuration gets copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// While the carrier changes the password, the file of the other one: whichever works is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_password_file: Option<PathBuf>,
    /// The same from an environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_password_env: Option<String>,
    /// Calls that may leave in any second; absent means unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_second: Option<NonZeroU32>,
    /// Calls that may be under way at once; absent means unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_at_once: Option<NonZeroU32>,
    /// Calls from midnight to midnight at UTC+8, counted across restarts; absent means unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_day: Option<NonZeroU64>,
}
