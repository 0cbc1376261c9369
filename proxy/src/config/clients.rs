//! The clients of a configuration, checked: from the `[[client]]` tables, the clients file, the derived and the revoked
//! appids.

mod list;

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use cmiot_signer::{AppId, Card, CardKind, Ebid};
use ring::hmac;

use super::account::{self, Accounts};
use super::error::{self, ConfigError, Location};
use super::file::{self, ConfigFile, Dialect, Format, ReplayMode};
use super::gateway::{self, Gateway, TransidLimits};
use super::reader::{PasswordSource, SourceFiles};
use super::{Client, Derived, Permissions, Rate, shares};
use crate::language::{Text, text};
use crate::operation::{Operations, USER_STATUS};
use crate::units::Window;
pub(crate) use list::parse;

/// The shortest key that passwords are derived from, in bytes: as long as the hash (RFC 2104, 3).
const MIN_KEY: usize = 32;

/// The checked clients.
pub(super) struct Clients {
    pub(super) listed: HashMap<AppId, Arc<Client>>,
    pub(super) derived: Vec<Derived>,
    pub(super) revoked: HashSet<AppId>,
}

impl Clients {
    /// Checks all clients; `gateway` is none after a problem in `[gateway]`.
    pub(super) fn check(
        file: &ConfigFile,
        gateway: Option<&Gateway>,
        accounts: &Accounts,
        operations: &Operations,
        reader: &mut SourceFiles<'_>,
    ) -> Self {
        let transids = || gateway::transids(&file.gateway, accounts.groups.len(), &mut Vec::new());
        let mut checker = Checker {
            file,
            transids: gateway.map_or_else(transids, |gateway| gateway.transids),
            accounts,
            operations,
            reader,
            card_lists: HashMap::new(),
            listed: HashMap::new(),
        };
        for (index, raw) in file.clients.iter().enumerate() {
            let table = format!("[[client]] {} (appid = \"{}\")", index + 1, raw.appid);
            if raw.password.is_some() {
                checker.reader.warnings.push(account::written_password(&table));
            }
            checker.add(&table, raw);
        }
        checker.clients_file();
        let mut derived: Vec<_> = file
            .derives
            .iter()
            .enumerate()
            .filter_map(|(index, raw)| {
                let table = format!("[[derive]] {} (appid_prefix = \"{}\")", index + 1, raw.appid_prefix);
                checker.derive(&table, raw)
            })
            .collect();
        let mut prefixes: HashMap<&str, usize> = HashMap::new();
        for (index, raw) in file.derives.iter().enumerate() {
            if let Some(first) = prefixes.insert(&raw.appid_prefix, index + 1) {
                let table = format!("[[derive]] {} (appid_prefix = \"{}\")", index + 1, raw.appid_prefix);
                let problem = error::taken_by(&format!("[[derive]] {first}"));
                let error = ConfigError::new(format!("{table}: appid_prefix"), problem);
                checker.reader.problems.push(error.remedy(text!(
                    "give each [[derive]] its own prefix",
                    "请为每个 [[derive]] 设置不同的前缀"
                )));
            }
        }
        derived.sort_by_key(|derived| std::cmp::Reverse(derived.prefix.len()));
        let revoked = revoked(file, checker.reader);
        checker.own_credentials();
        Self { listed: checker.listed, derived, revoked }
    }
}

fn revoked(file: &ConfigFile, reader: &mut SourceFiles<'_>) -> HashSet<AppId> {
    const KEY: &str = "[gateway] revoked_file";
    let Some(path) = &file.gateway.revoked_file else { return HashSet::new() };
    let lines = reader.list(KEY, path).unwrap_or_default();
    let appid = |line: &super::text::Entry| {
        AppId::parse(&line.text).map_err(|e| {
            let error = ConfigError::new(KEY, error::credential(e)).at(Location::line(path, line.line));
            error.remedy(text!(
                "write one appid per line, and nothing else",
                "请每行只写一个应用编码（appid），不写其他内容"
            ))
        })
    };
    lines.iter().filter_map(|line| reader.keep(appid(line))).collect()
}

