//! Edits the clients file and the list of revoked appids: under a lock, checked first, then replaced in one step.
//!
//! The folder of each list is locked (flock(2)) before the lists are read, so that of two edits at once none is lost. A new
//! text is written next to the old one (`replace.rs`), checked as part of the whole configuration, and renamed over it
//! (rename(2) is atomic): a running proxy, or a crash, sees the old list or the new one. Comments and the order of TOML
//! stay; so do comment lines of CSV, whose records are one line each (`rows.rs`).

mod replace;
mod rows;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cmiot_signer::AppId;
use zeroize::Zeroizing;

use super::error::{self, ConfigError, ConfigErrors, Location};
use super::file;
use super::text::entries;
use super::{Config, ConfigFile, clients, reader};
use crate::language::{Text, text};
use crate::plain_file;
use replace::Replacement;

pub use rows::Change;

/// The treatment of appids that an import finds known already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// The import is refused.
    Refuse,
    /// The client stays as it is.
    Skip,
    /// The client is replaced as a whole, its password included.
    Replace,
}

/// The number of clients that an import added, left as they were, and replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Imported {
    /// Clients that were not in the list.
    pub added: usize,
    /// Clients that stay as they were.
    pub skipped: usize,
    /// Clients of the list that were replaced.
    pub replaced: usize,
}

/// The lists of one configuration, open for editing; a lock excludes other edits.
#[derive(Debug)]
pub struct ClientsFileEditor {
    config: Config,
    file: ConfigFile,
    /// The configuration's folder.
    folder: PathBuf,
    _locks: Vec<File>,
}

