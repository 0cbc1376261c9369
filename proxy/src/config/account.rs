//! `[[account]]`: the credentials that the carrier issued, checked and by group.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use cmiot_signer::{AppId, Ebid, Password};
use hyper::Uri;

use super::carrier;
use super::error::{self, ConfigError};
use super::file::{self, CallMethod, ConfigFile, Dialect, TokenRefresh};
use super::reader::{PasswordSource, SourceFiles};
use crate::language::{Text, text};
use crate::operation::{Operation, Operations, USER_STATUS};
use crate::units::Secret;

/// Credentials that the carrier issued.
#[derive(Debug)]
pub struct Account {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// The customer that holds it.
    pub group: Arc<str>,
    pub appid: AppId,
    /// The part that depends on its API.
    pub api: Api,
    /// The password, and the next one while the carrier changes it. Never empty.
    pub passwords: Vec<Password>,
    /// Whether it is called only after an account of the group's other API has replied that it has no such card.
    pub is_fallback: bool,
    /// Calls that may start in any second.
    pub calls_per_second: Option<NonZeroU32>,
    /// Calls that may be in flight at once.
    pub max_concurrent_calls: Option<NonZeroU32>,
    /// Calls from midnight to midnight at UTC+8.
    pub calls_per_day: Option<NonZeroU64>,
}

/// The part of an account that depends on its API.
#[derive(Debug)]
pub enum Api {
    V2(Ebids),
    V5(TokenAccess),
}

/// The ebids of an account of API v2.
#[derive(Debug)]
pub struct Ebids {
    /// For user-status lookups.
    pub status: Ebid,
    /// For other operations, by their names.
    pub others: HashMap<&'static str, Ebid>,
}

/// The access to API v5.
#[derive(Debug)]
pub struct TokenAccess {
    /// The base URL of its calls; none for that of `[carrier]`.
    pub base_url: Option<Uri>,
    pub method: CallMethod,
    pub refresh: TokenRefresh,
    /// The STATUS for a card state that v2 does not have, by the carrier's value.
    pub untranslatable: BTreeMap<String, String>,
    /// The passwords as text, in the order of [`Account::passwords`]: a request for a token holds one.
    pub secrets: Vec<Secret>,
}

impl Account {
    /// The dialect of its calls.
    pub fn dialect(&self) -> Dialect {
        match self.api {
            Api::V2(_) => Dialect::V2,
            Api::V5(_) => Dialect::V5,
        }
    }

    /// The ebid for this operation; none if the carrier issued none, as in API v5.
    pub fn ebid_of(&self, operation: &Operation) -> Option<&Ebid> {
        match &self.api {
            Api::V2(ebids) if operation.name == USER_STATUS.name => Some(&ebids.status),
            Api::V2(ebids) => ebids.others.get(operation.name),
            Api::V5(_) => None,
        }
    }

