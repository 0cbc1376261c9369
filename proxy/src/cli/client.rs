//! `cmiot-proxy client`: edits the clients file and the list of revoked appids.
//!
//! After an edit the command makes the running proxy reload, and reports the result (`settle.rs`). New passwords are made
//! here, printed once, and stored in the file.

mod keys;
mod list;
mod settle;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use cmiot_proxy::config::Config;
use cmiot_proxy::config::edit::{ClientsFileEditor, Existing};
use ring::rand::{SecureRandom, SystemRandom};

use super::acts;
use super::admin_client::AdminArgs;
use keys::{Changes, Keys};

/// List, add, change, revoke and remove the clients that gateways sign as.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy client list     --config cmiot-proxy.toml --group fleet --format csv
  cmiot-proxy client add      --config cmiot-proxy.toml GW0002 --group fleet --rate 5 --if-absent
  cmiot-proxy client set      --config cmiot-proxy.toml GW0002 --rate 10 --cards 1064 --unset peers
  cmiot-proxy client rotate   --config cmiot-proxy.toml GW0002            # both passwords are valid now
  cmiot-proxy client rotate   --config cmiot-proxy.toml GW0002 --finish   # only the new one is
  cmiot-proxy client revoke   --config cmiot-proxy.toml GW0002
  cmiot-proxy client unrevoke --config cmiot-proxy.toml GW0002
  cmiot-proxy client remove   --config cmiot-proxy.toml GW0002
  cmiot-proxy client import   --config cmiot-proxy.toml --from fleet.csv --skip-existing

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
        /// Show the clients of this group only
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// Output format
        #[arg(long, value_enum, default_value = "table")]
        format: list::Format,
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
        #[command(flatten)]
        keys: Keys,
        /// Change nothing, and succeed, if there is a client of this appid already
        #[arg(long)]
        if_absent: bool,
    },
    /// Change the appid, group, limits or permissions of a client; a list replaces the previous one
    Set {
        #[command(flatten)]
        config: ConfigArg,
        /// The client's appid
        appid: String,
        #[command(flatten)]
        changes: Changes,
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
    /// Accept a revoked appid again
    Unrevoke {
        #[command(flatten)]
        config: ConfigArg,
        /// The appid to accept
        appid: String,
    },
    /// Remove a client from the list, with its password
    Remove {
        #[command(flatten)]
        config: ConfigArg,
        /// The client's appid
        appid: String,
    },
    /// Add all clients of a .csv or .toml file; none if one is wrong or known already
    Import {
        #[command(flatten)]
        config: ConfigArg,
        /// The file to read
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Leave clients as they are whose appids are known already
        #[arg(long, conflicts_with = "replace")]
        skip_existing: bool,
        /// Replace clients of the list that the file has too, passwords included; clients that it does not have stay
        #[arg(long)]
        replace: bool,
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
        let mut act = self.what.act();
        let (edit, revocations_changed, at) = match self.what {
            Command::List { config, group, format, wide } => {
                let (config, _) = Config::load(&config.config)?;
                list::list(&config, group.as_deref(), format, wide)?;
                return Ok(ExitCode::SUCCESS);
            }
            Command::Add { config, appid, group, keys, if_absent } => {
                let edit = config.edit()?;
                if !add(&edit, &appid, group, keys, if_absent)? {
                    act = None;
                }
                (edit, false, config.at)
            }
            Command::Set { config, appid, changes } => {
                let changes = changes.changes()?;
                let edit = config.edit()?;
                if !edit.clients()?.iter().any(|client| client.appid == appid) {
                    return Err(edit.not_listed(&appid).into());
                }
                edit.set(&appid, &changes)?;
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
            Command::Unrevoke { config, appid } => {
                let edit = config.edit()?;
                edit.unrevoke(&appid)?;
                (edit, true, config.at)
            }
            Command::Remove { config, appid } => {
                let edit = config.edit()?;
                edit.remove(&appid)?;
                if edit.is_revoked(&appid) {
                    super::warn(&said!(
                        "{appid} is still in the list of revoked appids",
                        "{appid} 仍在吊销名单中"
                    ));
                }
                (edit, false, config.at)
            }
            Command::Import { config, from, skip_existing, replace } => {
                let edit = config.edit()?;
                let existing = match (skip_existing, replace) {
                    (true, _) => Existing::Skip,
                    (_, true) => Existing::Replace,
                    _ => Existing::Refuse,
                };
                let done = edit.import(&from, existing)?;
                let (added, skipped, replaced) = (done.added, done.skipped, done.replaced);
                if added + replaced == 0 {
                    act = None;
                }
                super::warn(&match existing {
                    Existing::Refuse => said!("{added} clients added", "已添加 {added} 个客户端"),
                    Existing::Skip => said!(
                        "{added} clients added, {skipped} skipped",
                        "已添加 {added} 个客户端，跳过 {skipped} 个"
                    ),
                    Existing::Replace => said!(
                        "{added} clients added, {replaced} replaced",
                        "已添加 {added} 个客户端，替换 {replaced} 个"
                    ),
                });
                (edit, false, config.at)
            }
        };
        let [clients, revocations] = edit.lists();
        let list = if revocations_changed { revocations } else { clients };
        let list = list.context("a list that was edited")?;
        // Ended first, so that another edit need not wait for the proxy's reload.
        let config = edit.close();
        if let Some(act) = act {
            acts::note(&config.store_dir, "clients", &act);
        }
        settle::settle(&config, &at, &list)
    }
}

impl Command {
    /// The change, for the note in the audit.
    fn act(&self) -> Option<String> {
        match self {
            Self::List { .. } => None,
            Self::Add { appid, .. } => Some(format!("add={appid}")),
            Self::Rotate { appid, finish, .. } => {
                Some(format!("rotate={appid}{}", if *finish { " finish" } else { "" }))
            }
            Self::Set { appid, .. } => Some(format!("set={appid}")),
            Self::Revoke { appid, .. } => Some(format!("revoke={appid}")),
            Self::Unrevoke { appid, .. } => Some(format!("unrevoke={appid}")),
            Self::Remove { appid, .. } => Some(format!("remove={appid}")),
            Self::Import { from, .. } => Some(format!("import={}", from.display())),
        }
    }
}

/// Returns whether the client was added.
fn add(
    edit: &ClientsFileEditor,
    appid: &str,
    group: String,
    keys: Keys,
    if_absent: bool,
) -> anyhow::Result<bool> {
    let is_listed = edit.clients()?.iter().any(|client| client.appid == appid);
    if if_absent && (is_listed || edit.has(appid)) {
        super::warn(&said!(
            "{appid} is a client already: nothing is changed",
            "{appid} 已是客户端：没有任何改动"
        ));
        return Ok(false);
    }
    if is_listed {
        bail!(
            "{appid} is in the list already: `client rotate` gives it a new password, `client set` changes the rest"
        );
    }
    let password = password()?;
    let mut changes = vec![("group", Some(group)), ("password", Some(password.clone()))];
    changes.extend(keys.changes());
    edit.set(appid, &changes)?;
    out!("{password}");
    Ok(true)
}

fn rotate(edit: &ClientsFileEditor, appid: &str, finish: bool) -> anyhow::Result<()> {
    let clients = edit.clients()?;
    let client = clients.iter().find(|client| client.appid == appid);
    let Some(client) = client else { return Err(edit.not_listed(appid).into()) };
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
