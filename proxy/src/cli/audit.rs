//! `cmiot-proxy audit ...`: reads, verifies, exports and maintains the audit. One file per subcommand.
//!
//! All commands work on the folder of the segments, of a running proxy or a copy: `--dir`, or `--config` of the proxy.

mod chart;
mod export;
mod query;
mod retention;
mod stats;
mod time_args;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use cmiot_proxy::config::Config;
use cmiot_proxy::store::audit::month;

pub(super) use self::verify::bar;

/// Read, verify, export and maintain the audit.
#[derive(Args)]
pub(super) struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Verify(verify::Verify),
    Query(query::Query),
    Show(query::Show),
    Changes(query::Changes),
    Stats(stats::Stats),
    Export(export::Export),
    Backup(retention::Backup),
    Prune(retention::Prune),
    Hash(retention::Hash),
    Erase(retention::Erase),
    Acknowledge(retention::Acknowledge),
}

/// The folder of the segments.
#[derive(Args)]
struct Folder {
    /// Folder of the segments: the proxy's own, or a copy
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    dir: Option<PathBuf>,
    /// Configuration of the proxy that owns the folder
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    config: Option<PathBuf>,
}

impl Folder {
    fn path(&self) -> anyhow::Result<PathBuf> {
        let dir = match (&self.dir, &self.config) {
            (Some(dir), _) => dir.clone(),
            (None, Some(config)) => Config::load(config)?.0.store_dir,
            (None, None) => anyhow::bail!("name the folder with --dir, or the configuration with --config"),
        };
        let found = std::fs::metadata(&dir).with_context(|| dir.display().to_string())?;
        anyhow::ensure!(
            found.is_dir(),
            "{}: not a folder; name the folder that holds the segments",
            dir.display()
        );
        Ok(dir)
    }

    /// The folder, for a command that needs a segment.
    fn with_segments(&self) -> anyhow::Result<PathBuf> {
        let dir = self.path()?;
        month::existing(&dir)?;
        Ok(dir)
    }
}

impl Audit {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Verify(verify) => verify.run(),
            Command::Query(query) => query.run(),
            Command::Show(show) => show.run(),
            Command::Changes(changes) => changes.run(),
            Command::Stats(stats) => stats.run(),
            Command::Export(export) => export.run(),
            Command::Backup(backup) => backup.run(),
            Command::Prune(prune) => prune.run(),
            Command::Hash(hash) => hash.run(),
            Command::Erase(erase) => erase.run(),
            Command::Acknowledge(acknowledge) => acknowledge.run(),
        }
    }
}
