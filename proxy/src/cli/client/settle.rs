//! After an edit of the lists: makes the running proxy reload them, and reports the result.
//!
//! A running proxy holds the lock of the store's folder, and a file there has the address of its admin listener. The report
//! goes to standard error. The exit code is 0 if the list is in effect or no proxy runs, 1 if the proxy refuses it, 3 if
//! the result is unknown.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cmiot_proxy::config::Config;
use cmiot_proxy::store::{self, Holder};
use hyper::StatusCode;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::cli::admin_client::{AdminArgs, AdminClient};
use crate::cli::http_client::{Address, Reply};
use crate::cli::listener::Listener;
use crate::cli::{runtime, warn};

/// The time for the proxy to load the configuration.
const LIMIT: Duration = Duration::from_secs(10);

/// The number of reloads until the proxy has the list as it is; with the pauses between them less than [`LIMIT`].
const TRIES: u32 = 40;
/// The pause before another reload.
const PAUSE: Duration = Duration::from_millis(200);

/// The exit code if it is not known whether the proxy uses the edited list.
const UNKNOWN: u8 = 3;

/// The result of the reload.
enum End {
    Taken(String),
    Refused(String),
    Unknown(String),
}

/// Waits for the proxy of this configuration to load a list that was edited.
pub(super) fn settle(config: &Config, at: &AdminArgs, list: &PathBuf) -> anyhow::Result<ExitCode> {
    let dir = config.store_dir.display();
    let end = match store::holder(&config.store_dir) {
        _ if at.connect.has_url() => runtime()?.block_on(ask_given(config, at, list)),
        // A proxy may run on another folder, if `[store] dir` was changed after its start.
        Ok(None) => match runtime()?.block_on(ask_configured(config, at, list)) {
            Some(end) => end,
            None => End::Taken(said!(
                "no proxy runs on {dir}: this takes effect at the next start",
                "{dir} 上没有代理在运行：下次启动时生效"
            )),
        },
        Ok(Some(holder)) => runtime()?.block_on(ask(config, at, &holder, list)),
        Err(error) => End::Unknown(said!(
            "it is unknown whether a proxy runs: {error}",
            "无法确定是否有代理在运行：{error}"
        )),
    };
    Ok(match end {
        End::Taken(what) => {
            warn(&what);
            ExitCode::SUCCESS
        }
        End::Refused(what) => {
            warn(&what);
            ExitCode::FAILURE
        }
        End::Unknown(what) => {
            warn(&said!("the list is changed. {what}", "名单已修改。{what}"));
            ExitCode::from(UNKNOWN)
        }
    })
}

async fn ask(config: &Config, at: &AdminArgs, Holder { process, admin, .. }: &Holder, list: &PathBuf) -> End {
    let dir = config.store_dir.display();
    let process = said!("process {process}", "进程 {process}");
    let running = said!("a proxy runs on {dir} ({process})", "{dir} 上有代理在运行（{process}）");
    match admin {
        Some(admin) => {
            let address = Listener::Admin.published(config, admin);
            ask_at(config, at, (admin, &address), &running, &process, list).await
        }
        None => End::Unknown(said!(
            "{running}, but does not serve yet: its log says when it does",
            "{running}，但尚未提供服务：开始时其日志会说明"
        )),
    }
}

/// Asks at the address that `--url` gives.
async fn ask_given(config: &Config, at: &AdminArgs, list: &PathBuf) -> End {
    match at.connect.address(config, Listener::Admin) {
        Ok(address) => {
            ask_at(
                config,
                at,
                ("--url", &address),
                &said!("a proxy was named", "命令指定了代理"),
                "--url",
                list,
            )
            .await
        }
        Err(error) => End::Unknown(said!(
            "it is not known whether it counts: {error:#}",
            "无法确定是否已生效：{error:#}"
        )),
    }
}