/// The state that the checks of all clients share.
struct Checker<'a, 'r> {
    file: &'a ConfigFile,
    transids: TransidLimits,
    accounts: &'a Accounts,
    operations: &'a Operations,
    reader: &'a mut SourceFiles<'r>,
    /// Card lists by their path: clients mostly share one.
    card_lists: HashMap<PathBuf, Arc<HashSet<String>>>,
    listed: HashMap<AppId, Arc<Client>>,
}

impl Checker<'_, '_> {
    /// The clients of the clients file.
    fn clients_file(&mut self) {
        let Some(path) = &self.file.gateway.clients_file else { return };
        let Some(text) = self.reader.secret_text("[gateway] clients_file", path) else { return };
        match parse(path, &text) {
            Ok(clients) => {
                for (index, raw) in clients.iter().enumerate() {
                    let shown = path.display();
                    self.add(&format!("{shown}: client {} (appid = \"{}\")", index + 1, raw.appid), raw);
                }
            }
            Err(errors) => self.reader.problems.extend(errors),
        }
    }

    /// The accounts whose own credentials a gateway may sign with, as clients.
    fn own_credentials(&mut self) {
        let own = own_credentials(self.file, self.reader);
        let accounts = self.accounts;
        for account in accounts.groups.values().flatten().filter(|account| own.contains(&*account.name)) {
            let table = format!("[[account]] (name = \"{}\")", account.name);
            let Some(permissions) = self.permissions(&table, &file::RawPermissions::default()) else {
                continue;
            };
            // The signature of a gateway has an ebid: accounts of v5 have none.
            let Some(ebid) = account.ebid_of(USER_STATUS) else { continue };
            let client = Client {
                appid: account.appid,
                group: Arc::clone(&account.group),
                ebid: *ebid,
                password: account.passwords[0].clone(),
                previous: account.passwords.get(1).cloned().map(Box::new),
                certificate: None,
                permissions: Arc::new(permissions),
            };
            if self.listed.insert(client.appid, Arc::new(client)).is_some() {
                let error = ConfigError::new(format!("{table}: appid"), is_taken());
                self.reader.problems.push(error.remedy(text!(
                    "remove that client, or carrier_credentials here",
                    "请删除那个客户端，或删除此处的 carrier_credentials"
                )));
            }
        }
    }

    fn add(&mut self, table: &str, raw: &file::Client) {
        let Some(client) = self.client(table, raw) else { return };
        if self.listed.insert(client.appid, Arc::new(client)).is_some() {
            let error = ConfigError::new(format!("{table}: appid"), is_taken());
            self.reader.problems.push(error.remedy(text!(
                "give each client its own appid",
                "请为每个客户端设置不同的应用编码（appid）"
            )));
        }
    }

    fn client(&mut self, table: &str, raw: &file::Client) -> Option<Client> {
        let group = self.group(table, &raw.group, raw.ebid.as_deref());
        let permissions = self.permissions(table, &raw.raw_permissions());
        let password = PasswordSource {
            key: "password",
            file: raw.password_file.as_deref(),
            env: raw.password_env.as_deref(),
            text: raw.password.as_ref(),
        };
        let previous = PasswordSource {
            key: "previous_password",
            file: raw.previous_password_file.as_deref(),
            env: raw.previous_password_env.as_deref(),
            text: raw.previous_password.as_ref(),
        };
        let appid = AppId::parse(&raw.appid);
        let appid = appid.map_err(|e| ConfigError::new(format!("{table}: appid"), error::credential(e)));
        let appid = self.reader.keep(appid);
        let password = password.read(table, self.reader);
        let previous = previous.read_optional(table, self.reader);
        let (group, ebid) = group?;
        Some(Client {
            appid: appid?,
            group,
            ebid,
            password: password?,
            previous: previous?.map(Box::new),
            certificate: raw.certificate.as_deref().map(|name| name.to_ascii_lowercase().into()),
            permissions: Arc::new(permissions?),
        })
    }

