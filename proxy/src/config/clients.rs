//! Who may ask: from the `[[client]]` tables, the clients file, the derived and the revoked ones to checked clients.
//!
//! A clients file is TOML (`[[client]]` tables) or CSV with a header line. CSV columns are named as the keys are;
//! several values of one column are separated by blanks; an empty cell means absent.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use cmiot_signer::{AppId, Card, CardKind, Ebid};
use ring::hmac;

use super::file::{self, ClientsFile, ConfigFile, Format, ReplayMode};
use super::reader::{PasswordSource, SourceFiles};
use super::shares;
use super::text::Csv;
use super::{Account, Client, Derived, Permissions, Rate};
use crate::operation::Operations;
use crate::units::Window;

/// Accounts by group, in the order of the file.
pub(super) type Groups = HashMap<Arc<str>, Vec<Arc<Account>>>;

/// The shortest key that passwords are derived from, in bytes: as long as the hash (RFC 2104, 3).
const MIN_KEY: usize = 32;

/// Everybody who may ask.
pub(super) struct Clients {
    pub(super) listed: HashMap<AppId, Arc<Client>>,
    pub(super) derived: Vec<Derived>,
    pub(super) revoked: HashSet<AppId>,
}

impl Clients {
    pub(super) fn check(
        file: &ConfigFile,
        gateway: &file::Gateway,
        groups: &Groups,
        operations: &Operations,
        reader: &mut SourceFiles<'_>,
    ) -> Result<Self, String> {
        let mut checker =
            Checker { gateway, cache: &file.cache, groups, operations, reader, card_lists: HashMap::new() };
        let mut listed = HashMap::new();
        for (index, written) in file.clients.iter().enumerate() {
            let place = format!("[[client]] {} (appid = \"{}\")", index + 1, written.appid);
            if written.password.is_some() {
                checker
                    .reader
                    .warnings
                    .push(format!("{place}: password: stands in the configuration; prefer password_file"));
            }
            add(&mut listed, checker.client(&place, written)?, &place)?;
        }
        if let Some(path) = &file.gateway.clients_file {
            let text =
                checker.reader.secret_text(path).map_err(|e| format!("[gateway] clients_file: {e}"))?;
            for (index, written) in parse(path, &text)?.iter().enumerate() {
                let place =
                    format!("{}: client {} (appid = \"{}\")", path.display(), index + 1, written.appid);
                add(&mut listed, checker.client(&place, written)?, &place)?;
            }
        }
        let mut derived = Vec::new();
        for (index, written) in file.derives.iter().enumerate() {
            let place = format!("[[derive]] {} (appid_prefix = \"{}\")", index + 1, written.appid_prefix);
            derived.push(checker.derive(&place, written)?);
        }
        derived.sort_by_key(|derived| std::cmp::Reverse(derived.prefix.len()));
        let revoked = revoked(file, checker.reader)?;
        let own = own_credentials(file, checker.reader);
        for account in groups.values().flatten().filter(|account| own.contains(&*account.name)) {
            let place = format!("[[account]] (name = \"{}\")", account.name);
            let client = Client {
                appid: account.appid,
                group: Arc::clone(&account.group),
                ebid: account.ebid,
                password: account.passwords[0].clone(),
                previous: account.passwords.get(1).cloned().map(Box::new),
                certificate: None,
                permissions: Arc::new(checker.rights(&place, &file::RawPermissions::default())?),
            };
            if listed.insert(client.appid, Arc::new(client)).is_some() {
                return Err(format!(
                    "{place}: appid: another client signs with it already: remove that client, or \
                     carrier_credentials here"
                ));
            }
        }
        Ok(Self { listed, derived, revoked })
    }
}