/// Asks the admin listener that the configuration names; none if nothing accepts a connection there.
async fn ask_configured(config: &Config, at: &AdminArgs, list: &PathBuf) -> Option<End> {
    let address = Listener::Admin.configured_address(config)?;
    match &address {
        Address::Unix { path, .. } => drop(UnixStream::connect(path).await.ok()?),
        Address::Url(url) => {
            let (_, authority) = url.split_once("://")?;
            let connect = TcpStream::connect(authority.to_owned());
            drop(tokio::time::timeout(LIMIT, connect).await.ok()?.ok()?);
        }
    }
    let admin = config.admin.listen.to_string();
    let running = said!(
        "no proxy runs on {dir}, but a listener at {admin} does",
        "{dir} 上没有代理在运行，但 {admin} 上有监听端口",
        dir = config.store_dir.display()
    );
    if address.proves_nothing() {
        // Any process may listen there, and would read the token.
        let client = match at.connect.client_at(&address, config, Listener::Admin) {
            Ok(client) => client,
            Err(error) => return Some(unreachable(&running, &admin, &format!("{error:#}"))),
        };
        let live = tokio::time::timeout(LIMIT, client.get("/live", &[])).await;
        live.ok()?.ok().filter(|reply| reply.status.is_success())?;
        let why = said!(
            "no token is sent to it without --url http://{admin}",
            "没有 --url http://{admin} 时不向它发送令牌"
        );
        return Some(unreachable(&running, &admin, &why));
    }
    Some(ask_at(config, at, (&admin, &address), &running, &admin, list).await)
}

/// The end if the proxy does not say whether it uses the list.
fn unreachable(running: &str, admin: &str, why: &str) -> End {
    End::Unknown(said!(
        "{running}, but its admin listener, {admin}, does not say whether it counts: {why}. Send the process SIGHUP, and \
         look into its log",
        "{running}，但其管理端口 {admin} 没有说明是否已生效：{why}。请向该进程发送 SIGHUP，并查看其日志"
    ))
}

async fn ask_at(
    config: &Config,
    at: &AdminArgs,
    (admin, address): (&str, &Address),
    running: &str,
    name: &str,
    list: &PathBuf,
) -> End {
    let unreachable = |why: &str| unreachable(running, admin, why);
    let client = match at.client_at(address, config) {
        Ok(client) => client,
        Err(error) => return unreachable(&format!("{error:#}")),
    };
    let reply = match tokio::time::timeout(LIMIT, reload(&client, list)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => return unreachable(&format!("{error:#}")),
        Err(_) => {
            let what = said!(
                "{running}, and has not loaded it within {seconds} s: its log says when it has",
                "{running}，在 {seconds} 秒内没有加载：加载后其日志会说明",
                seconds = LIMIT.as_secs()
            );
            return End::Unknown(what);
        }
    };
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    match reply.status.as_u16() {
        200 if holds(&body, list) => {
            End::Taken(said!("taken by the running proxy ({name})", "运行中的代理已采用（{name}）"))
        }
        200 => End::Unknown(said!(
            "{running}, but reads other lists than {list}",
            "{running}，但它读取的名单不是 {list}",
            list = list.display()
        )),
        409 => End::Refused(said!(
            "the list is changed, but the running proxy refuses its configuration as a whole: {error}",
            "名单已修改，但运行中的代理整体拒绝其配置：{error}",
            error = body["error"].as_str().unwrap_or("it does not say why")
        )),
        _ => unreachable(&format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body).trim_end())),
    }
}

/// Reloads until the proxy has the list as it is now: another edit may replace the list between the
/// proxy's read and the comparison here.
async fn reload(client: &AdminClient, list: &PathBuf) -> anyhow::Result<Reply> {
    let mut tries = TRIES;
    loop {
        let reply = client.post("/config/reload", String::new()).await?;
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        tries -= 1;
        if reply.status != StatusCode::OK || holds(&body, list) || tries == 0 {
            return Ok(reply);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the list is among those that the proxy has loaded.
fn holds(body: &Value, list: &PathBuf) -> bool {
    let Ok(found) = std::fs::metadata(list) else { return false };
    let lists = body["lists"].as_array().map(Vec::as_slice).unwrap_or_default();
    lists
        .iter()
        .any(|one| (one["device"].as_u64(), one["inode"].as_u64()) == (Some(found.dev()), Some(found.ino())))
}
