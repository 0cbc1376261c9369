//! `cmiot-proxy lookup`: looks up one card at a running proxy, as a gateway does.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::{Client, Config};
use cmiot_proxy::{operation, printable};
use cmiot_signer::{Reply, Sequence, Signer, Stamp, Status};

use super::card::{self, CardArg};
use super::listener::{ConnectArgs, Listener};

/// Look up one card at the running proxy and print the response that a gateway gets.
///
/// The request is signed with a client of the configuration; the lookup is audited like any other.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy lookup 14765004176 --config cmiot-proxy.toml
  cmiot-proxy lookup - --config cmiot-proxy.toml < card.txt     # not on the command line, which others can read
  cmiot-proxy lookup iccid:898602B0011430000544 --config cmiot-proxy.toml --client GW0001")]
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
    #[command(flatten)]
    connect: ConnectArgs,
}

impl Lookup {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = Config::load(&self.config)?;
        let client = self.client(&config)?;
        let http = self.connect.client(&config, Listener::Gateway)?;
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
