//! `cmiot-proxy lookup`: looks up one card at a running proxy, as a gateway does.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use cmiot_proxy::carrier::dialect::{StopReason, stop_reasons};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::{Client, Config};
use cmiot_proxy::{operation, printable};
use cmiot_signer::{Reply, Sequence, Signer, Stamp, Status};
use serde_json::json;

use super::admin_client::{AdminArgs, AdminResponse};
use super::card::{self, CardArg};
use super::language;
use super::listener::Listener;

/// Look up one card at the running proxy and print the response that a gateway gets.
///
/// The request is signed with a client of the configuration; the lookup is audited like any other.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy lookup 14765004176 --config cmiot-proxy.toml
  cmiot-proxy lookup - --config cmiot-proxy.toml < card.txt     # not on the command line, which others can read
  cmiot-proxy lookup iccid:898602B0011430000544 --config cmiot-proxy.toml --client GW0001
  cmiot-proxy lookup 14765004176 --config cmiot-proxy.toml --why    # the reasons why the card is stopped")]
pub(super) struct Lookup {
    /// The card: 20 characters are an iccid, 15 digits an imsi, anything else an msisdn; or msisdn:, iccid:, imsi:; - reads
    /// it from standard input
    #[arg(value_parser = card::argument)]
    card: CardArg,
    /// Configuration file of the proxy
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Sign as this client [default: the first one by appid]
    #[arg(long, value_name = "APPID")]
    client: Option<String>,
    /// Ask the carrier for the reasons why the card is stopped, instead of its STATUS. Needs an account of API v5 in the
    /// group: the only one, or that of the client. It is an operator's act at the admin listener, which --url then names
    #[arg(long)]
    why: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Lookup {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = Config::load(&self.config)?;
        if self.why {
            return self.ask_why(&config);
        }
        if self.admin.names_token() {
            bail!(said!(
                "--token-file: a lookup needs no token; it is for --why",
                "--token-file：查询不需要令牌；该参数用于 --why"
            ));
        }
        let client = self.client(&config)?;
        let http = self.admin.connect.client(&config, Listener::Gateway)?;
        let card = self.card.read()?;
        let now = Clock::system().now();
        let sequence = u32::try_from(now.as_micros().rem_euclid(1_000_000)).unwrap_or(0) * 99 + 1;
        let signed = Signer::new(&client.appid, &client.ebid, &client.password).sign(
            Stamp::from_unix(now.as_secs()).with_context(|| said!("this machine's clock", "本机时钟"))?,
            Sequence::new(sequence).context("sequence")?,
            &card,
        );
        let mut url = String::new();
        signed.write_url(http.base(), operation::USER_STATUS.path, &mut url)?;
        let answer = super::runtime()?.block_on(http.get_url(&url, &[]))?;
        let reply = Reply::parse(&answer.body).with_context(|| said!("the proxy's answer", "代理的响应"))?;
        out!("{}", printable::escape_body(&answer.body));
        for name in ["age", "cache-status", "proxy-status", "retry-after"] {
            if !answer.header(name).is_empty() {
                out!("{name}: {}", printable::escape(answer.header(name)));
            }
        }
        match reply.status() {
            Some(status) if reply.is_ok() => {
                let (code, name) = (printable::escape(status.code()), name(&status));
                out!("STATUS {code} {name}");
            }
            _ => say!("code {code}", "返回码 {code}", code = printable::escape(reply.code())),
        }
        Ok(if reply.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Asks for the stop reason of the card, and prints it.
    fn ask_why(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let is_only_group = self.client.is_none() && config.groups.len() == 1;
        let group = if is_only_group { None } else { Some(self.client(config)?.group.to_string()) };
        let http = self.admin.client(config)?;
        let card = self.card.read()?;
        let mut request = json!({ card.kind().as_str(): card.as_str() });
        if let Some(group) = group {
            request["group"] = json!(group);
        }
        let response = super::runtime()?.block_on(http.post("/cards/stop-reason", request.to_string()))?;
        let AdminResponse { ok, body, .. } = AdminResponse::of(&response)?;
        if let Some(error) = body["error"].as_str() {
            let error = printable::escape(error);
            bail!(said!("the running proxy: {error}", "运行中的代理：{error}"));
        }
        let text = |name: &str| body[name].as_str().map(|text| printable::escape(text).to_string());
        let code = text("code").unwrap_or_default();
        let Some(digits) = body["stop_reason"].as_str().filter(|_| ok) else {
            match text("note").or(text("reason")) {
                Some(note) => say!("code {code}: {note}", "返回码 {code}：{note}"),
                None => {
                    say!("code {code}: the reply has no stop reason", "返回码 {code}：响应中没有停机原因");
                }
            }
            return Ok(ExitCode::FAILURE);
        };
        let platform = text("platform").unwrap_or_else(|| said!("not said", "未给出"));
        let shown = printable::escape(digits);
        say!("stop reason {shown}, platform {platform}", "停机原因 {shown}，平台 {platform}");
        print_reasons(digits)?;
        if let Some(description) = text("description") {
            say!("the carrier's text: {description}", "运营商的说明：{description}");
        }
        Ok(ExitCode::SUCCESS)
    }

    fn client(&self, config: &Config) -> anyhow::Result<Arc<Client>> {
        let chosen = match &self.client {
            Some(wanted) => config.clients.values().find(|client| client.appid.as_str() == wanted),
            None => config.clients.values().min_by_key(|client| client.appid.as_str().to_owned()),
        };
        match chosen {
            Some(client) => Ok(Arc::clone(client)),
            None => bail!(said!(
                "--client: no such client in {config}",
                "--client：{config} 中没有该客户端",
                config = self.config.display()
            )),
        }
    }
}

/// Prints each digit of a stop reason that is not `0`.
fn print_reasons(digits: &str) -> anyhow::Result<()> {
    let Some(reasons) = stop_reasons(digits) else {
        say!("unknown: it does not have 12 digits", "未知：不是 12 位数字");
        return Ok(());
    };
    if reasons.is_empty() {
        say!("the carrier names no reason", "运营商没有给出停机原因");
    }
    for StopReason { position, digit, meaning } in reasons {
        let digit = printable::escape(&digit.to_string()).to_string();
        match meaning.map(language::said) {
            Some(meaning) => {
                say!("digit {position} is {digit}: {meaning}", "第 {position} 位为 {digit}：{meaning}");
            }
            None => say!("digit {position} is {digit}: unknown", "第 {position} 位为 {digit}：未知"),
        }
    }
    Ok(())
}

/// The name of a STATUS: that of configuration files, or the carrier's.
fn name(status: &Status) -> String {
    let name = status.as_str();
    let chinese = match status {
        Status::Normal => "正常",
        Status::OneWayBarred => "单向停机",
        Status::Barred => "停机",
        Status::PreCancelled => "预销号",
        Status::Cancelled => "销号",
        Status::Transferred => "过户",
        Status::Dormant => "休眠",
        Status::AwaitingActivation => "待激",
        Status::NoSuchNumber => "号码不存在",
        _ => "未知状态",
    };
    said!("{name}", "{chinese}")
}
