//! `cmiot-proxy cache`: inspects, purges and fills the cache of a running proxy through its admin API.

mod warm;

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Read as _, stderr, stdin};
use std::process::ExitCode;

use clap::Subcommand;
use cmiot_proxy::printable;
use cmiot_signer::Card;
use serde_json::{Value, json};

use super::admin_client::{AdminResponse, ProxyArgs};
use super::card::{self, CardArg};

/// Inspect, purge and fill the cache of the running proxy.
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
    /// Show the number of entries by kind
    Stats {
        #[command(flatten)]
        at: ProxyArgs,
    },
    /// Show the entry of one card: the carrier's reply, its age, and its times of freshness and staleness
    Show {
        /// The card: 20 characters are an iccid, 15 digits an imsi, anything else an msisdn; or msisdn:, iccid:, imsi:; - reads
        /// it from standard input
        #[arg(value_parser = card::argument)]
        card: CardArg,
        #[command(flatten)]
        of: Scope,
        #[command(flatten)]
        with: With,
        #[command(flatten)]
        at: ProxyArgs,
    },
    /// Remove the entries that match all given conditions, with every value of declared parameters
    Purge(Purge),
    /// Fetch every card of a file within the budget, such as in a nightly sweep of a fleet
    Warm(warm::Warm),
}

#[derive(clap::Args)]
struct Purge {
    /// Purge only entries of this card; - reads it from standard input
    #[arg(long, value_parser = card::argument)]
    card: Option<CardArg>,
    /// Purge only entries with this STATUS
    #[arg(long)]
    status: Option<String>,
    /// Purge all entries
    #[arg(long, conflicts_with_all = ["card", "status", "group", "operation"])]
    all: bool,
    /// Mark entries stale instead of removing them; they are served only if the carrier fails
    #[arg(long)]
    soft: bool,
    /// Only print the number of entries that would be purged
    #[arg(long)]
    dry_run: bool,
    /// Purge this node only, not its fleet, such as while the database of the fleet is away
    #[arg(long)]
    local: bool,
    /// Purge all entries without a question on the terminal
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    of: Scope,
    #[command(flatten)]
    at: ProxyArgs,
}

/// The group and operation of entries.
#[derive(clap::Args)]
struct Scope {
    /// Select entries of this group [default: the only one]
    #[arg(long)]
    group: Option<String>,
    /// Select entries of this operation, by path name
    #[arg(long)]
    operation: Option<String>,
}

/// Values of the parameters that the operation declares.
#[derive(clap::Args)]
struct With {
    /// Set a parameter that the operation declares, such as query_date=20260101; may be given several times
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
    fn to(&self, mut request: Value) -> anyhow::Result<Value> {
        let mut all = serde_json::Map::new();
        for (name, value) in &self.parameters {
            if all.insert(name.clone(), json!(value)).is_some() {
                anyhow::bail!("--parameter {name} is given twice");
            }
        }
        if !all.is_empty() {
            request["parameters"] = all.into();
        }
        Ok(request)
    }

    /// The parameters as the file of results has them after the card; empty without any.
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
            Command::Stats { at } => Ok(print(&at, None)?.0),
            Command::Show { card, of, with, at } => {
                Ok(print(&at, Some(("show", with.to(of.about(Some(&card.read()?)))?)))?.0)
            }
            Command::Purge(purge) => purge.run(),
            Command::Warm(warm) => warm.run(),
        }
    }
}

impl Purge {
    fn run(self) -> anyhow::Result<ExitCode> {
        let card = self.card.as_ref().map(CardArg::read).transpose()?;
        let mut request = self.of.about(card.as_ref());
        request["soft"] = json!(self.soft);
        request["all"] = json!(self.all);
        if let Some(status) = &self.status {
            request["status"] = json!(status);
        }
        if self.all && !self.dry_run && !self.confirm(&request)? {
            super::warn(&said!("nothing was purged", "没有清除任何条目"));
            return Ok(ExitCode::FAILURE);
        }
        request["dry_run"] = json!(self.dry_run);
        request["local"] = json!(self.local);
        let body = print(&self.at, Some(("purge", request)))?;
        Ok(self.report_nodes(&body))
    }

