//! From [`ConfigFile`] to [`Config`]: every rule that one value alone cannot show.
//!
//! An error is a sentence that names the table, the key and the remedy; the caller adds the file.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use cmiot_signer::{AppId, Ebid, Password};
use hyper::Uri;
use zeroize::Zeroizing;

use super::units::Secret;
use super::{Account, Admin, Carrier, Client, Config, ConfigFile, Rate, file};
use crate::operation;

impl Config {
    /// Checks what was read; relative paths are relative to `folder`.
    ///
    /// # Errors
    /// The first rule that does not hold, as a sentence.
    pub fn check(file: &ConfigFile, folder: &Path) -> Result<Self, String> {
        let mut warnings = Vec::new();
        let groups = groups(file, folder, &mut warnings)?;
        let clients = clients(file, folder, &groups, &mut warnings)?;
        let carrier = carrier(&file.carrier)?;
        file.breaker.check()?;
        if file.gateway.deadline.0.is_zero() {
            return Err("[gateway] deadline: must be longer than zero, such as \"20s\"".to_owned());
        }
        if file.gateway.max_connections == 0 {
            return Err("[gateway] max_connections: must be at least 1".to_owned());
        }
        if file.gateway.deadline.0.as_secs() >= 25 {
            warnings.push(format!(
                "[gateway] deadline = \"{}\": gateways give up after 25 s and would never see these answers",
                file.gateway.deadline
            ));
        }
        Ok(Self {
            gateway: file.gateway.clone(),
            admin: admin(&file.admin, folder)?,
            store_dir: folder.join(&file.store.dir),
            carrier,
            breaker: file.breaker.clone(),
            cache: file.cache.clone(),
            lifetimes: file.freshness.clone(),
            durability: file.audit.durability,
            log_format: file.log.format,
            groups,
            clients,
            warnings,
        })
    }
}

type Groups = HashMap<Arc<str>, Vec<Arc<Account>>>;

fn groups(file: &ConfigFile, folder: &Path, warnings: &mut Vec<String>) -> Result<Groups, String> {
    if file.accounts.is_empty() {
        return Err(
            "no [[account]]: add one with the name, appid, ebid and password that the carrier issued"
                .to_owned(),
        );
    }
    let mut groups = Groups::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, written) in file.accounts.iter().enumerate() {
        let place = format!("[[account]] {} (name = \"{}\")", index + 1, written.name);
        if written.name.is_empty() {
            return Err(format!("[[account]] {}: name: must not be empty", index + 1));
        }
        if let Some(first) = names.insert(&written.name, index + 1) {
            return Err(format!("{place}: name: taken by [[account]] {first}: give each account its own"));
        }
        let group: Arc<str> = written.group.as_deref().unwrap_or(&written.name).into();
        let mut passwords = vec![
            PasswordSource {
                file: written.password_file.as_deref(),
                env: written.password_env.as_deref(),
                text: written.password.as_ref(),
            }
            .read(&place, folder, warnings)?,
        ];
        if written.next_password_file.is_some() || written.next_password_env.is_some() {
            let next = PasswordSource {
                file: written.next_password_file.as_deref(),
                env: written.next_password_env.as_deref(),
                text: None,
            };
            passwords.push(next.read(&format!("{place}: next_"), folder, warnings)?);
        }
        let account = Account {
            name: written.name.as_str().into(),
            group: Arc::clone(&group),
            appid: AppId::parse(&written.appid).map_err(|e| format!("{place}: appid: {e}"))?,
            ebid: Ebid::parse(&written.ebid).map_err(|e| format!("{place}: ebid: {e}"))?,
            passwords,
            calls_per_second: written.calls_per_second,
            calls_at_once: written.calls_at_once,
            calls_per_day: written.calls_per_day,
        };
        groups.entry(group).or_default().push(Arc::new(account));
    }
    Ok(groups)
}

