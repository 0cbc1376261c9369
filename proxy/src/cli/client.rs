//! `cmiot-proxy client`: edits the clients file and the list of revoked appids.
//!
//! After an edit the command makes the running proxy reload, and reports the result (`settle.rs`). New passwords are made
//! here, printed once, and stored in the file.

mod settle;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use cmiot_proxy::config::Config;
use cmiot_proxy::config::edit::{Change, ClientsFileEditor};
use ring::rand::{SecureRandom, SystemRandom};

use super::admin_client::AdminArgs;
use super::table;

/// List, add, change and revoke the clients that gateways sign as.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy client list   --config cmiot-proxy.toml
  cmiot-proxy client add    --config cmiot-proxy.toml GW0002 --group fleet --rate 5
  cmiot-proxy client rotate --config cmiot-proxy.toml GW0002            # both passwords are valid now
  cmiot-proxy client rotate --config cmiot-proxy.toml GW0002 --finish   # only the new one is
  cmiot-proxy client revoke --config cmiot-proxy.toml GW0002
  cmiot-proxy client import --config cmiot-proxy.toml --from fleet.csv

After an edit the running proxy reloads. Exit code 0: the edit is in effect, or no proxy runs and it takes effect at the
next start; 1: nothing was changed, or the proxy refuses its configuration; 3: the list is changed, and it is unknown
whether the proxy uses it. Messages go to standard error.")]
pub(super) struct ClientCommand {
    #[command(subcommand)]
    what: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show all clients, without passwords
    List {
        #[command(flatten)]
        config: FileArg,
        /// Print the table at its full width instead of at most 100 columns
        #[arg(long)]
        wide: bool,
    },
    /// Add a client with a new password, which is printed
    Add {
        #[command(flatten)]
        config: ConfigArg,
        /// The appid that it will sign with
        appid: String,
        /// The group whose accounts answer it
        #[arg(long)]
        group: String,
        /// Limit its lookups per second, on average
        #[arg(long)]
        rate: Option<u32>,
        /// Restrict it to cards with this prefix; may be given several times
        #[arg(long)]
        cards: Vec<String>,
        /// Accept it only from this network; may be given several times
        #[arg(long)]
        peers: Vec<String>,
    },
    /// Give a client a new password; the old one stays valid until --finish
    Rotate {
        #[command(flatten)]
        config: ConfigArg,
        /// The client's appid
        appid: String,
        /// End a rotation: only the newer password is valid from now on
        #[arg(long)]
        finish: bool,
    },
    /// Refuse an appid from now on, listed or derived
    Revoke {
        #[command(flatten)]
        config: ConfigArg,
        /// The appid to refuse
        appid: String,
    },
    /// Add all clients of a .csv or .toml file
    Import {
        #[command(flatten)]
        config: ConfigArg,
        /// The file to read
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
}

#[derive(clap::Args)]
struct FileArg {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// The configuration whose lists are edited, and the connection to the proxy that is to load them.
#[derive(clap::Args)]
struct ConfigArg {
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    at: AdminArgs,
}

impl ConfigArg {
    fn edit(&self) -> anyhow::Result<ClientsFileEditor> {
        Ok(ClientsFileEditor::open(&self.file.config)?)
    }
}

impl ClientCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (edit, revoked, at) = match self.what {
            Command::List { config, wide } => {
                list(&config, wide)?;
                return Ok(ExitCode::SUCCESS);
            }
            Command::Add { config, appid, group, rate, cards, peers } => {
                let edit = config.edit()?;
                if edit.clients()?.iter().any(|client| client.appid == appid) {
                    bail!("{appid} is in the list already: `client rotate` gives it a new password");
                }
                let password = password()?;
                let listed = |items: Vec<String>| (!items.is_empty()).then(|| items.join(" "));
                let changes: [Change<'_>; 5] = [
                    ("group", Some(group)),
                    ("password", Some(password.clone())),
                    ("rate", rate.map(|rate| rate.to_string())),
                    ("cards", listed(cards)),
                    ("peers", listed(peers)),
                ];
                edit.set(&appid, &changes)?;
                out!("{password}");
                (edit, false, config.at)
            }
            Command::Rotate { config, appid, finish } => {
                let edit = config.edit()?;
                rotate(&edit, &appid, finish)?;
                (edit, false, config.at)
            }
            Command::Revoke { config, appid } => {
                let edit = config.edit()?;
                edit.revoke(&appid)?;
                (edit, true, config.at)
            }
            Command::Import { config, from } => {
                let edit = config.edit()?;
                let added = edit.import(&from)?;
                super::warn(&format!("{added} clients added"));
                (edit, false, config.at)
            }
        };
        let [clients, revocations] = edit.lists();
        let list = if revoked { revocations } else { clients };
        // Ended first, so that another edit need not wait for the proxy's reload.
        settle::settle(&edit.close(), &at, &list.context("a list that was edited")?)
    }
}

fn list(config: &FileArg, wide: bool) -> anyhow::Result<()> {
    let (config, _) = Config::load(&config.config)?;
    let mut table = table::new(wide);
    table.set_header(["appid", "group", "rate", "replay", "passwords", "state"]);
    table::wrap_only(&mut table, &["appid", "group"]);
    let mut clients: Vec<_> = config.clients.values().collect();
    clients.sort_by_key(|client| client.appid);
    for client in clients {
        let rights = &client.permissions;
        let rate = rights.rate.map_or("-".to_owned(), |rate| rate.per_second.to_string());
        let passwords = if client.previous.is_some() { "2, rotating" } else { "1" };
        let state = if config.revoked.contains(&client.appid) { "revoked" } else { "valid" };
        let appid = client.appid.as_str();
        let mode = format!("{:?}", rights.replay).to_lowercase();
        table.add_row([appid, &client.group, &rate, &mode, passwords, state]);
    }
    for derived in &config.derived {
        let appid = format!("{}*", derived.prefix);
        let epoch = format!("of epoch {}", derived.epoch);
        table.add_row([appid.as_str(), &derived.group, "-", "-", &epoch, "derived"]);
    }
    out!("{table}");
    Ok(())
}

fn rotate(edit: &ClientsFileEditor, appid: &str, finish: bool) -> anyhow::Result<()> {
    let clients = edit.clients()?;
    let client = clients.iter().find(|client| client.appid == appid);
    let client = client.with_context(|| format!("{appid} is not in the clients file"))?;
    if finish {
        return Ok(edit.set(appid, &[("previous_password", None)])?);
    }
    let Some(current) = &client.password else {
        bail!("{appid}: its password is in a file or variable of its own: change it there");
    };
    if client.previous_password.is_some() {
        bail!("{appid}: a rotation is in progress: end it with --finish first");
    }
    let current = std::str::from_utf8(current.expose()).context("a password from a text file")?.to_owned();
    let new = password()?;
    let changes = [("previous_password", Some(current)), ("password", Some(new.clone()))];
    edit.set(appid, &changes)?;
    out!("{new}");
    Ok(())
}

/// 128 bits as hex.
fn password() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok().context("the system gives no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
