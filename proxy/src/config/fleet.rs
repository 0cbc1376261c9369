//! `[fleet]`, checked: the database that nodes share, and the rules between nodes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use zeroize::Zeroizing;

pub use super::file::{FleetAudit, FleetReplay, WhenAlone};

use super::file;
use super::reader::SourceFiles;
use crate::tls;

/// Bytes of the key of a fleet.
const KEY_BYTES: usize = 32;

/// The settings of a fleet.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Servers; never empty.
    pub hosts: Vec<Host>,
    /// The database.
    pub database: String,
    /// The role to connect as.
    pub user: String,
    /// The password of the role.
    pub password: Option<Secret>,
    /// The key of the fleet.
    pub key: Secret,
    /// The greatest number of nodes.
    pub nodes: u32,
    /// The scope of the check against replays.
    pub replay: FleetReplay,
    /// The treatment of lookups while the database is away.
    pub when_alone: WhenAlone,
    /// Time for one request with the database.
    pub timeout: Duration,
    /// Connections for requests.
    pub pool: usize,
    /// Percent of a day's budget that each node keeps for the time when it is alone.
    pub reserve_percent: u32,
    /// The rows of the audit that are copied to the central database.
    pub audit: FleetAudit,
    /// TLS towards the database; absent: plain text.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A server of the database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// Host name or address, and port.
    Tcp(String, u16),
    /// Folder of the Unix socket.
    Unix(PathBuf),
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(folder) = text.strip_prefix("unix:") {
            let folder = Path::new(folder);
            return folder.is_absolute().then(|| Self::Unix(folder.to_owned()));
        }
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then_some(())?;
        Some(Self::Tcp(host.to_owned(), port.parse().ok().filter(|port| *port > 0)?))
    }
}

/// Bytes that no log shows, wiped when dropped.
#[derive(Clone, PartialEq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Its bytes. Mind where they go.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Checks `[fleet]`; none if it is absent, or if a problem was noted.
pub(super) fn check(raw: Option<&file::Fleet>, reader: &mut SourceFiles<'_>) -> Option<Fleet> {
    let raw = raw?;
    let before = reader.problems.len();
    if raw.hosts.is_empty() {
        reader.problem("[fleet] hosts", "name one server at least, such as \"db1:5432\"");
    }
    let mut hosts = Vec::new();
    for text in &raw.hosts {
        match Host::parse(text) {
            Some(host) => hosts.push(host),
            None => reader.problem(
                format!("[fleet] hosts = \"{text}\""),
                "is neither \"HOST:PORT\" nor \"unix:FOLDER\" with an absolute path",
            ),
        }
    }
    if !(1..=100).contains(&raw.nodes) {
        reader.problem("[fleet] nodes", "must be 1 to 100");
    }
    if raw.timeout.0.is_zero() {
        reader.problem("[fleet] timeout", "must be more than zero, such as \"100ms\"");
    }
    if !(1..=64).contains(&raw.pool) {
        reader.problem("[fleet] pool", "must be 1 to 64");
    }
    if raw.reserve_percent > 10 || raw.reserve_percent * raw.nodes > 90 {
        reader.problem(
            "[fleet] reserve_percent",
            "must be at most 10, and at most 90 together with `nodes` times it",
        );
    }
    let password = raw.password_file.as_deref().map(|path| reader.secret("[fleet] password_file", path));
    let key = reader.secret("[fleet] key_file", &raw.key_file).and_then(|text| {
        let key = read_key(&text);
        if key.is_none() {
            reader.problem(
                "[fleet] key_file",
                "holds no 64 hexadecimal digits: write `openssl rand -hex 32` into it",
            );
        }
        key
    });
    let tls = raw.tls.as_ref().map(|raw| client(raw, reader));
    (reader.problems.len() == before).then_some(())?;
    Some(Fleet {
        hosts,
        database: raw.database.clone(),
        user: raw.user.clone(),
        password: password.map_or(Some(None), |password| password.map(|one| Some(Secret(one))))?,
        key: key?,
        nodes: raw.nodes,
        replay: raw.replay,
        when_alone: raw.when_alone,
        timeout: raw.timeout.0,
        pool: usize::try_from(raw.pool).unwrap_or(usize::MAX),
        reserve_percent: raw.reserve_percent,
        audit: raw.audit,
        tls: tls.map_or(Some(None), |tls| tls.map(Some))?,
    })
}

fn read_key(text: &[u8]) -> Option<Secret> {
    let key = Zeroizing::new(data_encoding::HEXLOWER_PERMISSIVE.decode(text).ok()?);
    (key.len() == KEY_BYTES).then_some(Secret(key))
}

/// TLS towards the database; none after a problem.
fn client(raw: &file::FleetTls, reader: &mut SourceFiles<'_>) -> Option<Arc<ClientConfig>> {
    let roots = raw.ca_file.as_ref().map(|path| reader.bytes("[fleet.tls] ca_file", path));
    let chain = raw.cert_file.as_ref().map(|path| reader.bytes("[fleet.tls] cert_file", path));
    let key = raw.key_file.as_ref().map(|path| reader.secret("[fleet.tls] key_file", path));
    if chain.is_some() != key.is_some() {
        reader.problem("[fleet.tls]", "cert_file and key_file need each other");
        return None;
    }
    let roots = roots.map_or(Some(None), |roots| roots.map(Some))?;
    let identity = match (chain, key) {
        (Some(chain), Some(key)) => Some((chain?, key?)),
        _ => None,
    };
    let identity = identity.as_ref().map(|(chain, key)| (chain.as_slice(), key.as_slice()));
    match tls::operator(&tls::OperatorTls { own: None, roots: roots.as_deref(), identity }) {
        Ok(config) => Some(Arc::new(config)),
        Err(problem) => {
            reader.problem("[fleet.tls]", problem);
            None
        }
    }
}