/// The clients of a clients file; `path` decides the form.
///
/// # Errors
/// A sentence that names the file and, where one line is wrong, the line. None repeats what stands there.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Vec<file::Client>, String> {
    let shown = path.display();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => ConfigFile::read_toml::<ClientsFile>(path, text)
            .map(|file| file.clients)
            .map_err(|e| e.to_string()),
        Some("csv") => {
            let list = Csv::read(path, text)?;
            let has = |name: &str| list.heading.iter().any(|column| column == name);
            if !has("group") || !has("appid") {
                return Err(format!("{shown}:{}: the header needs the columns group and appid", list.line));
            }
            let rows = list.rows.iter();
            rows.map(|(line, row)| {
                from_record(&list.heading, row).map_err(|what| format!("{shown}:{line}: {what}"))
            })
            .collect()
        }
        _ => Err(format!("{shown}: a clients file's name ends in .csv or .toml")),
    }
}

/// A client from one line of CSV: as if its cells were the values of a TOML table.
fn from_record(header: &csv::StringRecord, record: &csv::StringRecord) -> Result<file::Client, String> {
    let mut table = toml::Table::new();
    for (column, cell) in header.iter().zip(record).filter(|(_, cell)| !cell.is_empty()) {
        let value = match column {
            "peers" | "operations" | "cards" => {
                cell.split_whitespace().map(toml::Value::from).collect::<Vec<_>>().into()
            }
            "rate" | "burst" => {
                toml::Value::Integer(cell.parse().map_err(|_| format!("{column}: must be a whole number"))?)
            }
            _ => toml::Value::from(cell),
        };
        table.insert(column.to_owned(), value);
    }
    table.try_into().map_err(|e: toml::de::Error| match e.message() {
        // These name a column alone; other texts would repeat a cell, which may be a password in the wrong column.
        named if named.starts_with("unknown field") || named.starts_with("missing field") => named.to_owned(),
        _ => "a cell does not fit its column".to_owned(),
    })
}

fn add(listed: &mut HashMap<AppId, Arc<Client>>, client: Client, place: &str) -> Result<(), String> {
    match listed.insert(client.appid, Arc::new(client)) {
        None => Ok(()),
        Some(_) => Err(format!("{place}: appid: another client signs with it already: each needs its own")),
    }
}

fn revoked(file: &ConfigFile, reader: &mut SourceFiles<'_>) -> Result<HashSet<AppId>, String> {
    let Some(path) = &file.gateway.revoked_file else { return Ok(HashSet::new()) };
    let lines = reader.list(path).map_err(|e| format!("[gateway] revoked_file: {e}"))?;
    lines
        .iter()
        .map(|line| {
            AppId::parse(&line.text).map_err(|e| {
                let (path, number) = (path.display(), line.line);
                format!(
                    "[gateway] revoked_file: {path}:{number}: {e}: write one appid a line, and nothing else"
                )
            })
        })
        .collect()
}

/// The accounts, by name, whose own credentials a gateway may sign with: those that say so, and all of them where nothing
/// names a client. A list that is named counts even when it is empty, so that emptying one opens nothing.
fn own_credentials<'a>(file: &'a ConfigFile, reader: &mut SourceFiles<'_>) -> HashSet<&'a str> {
    let named = !file.clients.is_empty() || !file.derives.is_empty() || file.gateway.clients_file.is_some();
    let own: HashSet<&str> = file
        .accounts
        .iter()
        .filter(|account| account.carrier_credentials.unwrap_or(!named))
        .map(|account| account.name.as_str())
        .collect();
    let unsaid = file.accounts.iter().any(|account| account.carrier_credentials.is_none());
    if !named && unsaid {
        reader.warnings.push(
            "no client is named: every gateway that signs with an account's own credentials is accepted, for lookups. \
             Add a [[client]], or say carrier_credentials = true in each [[account]] that this is meant for"
                .to_owned(),
        );
    }
    own
}

/// What the checks of all clients share.
struct Checker<'a, 'r> {
    gateway: &'a file::Gateway,
    cache: &'a file::Cache,
    groups: &'a Groups,
    operations: &'a Operations,
    reader: &'a mut SourceFiles<'r>,
    /// Card lists by their path: clients mostly share one.
    card_lists: HashMap<std::path::PathBuf, Arc<HashSet<String>>>,
}

