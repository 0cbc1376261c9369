//! `cmiot-proxy simulate`: the simulated carrier on a socket, for a proxy or a gateway to call.

use std::fmt::Display;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context;
use clap::ValueEnum;
use cmiot_simulator::{Account, Config, Rule, Simulator, v5};
use tokio::signal::unix::{SignalKind, signal};

/// Run a simulated carrier until SIGINT or SIGTERM.
///
/// It checks signatures (API v2) or tokens (API v5) as the carrier does and answers STATUS 00 for every card unless a rule
/// says otherwise.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy simulate --account 100001:0001000000009:secret
  cmiot-proxy simulate --account 100001:0001000000009:secret \\
      --rule 'card=14765004176 status=02 latency=300ms' --rule 'prefix=1064 code=71 times=3'
  cmiot-proxy simulate --api v5 --account 200001:secret \\
      --rule 'prefix=14400 status=2' --rule 'op=25S04 code=12021 times=1' --rule 'token latency=2s'")]
pub(super) struct Simulate {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// The carrier's API that the accounts belong to
    #[arg(long, value_enum, default_value_t = Api::V2)]
    api: Api,
    /// Credentials it knows, APPID:EBID:PASSWORD, or APPID:PASSWORD of API v5; may be given several times
    #[arg(long = "account", value_name = "APPID:EBID:PASSWORD", required = true)]
    accounts: Vec<String>,
    /// Change the reply to matching requests; the first rule that matches applies; may be given several times
    #[arg(long = "rule", value_name = "RULE", value_parser = Rule::parse)]
    rules: Vec<Rule>,
}

/// An API of the carrier.
#[derive(Clone, Copy, ValueEnum)]
enum Api {
    V2,
    V5,
}

impl Simulate {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = match self.api {
            Api::V2 => Config::new(accounts::<Account>(&self.accounts)),
            Api::V5 => Config { v5_accounts: accounts::<v5::Account>(&self.accounts), ..Config::new([]) },
        };
        super::runtime()?.block_on(async {
            // Process 1 of a container has no default action for SIGTERM.
            let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
            let listen = self.listen;
            let simulator = Simulator::start(listen, config)
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
            if let Api::V5 = self.api {
                out!("{:#?}", simulator.v5().counts());
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// The accounts of texts. An invalid text ends the command as other wrong arguments do; the message does not contain the
/// text, which may include a password.
fn accounts<A: FromStr<Err: Display>>(texts: &[String]) -> Vec<A> {
    let read = |text: &String| {
        text.parse().unwrap_or_else(|error: A::Err| {
            let message = format!("invalid value for '--account': {error}\n");
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, message).exit()
        })
    };
    texts.iter().map(read).collect()
}