fn clients(
    file: &ConfigFile,
    folder: &Path,
    groups: &Groups,
    warnings: &mut Vec<String>,
) -> Result<HashMap<AppId, Arc<Client>>, String> {
    let mut clients: HashMap<AppId, Arc<Client>> = HashMap::new();
    for (index, written) in file.clients.iter().enumerate() {
        let place = format!("[[client]] {} (appid = \"{}\")", index + 1, written.appid);
        let Some((group, accounts)) = groups.get_key_value(written.group.as_str()) else {
            let mut known: Vec<_> = groups.keys().map(|g| format!("\"{g}\"")).collect();
            known.sort();
            return Err(format!(
                "{place}: group = \"{}\": no account has it; known: {}",
                written.group,
                known.join(", ")
            ));
        };
        let ebid = match &written.ebid {
            Some(ebid) => Ebid::parse(ebid).map_err(|e| format!("{place}: ebid: {e}"))?,
            None => accounts[0].ebid,
        };
        for name in &written.operations {
            if operation::by_name(name).is_none() {
                return Err(format!(
                    "{place}: operations: \"{name}\" is not served; known: {}",
                    operation::names()
                ));
            }
        }
        let client = Client {
            appid: AppId::parse(&written.appid).map_err(|e| format!("{place}: appid: {e}"))?,
            group: Arc::clone(group),
            ebid,
            password: PasswordSource {
                file: written.password_file.as_deref(),
                env: written.password_env.as_deref(),
                text: written.password.as_ref(),
            }
            .read(&place, folder, warnings)?,
            peers: written.peers.clone(),
            operations: written.operations.clone(),
            cards: written.cards.clone(),
            rate: rate(&place, written.rate, written.burst)?,
        };
        if clients.insert(client.appid, Arc::new(client)).is_some() {
            return Err(format!("{place}: appid: another client signs with it already: each needs its own"));
        }
    }
    let listed: Vec<Arc<str>> = clients.values().map(|client| Arc::clone(&client.group)).collect();
    for account in
        groups.iter().filter(|(group, _)| !listed.contains(group)).flat_map(|(_, accounts)| accounts)
    {
        let client = Client {
            appid: account.appid,
            group: Arc::clone(&account.group),
            ebid: account.ebid,
            password: account.passwords[0].clone(),
            peers: Vec::new(),
            operations: Vec::new(),
            cards: Vec::new(),
            rate: None,
        };
        if clients.insert(client.appid, Arc::new(client)).is_some() {
            return Err(format!(
                "[[account]] (name = \"{}\"): appid: a client signs with it already, and its group has no [[client]]: \
                 add a [[client]] to group \"{}\"",
                account.name, account.group
            ));
        }
    }
    Ok(clients)
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

fn carrier(written: &file::Carrier) -> Result<Carrier, String> {
    let wrong = |why: &str| format!("[carrier] base_url = \"{}\": {why}", written.base_url);
    let base_url: Uri = written.base_url.trim_end_matches('/').parse().map_err(|_| {
        wrong("is not a URL: write scheme, host and optional port and path prefix, such as \"https://api.iot.10086.cn\"")
    })?;
    match base_url.scheme_str() {
        Some("http" | "https") if base_url.host().is_some_and(|host| !host.is_empty()) => {}
        _ => return Err(wrong("must begin with http:// or https:// and a host")),
    }
    if base_url.query().is_some() {
        return Err(wrong("must not have a query: the proxy writes its own"));
    }
    if base_url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("[carrier] base_url: must not hold a user name or password".to_owned());
    }
    if written.node > 99 {
        return Err(format!(
            "[carrier] node = {}: must be 0..=99, and different on each proxy of an account",
            written.node
        ));
    }
    if written.max_waiters_per_card == 0 || written.max_flights == 0 {
        return Err("[carrier] max_waiters_per_card and max_flights: must be at least 1".to_owned());
    }
    Ok(Carrier {
        base_url,
        connect_timeout: written.connect_timeout.0,
        timeout: written.timeout.0,
        node: written.node,
        bind: written.bind,
        max_body: usize::try_from(written.max_body.0).map_err(|_| {
            format!("[carrier] max_body = \"{}\": too large for this machine", written.max_body)
        })?,
        stale_wait: written.stale_wait.0,
        max_waiters_per_card: written.max_waiters_per_card,
        max_flights: written.max_flights,
        queue: written.queue,
        queue_wait: written.queue_wait.0,
        drift_alarm: written.drift_alarm.0,
    })
}

fn admin(written: &file::Admin, folder: &Path) -> Result<Admin, String> {
    let token = match &written.token_file {
        Some(path) => {
            let path = folder.join(path);
            let bytes = read_secret(&path).map_err(|e| format!("[admin] token_file: {e}"))?;
            let text = std::str::from_utf8(&bytes)
                .ok()
                .filter(|text| text.len() >= 16 && text.bytes().all(|b| b.is_ascii_graphic()));
            let text = text.ok_or_else(|| {
                format!(
                    "[admin] token_file: {}: needs at least 16 printable ASCII characters without blanks",
                    path.display()
                )
            })?;
            Some(Secret::new(text))
        }
        None if written.listen.ip().is_loopback() => None,
        None => {
            return Err(format!(
                "[admin] listen = \"{}\": not a loopback address: set token_file, or listen on 127.0.0.1",
                written.listen
            ));
        }
    };
    Ok(Admin { listen: written.listen, token })
}

/// The three places where a password may be; exactly one is used.
struct PasswordSource<'a> {
    file: Option<&'a Path>,
    env: Option<&'a str>,
    text: Option<&'a Secret>,
}

impl PasswordSource<'_> {
    fn read(self, place: &str, folder: &Path, warnings: &mut Vec<String>) -> Result<Password, String> {
        let checked =
            |bytes: &[u8], key: &str| Password::new(bytes).map_err(|e| format!("{place}: {key}: {e}"));
        match self {
            Self { file: Some(path), env: None, text: None } => {
                let bytes =
                    read_secret(&folder.join(path)).map_err(|e| format!("{place}: password_file: {e}"))?;
                checked(&bytes, "password_file")
            }
            Self { file: None, env: Some(name), text: None } => {
                let value = std::env::var_os(name)
                    .ok_or_else(|| format!("{place}: password_env: {name} is not set in the environment"))?;
                checked(value.as_encoded_bytes(), "password_env")
            }
            Self { file: None, env: None, text: Some(secret) } => {
                warnings
                    .push(format!("{place}: password: stands in the configuration; prefer password_file"));
                checked(secret.expose(), "password")
            }
            Self { file: None, env: None, text: None } => {
                Err(format!("{place}: no password: add password_file = \"FILE\" or password_env = \"NAME\""))
            }
            _ => {
                Err(format!("{place}: password_file, password_env and password exclude each other: keep one"))
            }
        }
    }
}

/// The bytes of a secret file without one closing line break.
///
/// # Errors
/// A sentence that names the file.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes =
        Zeroizing::new(std::fs::read(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?);
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}