impl Checker<'_, '_> {
    fn client(&mut self, place: &str, written: &file::Client) -> Result<Client, String> {
        let (group, ebid) = self.group(place, &written.group, written.ebid.as_deref())?;
        let rights = self.rights(place, &written.raw_permissions())?;
        let password = PasswordSource {
            key: "password",
            file: written.password_file.as_deref(),
            env: written.password_env.as_deref(),
            text: written.password.as_ref(),
        };
        let previous = PasswordSource {
            key: "previous_password",
            file: written.previous_password_file.as_deref(),
            env: written.previous_password_env.as_deref(),
            text: written.previous_password.as_ref(),
        };
        Ok(Client {
            appid: AppId::parse(&written.appid).map_err(|e| format!("{place}: appid: {e}"))?,
            group,
            ebid,
            password: password.read(place, self.reader)?,
            previous: previous.read_optional(place, self.reader)?.map(Box::new),
            certificate: written.certificate.as_deref().map(|name| name.to_ascii_lowercase().into()),
            permissions: Arc::new(rights),
        })
    }

    fn derive(&mut self, place: &str, written: &file::Derive) -> Result<Derived, String> {
        let (group, ebid) = self.group(place, &written.group, written.ebid.as_deref())?;
        AppId::parse(&written.appid_prefix).map_err(|e| format!("{place}: appid_prefix: {e}"))?;
        let key = self.reader.secret(&written.key_file).map_err(|e| format!("{place}: key_file: {e}"))?;
        if key.len() < MIN_KEY {
            return Err(format!(
                "{place}: key_file: needs at least {MIN_KEY} bytes: openssl rand -hex 32 > {}",
                written.key_file.display()
            ));
        }
        Ok(Derived {
            group,
            prefix: written.appid_prefix.clone(),
            ebid,
            epoch: written.epoch,
            rights: Arc::new(self.rights(place, &written.permissions)?),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
        })
    }

    fn group(&self, place: &str, name: &str, ebid: Option<&str>) -> Result<(Arc<str>, Ebid), String> {
        let Some((group, accounts)) = self.groups.get_key_value(name) else {
            let mut known: Vec<_> = self.groups.keys().map(|g| format!("\"{g}\"")).collect();
            known.sort();
            return Err(format!(
                "{place}: group = \"{name}\": no account has it; known: {}",
                known.join(", ")
            ));
        };
        let ebid = match ebid {
            Some(ebid) => Ebid::parse(ebid).map_err(|e| format!("{place}: ebid: {e}"))?,
            None => accounts[0].ebid,
        };
        Ok((Arc::clone(group), ebid))
    }

    fn rights(&mut self, place: &str, written: &file::RawPermissions) -> Result<Permissions, String> {
        for name in &written.operations {
            if self.operations.named(name).is_none() {
                return Err(format!(
                    "{place}: operations: \"{name}\" is not served; known: {}",
                    self.operations.names()
                ));
            }
        }
        let skew = written.clock_skew.unwrap_or(self.gateway.clock_skew);
        if written.replay != ReplayMode::Observe {
            if skew == Window::Any {
                return Err(format!(
                    "{place}: clock_skew = \"any\" needs replay = \"observe\": a transid that is valid for ever \
                     cannot be remembered for ever"
                ));
            }
            if written.format == Format::Lenient {
                return Err(format!(
                    "{place}: format = \"lenient\" needs replay = \"observe\": a transid without a readable stamp \
                     never leaves the window"
                ));
            }
        }
        let rate = rate(place, written.rate, written.burst)?;
        let window = skew.limit();
        let group_share = self.gateway.replay_group_share.unwrap_or(self.gateway.replay_entries);
        Ok(Permissions {
            peers: written.peers.clone(),
            operations: written.operations.clone(),
            cards: written.cards.clone(),
            card_list: self.card_list(place, written)?,
            rate,
            replay: written.replay,
            format: written.format,
            window,
            share: shares::of_client(
                &format!("{place}: rate x window"),
                share(rate, window, self.gateway.replay_share),
                "a group's share of replay_entries",
                group_share,
                &mut self.reader.warnings,
            ),
            max_age_floor: written.max_age_floor.unwrap_or(self.cache.max_age_floor).0,
            max_stale_ceiling: written.max_stale_ceiling.unwrap_or(self.cache.max_stale_ceiling).0,
        })
    }

