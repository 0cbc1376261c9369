//! `[[account]]`: the credentials that the carrier issued, checked and by group.

use std::collections::{HashMap, HashSet};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use cmiot_signer::{AppId, Ebid, Password};

use super::error::ConfigError;
use super::file::{self, ConfigFile, Dialect};
use super::reader::{PasswordSource, SourceFiles};
use crate::language::{Text, text};
use crate::operation::{Operation, Operations, USER_STATUS};

/// Credentials that the carrier issued.
#[derive(Debug)]
pub struct Account {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// The customer that holds it.
    pub group: Arc<str>,
    pub appid: AppId,
    /// The ebid for user-status lookups.
    pub ebid: Ebid,
    /// The ebids for other operations, by their names.
    pub ebids: HashMap<&'static str, Ebid>,
    /// The password, and the next one while the carrier changes it. Never empty.
    pub passwords: Vec<Password>,
    /// Calls that may start in any second.
    pub calls_per_second: Option<NonZeroU32>,
    /// Calls that may be in flight at once.
    pub max_concurrent_calls: Option<NonZeroU32>,
    /// Calls from midnight to midnight at UTC+8.
    pub calls_per_day: Option<NonZeroU64>,
}

impl Account {
    /// The dialect of its calls.
    pub fn dialect(&self) -> Dialect {
        Dialect::V2
    }

    /// The ebid for this operation; none if the carrier issued none.
    pub fn ebid_of(&self, operation: &Operation) -> Option<&Ebid> {
        if operation.name == USER_STATUS.name { Some(&self.ebid) } else { self.ebids.get(operation.name) }
    }
}

/// The accounts of a configuration.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Accounts by group, in the order of the file.
    pub(super) groups: HashMap<Arc<str>, Vec<Arc<Account>>>,
    /// Groups that are named by an account that is wrong: nothing that refers to them is an error of its own.
    pub(super) incomplete: HashSet<String>,
}

/// Checks the accounts. `missing_is_noted` says that one was left out when the file was read.
pub(super) fn check(file: &ConfigFile, operations: &Operations, reader: &mut SourceFiles<'_>) -> Accounts {
    let mut accounts = Accounts::default();
    if file.accounts.is_empty() && !file.is_incomplete("account") {
        let error = ConfigError::new("[[account]]", "the configuration has no account");
        reader
            .problems
            .push(error.remedy("add one with the name, appid, ebid and password that the carrier issued"));
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, raw) in file.accounts.iter().enumerate() {
        let table = format!("[[account]] {} (name = \"{}\")", index + 1, raw.name);
        let first = names.get(raw.name.as_str()).copied();
        names.entry(&raw.name).or_insert(index + 1);
        if raw.name.is_empty() {
            let key = format!("[[account]] {}: name", index + 1);
            reader.problems.push(ConfigError::new(key, "must not be empty"));
        } else if let Some(first) = first {
            let error = ConfigError::new(format!("{table}: name"), format!("taken by [[account]] {first}"));
            reader.problems.push(error.remedy("give each account its own name"));
        }
        let group = raw.group.as_deref().unwrap_or(&raw.name);
        match account(raw, group, &table, operations, file, reader) {
            Some(account) => accounts.groups.entry(group.into()).or_default().push(Arc::new(account)),
            None => _ = accounts.incomplete.insert(group.to_owned()),
        }
    }
    accounts
}

/// The warning about a password in the configuration.
pub(super) fn written_password(table: &str) -> Text {
    text!(
        "{table}: password: is written in the configuration; prefer password_file",
        "{table}：password：密码写在配置中；建议使用 password_file"
    )
}

fn account(
    raw: &file::Account,
    group: &str,
    table: &str,
    operations: &Operations,
    file: &ConfigFile,
    reader: &mut SourceFiles<'_>,
) -> Option<Account> {
    if raw.password.is_some() {
        reader.warnings.push(written_password(table));
    }
    let password = PasswordSource {
        key: "password",
        file: raw.password_file.as_deref(),
        env: raw.password_env.as_deref(),
        text: raw.password.as_ref(),
    };
    let next = PasswordSource {
        key: "next_password",
        file: raw.next_password_file.as_deref(),
        env: raw.next_password_env.as_deref(),
        text: None,
    };
    let (password, next) = (password.read(table, reader), next.read_optional(table, reader));
    let ebids: Vec<_> =
        raw.ebids.iter().map(|(name, ebid)| ebid_for(name, ebid, table, operations, file, reader)).collect();
    let appid =
        AppId::parse(&raw.appid).map_err(|e| ConfigError::new(format!("{table}: appid"), e.to_string()));
    let ebid = Ebid::parse(&raw.ebid).map_err(|e| ConfigError::new(format!("{table}: ebid"), e.to_string()));
    let (appid, ebid) = (reader.keep(appid), reader.keep(ebid));
    Some(Account {
        name: raw.name.as_str().into(),
        group: group.into(),
        appid: appid?,
        ebid: ebid?,
        ebids: ebids.into_iter().collect::<Option<_>>()?,
        passwords: std::iter::once(password?).chain(next?).collect(),
        calls_per_second: raw.calls_per_second,
        max_concurrent_calls: raw.max_concurrent_calls,
        calls_per_day: raw.calls_per_day,
    })
}

/// One entry of `ebids`.
fn ebid_for(
    name: &str,
    ebid: &str,
    table: &str,
    operations: &Operations,
    file: &ConfigFile,
    reader: &mut SourceFiles<'_>,
) -> Option<(&'static str, Ebid)> {
    let Some(operation) = operations.named(name).filter(|one| one.name != USER_STATUS.name) else {
        if !file.declares_operation(name) {
            let problem = format!("\"{name}\" is not another operation; known: {}", operations.names());
            reader.problems.push(ConfigError::new(format!("{table}: ebids"), problem));
        }
        return None;
    };
    let key = format!("{table}: ebids: {name}");
    let ebid = reader.keep(Ebid::parse(ebid).map_err(|e| ConfigError::new(key, e.to_string())))?;
    Some((operation.name, ebid))
}
