//! `cmiot-proxy check`: the effective configuration, and whether the carrier accepts its accounts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use cmiot_proxy::app::open_store;
use cmiot_proxy::carrier::dialect::v2;
use cmiot_proxy::carrier::{Attempt, Call, Carrier};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::Config;
use cmiot_proxy::metrics::Metrics;
use cmiot_proxy::operation::{self, Parameters};
use cmiot_signer::Card;

use super::card;

/// Check a configuration and print it with every default filled in, secrets redacted.
///
/// Exits 1 when something is wrong, naming file, line, key and remedy. Keys without effect, and certificates that have
/// expired or will within 14 days, are warnings on standard error.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy check --config cmiot-proxy.toml
  cmiot-proxy check --config cmiot-proxy.toml --live --card 14765004176")]
pub(super) struct Check {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Make one real call with each account and say what the carrier answered; the proxy must not be running on the
    /// same store, since both would number calls
    #[arg(long)]
    live: bool,
    /// The card that --live asks about; any answer but a refusal of credentials shows that they work
    #[arg(long, requires = "live", default_value = "1064800000000", value_parser = card::parse)]
    card: Card,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (config, file) = Config::load(&self.config)?;
        for warning in &config.warnings {
            super::warn(&format!("warning: {warning}"));
        }
        let now = Clock::system().now();
        for warning in config.certificates.iter().filter_map(|one| one.warning(now)) {
            super::warn(&format!("warning: {warning}"));
        }
        if self.live {
            return super::runtime()?.block_on(self.ask(config));
        }
        out!("{}", toml::to_string(&file).context("cannot print the configuration")?.trim_end());
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self, mut config: Config) -> anyhow::Result<ExitCode> {
        let clock = Clock::system();
        // Without a store, a temporary one: the service's user could not open the files of another user, such as root.
        let temporary = match config.store_dir.exists() {
            true => None,
            false => {
                Some(tempfile::Builder::new().prefix("cmiot-check-").tempdir().context("temporary store")?)
            }
        };
        if let Some(folder) = &temporary {
            config.store_dir = folder.path().join("store");
        }
        let store = open_store(&config, false, &clock)?;
        let carrier = Carrier::new(&config, &store.state, &store.audit, &clock, Metrics::new())
            .context("TLS towards the carrier")?;
        let parameters = Parameters::default();
        let call = Call { operation: operation::USER_STATUS, card: &self.card, parameters: &parameters };
        let mut all_well = true;
        for account in config.accounts() {
            for (index, password) in account.passwords.iter().enumerate() {
                let attempt = carrier.attempt(account, password, call, None).await;
                let (well, what) = judge(&attempt);
                all_well &= well;
                let name =
                    if index == 0 { account.name.to_string() } else { format!("{} (next)", account.name) };
                out!("{name:<20} {:>6} ms  {what}", attempt.latency.as_millis());
            }
        }
        store.close();
        if let Some(folder) = temporary {
            // The next store numbers calls from the start: it must not begin within the same second.
            tokio::time::sleep(Duration::from_secs(1)).await;
            folder.close().context("removing the temporary store")?;
        }
        Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Whether the account works, and what the answer means for the operator.
fn judge(attempt: &Attempt) -> (bool, String) {
    match &attempt.result {
        Ok(answered) => {
            let code = answered.verdict.code;
            let refused = answered.verdict.class.refuses_account();
            let hint = if refused { v2::refusal_hint(&code) } else { "the carrier accepts the account" };
            (!refused, format!("code {code}: {hint}"))
        }
        Err(fault) => (false, fault.to_string()),
    }
}
