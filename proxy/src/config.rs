//! Configuration: [`ConfigFile`] is what was written, [`Config`] is what was checked and what the proxy is built from.
//!
//! Reading fails as a whole and says which file, line, column and key is wrong and what to write instead. No error
//! repeats a line of the file: it might hold a secret.

pub mod admin;
pub mod audit;
pub mod breaker;
pub mod certificates;
pub mod edit;
pub mod file;
pub mod listen;
pub mod operation;
pub mod permissions;
pub mod restart;
pub mod text;
pub mod token;
pub mod watch;

mod check;
mod clients;
mod effect;
mod reader;
mod shares;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::{AppId, Card, Ebid, Password};
use hyper::Uri;
use zeroize::Zeroizing;

use crate::lifetimes::Lifetimes;
use crate::operation::{Operation, Operations, USER_STATUS};
use crate::tls;

pub use admin::Admin;
pub use audit::{AuditConfig, Durability, Identifiers, OnFailure};
pub use breaker::Breaker;
pub use file::{ConfigFile, LogFormat};
pub use permissions::{Client, Derived, Permissions, Rate};
pub use reader::read_secret;

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gateways' listener and its limits.
    pub gateway: file::Gateway,
    /// TLS towards gateways, where it is spoken.
    pub gateway_tls: Option<tls::ServerTls>,
    /// The operators' listener.
    pub admin: Admin,
    /// Folder of the databases.
    pub store_dir: PathBuf,
    /// Whom the proxy asks.
    pub carrier: Carrier,
    /// What may be asked for.
    pub operations: Operations,
    /// Numbers of one card, each with the one that stands for all of them.
    pub aliases: HashMap<Card, Card>,
    /// What an account bears before calls stop for a while.
    pub breaker: Breaker,
    /// What is kept in memory.
    pub cache: file::Cache,
    /// How long answers serve.
    pub lifetimes: Lifetimes,
    /// How the audit is kept.
    pub audit: AuditConfig,
    /// How a log line is written.
    pub log_format: LogFormat,
    /// Accounts by group, in the order of the file; never empty for a group.
    pub groups: HashMap<Arc<str>, Vec<Arc<Account>>>,
    /// Clients by the appid that they sign with.
    pub clients: HashMap<AppId, Arc<Client>>,
    /// Whose passwords follow from their appids, the longest prefix first.
    pub derived: Vec<Derived>,
    /// Appids that are refused whatever they sign with.
    pub revoked: HashSet<AppId>,
    /// What may be done with secrets.
    pub process: file::Process,
    /// The files that all this was read from, as they looked just before.
    pub files: Vec<watch::FileStamp>,
    /// Of these, the lists of clients and of revoked appids.
    pub lists: Vec<watch::FileStamp>,
    /// When the certificates of all this are valid.
    pub certificates: Vec<certificates::Validity>,
    /// What works but should be changed, for the log and for `check`.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads and checks a file; relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigError`] with the place and the remedy; nothing is half-configured.
    pub fn load(path: &Path) -> Result<(Self, ConfigFile), ConfigError> {
        let loaded = Self::read(path);
        wipe_stack();
        loaded
    }

    fn read(path: &Path) -> Result<(Self, ConfigFile), ConfigError> {
        let unreadable = |e: std::io::Error| {
            ConfigError::new(path, None, format!("cannot be read: {e}: name an existing file with --config"))
        };
        // Before it is read, so that a change while it is read is noticed.
        let seen = watch::FileStamp::of(path);
        let found = std::fs::metadata(path).map_err(unreadable)?;
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
        let file = ConfigFile::parse(path, &text)?;
        let open = !file.holds_secret() || file.process.allow_world_readable_secrets;
        reader::refuse_others(path, &found, open).map_err(|what| ConfigError::new(path, None, what))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut config = Self::check(&file, folder).map_err(|what| ConfigError::new(path, None, what))?;
        config.files.insert(0, seen);
        Ok((config, file))
    }

    /// Reads the token that the proxy makes for its admin listener in the store's folder, or makes it; says whether it was
    /// made. Nothing is done where the configuration says otherwise.
    ///
    /// # Errors
    /// [`ConfigError`] with the file and the remedy.
    pub fn find_token(&mut self, dir: &Path) -> Result<bool, ConfigError> {
        if !matches!(self.admin.token, admin::Token::Made(_)) {
            return Ok(false);
        }
        let (token, made) = token::read_or_make(dir)?;
        self.admin.token = admin::Token::Made(Some(token));
        self.files.push(watch::FileStamp::of(&dir.join(token::FILE)));
        Ok(made)
    }

    /// The number that stands for a card in keys and calls: the first of its line in the alias file, or its own.
    pub fn canonical(&self, card: &Card) -> Card {
        self.aliases.get(card).copied().unwrap_or(*card)
    }

    /// The ebid that a client must send for this operation; none when its group has no account that may ask for it.
    pub fn ebid_of(&self, client: &Client, operation: &Operation) -> Option<Ebid> {
        if operation.name == USER_STATUS.name {
            return Some(client.ebid);
        }
        self.groups.get(&client.group)?.iter().find_map(|account| account.ebid_of(operation)).copied()
    }

    /// Every account, group by group.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.groups.values().flatten()
    }
}

