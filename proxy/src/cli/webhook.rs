//! `cmiot-proxy webhook`: one test message; how far each webhook has got, and its dead letters.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::Config;
use cmiot_proxy::printable;
use cmiot_proxy::store::audit::query;
use cmiot_proxy::store::state::webhook_states;
use cmiot_proxy::webhook::send_test;

use super::table;

/// Test the receivers of events, and show what was delivered to them.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy webhook test --config cmiot-proxy.toml")]
pub(super) struct Webhook {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Test(Test),
    #[command(visible_alias = "list")]
    Status(Status),
}

/// Send one signed message of type "test" to each webhook, or to the named one.
///
/// The running proxy is not involved. Exit code 0 if every receiver accepted the message, 1 otherwise.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy webhook test --config cmiot-proxy.toml")]
struct Test {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name of the webhook [default: all]
    name: Option<String>,
}

/// Show how far each webhook has got in the audit, how many messages it delivered, and its dead letters.
///
/// It reads the databases, whether the proxy runs or not.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy webhook status --config cmiot-proxy.toml")]
struct Status {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Dead letters to show per webhook, the newest first; at most 1000 are kept
    #[arg(long, value_name = "N", default_value_t = 20)]
    dead: usize,
    /// Tables as wide as their content
    #[arg(long)]
    wide: bool,
}

impl Webhook {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Test(test) => test.run(),
            Command::Status(status) => status.run(),
        }
    }
}

impl Test {
    fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = Config::load(&self.config)?;
        let is_named = |name: &str| self.name.as_deref().is_none_or(|asked| asked == name);
        let webhooks: Vec<_> = config.webhooks.iter().filter(|one| is_named(&one.name)).collect();
        if webhooks.is_empty() {
            match &self.name {
                Some(name) => bail!("the configuration has no [[webhook]] of the name {name}"),
                None => bail!("the configuration has no [[webhook]]"),
            }
        }
        let runtime = super::runtime()?;
        let mut failed = false;
        for webhook in webhooks {
            let name = &webhook.name;
            match runtime.block_on(send_test(webhook, &Clock::system())) {
                Ok(status) => say!("{name}: accepted (HTTP {status})", "{name}：已接受（HTTP {status}）"),
                Err(error) => {
                    failed = true;
                    let error = error.to_string();
                    let error = printable::escape(&error);
                    say!("{name}: not accepted: {error}", "{name}：未接受：{error}");
                }
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Status {
    fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = Config::load(&self.config)?;
        let (known, head) = (webhook_states(&config.store_dir)?, query::head(&config.store_dir)?);
        let mut all = table::new(self.wide);
        all.set_header([
            "webhook".to_owned(),
            said!("position", "位置"),
            said!("behind", "落后"),
            said!("delivered", "已送达"),
            said!("dead", "已放弃"),
        ]);
        table::wrap_only(&mut all, &[]);
        for webhook in &config.webhooks {
            let state = known.iter().find(|one| *one.name == *webhook.name).map(|one| one.progress);
            let row: Vec<String> = match state {
                Some(state) => [state.position, head.saturating_sub(state.position).max(0)]
                    .map(|number| number.to_string())
                    .into_iter()
                    .chain([state.delivered, state.dead].map(|number| number.to_string()))
                    .collect(),
                None => vec![said!("not started yet", "尚未开始")],
            };
            all.add_row([webhook.name.to_string()].into_iter().chain(row));
        }
        out!("{all}");
        let mut dead = table::new(self.wide);
        let error_heading = said!("last error", "最后的错误");
        dead.set_header([
            "webhook".to_owned(),
            said!("given up", "放弃时间"),
            said!("row", "行号"),
            said!("type", "类型"),
            "id".to_owned(),
            error_heading.clone(),
        ]);
        table::wrap_only(&mut dead, &[&error_heading]);
        for one in &known {
            for letter in one.dead.iter().take(self.dead) {
                let error = printable::escape(&letter.error).into_owned();
                let (at, row) = (letter.at.to_string(), letter.audit_row.to_string());
                dead.add_row([&one.name, &at, &row, &letter.kind, &letter.message, &error]);
            }
        }
        if dead.row_count() > 0 {
            let heading = said!("dead letters, the newest first:", "已放弃的消息，最新的在前：");
            out!("\n{heading}\n{dead}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
