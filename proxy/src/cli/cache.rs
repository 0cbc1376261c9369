//! `cmiot-proxy cache`: looks into a running proxy's cache, purges it, fills it, over its operators' listener.

mod admin_client;
mod warm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use cmiot_signer::Card;
use serde_json::{Value, json};

use super::card;
use admin_client::AdminClient;

/// Look into the cache of the running proxy, purge it, fill it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy cache stats --config cmiot-proxy.toml
  cmiot-proxy cache show 14765004176 --config cmiot-proxy.toml
  cmiot-proxy cache purge --card 14765004176 --config cmiot-proxy.toml
  cmiot-proxy cache purge --status 02 --soft --config cmiot-proxy.toml
  cmiot-proxy cache warm --file cards.csv --config cmiot-proxy.toml")]
pub(super) struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How much is kept, of what kind
    Stats {
        #[command(flatten)]
        at: AdminArgs,
    },
    /// What is known about one card: the carrier's answer, its age, until when it serves
    Show {
        /// The card: 20 characters are an iccid, 15 digits an imsi, anything else an msisdn; or msisdn:, iccid:, imsi:
        #[arg(value_parser = card::parse)]
        card: Card,
        #[command(flatten)]
        of: Scope,
        #[command(flatten)]
        with: With,
        #[command(flatten)]
        at: AdminArgs,
    },
    /// Forget what is selected: what meets every condition given, with every value of declared parameters
    Purge(Purge),
    /// Fetch every card of a file within the budget: the nightly sweep of a fleet
    Warm(warm::Warm),
}

#[derive(clap::Args)]
struct Purge {
    /// This card
    #[arg(long, value_parser = card::parse)]
    card: Option<Card>,
    /// Answers with this STATUS
    #[arg(long)]
    status: Option<String>,
    /// Everything
    #[arg(long, conflicts_with_all = ["card", "status", "group", "operation"])]
    all: bool,
    /// Keep it for the carrier's bad days: no longer fresh, and answered only when the carrier fails
    #[arg(long)]
    soft: bool,
    #[command(flatten)]
    of: Scope,
    #[command(flatten)]
    at: AdminArgs,
}

/// Where the proxy is.
#[derive(clap::Args)]
struct AdminArgs {
    /// Configuration file of the proxy
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where its operators' listener is [default: the configuration's]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Whose answers.
#[derive(clap::Args)]
struct Scope {
    /// Of this group [default: the only one]
    #[arg(long)]
    group: Option<String>,
    /// Of this operation, by path name
    #[arg(long)]
    operation: Option<String>,
}

/// With which values of the parameters that the operation declares.
#[derive(clap::Args)]
struct With {
    /// A parameter that the operation declares, such as query_date=20260101; again for each
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write a parameter as NAME=VALUE".to_owned()),
    }
}

impl With {
    /// The request with these parameters.
    fn to(&self, mut wanted: Value) -> anyhow::Result<Value> {
        let mut all = serde_json::Map::new();
        for (name, value) in &self.parameters {
            if all.insert(name.clone(), json!(value)).is_some() {
                anyhow::bail!("--parameter {name} is given twice");
            }
        }
        if !all.is_empty() {
            wanted["parameters"] = all.into();
        }
        Ok(wanted)
    }

    /// The same as they stand behind a card in a file of results; nothing without any.
    fn suffix(&self) -> String {
        let all: BTreeMap<&str, &str> =
            self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let all: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if all.is_empty() { String::new() } else { format!("?{}", all.join("&")) }
    }
}

impl Cache {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Stats { at } => print(&at, None),
            Command::Show { card, of, with, at } => {
                print(&at, Some(("show", with.to(of.about(Some(&card)))?)))
            }
            Command::Purge(purge) => {
                let mut wanted = purge.of.about(purge.card.as_ref());
                wanted["soft"] = json!(purge.soft);
                wanted["all"] = json!(purge.all);
                if let Some(status) = purge.status {
                    wanted["status"] = json!(status);
                }
                print(&purge.at, Some(("purge", wanted)))
            }
            Command::Warm(warm) => warm.run(),
        }
    }
}

impl Scope {
    /// The request about a card of this group and operation.
    fn about(&self, card: Option<&Card>) -> Value {
        let mut wanted = json!({});
        if let Some(card) = card {
            wanted[card.kind().as_str()] = json!(card.as_str());
        }
        for (name, value) in [("group", &self.group), ("operation", &self.operation)] {
            if let Some(value) = value {
                wanted[name] = json!(value);
            }
        }
        wanted
    }
}

/// Asks for a page, or posts to it, and prints what comes back.
fn print(at: &AdminArgs, post: Option<(&str, Value)>) -> anyhow::Result<ExitCode> {
    let desk = AdminClient::of(at)?;
    let answer = super::runtime()?.block_on(async {
        match post {
            None => desk.get("stats").await,
            Some((page, wanted)) => desk.post(page, &wanted).await,
        }
    })?;
    if let (false, Some(error)) = (answer.ok, answer.body["error"].as_str()) {
        anyhow::bail!("{error}");
    }
    out!("{}", serde_json::to_string_pretty(&answer.body)?);
    Ok(if answer.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