    /// Whether it can be called for this operation. API v5 has no parameters in addition to the card.
    pub fn serves(&self, operation: &Operation) -> bool {
        match &self.api {
            Api::V2(_) => self.ebid_of(operation).is_some(),
            Api::V5(_) => operation.v5 && operation.parameters.is_empty(),
        }
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
        let problem = text!("the configuration has no account", "配置中没有账号");
        reader.problems.push(ConfigError::new("[[account]]", problem).remedy(text!(
            "add one with the name, appid, ebid and password that the carrier issued",
            "请添加一个，填写名称以及运营商分配的应用编码（appid）、能力编码（ebid）和密码"
        )));
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    // Of accounts of API v5.
    let mut appids: HashMap<&str, usize> = HashMap::new();
    for (index, raw) in file.accounts.iter().enumerate() {
        let table = format!("[[account]] {} (name = \"{}\")", index + 1, raw.name);
        let first = names.get(raw.name.as_str()).copied();
        names.entry(&raw.name).or_insert(index + 1);
        if raw.name.is_empty() {
            let key = format!("[[account]] {}: name", index + 1);
            reader.problem(key, text!("must not be empty", "不能为空"));
        } else if let Some(first) = first {
            let problem = error::taken_by(&format!("[[account]] {first}"));
            let error = ConfigError::new(format!("{table}: name"), problem);
            reader
                .problems
                .push(error.remedy(text!("give each account its own name", "请为每个账号取不同的名称")));
        }
        if raw.api == Dialect::V5
            && let Some(first) = appids.insert(&raw.appid, index + 1)
        {
            let problem = text!(
                "is the appid of [[account]] {first} too: a token that one of them requests may end the other one's",
                "与 [[account]] {first} 的应用编码（appid）相同：其中一个账号获取 token 时，另一个账号的 token 可能失效"
            );
            reader.problems.push(ConfigError::new(format!("{table}: appid"), problem).remedy(text!(
                "give each account with api = \"v5\" an appid of its own, or delete one of the two accounts",
                "请为每个 api = \"v5\" 的账号使用不同的应用编码（appid），或删除其中一个账号"
            )));
        }
        let group = raw.group.as_deref().unwrap_or(&raw.name);
        match account(raw, group, &table, operations, file, reader) {
            Some(account) => accounts.groups.entry(group.into()).or_default().push(Arc::new(account)),
            None => _ = accounts.incomplete.insert(group.to_owned()),
        }
    }
    for (name, of) in &accounts.groups {
        if !accounts.incomplete.contains(&**name) {
            check_group(name, of, reader);
        }
    }
    accounts
}

/// Checks the order in which a group's accounts are called.
fn check_group(name: &str, accounts: &[Arc<Account>], reader: &mut SourceFiles<'_>) {
    let of = |dialect: Dialect| accounts.iter().filter(move |account| account.dialect() == dialect);
    let is_mixed = of(Dialect::V2).next().is_some() && of(Dialect::V5).next().is_some();
    if !is_mixed {
        for account in accounts.iter().filter(|account| account.is_fallback) {
            reader.warnings.push(text!(
                "[[account]] (name = \"{account}\"): fallback has no effect: group \"{name}\" has accounts of one API only",
                "[[account]]（name = \"{account}\"）：fallback 不起作用：分组 \"{name}\" 只有一种 API 的账号",
                account = account.name
            ));
        }
        return;
    }
    let all = |dialect: Dialect| of(dialect).all(|account| account.is_fallback);
    let any = |dialect: Dialect| of(dialect).any(|account| account.is_fallback);
    match (all(Dialect::V2) && !any(Dialect::V5), all(Dialect::V5) && !any(Dialect::V2)) {
        (false, false) => {
            let problem = text!(
                "accounts of group \"{name}\" have different APIs, without an order",
                "分组 \"{name}\" 的账号使用不同的 API，没有规定先后"
            );
            reader.problems.push(ConfigError::new("[[account]] fallback", problem).remedy(text!(
                "set fallback = \"not-found\" on each account of the API that is to be called second, and on no other; or \
                 give the accounts of each API a group of their own",
                "请在后调用的 API 的每个账号上设置 fallback = \"not-found\"，其他账号不设置；或让每个 API 的账号各用一个分组"
            )));
        }
        _ => reader.warnings.push(text!(
            "group \"{name}\": a card that the API called first does not have costs two calls, one to each API, each time \
             that its entry has expired and the account that has the card is not known",
            "分组 \"{name}\"：先调用的 API 中没有的卡需要两次调用，每个 API 各一次；缓存条目过期并且不知道哪个账号有该卡时都是如此"
        )),
    }
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
    let appid = AppId::parse(&raw.appid)
        .map_err(|e| ConfigError::new(format!("{table}: appid"), error::credential(e)));
    let appid = reader.keep(appid);
    let (api, passwords) = match raw.api {
        Dialect::V2 => {
            let (password, next) = (password.read(table, reader), next.read_optional(table, reader));
            let ebids = ebids(raw, table, operations, file, reader);
            (Api::V2(ebids?), std::iter::once(password?).chain(next?).collect())
        }
        Dialect::V5 => {
            let read = |source: &PasswordSource<'_>, reader: &mut SourceFiles<'_>| {
                source.read_as(table, reader, |bytes| {
                    let text = std::str::from_utf8(bytes).map_err(|_| error::is_not_utf8())?;
                    let checked = Password::new(bytes).map_err(error::credential)?;
                    Ok((checked, Secret::new(text)))
                })
            };
            let first = read(&password, reader).and_then(|read| password.require(read, table, reader));
            let next = read(&next, reader);
            let access = token_access(raw, table, reader);
            let (passwords, secrets) = std::iter::once(first?).chain(next?).unzip();
            (Api::V5(TokenAccess { secrets, ..access? }), passwords)
        }
    };
    Some(Account {
        name: raw.name.as_str().into(),
        group: group.into(),
        appid: appid?,
        api,
        passwords,
        is_fallback: raw.fallback.is_some(),
        calls_per_second: raw.calls_per_second,
        max_concurrent_calls: raw.max_concurrent_calls,
        calls_per_day: raw.calls_per_day,
    })
}

/// The part of an account of API v2.
fn ebids(
    raw: &file::Account,
    table: &str,
    operations: &Operations,
    file: &ConfigFile,
    reader: &mut SourceFiles<'_>,
) -> Option<Ebids> {
    let before = reader.problems.len();
    let others: Vec<_> =
        raw.ebids.iter().map(|(name, ebid)| ebid_for(name, ebid, table, operations, file, reader)).collect();
    let of_v5 = [
        ("base_url", raw.base_url.is_some()),
        ("method", raw.method.is_some()),
        ("token_refresh", raw.token_refresh.is_some()),
        ("untranslatable", !raw.untranslatable.is_empty()),
    ];
    for (key, _) in of_v5.into_iter().filter(|(_, is_set)| *is_set) {
        let problem = text!("is a key of accounts with api = \"v5\"", "是 api = \"v5\" 的账号的配置项");
        let error = ConfigError::new(format!("{table}: {key}"), problem);
        reader.problems.push(
            error.remedy(text!("delete {key}, or set api = \"v5\"", "请删除 {key}，或设置 api = \"v5\"")),
        );
    }
    let key = format!("{table}: ebid");
    let status = match &raw.ebid {
        Some(ebid) => Ebid::parse(ebid).map_err(|e| ConfigError::new(key, error::credential(e))),
        None => Err(ConfigError::new(key, error::is_missing()).remedy(text!(
            "write the ebid that the carrier issued with the appid",
            "请填写运营商随应用编码（appid）分配的能力编码（ebid）"
        ))),
    };
    let status = reader.keep(status);
    if reader.problems.len() > before {
        return None;
    }
    Some(Ebids { status: status?, others: others.into_iter().collect::<Option<_>>()? })
}

/// The part of an account of API v5, without its passwords.
fn token_access(raw: &file::Account, table: &str, reader: &mut SourceFiles<'_>) -> Option<TokenAccess> {
    let before = reader.problems.len();
    let has_none = text!("an account of v5 has none", "v5 的账号没有此项");
    let of_v2 = [
        ("ebid", raw.ebid.is_some(), has_none.clone()),
        ("ebids", !raw.ebids.is_empty(), has_none),
        (
            "carrier_credentials",
            raw.carrier_credentials == Some(true),
            text!(
                "a gateway needs an ebid, which an account of v5 does not have",
                "网关需要能力编码（ebid），而 v5 的账号没有"
            ),
        ),
    ];
    for (key, _, why) in of_v2.into_iter().filter(|(_, is_set, _)| *is_set) {
        let error = ConfigError::new(format!("{table}: {key}"), why);
        reader.problems.push(error.remedy(text!(
            "delete {key}; name the ebid that gateways send in a [[client]] or [[derive]] of the group",
            "请删除 {key}；网关发送的能力编码（ebid）写在该分组的 [[client]] 或 [[derive]] 中"
        )));
    }
    for (state, status) in &raw.untranslatable {
        let key = format!("{table}: untranslatable: \"{}\"", state.escape_debug());
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !(1..=16).contains(&state.len()) || !plain(state) {
            reader.problem(
                key,
                text!(
                    "must be a card state of the carrier: 1-16 letters and digits",
                    "必须是运营商的卡状态：1 至 16 个字母和数字"
                ),
            );
        } else if status.len() != 2 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
            reader.problem(
                key,
                text!(
                    "must be a STATUS of v2: two digits, such as \"00\"",
                    "必须是 v2 的 STATUS：两位数字，例如 \"00\""
                ),
            );
        }
    }
    if !raw.untranslatable.is_empty() {
        reader.warnings.push(text!(
            "{table}: untranslatable: API v2 has no STATUS for these card states: the STATUS that gateways get is your decision, and \
             the audit has what the carrier wrote (call.status)",
            "{table}：untranslatable：API v2 没有对应这些卡状态的 STATUS：告知网关的值由您决定，审计中记录运营商返回的原值（call.status）"
        ));
    }
    let base_url = raw.base_url.as_deref().map(|url| carrier::base_url(&format!("{table}: base_url"), url));
    let base_url = reader.keep(base_url.transpose());
    if reader.problems.len() > before {
        return None;
    }
    Some(TokenAccess {
        base_url: base_url?,
        method: raw.method.unwrap_or_default(),
        refresh: raw.token_refresh.unwrap_or_default(),
        untranslatable: raw.untranslatable.clone(),
        secrets: Vec::new(),
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
            let problem = text!(
                "\"{name}\" is not another operation; known: {known}",
                "\"{name}\" 不是其他能力；已知：{known}",
                known = operations.names()
            );
            reader.problem(format!("{table}: ebids"), problem);
        }
        return None;
    };
    let key = format!("{table}: ebids: {name}");
    let ebid = reader.keep(Ebid::parse(ebid).map_err(|e| ConfigError::new(key, error::credential(e))))?;
    Some((operation.name, ebid))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigErrors, ConfigFile};

    const OLDER: &str =
        "[[account]]\nname='older'\ngroup='g'\nappid='A1'\nebid='0001000000009'\npassword='p1'\n";
    const NEWER: &str = "[[account]]\nname='newer'\ngroup='g'\napi='v5'\nappid='A2'\npassword='p2'\n";
    const CLIENT: &str = "[[client]]\ngroup='g'\nappid='C'\npassword='p'\n";

    fn check(text: &str) -> Result<Config, ConfigErrors> {
        Config::check(&ConfigFile::parse(Path::new("p.toml"), text)?, Path::new("."))
    }

    fn error(text: &str) -> String {
        check(text).unwrap_err().to_string()
    }

    #[test]
    fn clients_of_accounts_of_v5_name_their_ebid() {
        let derive = "[[derive]]\ngroup='g'\nappid_prefix='D'\nkey_file='/dev/null'\nepoch=1\n";
        for table in [CLIENT, derive] {
            let missing = error(&format!("{NEWER}{table}"));
            assert!(missing.contains("ebid: is missing") && missing.contains("API v5 only"), "{missing}");
        }
        let config = check(&format!("{NEWER}{CLIENT}ebid='77'\n")).unwrap();
        let client = config.clients.values().next().unwrap();
        let ebid = |name: &str| {
            let operation = config.operations.named(name).unwrap();
            assert!(config.operations.at(operation.path).is_some(), "{name} is served");
            config.ebid_of(client, operation).map(|ebid| ebid.as_str().to_owned())
        };
        assert_eq!(ebid("userstatusrealsingle").as_deref(), Some("77"));
        assert_eq!(ebid("onandoffrealsingle").as_deref(), Some("77"));
        assert_eq!(ebid("querycardlifecycle"), None, "without a twin it is refused with code 3");
        let derived = "[[derive]]\ngroup='g'\nappid_prefix='D'\nebid='7'\nkey_file='/dev/null'\nepoch=1\n";
        assert!(!error(&format!("{NEWER}{derived}")).contains("ebid"));
    }

    #[test]
    fn a_group_of_both_apis_has_an_order() {
        let fallback = "fallback='not-found'\n";
        for (first, second) in [("", ""), (fallback, fallback)] {
            let error = error(&format!("{OLDER}{first}{NEWER}{second}{CLIENT}"));
            assert!(error.contains("[[account]] fallback") && error.contains("different APIs"), "{error}");
        }
        for (first, second) in [("", fallback), (fallback, "")] {
            let config = check(&format!("{OLDER}{first}{NEWER}{second}{CLIENT}")).unwrap();
            assert!(config.warnings.iter().any(|warning| warning.english.contains("costs two calls")));
        }
        let alone = check(&format!("{OLDER}{fallback}{CLIENT}")).unwrap();
        assert!(alone.warnings.iter().any(|warning| warning.english.contains("fallback has no effect")));
    }

    #[test]
    fn keys_of_the_other_api_are_refused_by_name() {
        for more in
            ["base_url='http://x'", "method='get'", "token_refresh='force'", "untranslatable={6='00'}"]
        {
            let key = more.split('=').next().unwrap_or_default();
            let error = error(&format!("{OLDER}{more}\n{CLIENT}"));
            assert!(error.contains(&format!(": {key}:")) && error.contains("api = \"v5\""), "{error}");
        }
        for more in ["ebid='1'", "ebids={gprsrealsingle='1'}", "carrier_credentials=true"] {
            let key = more.split('=').next().unwrap_or_default();
            let error = error(&format!("{NEWER}{more}\n{CLIENT}ebid='1'\n"));
            assert!(error.contains(&format!(": {key}:")), "{error}");
        }
        let without = OLDER.replace("ebid='0001000000009'\n", "");
        assert!(error(&format!("{without}{CLIENT}")).contains("ebid: is missing"));
    }

    #[test]
    fn two_accounts_of_v5_do_not_share_an_appid() {
        let second = NEWER.replace("'newer'", "'second'").replace("'g'", "'h'");
        let errors = check(&format!("{NEWER}{second}{CLIENT}ebid='1'\n")).unwrap_err();
        let shown = errors.to_string();
        assert!(
            shown.contains("[[account]] 2 (name = \"second\"): appid: is the appid of [[account]] 1 too"),
            "{shown}"
        );
        assert_eq!(shown.matches("too").count(), 1, "{shown}");
        let own = second.replace("'A2'", "'A3'");
        check(&format!("{NEWER}{own}{CLIENT}ebid='1'\n")).unwrap();
        // An account of v2 has no token.
        let older = OLDER.replace("'A1'", "'A2'").replace("'g'", "'o'");
        check(&format!("{NEWER}{older}{CLIENT}ebid='1'\n")).unwrap();
    }

    #[test]
    fn a_decision_about_a_state_is_a_status_and_a_warning() {
        for wrong in ["{6='0'}", "{6='normal'}", "{'6 '='00'}", "{''='00'}", "{'01234567890123456'='00'}"] {
            let error = error(&format!("{NEWER}untranslatable={wrong}\n{CLIENT}ebid='1'\n"));
            assert!(error.contains("untranslatable"), "{error}");
        }
        let config = check(&format!("{NEWER}untranslatable={{6='00'}}\n{CLIENT}ebid='1'\n")).unwrap();
        assert!(config.warnings.iter().any(|warning| warning.english.contains("your decision")));
    }

    #[test]
    fn no_client_may_sign_as_an_account_of_v5() {
        assert!(check(NEWER).unwrap().clients.is_empty());
        assert_eq!(check(&OLDER.replace("'older'", "'only'")).unwrap().clients.len(), 1);
    }
}
