//! `cmiot-proxy check`: the effective configuration, and whether the carrier accepts its accounts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use cmiot_proxy::admin::CHECK_CARD;
use cmiot_proxy::app::open_store;
use cmiot_proxy::carrier::check::{judge, meaning};
use cmiot_proxy::carrier::verdict::Code;
use cmiot_proxy::carrier::{Call, Carrier};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::{Config, reference, schema};
use cmiot_proxy::language::{Text, text};
use cmiot_proxy::metrics::Metrics;
use cmiot_proxy::operation::{self, Parameters};
use cmiot_proxy::refusal::Refusal;
use cmiot_proxy::{printable, store};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use unicode_width::UnicodeWidthStr as _;

use super::admin_client::{AdminArgs, AdminClient, AdminResponse};
use super::card::{self, CardArg};
use super::{fleet, language};

/// Check a configuration and print it with every default filled in, secrets redacted.
///
/// Exits 1 when something is wrong, naming file, line, key and remedy. Keys without effect, and certificates that have
/// expired or will within 14 days, are warnings on standard error, whose last line is a summary.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy check --config cmiot-proxy.toml
  cmiot-proxy check --config cmiot-proxy.toml --live --card 14765004176
  cmiot-proxy check --schema > cmiot-proxy.schema.json")]
