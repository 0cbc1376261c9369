//! `cmiot-proxy demo`: the whole service on loopback in a temporary folder, with a tour over real HTTP, or (`--serve`) with
//! a month of history to look at in a browser.
//!
//! [`tour`] has the steps and the result that each must have; [`environment`] starts carrier and proxy. Every cell of the
//! tour's table comes from a response's headers or from the simulator's own count. [`history`] makes the lookups of the
//! month, [`gateways`] has their senders.

mod environment;
mod gateways;
mod history;
mod summary;
mod tour;

use std::process::ExitCode;

use anyhow::Context;

use environment::{Environment, GATEWAY};
use history::History;

/// Run simulator and proxy on loopback and show what the proxy does.
///
/// The demo needs no account, no network and no configuration, and removes its files at the end.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cmiot-proxy demo\n  cmiot-proxy demo --serve")]
pub(super) struct Demo {
    /// Instead of the tour, serve the operators' page with a month of history until interrupted
    #[arg(long)]
    serve: bool,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        super::runtime()?.block_on(async {
            if self.serve {
                serve().await?;
                return Ok(ExitCode::SUCCESS);
            }
            let environment = Environment::for_tour().await?;
            print_addresses(&environment)?;
            let went_well = tour::run(&environment).await?;
            environment.stop().await?;
            Ok(if went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

fn print_addresses(environment: &Environment) -> anyhow::Result<()> {
    let (carrier, proxy) = (environment.carrier.base_url(), environment.app.gateway());
    say!(
        "simulated carrier {carrier}\nproxy             http://{proxy}\n",
        "模拟运营商 {carrier}\n代理       http://{proxy}\n"
    );
    Ok(())
}

/// Writes the history and serves until interrupted.
async fn serve() -> anyhow::Result<()> {
    let mut history = History::start().await?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.with_context(|| said!("cannot listen for an interrupt", "无法接收中断信号"))?;
        }
        failed = show(&mut history) => failed?,
    }
    history.environment.stop().await
}

/// Writes the history, prints what can be looked at, and makes further lookups; ends with an error only.
async fn show(history: &mut History) -> anyhow::Result<()> {
    print_addresses(&history.environment)?;
    say!("Writing a month of history ...", "正在写入一个月的历史……");
    history.write().await?;
    let (page, token) = (history.environment.app.admin(), history.token()?);
    say!(
        "{lookups} lookups, {calls} carrier calls.\n\nOperators' page http://{page}/\nToken to log in {token}\n",
        "{lookups} 次查询，{calls} 次运营商调用。\n\n管理页面 http://{page}/\n登录令牌 {token}\n",
        lookups = history.lookups,
        calls = history.environment.carrier.count()
    );
    print_commands(&history.environment)?;
    history.go_on().await
}

/// Prints lines to try.
fn print_commands(environment: &Environment) -> anyhow::Result<()> {
    let program = std::env::current_exe().with_context(|| said!("where this program is", "本程序的位置"))?;
    let program = program.display();
    say!(
        "Try it (a transid is valid for one lookup, so each line signs a new one):\n",
        "可以试用（一个事务编码只能用于一次查询，因此每行都重新签名）：\n"
    );
    out!(
        "  curl -si \"$(CMIOT_PASSWORD={} {program} sign --appid {} --ebid {} --msisdn 1064830100000 \\\n      --format url --base-url http://{})\"",
        GATEWAY.password,
        GATEWAY.appid,
        GATEWAY.ebid,
        environment.app.gateway(),
    );
    out!("  curl -s http://{}/metrics", environment.app.admin());
    out!("  sqlite3 -readonly {} 'SELECT * FROM lookup'", environment.audit_file()?.display());
    say!("\nCtrl-C ends it and removes the folder.", "\n按 Ctrl-C 结束，并删除该目录。");
    Ok(())
}
