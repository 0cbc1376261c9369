//! `cmiot-proxy demo`: the whole service on loopback in a temporary folder, toured over real HTTP.
//!
//! The tour's sentences and what each must show stand in [`tour`]; this file sets the stage. Nothing is shown that was
//! not just done: every cell of the table comes from an answer's headers or from the simulator's own count.

mod environment;
mod summary;
mod tour;

use std::process::ExitCode;

use anyhow::Context;

use environment::Environment;

/// Run simulator and proxy on loopback and show what the proxy does.
///
/// Needs no account, no network and no configuration; leaves nothing behind.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cmiot-proxy demo\n  cmiot-proxy demo --serve")]
pub(super) struct Demo {
    /// Stay up afterwards and print curl lines that work
    #[arg(long)]
    serve: bool,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        super::runtime()?.block_on(async {
            let stage = Environment::start().await?;
            out!("simulated carrier {}", stage.carrier.base_url());
            out!("proxy             http://{}\n", stage.app.gateway());
            let went_well = tour::walk(&stage).await?;
            if self.serve {
                stay(&stage).await?;
            }
            stage.stop().await?;
            Ok(if went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        })
    }
}

/// Prints lines to try until interrupted.
async fn stay(stage: &Environment) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("where this program is")?;
    let program = program.display();
    out!("\nTry it (a transid is good for one look-up, so each line signs anew):\n");
    for card in [tour::MSISDN, tour::ICCID, tour::IMSI] {
        let (kind, number) = card;
        out!(
            "  curl -si \"$(CMIOT_PASSWORD={} {program} sign --appid {} --ebid {} --{kind} {number} \\\n      --format url --base-url http://{})\"",
            environment::GATEWAY_PASSWORD,
            environment::GATEWAY_APPID,
            environment::EBID,
            stage.app.gateway(),
        );
    }
    out!("  curl -s http://{}/metrics", stage.app.admin());
    out!("  sqlite3 -readonly {} 'SELECT * FROM lookup'", stage.audit_file()?.display());
    out!("\nCtrl-C ends it and removes the folder.");
    tokio::signal::ctrl_c().await.context("cannot listen for an interrupt")
}
