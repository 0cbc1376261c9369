//! `cmiot-proxy simulate`: the simulated carrier on a socket, for a proxy or a gateway to call.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use cmiot_simulator::{Account, Config, Rule, Simulator};
use tokio::signal::unix::{SignalKind, signal};

/// Run a simulated carrier until SIGINT or SIGTERM.
///
/// It checks signatures as the carrier does and answers STATUS 00 for every card unless a rule says otherwise.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy simulate --account 100001:0001000000009:secret
  cmiot-proxy simulate --account 100001:0001000000009:secret \\
      --rule 'card=14765004176 status=02 latency=300ms' --rule 'prefix=1064 code=71 times=3'")]
pub(super) struct Simulate {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Credentials it knows, APPID:EBID:PASSWORD; may be given several times
    #[arg(long = "account", value_name = "APPID:EBID:PASSWORD", required = true)]
    accounts: Vec<Account>,
    /// Change the reply to matching requests; the first rule that matches applies; may be given several times
    #[arg(long = "rule", value_name = "RULE", value_parser = Rule::parse)]
    rules: Vec<Rule>,
}

impl Simulate {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        super::runtime()?.block_on(async {
            // Process 1 of a container has no default action for SIGTERM.
            let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
            let listen = self.listen;
            let simulator = Simulator::start(listen, Config::new(self.accounts))
                .await
                .with_context(|| format!("cannot listen on {listen}"))?;
            simulator.set_rules(self.rules);
            out!("simulated carrier {}", simulator.base_url());
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for SIGINT")?,
                _ = terminate.recv() => {}
            }
            let counts = simulator.counts();
            simulator.stop().await;
            out!("{counts:#?}");
            Ok(ExitCode::SUCCESS)
        })
    }
}
