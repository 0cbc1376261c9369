//! The configuration as written: every key of the TOML file with its default. Unknown keys are errors.
//!
//! A [`ConfigFile`] has only been read; [`Config`](super::Config) is what has been checked. Written back
//! (`cmiot-proxy check`), it is the effective configuration with its secrets redacted.

mod account;
mod admin;
mod client;
mod fleet;
mod log;
mod webhook;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::audit::Audit;
use super::breaker::Breaker;
use super::document::Document;
use super::error::{ConfigError, ConfigErrors};
use super::listen::Listen;
use super::operation;
use crate::language::Text;
use crate::lifetimes::Lifetimes;
use crate::units::schema::{Address, FilePath, Network, Positive, PositiveSize};
use crate::units::{HumanDuration, Secret, Size, Window, peers};

pub use account::{Account, CallMethod, Dialect, Fallback, TokenRefresh};
pub use admin::{Access, Admin, NoToken, Role};
pub use client::{Client, ClientsFile, Derive, Format, RawPermissions, ReplayMode};
pub use fleet::{Fleet, FleetAudit, FleetReplay, FleetTls, WhenAlone};
pub use log::{Log, LogFormat, LookupLevel};
pub use webhook::{EventClass, RawWebhook};

/// The whole file.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The gateways' listener.
    #[serde(default)]
    pub gateway: Gateway,
    /// The admin listener.
    #[serde(default)]
    pub admin: Admin,
    /// The databases.
    #[serde(default)]
    pub store: Store,
    /// The connection to the carrier.
    #[serde(default)]
    pub carrier: Carrier,
    /// Circuit-breaker thresholds and open times.
    #[serde(default)]
    pub breaker: Breaker,
    /// The sizes of the cache.
    #[serde(default)]
    pub cache: Cache,
    /// The lifetimes of responses, by the carrier's STATUS or code.
    #[serde(default)]
    pub freshness: Lifetimes,
    /// The guarantees of the audit.
    #[serde(default)]
    pub audit: Audit,
    /// The log on standard error.
    #[serde(default)]
    pub log: Log,
    /// Operations in addition to, or instead of, the built-in ones.
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
    /// The receivers of events.
    #[serde(default, rename = "webhook", skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<RawWebhook>,
    /// The database through which several proxies act as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<Fleet>,
    /// Protection of secrets in memory and on disk.
    #[serde(default)]
    pub process: Process,
    /// The file that it was read from.
    #[serde(skip)]
    pub(super) path: PathBuf,
    /// Old names of keys, one sentence for each.
    #[serde(skip)]
    pub(super) warnings: Vec<Text>,
    /// The top-level tables from which something wrong was left out.
    #[serde(skip)]
    incomplete: HashSet<String>,
    /// Whether `client` or `derive` is in the text, be it empty.
    #[serde(skip)]
    pub(super) names_clients: bool,
}

impl ConfigFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Everything that is not TOML, unknown or of the wrong type, with line and column.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let (file, problems) = Self::read(path, text);
        ConfigErrors::check(problems)?;
        Ok(file.expect("a text without an error has a value"))
    }

    /// Reads as much of the text as possible, so that the rest is checked too.
    pub(super) fn read(path: &Path, text: &str) -> (Option<Self>, Vec<ConfigError>) {
        let read = Document::<Self>::read(path, text);
        let file = read.value.map(|file| Self {
            path: path.to_owned(),
            warnings: read.warnings,
            incomplete: read.incomplete,
            names_clients: read.names_clients,
            ..file
        });
        (file, read.errors)
    }

    /// Whether a table of this name is not here although it is in the text, since it is wrong.
    pub(super) fn is_incomplete(&self, table: &str) -> bool {
        self.incomplete.contains(table)
    }

    /// Whether an `[[operation]]` of this name is in the text, be it right or wrong.
    pub(super) fn declares_operation(&self, name: &str) -> bool {
        self.is_incomplete("operation") || self.operations.iter().any(|row| row.name == name)
    }

    /// Its text with every default, secrets redacted. An empty list of clients stays: without one, each account's own
    /// credentials are accepted.
    ///
    /// # Errors
    /// When TOML cannot express it.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let text = toml::to_string(self)?;
        let empty = self.names_clients && self.clients.is_empty() && self.derives.is_empty();
        // Before the first table.
        Ok(if empty { format!("client = []\n{text}") } else { text })
    }

    /// Whether it contains a password.
    pub(super) fn holds_secret(&self) -> bool {
        let clients = self.clients.iter().flat_map(|client| [&client.password, &client.previous_password]);
        clients.chain(self.accounts.iter().map(|account| &account.password)).any(Option::is_some)
    }
}