    fn derive(&mut self, table: &str, raw: &file::Derive) -> Option<Derived> {
        let group = self.group(table, &raw.group, raw.ebid.as_deref());
        let prefix = AppId::parse(&raw.appid_prefix);
        let prefix =
            prefix.map_err(|e| ConfigError::new(format!("{table}: appid_prefix"), error::credential(e)));
        let prefix = self.reader.keep(prefix);
        let permissions = self.permissions(table, &raw.permissions);
        let key = self.reader.secret(&format!("{table}: key_file"), &raw.key_file)?;
        if key.len() < MIN_KEY {
            let problem = text!("needs at least {MIN_KEY} bytes", "至少需要 {MIN_KEY} 字节");
            let remedy =
                Text::untranslated(format_args!("openssl rand -hex 32 > {}", raw.key_file.display()));
            self.reader.problems.push(ConfigError::new(format!("{table}: key_file"), problem).remedy(remedy));
            return None;
        }
        prefix?;
        let (group, ebid) = group?;
        Some(Derived {
            group,
            prefix: raw.appid_prefix.clone(),
            ebid,
            epoch: raw.epoch,
            rights: Arc::new(permissions?),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
        })
    }

    /// The group of a client, and the ebid that it sends.
    fn group(&mut self, table: &str, name: &str, ebid: Option<&str>) -> Option<(Arc<str>, Ebid)> {
        let own = ebid.map(|ebid| {
            Ebid::parse(ebid).map_err(|e| ConfigError::new(format!("{table}: ebid"), error::credential(e)))
        });
        let own = self.reader.keep(own.transpose());
        let Some((group, accounts)) = self.accounts.groups.get_key_value(name) else {
            if !self.accounts.incomplete.contains(name) && !self.file.is_incomplete("account") {
                let mut known: Vec<_> = self.accounts.groups.keys().map(|g| format!("\"{g}\"")).collect();
                known.sort();
                self.reader.problem(
                    format!("{table}: group = \"{name}\""),
                    text!(
                        "no account has it; known: {known}",
                        "没有账号属于该分组；已知：{known}",
                        known = known.join(", ")
                    ),
                );
            }
            return None;
        };
        let issued = accounts.iter().find_map(|account| account.ebid_of(USER_STATUS)).copied();
        if own.is_some_and(|own| own.or(issued).is_none()) {
            let error = ConfigError::new(format!("{table}: ebid"), error::is_missing());
            self.reader.problems.push(error.remedy(text!(
                "write the ebid that these gateways send: group \"{name}\" has accounts of API v5 only, which have none",
                "请填写这些网关发送的能力编码（ebid）：分组 \"{name}\" 只有 API v5 的账号，它们没有能力编码"
            )));
        }
        Some((Arc::clone(group), own?.or(issued)?))
    }

