//! `cmiot-proxy status`: one screen about the running proxy: readiness, alarms, cache, flights and connections.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use cmiot_proxy::printable;
use serde_json::Value;

use super::admin_client::{AdminResponse, ProxyArgs};

/// The time for all responses; counting a large cache takes a second.
const LIMIT: Duration = Duration::from_secs(30);

/// Show whether the running proxy is ready, its alarms, and the numbers of its cache, flights and connections.
///
/// Exit code 0 if it is ready, 1 if it is not or cannot be asked.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy status --config cmiot-proxy.toml")]
pub(super) struct Status {
    #[command(flatten)]
    at: ProxyArgs,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.at.client()?;
        let asking = async {
            let ready = client.get("/ready").await?;
            let cache = AdminResponse::of(&client.get("/cache/stats").await?)?;
            let peers = AdminResponse::of(&client.get("/peers").await?)?;
            anyhow::Ok((ready, cache.body, peers.body))
        };
        let asked = super::runtime()?.block_on(async { tokio::time::timeout(LIMIT, asking).await });
        let Ok(asked) = asked else {
            bail!(said!(
                "the admin listener does not respond within {seconds} s",
                "管理端口在 {seconds} 秒内没有响应",
                seconds = LIMIT.as_secs()
            ));
        };
        let (ready, cache, peers) = asked?;
        let text = String::from_utf8_lossy(&ready.body);
        out!("{}", printable::escape_lines(text.trim_end()));
        let (memory, file) = (number(&cache, "memory"), number(&cache, "file"));
        let (flights, connections) = (number(&cache, "flights"), number(&peers, "connections"));
        say!(
            "cache: {memory} entries in memory, {file} in cache.db",
            "缓存：内存中 {memory} 条，cache.db 中 {file} 条"
        );
        say!("flights: {flights}", "进行中的调用：{flights}");
        say!("gateway connections: {connections}", "网关连接：{connections}");
        Ok(if ready.status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A number of a response, or `?`.
fn number(body: &Value, name: &str) -> String {
    body[name].as_u64().map_or_else(|| "?".to_owned(), |number| number.to_string())
}