pub(super) struct Check {
    /// Configuration file
    #[arg(long, value_name = "FILE", required_unless_present_any = ["schema", "keys"])]
    config: Option<PathBuf>,
    /// Print the JSON Schema (draft 7) of a configuration, for editors, instead
    #[arg(long, conflicts_with_all = ["config", "live", "keys"])]
    schema: bool,
    /// Print every key with type, default, range and meaning (Markdown) instead
    #[arg(long, conflicts_with_all = ["config", "live"])]
    keys: bool,
    /// Make one real call with each password of each account and print the carrier's reply; through the running proxy, if
    /// one runs, after it has reloaded the configuration. With [fleet], check the database too: version, schema, clock,
    /// rights
    #[arg(long)]
    live: bool,
    /// The card that --live asks about, - for one on standard input; any reply but a refusal of credentials shows that they
    /// work
    #[arg(long, requires = "live", default_value = CHECK_CARD, value_parser = card::argument)]
    card: CardArg,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if self.schema {
            out!("{:#}", schema::json_schema());
            return Ok(ExitCode::SUCCESS);
        }
        let path = match &self.config {
            Some(path) if !self.keys => path,
            _ => {
                out!("{}", reference::markdown().trim_end());
                return Ok(ExitCode::SUCCESS);
            }
        };
        let (config, file) = Config::load(path)?;
        for warning in &config.warnings {
            warn(warning);
        }
        let now = Clock::system().now();
        for warning in config.certificates.iter().filter_map(|one| one.warning(now)) {
            warn(&warning);
        }
        if self.live {
            return super::runtime()?.block_on(self.ask(config, path));
        }
        let text = file.to_toml().context("cannot print the configuration")?;
        // TOML and JSON escape a character in the same way.
        out!("{}", printable::escape_json_lines(text.trim_end()));
        super::warn(&summary(&config));
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self, config: Config, path: &Path) -> anyhow::Result<ExitCode> {
        let fleet_is_well = match &config.fleet {
            Some(settings) => fleet::check(settings).await?,
            None => true,
        };
        let accounts = self.ask_accounts(config, path).await?;
        Ok(if fleet_is_well { accounts } else { ExitCode::FAILURE })
    }

    /// Asks the carrier about each account.
    async fn ask_accounts(&self, config: Config, path: &Path) -> anyhow::Result<ExitCode> {
        // Both would number calls, so a running proxy makes them.
        match store::holder(&config.store_dir) {
            Ok(Some(holder)) if holder.admin.is_none() && !self.admin.connect.has_url() => bail!(said!(
                "a proxy runs on {dir} (process {process}), but does not serve yet: try again when its log says that it does",
                "{dir} 上的代理（进程 {process}）正在运行，但尚未提供服务：请在其日志表明已提供服务后重试",
                dir = config.store_dir.display(),
                process = holder.process
            )),
            Ok(Some(_)) => self.ask_proxy(&config, path).await,
            _ if self.admin.connect.has_url() => self.ask_proxy(&config, path).await,
            _ => self.ask_carrier(config).await,
        }
    }

    /// Asks through the running proxy, with the configuration as it is now.
    async fn ask_proxy(&self, config: &Config, path: &Path) -> anyhow::Result<ExitCode> {
        let client = self.admin.client(config)?;
        reload(&client).await?;
        let card = self.card.read()?;
        let request = json!({ card.kind().as_str(): card.as_str() });
        let response = AdminResponse::of(&client.post("/accounts/check", request.to_string()).await?)?;
        let Some(checked) = response.body["accounts"].as_array().filter(|_| response.ok) else {
            bail!(said!("the running proxy: {error}", "运行中的代理：{error}", error = error_of(&response)));
        };
        let mut all_well = true;
        for one in checked {
            all_well &= one["accepted"] == true;
            let name = one["account"].as_str().unwrap_or_default();
            let text = language::said(result(one));
            let index = one["password"].as_u64().unwrap_or(1).saturating_sub(1);
            print(&printable::escape(name), index, one["latency_ms"].as_u64(), &printable::escape(&text))?;
        }
        for account in config.accounts() {
            if !checked.iter().any(|one| one["account"] == *account.name) {
                all_well = false;
                super::warn(&said!(
                    "the running proxy has no account {name}: it runs with another configuration than {path}",
                    "运行中的代理没有账号 {name}：它使用的配置不是 {path}",
                    name = account.name,
                    path = path.display()
                ));
            }
        }
        super::warn(&said!("the running proxy made these calls", "以上调用由运行中的代理发出"));
        Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn ask_carrier(&self, mut config: Config) -> anyhow::Result<ExitCode> {
        let clock = Clock::system();
        // Without a store, a temporary one: the service's user could not open the files of another user, such as root.
        let temporary = match config.store_dir.exists() {
            true => None,
            false => {
                Some(tempfile::Builder::new().prefix("cmiot-check-").tempdir().context("temporary store")?)
            }
        };
        if let Some(folder) = &temporary {
            config.store_dir = folder.path().join("store");
        }
        let store = open_store(&config, false, &clock)?;
        let carrier = Carrier::new(&config, &store.state, &store.audit, &clock, Metrics::new(), None)
            .context("TLS towards the carrier")?;
        let (card, parameters) = (self.card.read()?, Parameters::default());
        let call = Call { operation: operation::USER_STATUS, card: &card, parameters: &parameters };
        let mut all_well = true;
        for check in carrier.check_accounts(call, &CancellationToken::new()).await {
            let (well, what, latency) = match &check.result {
                Ok(attempt) => {
                    let (well, what) = judge(attempt);
                    (well, what, u64::try_from(attempt.latency.as_millis()).ok())
                }
                Err(not_sent) => {
                    let why = Refusal::NotSent(not_sent.clone()).describe().details;
                    (false, text!("not sent: {why}", "未发送：{why}"), None)
                }
            };
            all_well &= well;
            let what = language::said(what);
            print(
                &printable::escape(&check.account),
                check.password as u64,
                latency,
                &printable::escape(&what),
            )?;
        }
        store.close();
        if let Some(folder) = temporary {
            // The next store numbers calls from the start: it must not begin within the same second.
            tokio::time::sleep(Duration::from_secs(1)).await;
            folder.close().context("removing the temporary store")?;
        }
        Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Prints a warning to standard error.
fn warn(warning: &Text) {
    let Text { english, chinese } = warning;
    super::warn(&language::said(Text {
        english: format!("warning: {english}"),
        chinese: format!("警告：{chinese}"),
    }));
}

/// The error of a response.
fn error_of(response: &AdminResponse) -> String {
    let unknown = || said!("it does not say why", "没有说明原因");
    response.body["error"].as_str().map_or_else(unknown, str::to_owned)
}

/// The result of a check that the running proxy made.
fn result(one: &Value) -> Text {
    let english = one["text"].as_str().unwrap_or_default().to_owned();
    let code = one["code"].as_str().and_then(Code::parse);
    let chinese = match code {
        Some(code) => meaning(one["accepted"] == true, &code).chinese,
        None => format!("调用失败：{english}"),
    };
    Text { english, chinese }
}

/// Counts of what the configuration has: "3 accounts, 1,200 clients, 2 groups: ok".
fn summary(config: &Config) -> String {
    let derived = (!config.derived.is_empty())
        .then(|| count(config.derived.len(), ["derived prefix", "derived prefixes"], "派生前缀"));
    let counts = [
        Some(count(config.accounts().count(), ["account", "accounts"], "账号")),
        Some(count(config.clients.len(), ["client", "clients"], "客户端")),
        derived,
        Some(count(config.groups.len(), ["group", "groups"], "分组")),
    ];
    let counts: Vec<_> = counts.into_iter().flatten().collect();
    let all = |separator| counts.iter().map(String::as_str).collect::<Vec<_>>().join(separator);
    language::said(Text {
        english: format!("{}: ok", all(", ")), chinese: format!("{}：正常", all("，"))
    })
}

/// A number and its noun, in English singular or plural.
fn count(number: usize, [one, many]: [&str; 2], chinese: &str) -> String {
    let (noun, number) = (if number == 1 { one } else { many }, indicatif::HumanCount(number as u64));
    language::said(Text { english: format!("{number} {noun}"), chinese: format!("{number} 个{chinese}") })
}

/// Makes the proxy load the configuration, so that a password that was changed just now is the one that is checked.
async fn reload(client: &AdminClient) -> anyhow::Result<()> {
    let response = AdminResponse::of(&client.post("/config/reload", String::new()).await?)?;
    if !response.ok {
        bail!(said!(
            "the running proxy does not load this configuration: {error}",
            "运行中的代理不加载此配置：{error}",
            error = error_of(&response)
        ));
    }
    Ok(())
}

/// One line: account, password if it is not the first, duration and result.
fn print(account: &str, password: u64, latency: Option<u64>, text: &str) -> anyhow::Result<()> {
    let name = match password {
        0 => account.to_owned(),
        _ => said!("{account} (next)", "{account}（第二个密码）"),
    };
    let latency = latency.map_or("-".to_owned(), |latency| latency.to_string());
    let padding = " ".repeat(20_usize.saturating_sub(name.width()));
    out!("{name}{padding} {latency:>6} ms  {text}");
    Ok(())
}