    fn permissions(&mut self, table: &str, raw: &file::RawPermissions) -> Option<Permissions> {
        let before = self.reader.problems.len();
        for name in &raw.operations {
            if self.operations.named(name).is_none() && !self.file.declares_operation(name) {
                self.reader.problem(
                    format!("{table}: operations"),
                    text!(
                        "\"{name}\" is not served; known: {known}",
                        "不提供 \"{name}\"；已知：{known}",
                        known = self.operations.names()
                    ),
                );
            }
        }
        let skew = raw.clock_skew.unwrap_or(self.file.gateway.clock_skew);
        if raw.replay != ReplayMode::Observe {
            if skew == Window::Any {
                self.reader.problem(
                    format!("{table}: clock_skew = \"any\""),
                    text!(
                        "needs replay = \"observe\": a transid that is always valid would have to be remembered permanently",
                        "需要 replay = \"observe\"：始终有效的事务编码（transid）必须永久记住"
                    ),
                );
            }
            if raw.format == Format::Lenient {
                self.reader.problem(
                    format!("{table}: format = \"lenient\""),
                    text!(
                        "needs replay = \"observe\": a transid without a readable stamp never leaves the window",
                        "需要 replay = \"observe\"：没有可读时间的事务编码（transid）始终不会离开窗口"
                    ),
                );
            }
        }
        let rate = rate(table, raw.rate, raw.burst);
        let rate = self.reader.keep(rate);
        let card_list = self.card_list(table, raw);
        if self.reader.problems.len() > before {
            return None;
        }
        let (rate, window) = (rate?, skew.limit());
        Some(Permissions {
            peers: raw.peers.clone(),
            operations: raw.operations.clone(),
            cards: raw.cards.clone(),
            card_list: card_list?,
            rate,
            replay: raw.replay,
            format: raw.format,
            window,
            share: shares::of_client(
                &format!("{table}: rate x window"),
                transids_in_window(rate, window, self.transids.per_client),
                "a group's share of max_transids",
                self.transids.per_group,
                &mut self.reader.warnings,
            ),
            max_age_floor: raw.max_age_floor.unwrap_or(self.file.cache.max_age_floor).0,
            max_stale_ceiling: raw.max_stale_ceiling.unwrap_or(self.file.cache.max_stale_ceiling).0,
        })
    }

    /// The cards of `cards_file`, if it is set.
    fn card_list(&mut self, table: &str, raw: &file::RawPermissions) -> Option<Option<Arc<HashSet<String>>>> {
        let Some(path) = &raw.cards_file else { return Some(None) };
        if let Some(list) = self.card_lists.get(path) {
            return Some(Some(Arc::clone(list)));
        }
        let key = format!("{table}: cards_file");
        let mut list = HashSet::new();
        for line in self.reader.list(&key, path)? {
            let kinds = [CardKind::Msisdn, CardKind::Iccid, CardKind::Imsi];
            if !kinds.into_iter().any(|kind| Card::parse(kind, &line.text).is_ok()) {
                // The number is not repeated: it would appear in a log.
                let error = ConfigError::new(&key, text!("is not the number of a card", "不是卡号"));
                let remedy = text!(
                    "write one number per line, without heading, kind or further columns",
                    "请每行只写一个号码，不写标题、类型和其他列"
                );
                self.reader.problems.push(error.remedy(remedy).at(Location::line(path, line.line)));
                continue;
            }
            // As in keys, the letters of an ICCID are in upper case.
            list.insert(line.text.to_ascii_uppercase());
        }
        let list = Arc::new(list);
        self.card_lists.insert(path.clone(), Arc::clone(&list));
        Some(Some(list))
    }
}

/// The accounts, by name, whose own credentials a gateway may sign with: those that say so, and all of them if nothing
/// names a client. An empty list counts as naming clients, so that emptying it permits nothing.
fn own_credentials<'a>(file: &'a ConfigFile, reader: &mut SourceFiles<'_>) -> HashSet<&'a str> {
    let named = file.names_clients || file.gateway.clients_file.is_some();
    let own: HashSet<&str> = file
        .accounts
        .iter()
        .filter(|account| account.api == Dialect::V2 && account.carrier_credentials.unwrap_or(!named))
        .map(|account| account.name.as_str())
        .collect();
    let unsaid = file
        .accounts
        .iter()
        .any(|account| account.api == Dialect::V2 && account.carrier_credentials.is_none());
    if !named && unsaid {
        reader.warnings.push(text!(
            "no client is named: every gateway that signs with an account's own credentials is accepted, for lookups. \
             Add a [[client]], or say carrier_credentials = true in each [[account]] that this is meant for",
            "没有配置客户端：凡是用账号自身凭据签名的网关都被接受，可以查询。请添加 [[client]]，或在允许这样做的每个 [[account]] 中写明 \
             carrier_credentials = true"
        ));
    }
    own
}

/// The problem of an appid that two clients have.
fn is_taken() -> Text {
    text!("another client signs with it already", "已有另一个客户端用它签名")
}