/// Overwrites the stack below: a password that was moved from there to its place is wiped there when it is dropped, but the
/// bytes that it was moved from stay.
#[inline(never)]
fn wipe_stack() {
    /// More than reading a configuration takes.
    const DEPTH: usize = 256 << 10;
    let mut below = [0_u8; DEPTH];
    zeroize::Zeroize::zeroize(&mut below);
    std::hint::black_box(&below);
}

/// Whom the proxy asks, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Carrier {
    /// `http` or `https`, host, optional port and path prefix without a closing slash.
    pub base_url: Uri,
    /// The HTTP proxy to go through.
    pub proxy: Option<Uri>,
    /// To a connection.
    pub connect_timeout: Duration,
    /// Of one flight.
    pub timeout: Duration,
    /// First two digits of the sequence.
    pub node: u8,
    /// Local address to call from.
    pub bind: Option<IpAddr>,
    /// Longest answer in bytes.
    pub max_body: usize,
    /// How long a gateway waits when there is a stale entry for it.
    pub stale_wait: Duration,
    /// Waiters on one flight.
    pub max_waiters_per_card: usize,
    /// Waiters of one client, and flights that it started.
    pub max_waiters_per_client: usize,
    /// Flights at once.
    pub max_flights: usize,
    /// Flights at once for the clients of one group.
    pub max_flights_per_group: usize,
    /// Flights that wait for an account's budget.
    pub queue: usize,
    /// How long one waits for it.
    pub queue_wait: Duration,
    /// Clock drift that raises the alarm.
    pub drift_alarm: Duration,
    /// Whom to take for the carrier.
    pub tls: tls::ClientTrust,
}

impl Carrier {
    /// The host and port that gateways may name in an absolute-form target.
    pub fn host(&self) -> &str {
        self.base_url.host().unwrap_or_default()
    }
}

/// Credentials that the carrier issued.
#[derive(Debug)]
pub struct Account {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// The customer that holds it.
    pub group: Arc<str>,
    /// The carrier's appid.
    pub appid: AppId,
    /// The carrier's ebid for user-status look-ups.
    pub ebid: Ebid,
    /// Its ebids for other operations, by their names.
    pub ebids: HashMap<&'static str, Ebid>,
    /// The carrier's password, and beside it the next one while it is being changed. Never empty.
    pub passwords: Vec<Password>,
    /// Calls that may leave in any second.
    pub calls_per_second: Option<NonZeroU32>,
    /// Calls that may be under way at once.
    pub calls_at_once: Option<NonZeroU32>,
    /// Calls from midnight to midnight at UTC+8.
    pub calls_per_day: Option<NonZeroU64>,
}

impl Account {
    /// The ebid for this operation; none when the carrier issued none.
    pub fn ebid_of(&self, operation: &Operation) -> Option<&Ebid> {
        if operation.name == USER_STATUS.name { Some(&self.ebid) } else { self.ebids.get(operation.name) }
    }
}

/// What is wrong with a configuration, where, and what to write instead.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {what}", path.display(), SourceLine(place))]
pub struct ConfigError {
    path: PathBuf,
    place: Option<Location>,
    what: String,
}

impl ConfigError {
    fn new(path: &Path, place: Option<Location>, what: String) -> Self {
        Self { path: path.to_owned(), place, what }
    }
}

/// A line and column, both from 1.
#[derive(Clone, Copy, Debug)]
struct Location {
    line: usize,
    column: usize,
}

impl Location {
    fn of(text: &str, at: usize) -> Self {
        let before = &text.as_bytes()[..at.min(text.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        Self {
            line: before.iter().filter(|b| **b == b'\n').count() + 1,
            column: String::from_utf8_lossy(&before[line_start..]).chars().count() + 1,
        }
    }
}

struct SourceLine<'a>(&'a Option<Location>);

impl fmt::Display for SourceLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Location { line, column }) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}