/// `[gateway]`: the listener that speaks the carrier's wire format.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// The address to listen on: `"ADDRESS:PORT"`, `"unix:PATH"`, or `"systemd:NAME"` for an inherited socket.
    pub listen: Listen,
    /// Hosts that an absolute-form target may name, in addition to the carrier's and the listening address.
    pub names: Vec<String>,
    /// The time from request to response: queue, flight and retry together. Shorter than a gateway's own 25 s.
    #[schemars(with = "Positive")]
    pub deadline: HumanDuration,
    /// The greatest distance between a transid's stamp and the proxy's clock, in either direction; `"any"` needs
    /// `replay = "observe"`.
    pub clock_skew: Window,
    /// Further clients: a `.csv` or `.toml` file, relative to the configuration; `cmiot-proxy client` edits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub clients_file: Option<PathBuf>,
    /// Revoked appids, one per line: they are refused whatever they sign with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub revoked_file: Option<PathBuf>,
    /// Transids remembered in total; some 20 bytes each, and 150 more under `same-answer`. If the table is full, a
    /// request gets a 72; no transid is forgotten early.
    #[schemars(range(min = 1), extend("x-unit" = "transids"))]
    pub max_transids: usize,
    /// Transids remembered for a client without a `rate`; with one it is rate x window. Below its group's share.
    #[schemars(range(min = 1), extend("x-unit" = "transids"))]
    pub max_transids_per_client: usize,
    /// Transids remembered for the clients of one group together; by default, and at most, three quarters of
    /// `max_transids`. With one group it is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "transids"))]
    pub max_transids_per_group: Option<usize>,
    /// Networks that requests are accepted from; empty means all.
    #[serde(deserialize_with = "peers")]
    #[schemars(with = "Vec<Network>")]
    pub peers: Vec<IpNet>,
    /// Connections open at once; further ones are refused with a 73.
    #[schemars(range(min = 1), extend("x-unit" = "connections"))]
    pub max_connections: usize,
    /// Connections open at once from one address; `trusted_proxies` may have all.
    #[schemars(range(min = 1), extend("x-unit" = "connections"))]
    pub max_connections_per_peer: usize,
    /// Requests on one connection, which is then closed in order.
    #[schemars(range(min = 1), extend("x-unit" = "requests"))]
    pub max_requests_per_connection: u64,
    /// Requests at once on an HTTP/2 connection.
    #[schemars(range(min = 1), extend("x-unit" = "requests"))]
    pub max_streams: u32,
    /// A new connection that sends nothing for this long is closed.
    #[schemars(with = "Positive")]
    pub first_byte_timeout: HumanDuration,
    /// A request whose head is not complete after this long ends its connection; a TLS handshake likewise.
    #[schemars(with = "Positive")]
    pub header_timeout: HumanDuration,
    /// A body that is not complete after this long is refused; a response that the client does not read ends its
    /// connection.
    #[schemars(with = "Positive")]
    pub body_timeout: HumanDuration,
    /// A connection without a request for this long is closed.
    #[schemars(with = "Positive")]
    pub idle_timeout: HumanDuration,
    /// Networks of proxies and balancers whose `X-Forwarded-For` is used; the header of any other peer is ignored.
    #[serde(deserialize_with = "peers")]
    #[schemars(with = "Vec<Network>")]
    pub trusted_proxies: Vec<IpNet>,
    /// `trusted_proxies` begin each connection with a PROXY protocol header, version 2.
    pub proxy_protocol: bool,
    /// A drain waits this long for requests and calls in flight; then they end, each with its record.
    pub drain_timeout: HumanDuration,
    /// Certificate and key; without them the listener accepts plain HTTP.
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
            max_transids: 4_000_000,
            max_transids_per_client: 1_000_000,
            max_transids_per_group: None,
            peers: Vec::new(),
            max_connections: 10_000,
            max_connections_per_peer: 1_000,
            max_requests_per_connection: 100_000,
            max_streams: 100,
            first_byte_timeout: HumanDuration::secs(10),
            header_timeout: HumanDuration::secs(10),
            body_timeout: HumanDuration::secs(10),
            idle_timeout: HumanDuration::secs(75),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            drain_timeout: HumanDuration::secs(30),
            tls: None,
        }
    }
}

/// `[gateway.tls]`, `[admin.tls]`: PEM files, reloaded when they change.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and its intermediate certificates.
    #[schemars(with = "FilePath")]
    pub cert_file: PathBuf,
    /// Its private key.
    #[schemars(with = "FilePath")]
    pub key_file: PathBuf,
    /// Roots of client certificates; without it no certificate is requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub client_ca_file: Option<PathBuf>,
    /// A client may also connect without a certificate.
    #[serde(default)]
    pub client_certificate_optional: bool,
}

/// `[store]`: the databases.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Folder of cache.db, state.db and audit-YYYY-MM.db.
    #[schemars(with = "FilePath")]
    pub dir: PathBuf,
}

impl Default for Store {
    fn default() -> Self {
        Self { dir: PathBuf::from("data") }
    }
}