/// The number of transids that can be within the window at once: it is open on both sides of the clock.
fn transids_in_window(rate: Option<Rate>, window: Option<std::time::Duration>, default: usize) -> usize {
    let (Some(rate), Some(window)) = (rate, window) else { return default };
    let seconds = window.as_secs().saturating_mul(2).saturating_add(1);
    let most =
        u64::from(rate.per_second.get()).saturating_mul(seconds).saturating_add(u64::from(rate.burst.get()));
    usize::try_from(most).unwrap_or(usize::MAX)
}

fn rate(table: &str, rate: Option<u32>, burst: Option<u32>) -> Result<Option<Rate>, ConfigError> {
    let at_least_one = |key: &str, value: u32| {
        let zero = || ConfigError::new(format!("{table}: {key}"), error::at_least_one());
        NonZeroU32::new(value).ok_or_else(zero)
    };
    match (rate, burst) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let problem = text!("needs a rate in addition", "还需要设置 rate");
            Err(ConfigError::new(format!("{table}: burst"), problem))
        }
        (Some(rate), burst) => {
            let per_second = at_least_one("rate", rate)?;
            let burst = burst.map_or(Ok(per_second), |burst| at_least_one("burst", burst))?;
            Ok(Some(Rate { per_second, burst }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ConfigErrors;

    const ACCOUNT: &str = "[[account]]\nname='a'\nappid='A1'\nebid='0001000000009'\npassword='pw'\n";

    fn check(text: &str) -> Result<crate::config::Config, ConfigErrors> {
        crate::config::Config::check(&ConfigFile::parse(Path::new("p.toml"), text)?, Path::new("."))
    }

    #[test]
    fn an_emptied_permission_is_an_error_that_names_its_key() {
        let client = "[[client]]\ngroup='a'\nappid='C'\npassword='p'\n";
        let derive = "[[derive]]\ngroup='a'\nappid_prefix='D'\nkey_file='k'\nepoch=1\n[derive.permissions]\n";
        for key in ["cards", "peers", "operations"] {
            for list in ["[]", "['']", "[' ']"] {
                for (line, table) in [(10, client), (12, derive)] {
                    let error = check(&format!("{ACCOUNT}{table}{key} = {list}\n")).unwrap_err().to_string();
                    assert!(error.contains(&format!("p.toml:{line}:")) && error.contains(key), "{error}");
                    assert!(key == "peers" && list != "[]" || error.contains("delete the key"), "{error}");
                }
            }
        }
    }

    #[test]
    fn an_emptied_list_of_clients_opens_no_account() {
        assert_eq!(check(ACCOUNT).unwrap().clients.len(), 1, "no client is named");
        for emptied in ["client = []\n", "derive = []\n"] {
            assert!(check(&format!("{emptied}{ACCOUNT}")).unwrap().clients.is_empty(), "{emptied}");
        }
    }

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
        let error = |text| parse(Path::new("clients.csv"), text).unwrap_err().to_string();
        assert_eq!(error("appid\nGW1\n"), "clients.csv:1: the header needs the columns group and appid");
        let wrong = error("appid,group,password,rate\nGW1,fleet,hunter2,quick\n");
        assert_eq!(wrong, "clients.csv:2: rate: must be a whole number");
        let unknown = error("appid,group,passwort\nGW1,fleet,hunter2\n");
        assert!(unknown.contains("passwort") && !unknown.contains("hunter2"), "{unknown}");
        let short = error("appid,group,password\nGW1,hunter2\n");
        assert!(short.contains("columns") && !short.contains("hunter2"), "{short}");
        let both = error("appid,group,password,rate\nA,g,p,quick\nB,g,p,1\nC,g,p,slow\n");
        let lines =
            "clients.csv:2: rate: must be a whole number\nclients.csv:4: rate: must be a whole number";
        assert_eq!(both, format!("{lines}\n2 problems"));
    }
}
