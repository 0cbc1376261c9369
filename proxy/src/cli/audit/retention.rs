//! `cmiot-proxy audit backup|prune|hash|erase|acknowledge`: copies, retention, the keys of identities, and losses.

use std::path::PathBuf;
use std::process::ExitCode;

use cmiot_proxy::clock::Clock;
use cmiot_proxy::store::audit::acknowledge;
use cmiot_proxy::store::audit::anchor;
use cmiot_proxy::store::audit::identity::IdentityKey;
use cmiot_proxy::store::audit::month::{self, Month};
use cmiot_proxy::store::audit::retention::{
    LEAST_MONTHS, back_up, clock_ahead_of, erase, keeps_more, prunable, prune,
};
use cmiot_signer::Card;

use super::super::card;
use super::{Folder, time_args};

/// Copy a segment as it is now, while the proxy serves; the copy verifies on its own.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit backup --dir data /mnt/backup/audit-2026-01.db")]
pub(super) struct Backup {
    #[command(flatten)]
    folder: Folder,
    /// The month; by default the newest
    #[arg(long, value_parser = time_args::month)]
    month: Option<Month>,
    /// The file to write, which must not exist; `verify` wants the name audit-YYYY-MM.db
    file: PathBuf,
}

impl Backup {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.with_segments()?;
        let newest = month::existing(&dir)?[0]; // it has one
        let month = self.month.unwrap_or(newest);
        back_up(&dir, month, &self.file)?;
        out!("{month} copied to {}", self.file.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Delete segments older than the last months; what they were stays in the manifest of the later ones.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit prune --config cmiot-proxy.toml --keep 12mo")]
pub(super) struct Prune {
    #[command(flatten)]
    folder: Folder,
    /// How many months stay, this one included; of an audit that has ended, the last one
    #[arg(long, value_name = "12mo", value_parser = months)]
    keep: u32,
    /// Fewer than six too, although network logs must be kept that long in China
    #[arg(long)]
    force: bool,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if self.keep < LEAST_MONTHS && !self.force {
            anyhow::bail!(
                "--keep {}mo: network logs must be kept for {LEAST_MONTHS} months in China; --force deletes them all the same",
                self.keep
            );
        }
        let dir = self.folder.with_segments()?;
        let now = Clock::system().now();
        if let Some(newest) = clock_ahead_of(&dir, now) {
            eprintln!(
                "the clock says {now}, but the newest record is of {newest}: months are counted from that record, so that a \
                 wrong clock deletes nothing"
            );
        }
        let mut failed = None;
        for month in prunable(&dir, self.keep, now)? {
            if self.dry_run {
                out!("{month} would be deleted");
                continue;
            }
            // One month that cannot be deleted keeps none of the others.
            match prune(&dir, month, now) {
                Ok(()) => out!("{month} deleted"),
                Err(error) => {
                    eprintln!("{month} is not deleted whole: {error}");
                    failed.get_or_insert(month);
                }
            }
        }
        match failed {
            Some(month) => anyhow::bail!("{month} is not deleted whole; run the command again"),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

fn months(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("mo").and_then(|number| number.parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| "write months as 12mo".to_owned())
}

/// Print what stands for a card in each month's rows, where they hold hashes.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit hash --dir data 14765004176")]
pub(super) struct Hash {
    #[command(flatten)]
    folder: Folder,
    /// One month only
    #[arg(long, value_parser = time_args::month)]
    month: Option<Month>,
    /// The card
    #[arg(value_parser = card::parse)]
    card: Card,
}

impl Hash {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.with_segments()?;
        let months = match self.month {
            Some(month) => vec![month],
            None => month::list(&dir)?,
        };
        let mut any = false;
        for month in months {
            if let Some(key) = IdentityKey::read(&dir, month)? {
                out!("{month} {} {}", key.id(), key.hash(self.card.kind(), self.card.as_str()));
                any = true;
            }
        }
        if let (Some(month), false) = (self.month, any) {
            month::of_month(&dir, month)?;
        }
        if !any {
            crate::cli::warn("no key: the audit holds cards as they are, or their keys are destroyed");
        }
        Ok(if any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Destroy the key of a month's identities: its cards are nobody's from then on. There is no way back.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit erase --config cmiot-proxy.toml --month 2026-01 --yes")]
pub(super) struct Erase {
    #[command(flatten)]
    folder: Folder,
    /// The month, which must be over
    #[arg(long, value_parser = time_args::month)]
    month: Month,
    /// Yes, for ever; copies of the key elsewhere are yours to find
    #[arg(long, required = true)]
    yes: bool,
}

impl Erase {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (dir, month) = (self.folder.with_segments()?, self.month);
        erase(&dir, month, Clock::system().now())?;
        out!("the key of {month} is destroyed; the audit records it when the proxy next keeps house");
        if keeps_more(&dir, month)? {
            out!(
                "{month} keeps more: rows of an earlier version show the first four and the last three digits of each card, which in a known list may be one card's; to remove them, prune the month"
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Acknowledge that rows of the audit are lost or cannot be read: ends the alarm, and the refusal of requests from that
/// time.
///
/// Before that, find out why they are missing, and restore them from a backup if there is one: `audit verify` names
/// them. The proxy writes the acknowledgement into the audit within seconds, or at its next start. Against anchors that
/// were kept elsewhere the loss stays damage.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit acknowledge --config cmiot-proxy.toml")]
pub(super) struct Acknowledge {
    #[command(flatten)]
    folder: Folder,
}

impl Acknowledge {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.path()?;
        // All segments may be lost; then the folder still has its anchors.
        if !dir.join(anchor::LOG).exists() {
            month::existing(&dir)?;
        }
        let losses = acknowledge(&dir, Clock::system().now())?;
        for loss in &losses {
            out!("acknowledged: {loss}");
        }
        if losses.is_empty() {
            out!("no loss is noted; the acknowledgement is noted all the same");
        }
        Ok(ExitCode::SUCCESS)
    }
}
