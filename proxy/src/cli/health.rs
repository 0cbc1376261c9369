//! `cmiot-proxy health`: whether the running proxy is ready, for the health checks of containers and supervisors.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use cmiot_proxy::config::Config;
use cmiot_proxy::printable;

use super::language;
use super::listener::{ConnectArgs, Listener};

/// Report whether the running proxy is ready, as /ready does: exit code 0 if it is, 1 if it is not or does not respond.
///
/// It needs no token. The alarms follow the first line; they do not change the exit code.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy health --config /etc/cmiot-proxy/cmiot-proxy.toml")]
pub(super) struct Health {
    /// Configuration file of the proxy
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Time for the response
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
}

impl Health {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = Config::load(&self.config)?;
        let limit = Duration::from_secs(self.timeout);
        let client = self.connect.client(&config, Listener::Admin)?;
        let headers = [("accept-language", language::selected().tag())];
        let reply = super::runtime()?
            .block_on(async { tokio::time::timeout(limit, client.get("/ready", &headers)).await });
        let Ok(reply) = reply else {
            bail!(said!(
                "the admin listener does not respond within {seconds} s",
                "管理端口在 {seconds} 秒内没有响应",
                seconds = self.timeout
            ));
        };
        let reply = reply?;
        let text = String::from_utf8_lossy(&reply.body);
        out!("{}", printable::escape_lines(text.trim_end()));
        Ok(if reply.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