    /// Names the nodes of the fleet that have not applied the purge; exit code 1 if one of them is alive.
    fn report_nodes(&self, (code, body): &(ExitCode, Value)) -> ExitCode {
        let nodes = |name: &str| -> Vec<String> {
            body["fleet"][name].as_array().into_iter().flatten().map(Value::to_string).collect()
        };
        let (waiting, away) = (nodes("waiting"), nodes("away"));
        if !away.is_empty() {
            super::warn(&said!(
                "these nodes have no lease, and apply the purge before they share again; one that still runs may serve older \
                 responses until then: {nodes}",
                "以下节点没有租约，会在重新共享之前执行此次清除；仍在运行的节点在此之前可能返回较旧的应答：{nodes}",
                nodes = away.join(", ")
            ));
        }
        if waiting.is_empty() {
            return *code;
        }
        super::warn(&said!(
            "these nodes have not applied the purge yet, and may serve older responses until they do: {nodes}; `cmiot-proxy \
             fleet status` shows when they have",
            "以下节点尚未执行此次清除，在执行之前可能返回较旧的应答：{nodes}；可用 `cmiot-proxy fleet status` 查看",
            nodes = waiting.join(", ")
        ));
        ExitCode::FAILURE
    }

    /// Prints the number of all entries; on a terminal asks whether to go on.
    fn confirm(&self, request: &Value) -> anyhow::Result<bool> {
        let mut count = request.clone();
        count["dry_run"] = json!(true);
        let client = self.at.client()?;
        let response = super::runtime()?.block_on(client.post("/cache/purge", count.to_string()))?;
        let counted = AdminResponse::of(&response)?.body;
        let number = |name: &str| counted[name].as_u64().map_or("?".to_owned(), |number| number.to_string());
        let (memory, file) = (number("memory"), number("file"));
        super::warn(&match self.soft {
            true => said!(
                "this marks as stale {memory} entries in memory and {file} in cache.db",
                "此操作把内存中 {memory} 条和 cache.db 中 {file} 条标记为过期"
            ),
            false => said!(
                "this removes {memory} entries in memory and {file} in cache.db",
                "此操作删除内存中 {memory} 条和 cache.db 中 {file} 条"
            ),
        });
        if self.yes || !stdin().is_terminal() || !stderr().is_terminal() {
            return Ok(true);
        }
        super::warn(&said!("continue? [y/N]", "是否继续？[y/N]"));
        let mut answer = String::new();
        stdin().lock().take(16).read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

impl Scope {
    /// The request about a card of this group and operation.
    fn about(&self, card: Option<&Card>) -> Value {
        let mut request = json!({});
        if let Some(card) = card {
            request[card.kind().as_str()] = json!(card.as_str());
        }
        for (name, value) in [("group", &self.group), ("operation", &self.operation)] {
            if let Some(value) = value {
                request[name] = json!(value);
            }
        }
        request
    }
}

/// Sends a GET for the statistics, or a POST, and prints the response. Returns the exit code and the response.
fn print(at: &ProxyArgs, post: Option<(&str, Value)>) -> anyhow::Result<(ExitCode, Value)> {
    let client = at.client()?;
    let response = super::runtime()?.block_on(async {
        match post {
            None => client.get("/cache/stats").await,
            Some((path, request)) => client.post(&format!("/cache/{path}"), request.to_string()).await,
        }
    })?;
    let response = AdminResponse::of(&response)?;
    if let (false, Some(error)) = (response.ok, response.body["error"].as_str()) {
        anyhow::bail!("{error}");
    }
    out!("{}", printable::escape_json_lines(&serde_json::to_string_pretty(&response.body)?));
    let code = if response.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok((code, response.body))
}