    fn card_list(
        &mut self,
        place: &str,
        written: &file::RawPermissions,
    ) -> Result<Option<Arc<HashSet<String>>>, String> {
        let Some(path) = &written.cards_file else { return Ok(None) };
        if let Some(list) = self.card_lists.get(path) {
            return Ok(Some(Arc::clone(list)));
        }
        let lines = self.reader.list(path).map_err(|e| format!("{place}: cards_file: {e}"))?;
        let mut list = HashSet::new();
        for line in lines {
            let kinds = [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi];
            if !kinds.into_iter().any(|kind| Card::parse(kind, &line.text).is_ok()) {
                // The number is not repeated: it would stand in a log.
                return Err(format!(
                    "{place}: cards_file: {}:{}: is no number of a card: write one number a line, without heading, kind or \
                     further columns",
                    path.display(),
                    line.line
                ));
            }
            // As keys are: an ICCID's letters in upper case.
            list.insert(line.text.to_ascii_uppercase());
        }
        let list = Arc::new(list);
        self.card_lists.insert(path.clone(), Arc::clone(&list));
        Ok(Some(list))
    }
}

/// How many transids can be within the window at once: it is open on both sides of the clock.
fn share(rate: Option<Rate>, window: Option<std::time::Duration>, default: usize) -> usize {
    let (Some(rate), Some(window)) = (rate, window) else { return default };
    let seconds = window.as_secs().saturating_mul(2).saturating_add(1);
    let most =
        u64::from(rate.per_second.get()).saturating_mul(seconds).saturating_add(u64::from(rate.burst.get()));
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn rate(place: &str, rate: Option<u32>, burst: Option<u32>) -> Result<Option<Rate>, String> {
    let at_least_one = |key: &str, value: u32| {
        NonZeroU32::new(value).ok_or_else(|| format!("{place}: {key}: must be at least 1"))
    };
    match (rate, burst) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(format!("{place}: burst: needs a rate beside it")),
        (Some(rate), burst) => {
            let per_second = at_least_one("rate", rate)?;
            let burst = burst.map_or(Ok(per_second), |burst| at_least_one("burst", burst))?;
            Ok(Some(Rate { per_second, burst }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_toml_say_the_same() {
        let csv = "appid,group,password,rate,cards,peers,replay\n\
                   # the depot\nGW1,fleet,secret,5,1064 1065,10.0.0.0/8,observe\nGW2, fleet ,s2,,,,\n";
        let toml = "[[client]]\nappid = \"GW1\"\ngroup = \"fleet\"\npassword = \"secret\"\nrate = 5\n\
                    cards = [\"1064\", \"1065\"]\npeers = [\"10.0.0.0/8\"]\nreplay = \"observe\"\n\
                    [[client]]\nappid = \"GW2\"\ngroup = \"fleet\"\npassword = \"s2\"\n";
        let read = |name: &str, text| format!("{:?}", parse(Path::new(name), text).unwrap());
        assert_eq!(read("clients.csv", csv), read("clients.toml", toml));
    }

    #[test]
    fn a_wrong_line_is_named_and_not_repeated() {
        let error = |text| parse(Path::new("clients.csv"), text).unwrap_err();
        assert_eq!(error("appid\nGW1\n"), "clients.csv:1: the header needs the columns group and appid");
        let wrong = error("appid,group,password,rate\nGW1,fleet,hunter2,quick\n");
        assert_eq!(wrong, "clients.csv:2: rate: must be a whole number");
        let unknown = error("appid,group,passwort\nGW1,fleet,hunter2\n");
        assert!(unknown.contains("passwort") && !unknown.contains("hunter2"), "{unknown}");
        let short = error("appid,group,password\nGW1,hunter2\n");
        assert!(short.contains("columns") && !short.contains("hunter2"), "{short}");
    }
}
