//! `[fleet]`, checked: the database that nodes share, and the rules between nodes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use rustls::ClientConfig;
use zeroize::Zeroizing;

pub use super::file::{FleetAudit, FleetReplay, WhenAlone};

use super::error;
use super::file;
use super::reader::SourceFiles;
use crate::language::text;
use crate::tls;

/// Bytes of the key of a fleet.
const KEY_BYTES: usize = 32;

/// The greatest part of a day's budget that all nodes may keep, in percent: the rest is granted to nodes that share.
const MAX_RESERVES: u32 = 90;

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
    /// The contents of the files, to compare them with those of a changed configuration.
    pub fingerprints: Fingerprints,
}

/// A fingerprint of each file that `[fleet]` names: an HMAC under the key of the fleet, which reveals nothing about a
/// password.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fingerprints {
    /// Fingerprint of the key.
    pub key: Vec<u8>,
    /// Fingerprint of `password_file`.
    pub password: Option<Vec<u8>>,
    /// Fingerprint of `[fleet.tls] ca_file`.
    pub roots: Option<Vec<u8>>,
    /// Fingerprint of `[fleet.tls] cert_file`.
    pub chain: Option<Vec<u8>>,
    /// Fingerprint of `[fleet.tls] key_file`.
    pub tls_key: Option<Vec<u8>>,
}

/// A server of the database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// Host name or address, and port.
    Tcp(String, u16),
    /// Folder of the Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Host {
    /// As the configuration writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(folder) => write!(f, "unix:{}", folder.display()),
        }
    }
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
        reader.problem(
            "[fleet] hosts",
            text!(
                "name one server at least, such as \"db1:5432\"",
                "请至少指定一个服务器，例如 \"db1:5432\""
            ),
        );
    }
    let mut hosts = Vec::new();
    for text in &raw.hosts {
        match Host::parse(text) {
            Some(host) => hosts.push(host),
            None => reader.problem(
                format!("[fleet] hosts = \"{text}\""),
                text!(
                    "is neither \"HOST:PORT\" nor \"unix:FOLDER\" with an absolute path",
                    "既不是 \"HOST:PORT\"，也不是绝对路径的 \"unix:FOLDER\""
                ),
            ),
        }
    }
    if !(1..=100).contains(&raw.nodes) {
        reader.problem("[fleet] nodes", text!("must be 1 to 100", "必须为 1 至 100"));
    }
    if raw.timeout.0.is_zero() {
        reader.problem("[fleet] timeout", error::more_than_zero("\"100ms\""));
    }
    if !(1..=64).contains(&raw.pool) {
        reader.problem("[fleet] pool", text!("must be 1 to 64", "必须为 1 至 64"));
    }
    if raw.reserve_percent > 10 {
        reader.problem("[fleet] reserve_percent", text!("must be 0 to 10", "必须为 0 至 10"));
    } else if raw.reserve_percent.saturating_mul(raw.nodes) > MAX_RESERVES {
        reader.problem(
            "[fleet] reserve_percent",
            text!(
                "{percent} percent for each of {nodes} nodes are more than {MAX_RESERVES} percent of a day: lower it to \
                 {most}, or `nodes`",
                "{nodes} 个节点每个 {percent}%，超过一天的 {MAX_RESERVES}%：请降低到 {most}，或减小 `nodes`",
                percent = raw.reserve_percent,
                nodes = raw.nodes,
                most = MAX_RESERVES / raw.nodes.max(1)
            ),
        );
    }
    let password = raw.password_file.as_deref().map(|path| reader.secret("[fleet] password_file", path));
    let key = reader.secret("[fleet] key_file", &raw.key_file).and_then(|text| {
        let key = read_key(&text);
        if key.is_none() {
            reader.problem(
                "[fleet] key_file",
                text!(
                    "holds no 64 hexadecimal digits: write `openssl rand -hex 32` into it",
                    "其中没有 64 位十六进制数字：请写入 `openssl rand -hex 32` 的输出"
                ),
            );
        }
        key
    });
    let tls = raw.tls.as_ref().map(|raw| TlsFiles::read(raw, reader));
    let client = tls.as_ref().map(|files| files.client(reader));
    (reader.problems.len() == before).then_some(())?;
    let (password, key) = (password.map_or(Some(None), |password| password.map(Some))?, key?);
    Some(Fleet {
        fingerprints: fingerprints(&key, password.as_ref(), tls.as_ref()),
        hosts,
        database: raw.database.clone(),
        user: raw.user.clone(),
        password: password.map(Secret),
        key,
        nodes: raw.nodes,
        replay: raw.replay,
        when_alone: raw.when_alone,
        timeout: raw.timeout.0,
        pool: usize::try_from(raw.pool).unwrap_or(usize::MAX),
        reserve_percent: raw.reserve_percent,
        audit: raw.audit,
        tls: client.map_or(Some(None), |client| client.map(Some))?,
    })
}

fn read_key(text: &[u8]) -> Option<Secret> {
    let key = Zeroizing::new(data_encoding::HEXLOWER_PERMISSIVE.decode(text).ok()?);
    (key.len() == KEY_BYTES).then_some(Secret(key))
}

/// The files of `[fleet.tls]`; a file that cannot be read is a problem that was noted.
#[derive(Default)]
struct TlsFiles {
    roots: Option<Vec<u8>>,
    chain: Option<Vec<u8>>,
    key: Option<Zeroizing<Vec<u8>>>,
}

impl TlsFiles {
    fn read(raw: &file::FleetTls, reader: &mut SourceFiles<'_>) -> Self {
        Self {
            roots: raw.ca_file.as_ref().and_then(|path| reader.bytes("[fleet.tls] ca_file", path)),
            chain: raw.cert_file.as_ref().and_then(|path| reader.bytes("[fleet.tls] cert_file", path)),
            key: raw.key_file.as_ref().and_then(|path| reader.secret("[fleet.tls] key_file", path)),
        }
    }

    /// TLS towards the database; none after a problem.
    fn client(&self, reader: &mut SourceFiles<'_>) -> Option<Arc<ClientConfig>> {
        let identity = match (&self.chain, &self.key) {
            (Some(chain), Some(key)) => Some((chain.as_slice(), key.as_slice())),
            (None, None) => None,
            _ => {
                reader.problem(
                    "[fleet.tls]",
                    text!("cert_file and key_file need each other", "cert_file 和 key_file 必须同时设置"),
                );
                return None;
            }
        };
        match tls::operator(&tls::OperatorTls { own: None, roots: self.roots.as_deref(), identity }) {
            Ok(config) => Some(Arc::new(config)),
            Err(problem) => {
                reader.problem("[fleet.tls]", problem);
                None
            }
        }
    }
}

fn fingerprints(
    key: &Secret,
    password: Option<&Zeroizing<Vec<u8>>>,
    files: Option<&TlsFiles>,
) -> Fingerprints {
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let of = |bytes: &[u8]| hmac::sign(&hmac_key, bytes).as_ref().to_vec();
    Fingerprints {
        key: of(b"key"),
        password: password.map(|bytes| of(bytes)),
        roots: files.and_then(|files| files.roots.as_deref()).map(of),
        chain: files.and_then(|files| files.chain.as_deref()).map(of),
        tls_key: files.and_then(|files| files.key.as_deref()).map(|bytes| of(bytes)),
    }
}