/// `[carrier]`: the carrier's address, timeouts, and limits of flights.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Carrier {
    /// Scheme, host, optional port and path prefix; the operation's `/v2/...` is appended.
    #[schemars(regex(pattern = "^https?://[^@?]+$"))]
    pub base_url: String,
    /// The HTTP proxy to connect through, such as `http://10.0.0.1:3128`; variables of the environment do not set one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^http://[^@?/]+/?$"))]
    pub proxy: Option<String>,
    /// TCP connect timeout; the TLS handshake is covered by `timeout`.
    #[schemars(with = "Positive")]
    pub connect_timeout: HumanDuration,
    /// Timeout of a flight. It may be longer than the gateway's wait: the response is stored.
    #[schemars(with = "Positive")]
    pub timeout: HumanDuration,
    /// The first two digits of the sequence (0..=99), so that several proxies may share an account.
    #[schemars(range(max = 99), extend("x-unit" = "number"))]
    pub node: u8,
    /// Local address of connections to the carrier: the one that the carrier has allow-listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Address")]
    pub bind: Option<IpAddr>,
    /// Maximum response body; longer responses are rejected.
    #[schemars(with = "PositiveSize")]
    pub max_body: Size,
    /// Time that a request waits for the carrier before a stale entry is served.
    pub stale_timeout: HumanDuration,
    /// Requests for one card that wait for one flight.
    #[schemars(range(min = 1), extend("x-unit" = "requests"))]
    pub max_waiters_per_card: usize,
    /// Requests of one client that wait for flights, and flights that it started. Below its group's share of flights.
    #[schemars(range(min = 1), extend("x-unit" = "requests"))]
    pub max_waiters_per_client: usize,
    /// Flights at once, including those that wait for an account's budget.
    #[schemars(range(min = 1), extend("x-unit" = "flights"))]
    pub max_flights: usize,
    /// Flights for the clients of one group; by default, and at most, three quarters of `max_flights`. With one group it
    /// is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-unit" = "flights"))]
    pub max_flights_per_group: Option<usize>,
    /// Calls that wait for one account's budget; refreshes get at most half of the queue.
    #[schemars(extend("x-unit" = "calls"))]
    pub max_queued_calls: usize,
    /// Longest wait of a call for the budget.
    pub queue_timeout: HumanDuration,
    /// Clock drift against the carrier's `Date` that raises the alarm.
    #[schemars(with = "Positive")]
    pub drift_alarm: HumanDuration,
    /// Certificates that identify the carrier, in addition to the platform's roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<CarrierTls>,
}

/// `[carrier.tls]`: the certificates that identify the carrier.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CarrierTls {
    /// Further roots, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub ca_file: Option<PathBuf>,
    /// The only certificate, in PEM, that is accepted, by whatever authority it is signed; roots are ignored then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub pin_file: Option<PathBuf>,
    /// The minimum version of TLS.
    pub min_version: TlsVersion,
}

/// A TLS version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema, Serialize)]
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
            stale_timeout: HumanDuration::secs(2),
            max_waiters_per_card: 10_000,
            max_waiters_per_client: 500,
            max_flights: 1_000,
            max_flights_per_group: None,
            max_queued_calls: 1_000,
            queue_timeout: HumanDuration::secs(5),
            drift_alarm: HumanDuration::secs(60),
            tls: None,
        }
    }
}

/// `[cache]`: the memory tier over cache.db.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Entries in memory; the least recently used are evicted first and stay in cache.db. An entry counts once per
    /// started 256 bytes of its body.
    #[schemars(extend("x-unit" = "entries"))]
    pub memory_entries: u64,
    /// Responses in cache.db; above this number the oldest are removed.
    #[schemars(range(min = 1), extend("x-unit" = "responses"))]
    pub file_entries: u64,
    /// Older responses are removed from cache.db: they contain card numbers, and are useless once they may no longer be
    /// served stale.
    #[schemars(with = "Positive")]
    pub file_age: HumanDuration,
    /// The most, in percent, by which a lifetime is shortened or prolonged: by the key, so that a fleet's entries do not
    /// expire together and a restart computes the same.
    #[schemars(range(max = 50), extend("x-unit" = "percent"))]
    pub ttl_jitter_percent: u32,
    /// Percent of an account's `calls_per_second` that may refresh entries that are still fresh; 0 disables it.
    #[schemars(range(max = 100), extend("x-unit" = "percent"))]
    pub refresh_ahead_percent: u32,
    /// Hits after which an entry is refreshed ahead.
    #[schemars(extend("x-unit" = "hits"))]
    pub refresh_ahead_hits: u32,
    /// The smallest `max-age` that a gateway may demand: a smaller one, and `no-cache`, count as this.
    pub max_age_floor: HumanDuration,
    /// CSV file of cards that have several numbers, one card per line: lookups by any of them share an entry and a call,
    /// which is made with the first. Each number says its kind: `msisdn:...`, `iccid:...`, `imsi:...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub alias_file: Option<PathBuf>,
    /// The largest `max-stale` that a gateway may send: an entry that is stale for longer is not served without a call.
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
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Process {
    /// Accept world-readable secret files.
    pub allow_world_readable_secrets: bool,
    /// Allow core dumps, which contain passwords, and debuggers to attach.
    pub allow_core_dumps: bool,
}
