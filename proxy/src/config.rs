//! Configuration: [`ConfigFile`] is the file as written, [`Config`] the checked configuration that the proxy is built
//! from.
//!
//! Reading fails as a whole and reports every problem with its file, line, column and key, and the remedy
//! ([`ConfigErrors`]). Each module's settings are one part of [`Config`], which start and reload hand to that module.

pub mod account;
pub mod admin;
pub mod audit;
pub mod breaker;
pub mod cache;
pub mod carrier;
pub mod certificates;
pub mod edit;
pub mod error;
pub mod file;
pub mod fleet;
pub mod gateway;
pub mod listen;
pub mod listener;
pub mod operation;
pub mod permissions;
pub mod reference;
pub mod restart;
pub mod schema;
pub mod text;
pub mod token;
pub mod watch;
pub mod webhook;

mod aliases;
mod check;
mod clients;
mod document;
mod effect;
mod reader;
mod renamed;
mod shares;
mod tls_files;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmiot_signer::{AppId, Card, Ebid};
use zeroize::Zeroizing;

use crate::language::{Text, text};
use crate::lifetimes::Lifetimes;
use crate::operation::{Operation, Operations, USER_STATUS};
use crate::plain_file;

pub use account::{Account, Api, TokenAccess};
pub use admin::Admin;
pub use audit::{AuditConfig, Bodies, Durability, Identifiers, OnFailure};
pub use breaker::{BreakerConfig, Thresholds};
pub use cache::Cache;
pub use carrier::{Carrier, FlightLimits};
pub use error::{ConfigError, ConfigErrors};
pub use file::{CallMethod, ConfigFile, Dialect, Log, LogFormat, LookupLevel, TokenRefresh};
pub use gateway::{Gateway, TransidLimits};
pub use listener::{ListenConfig, Timeouts};
pub use permissions::{Client, Derived, Permissions, Rate};
pub use reader::read_secret;
pub use webhook::Webhook;

use reader::Contents;

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub gateway: Gateway,
    pub admin: Admin,
    /// Folder of the databases.
    pub store_dir: PathBuf,
    pub carrier: Carrier,
    /// Operations that are known, and those that are served.
    pub operations: Operations,
    /// Numbers of cards that have several, each with the number that is used in keys and calls.
    pub aliases: HashMap<Card, Card>,
    pub breaker: Thresholds,
    pub cache: Cache,
    /// Lifetimes of responses.
    pub lifetimes: Lifetimes,
    pub audit: AuditConfig,
    pub log: Log,
    /// Accounts by group, in the order of the file; never empty for a group.
    pub groups: HashMap<Arc<str>, Vec<Arc<Account>>>,
    /// Clients by the appid that they sign with.
    pub clients: HashMap<AppId, Arc<Client>>,
    /// Clients whose passwords are derived from their appids, the longest prefix first.
    pub derived: Vec<Derived>,
    /// Appids that are refused whatever they sign with.
    pub revoked: HashSet<AppId>,
    pub process: file::Process,
    /// The fleet that this proxy is a node of.
    pub fleet: Option<fleet::Fleet>,
    /// The receivers of events.
    pub webhooks: Vec<Arc<Webhook>>,
    /// The files that all this was read from, as they looked just before.
    pub files: Vec<watch::FileStamp>,
    /// The lists of clients and of revoked appids among them.
    pub lists: Vec<watch::FileStamp>,
    /// The validity of all certificates.
    pub certificates: Vec<certificates::Validity>,
    /// Settings that work but should be changed, for the log and for `check`.
    pub warnings: Vec<Text>,
}

impl Config {
    /// Reads and checks a file; relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// [`ConfigErrors`] with every problem; nothing is half-configured.
    pub fn load(path: &Path) -> Result<(Self, ConfigFile), ConfigErrors> {
        let loaded = Self::read(path);
        wipe_stack();
        loaded
    }

    fn read(path: &Path) -> Result<(Self, ConfigFile), ConfigErrors> {
        let unreadable = |e: std::io::Error| {
            let error = ConfigError::of_file(path, error::cannot_be_read(&e));
            error.remedy(text!("name an existing file with --config", "请用 --config 指定一个存在的文件"))
        };
        // Before it is read, so that a change while it is read is noticed.
        let seen = watch::FileStamp::of(path);
        let found = std::fs::metadata(path).map_err(unreadable)?;
        if !found.is_file() {
            let what = match found.is_dir() {
                true => error::is_a_folder(),
                false => {
                    text!("is a pipe or a device, not a plain file", "是管道或设备，不是普通文件")
                }
            };
            return Err(ConfigError::of_file(path, what)
                .remedy(text!(
                    "write the configuration into a file of mode 0600, and name that with --config: its folder is the one \
                     that relative paths in it are relative to, and a running proxy reads it again",
                    "请把配置写入权限为 0600 的文件，并用 --config 指定：其中的相对路径相对于该文件所在的文件夹，\
                     运行中的代理会重新读取该文件"
                ))
                .into());
        }
        let text = Zeroizing::new(plain_file::read_to_string(path).map_err(unreadable)?);
        let (file, mut problems) = ConfigFile::read(path, &text);
        let Some(file) = file else {
            return Err(ConfigErrors::check(problems).expect_err("a text without a value"));
        };
        let public = !file.holds_secret() || file.process.allow_world_readable_secrets;
        let contents = if public { Contents::Public } else { Contents::Secret };
        problems.extend(reader::refuse_others(path, &found, contents).err());
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut config = Self::check_after(problems, &file, folder)?;
        config.files.insert(0, seen);
        Ok((config, file))
    }

    /// Reads the token of the admin listener from the store's folder, or makes it; returns whether it was made. Nothing is
    /// done if the configuration sets another token, or that no token is needed.
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

    /// The number that is used for a card in keys and calls: the first of its line in the alias file, or its own.
    pub fn canonical(&self, card: &Card) -> Card {
        self.aliases.get(card).copied().unwrap_or(*card)
    }

    /// The ebid that a client must send for this operation; none if no account of its group may call it.
    pub fn ebid_of(&self, client: &Client, operation: &Operation) -> Option<Ebid> {
        if operation.name == USER_STATUS.name {
            return Some(client.ebid);
        }
        let accounts = self.groups.get(&client.group)?;
        let issued = accounts.iter().find_map(|account| account.ebid_of(operation)).copied();
        // Accounts of API v5 have no ebid: the client's own one stands for each of their operations.
        issued.or_else(|| accounts.iter().any(|account| account.serves(operation)).then_some(client.ebid))
    }

    /// Every account, group by group.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.groups.values().flatten()
    }
}

/// Overwrites the stack below: a password that was moved to its final place is wiped there when it is dropped, but its
/// bytes on the stack that it was moved from stay.
#[inline(never)]
fn wipe_stack() {
    /// More than reading a configuration takes.
    const DEPTH: usize = 256 << 10;
    let mut below = [0_u8; DEPTH];
    zeroize::Zeroize::zeroize(&mut below);
    std::hint::black_box(&below);
}
