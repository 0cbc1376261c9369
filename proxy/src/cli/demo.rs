//! `cmiot-proxy demo`: the whole service on loopback in a temporary folder, with a tour over real HTTP.
//!
//! [`tour`] has the steps and the result that each must have; [`environment`] starts carrier and proxy. Every cell of the
//! table comes from a response's headers or from the simulator's own count.

mod environment;
mod summary;
mod tour;

use std::process::ExitCode;

use anyhow::Context;

use environment::Environment;

/// Run simulator and proxy on loopback and show what the proxy does.
///
/// The demo needs no account, no network and no configuration, and removes its files at the end.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cmiot-proxy demo\n  cmiot-proxy demo --serve")]
pub(super) struct Demo {
    /// Serve until interrupted afterwards, and print curl commands to try
    #[arg(long)]
    serve: bool,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        super::runtime()?.block_on(async {
            let environment = Environment::start().await?;
            let (carrier, proxy) = (environment.carrier.base_url(), environment.app.gateway());
            say!(
                "simulated carrier {carrier}\nproxy             http://{proxy}\n",
                "模拟运营商 {carrier}\n代理       http://{proxy}\n"
            );
            let went_well = tour::run(&environment).await?;
            if self.serve {
                serve_until_interrupt(&environment).await?;
            }
            environment.stop().await?;
            Ok(if went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

/// Prints lines to try until interrupted.
async fn serve_until_interrupt(environment: &Environment) -> anyhow::Result<()> {
    let program = std::env::current_exe().with_context(|| said!("where this program is", "本程序的位置"))?;
    let program = program.display();
    say!(
        "\nTry it (a transid is valid for one lookup, so each line signs a new one):\n",
        "\n可以试用（一个事务编码只能用于一次查询，因此每行都重新签名）：\n"
    );
    for card in [tour::MSISDN, tour::ICCID, tour::IMSI] {
        let (kind, number) = card;
        out!(
            "  curl -si \"$(CMIOT_PASSWORD={} {program} sign --appid {} --ebid {} --{kind} {number} \\\n      --format url --base-url http://{})\"",
            environment::GATEWAY_PASSWORD,
            environment::GATEWAY_APPID,
            environment::EBID,
            environment.app.gateway(),
        );
    }
    out!("  curl -s http://{}/metrics", environment.app.admin());
    out!("  sqlite3 -readonly {} 'SELECT * FROM lookup'", environment.audit_file()?.display());
    say!("\nCtrl-C ends it and removes the folder.", "\n按 Ctrl-C 结束，并删除该目录。");
    tokio::signal::ctrl_c().await.with_context(|| said!("cannot listen for an interrupt", "无法接收中断信号"))
}