impl ClientsFileEditor {
    /// Opens the lists of a configuration, which must be in order. Waits for another edit to end.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn open(config: &Path) -> Result<Self, ConfigErrors> {
        let folder = config.parent().unwrap_or(Path::new(".")).to_owned();
        let text = plain_file::read_to_string(config).map(Zeroizing::new);
        let text = text.map_err(|e| unreadable(config, &e))?;
        let named = ConfigFile::parse(config, &text)?.gateway;
        let mut folders: Vec<PathBuf> = [&named.clients_file, &named.revoked_file]
            .into_iter()
            .flatten()
            // A list that is missing is reported when the configuration is loaded.
            .filter_map(|list| fs::canonicalize(folder.join(list)).ok()?.parent().map(Path::to_owned))
            .collect();
        // Always in the same order, so that two edits do not wait for each other.
        folders.sort();
        folders.dedup();
        let locks = folders.iter().map(|folder| lock(folder)).collect::<Result<_, _>>()?;
        let (checked, file) = Config::load(config)?;
        Ok(Self { config: checked, file, folder, _locks: locks })
    }

    /// Ends the edit; returns the configuration as it was before.
    pub fn close(self) -> Config {
        self.config
    }

    /// The paths of the list of clients and of the list of revoked appids.
    pub fn lists(&self) -> [Option<PathBuf>; 2] {
        let gateway = &self.file.gateway;
        [&gateway.clients_file, &gateway.revoked_file]
            .map(|list| list.as_ref().map(|list| self.folder.join(list)))
    }

    /// The clients of the clients file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn clients(&self) -> Result<Vec<file::Client>, ConfigErrors> {
        let path = self.path()?;
        clients::parse(&path, &read(&path)?)
    }

    /// Changes a client, or adds it where there is none of this appid.
    ///
    /// # Errors
    /// When the result would be no configuration; the file is as before then.
    pub fn set(&self, appid: &str, changes: &[Change<'_>]) -> Result<(), ConfigErrors> {
        let path = self.path()?;
        let changed = rows::merge(&path, &read(&path)?, &[(appid, changes.to_vec())])?;
        self.replace_clients(&path, &changed, None)
    }

    /// Removes a client from the clients file. An entry in the list of revoked appids stays.
    ///
    /// # Errors
    /// When the clients file has no such client, or the result would be no configuration; the file is as before then.
    pub fn remove(&self, appid: &str) -> Result<(), ConfigErrors> {
        let path = self.path()?;
        let changed = rows::remove(&path, &read(&path)?, appid)?.ok_or_else(|| self.not_listed(appid))?;
        self.replace_clients(&path, &changed, None)
    }

    /// The error of an appid that is not in the clients file.
    pub fn not_listed(&self, appid: &str) -> ConfigError {
        let known = AppId::parse(appid).is_ok_and(|appid| self.config.clients.contains_key(&appid));
        let is_derived = || self.config.derived.iter().any(|derived| appid.starts_with(&derived.prefix));
        let remedy = match () {
            () if known => text!(
                "it is a client of the configuration itself: edit it there",
                "它是配置文件本身的客户端：请在配置文件中编辑"
            ),
            () if is_derived() => text!(
                "its password is derived: `client revoke` refuses it",
                "它的密码是派生的：`client revoke` 可以拒绝它"
            ),
            () => list_shows_all(),
        };
        ConfigError::new(appid, text!("is not in the clients file", "不在客户端文件中")).remedy(remedy)
    }

    /// Whether the configuration has a client of this appid, in the clients file or elsewhere.
    pub fn has(&self, appid: &str) -> bool {
        AppId::parse(appid).is_ok_and(|appid| self.config.clients.contains_key(&appid))
    }

    /// Whether an appid is in the list of revoked appids.
    pub fn is_revoked(&self, appid: &str) -> bool {
        AppId::parse(appid).is_ok_and(|appid| self.config.revoked.contains(&appid))
    }

    /// Adds the clients of another file, `.csv` or `.toml`; if one is invalid, it adds no client at all. `existing` is the
    /// treatment of those whose appids are known already.
    ///
    /// # Errors
    /// As [`ClientsFileEditor::set`], when an appid is in the list already under [`Existing::Refuse`], and when one is in
    /// the file twice.
    pub fn import(&self, from: &Path, existing: Existing) -> Result<Imported, ConfigErrors> {
        let (path, text) = (self.path()?, read(from)?);
        let list = read(&path)?;
        let old: HashMap<String, Vec<(String, String)>> =
            rows::read(&path, &list)?.into_iter().map(|row| (rows::appid(&row).to_owned(), row)).collect();
        let mut first = HashMap::new();
        let mut errors = Vec::new();
        for (appid, line) in rows::appids(from, &text)? {
            let key = format!("appid \"{appid}\"");
            let error = |problem: Text| ConfigError::new(&key, problem).at(Location::line(from, line));
            if existing == Existing::Refuse && old.contains_key(&appid) {
                let error = error(text!("is in the list already", "已在列表中"));
                errors.push(error.remedy(text!(
                    "--skip-existing leaves it as it is, --replace replaces it",
                    "--skip-existing 保留原有的，--replace 替换原有的"
                )));
            }
            if let Some(before) = first.insert(appid, line) {
                errors.push(error(text!("is in line {before} already", "已在第 {before} 行出现")));
            }
        }
        ConfigErrors::check(errors)?;
        clients::parse(from, &text)?;
        let mut new = rows::read(from, &text)?;
        let read = new.len();
        if existing == Existing::Skip {
            new.retain(|row| !old.contains_key(rows::appid(row)) && !self.has(rows::appid(row)));
        }
        let skipped = read - new.len();
        let replaced = new.iter().filter(|row| old.contains_key(rows::appid(row))).count();
        let imported = Imported { added: new.len() - replaced, skipped, replaced };
        if new.is_empty() {
            return Ok(imported);
        }
        let rows: Vec<(&str, Vec<Change<'_>>)> = new
            .iter()
            .map(|row| {
                let appid = rows::appid(row);
                // Keys that the new row does not have are removed: the row is replaced, not merged.
                let has = |key: &str| row.iter().any(|(new, _)| new == key);
                let before = old.get(appid).into_iter().flatten().map(|(key, _)| (key.as_str(), None));
                let before = before.filter(move |(key, _)| !has(key));
                let after = row.iter().map(|(key, value)| (key.as_str(), Some(value.clone())));
                (appid, before.chain(after).collect())
            })
            .collect();
        let changed = rows::merge(&path, &list, &rows)?;
        self.replace_clients(&path, &changed, Some((from, &first)))?;
        Ok(imported)
    }

    /// Refuses an appid from now on, listed or derived.
    ///
    /// # Errors
    /// When the configuration names no `revoked_file`, knows no such appid, or the list cannot be written.
    pub fn revoke(&self, appid: &str) -> Result<(), ConfigError> {
        let parsed = AppId::parse(appid).map_err(|e| ConfigError::new(appid, error::credential(e)))?;
        let [_, revoked] = self.lists();
        let path = revoked.ok_or_else(|| {
            let error = ConfigError::new("[gateway] revoked_file", error::is_not_set());
            error.remedy(text!(
                "name a file for the list of revoked appids; it may be empty",
                "请为吊销的应用编码（appid）列表指定一个文件；文件可以为空"
            ))
        })?;
        if self.config.revoked.contains(&parsed) {
            return Ok(());
        }
        let derived = self.config.derived.iter().any(|derived| appid.starts_with(&derived.prefix));
        if !derived && !self.config.clients.contains_key(&parsed) {
            let problem = text!(
                "no client has this appid, and no [[derive]] its prefix",
                "没有客户端使用这个应用编码（appid），也没有 [[derive]] 使用它的前缀"
            );
            return Err(ConfigError::new(appid, problem).remedy(list_shows_all()));
        }
        let mut text = read(&path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(appid);
        text.push('\n');
        Replacement::write(&path, &text)?.commit()
    }

    /// Accepts a revoked appid again: removes its lines from the list of revoked appids; all other lines stay.
    ///
    /// # Errors
    /// When the configuration names no `revoked_file`, the appid is not in it, or the list cannot be written.
    pub fn unrevoke(&self, appid: &str) -> Result<(), ConfigError> {
        let parsed = AppId::parse(appid).map_err(|e| ConfigError::new(appid, error::credential(e)))?;
        let [_, revoked] = self.lists();
        let path = revoked.ok_or_else(|| ConfigError::new("[gateway] revoked_file", error::is_not_set()))?;
        if !self.config.revoked.contains(&parsed) {
            let problem = text!("is not revoked", "没有被吊销");
            return Err(ConfigError::new(appid, problem).remedy(text!(
                "`client list` shows which appids are",
                "`client list` 列出被吊销的应用编码（appid）"
            )));
        }
        let text = read(&path)?;
        let is_other = |line: &&str| !entries(line).iter().any(|entry| entry.text == appid);
        let kept: Zeroizing<String> = Zeroizing::new(text.split_inclusive('\n').filter(is_other).collect());
        Replacement::write(&path, &kept)?.commit()
    }

    fn path(&self) -> Result<PathBuf, ConfigError> {
        const KEY: &str = "[gateway] clients_file";
        let [clients, _] = self.lists();
        if self.file.gateway.clients_file.as_deref().is_some_and(reader::names_credential) {
            let problem = text!(
                "is a credential of the service manager, which no command changes",
                "是服务管理器的凭据，任何命令都不会修改它"
            );
            return Err(ConfigError::new(KEY, problem).remedy(text!(
                "change the file of LoadCredential=, and restart the proxy",
                "请修改 LoadCredential= 的文件，并重启代理"
            )));
        }
        clients.ok_or_else(|| {
            ConfigError::new(KEY, error::is_not_set())
                .remedy(text!("name the list to edit", "请指定要编辑的列表"))
        })
    }

    /// Replaces the clients file if the whole configuration is valid with it; `source` is an imported file with the line of
    /// each appid.
    fn replace_clients(
        &self,
        path: &Path,
        text: &str,
        source: Option<(&Path, &HashMap<String, usize>)>,
    ) -> Result<(), ConfigErrors> {
        let new = Replacement::write(path, text)?;
        let mut file = self.file.clone();
        file.gateway.clients_file = Some(new.path().to_owned());
        Config::check(&file, &self.folder).map_err(|errors| {
            let located = errors.into_iter().map(|error| locate(error, new.path(), path, source));
            ConfigErrors::check(located.collect()).expect_err("as many errors as before")
        })?;
        Ok(new.commit()?)
    }
}

/// An error of the new text, which is in a temporary file, as an error of the imported file or of the clients file.
fn locate(
    error: ConfigError,
    temporary: &Path,
    path: &Path,
    source: Option<(&Path, &HashMap<String, usize>)>,
) -> ConfigError {
    let written = temporary.display().to_string();
    let of_client = error.key.strip_prefix(&written).and_then(|key| key.split_once("(appid = \""));
    let imported = of_client.zip(source).and_then(|((_, rest), (from, lines))| {
        let (appid, rest) = rest.split_once("\")")?;
        Some((Location::line(from, *lines.get(appid)?), format!("appid \"{appid}\"{rest}")))
    });
    if let Some((location, key)) = imported {
        return ConfigError { location, key, ..error };
    }
    let shown = path.display().to_string();
    let location = match error.location.path == temporary {
        true => Location { path: path.to_owned(), ..error.location.clone() },
        false => error.location.clone(),
    };
    let (key, Text { english, chinese }) = (error.key.replace(&written, &shown), error.problem);
    let problem =
        Text { english: english.replace(&written, &shown), chinese: chinese.replace(&written, &shown) };
    ConfigError { location, key, problem, ..error }
}

/// The remedy for an appid that is not known.
fn list_shows_all() -> Text {
    text!("`client list` shows all of them", "`client list` 列出全部")
}

fn lock(folder: &Path) -> Result<File, ConfigError> {
    let locked = File::open(folder).and_then(|opened| opened.lock().map(|()| opened));
    locked.map_err(|e| {
        let problem = text!("the folder of the list cannot be locked: {e}", "无法锁定列表所在的文件夹：{e}");
        ConfigError::of_file(folder, problem)
    })
}

fn read(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let text = plain_file::read_to_string(path).map(Zeroizing::new);
    text.map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::of_file(path, error::cannot_be_read(error))
}
