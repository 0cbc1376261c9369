//! `cmiot-proxy audit backup|prune|hash|erase|acknowledge`: copies, retention, identity keys, losses.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use cmiot_proxy::clock::Clock;
use cmiot_proxy::printable::escape;
use cmiot_proxy::store::audit::anchor;
use cmiot_proxy::store::audit::identity::IdentityKey;
use cmiot_proxy::store::audit::month::{self, Month};
use cmiot_proxy::store::audit::retention::{
    LEAST_MONTHS, back_up, clock_ahead_of, erase, keeps_more, prunable, prune,
};
use cmiot_proxy::store::audit::{acknowledge, shown_hash};

use super::super::acts;
use super::super::card::{self, CardArg};
use super::super::shown_path;
use super::{Folder, time_args};

/// Copy a segment in its present state, while the proxy serves; the copy verifies on its own.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit backup --dir data /mnt/backup/audit-2026-01.db")]
pub(super) struct Backup {
    #[command(flatten)]
    folder: Folder,
    /// Month; by default the newest
    #[arg(long, value_parser = time_args::month)]
    month: Option<Month>,
    /// File to write, which must not exist; `verify` requires the name audit-YYYY-MM.db
    file: PathBuf,
}

impl Backup {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.with_segments()?;
        let newest = month::existing(&dir)?[0]; // it has one
        let month = self.month.unwrap_or(newest);
        back_up(&dir, month, &self.file)?;
        acts::note(&dir, "backup", &format!("month={month} file={}", self.file.display()));
        say!("{month} copied to {file}", "{month} 已复制到 {file}", file = shown_path(&self.file));
        Ok(ExitCode::SUCCESS)
    }
}

/// Delete segments older than the last months; they stay in the manifest of the later ones.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit prune --config cmiot-proxy.toml --keep 12mo")]
pub(super) struct Prune {
    #[command(flatten)]
    folder: Folder,
    /// Number of months to keep, this one included; if no record is that new, counted from the newest record
    #[arg(long, value_name = "12mo", value_parser = months)]
    keep: u32,
    /// Allow fewer than six months (Chinese law requires six)
    #[arg(long)]
    force: bool,
    /// Print the months that would be deleted, without deleting them
    #[arg(long)]
    dry_run: bool,
}

impl Prune {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if self.keep < LEAST_MONTHS && !self.force {
            anyhow::bail!(
                "--keep {}mo: network logs must be kept for {LEAST_MONTHS} months in China; --force deletes them anyway",
                self.keep
            );
        }
        let dir = self.folder.with_segments()?;
        let now = Clock::system().now();
        if let Some(newest) = clock_ahead_of(&dir, now) {
            crate::cli::warn(&said!(
                "the clock says {now}, but the newest record is of {newest}: months are counted from that record, so that a \
                 wrong clock deletes nothing",
                "时钟为 {now}，而最新记录为 {newest}：月份从该记录起算，以免错误的时钟导致删除"
            ));
        }
        let mut failed = None;
        for month in prunable(&dir, self.keep, now)? {
            if self.dry_run {
                say!("{month} would be deleted", "{month} 将被删除");
                continue;
            }
            // A month that cannot be deleted does not stop the others.
            match prune(&dir, month, &acts::who(), now) {
                Ok(()) => say!("{month} deleted", "{month} 已删除"),
                Err(error) => {
                    crate::cli::warn(&said!(
                        "{month} is not completely deleted: {error}",
                        "{month} 没有完全删除：{error}"
                    ));
                    failed.get_or_insert(month);
                }
            }
        }
        match failed {
            Some(month) => anyhow::bail!(said!(
                "{month} is not completely deleted; run the command again",
                "{month} 没有完全删除；请再次运行此命令"
            )),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

fn months(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("mo").and_then(|number| number.parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| "write months as 12mo".to_owned())
}

/// Print the hash of a card or of a reply's body in each month, where the audit holds hashes with a key.
///
/// Of a body, the first line is its hash in months without a key. Rows of the view carrier_call with one of these texts in
/// the column body are calls that the carrier answered with this very body.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cmiot-proxy audit hash --dir data 14765004176\n  cmiot-proxy audit hash --dir data --body reply.json"
)]
pub(super) struct Hash {
    #[command(flatten)]
    folder: Folder,
    /// Only this month
    #[arg(long, value_parser = time_args::month)]
    month: Option<Month>,
    /// Card; - reads it from standard input
    #[arg(value_parser = card::argument, required_unless_present = "body", conflicts_with = "body")]
    card: Option<CardArg>,
    /// File with the body of a carrier's reply, byte for byte; - reads it from standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

impl Hash {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.with_segments()?;
        let months = match self.month {
            Some(month) => vec![month],
            None => month::list(&dir)?,
        };
        let hash_of: Box<dyn Fn(&IdentityKey) -> String> = match (&self.card, &self.body) {
            (Some(card), _) => {
                let card = card.read()?;
                Box::new(move |key| key.hash(card.kind(), card.as_str()))
            }
            (None, Some(file)) => {
                let body = read_body(file)?;
                out!("{}", shown_hash(&body, None));
                Box::new(move |key| shown_hash(&body, Some(key)))
            }
            (None, None) => anyhow::bail!("name a card, or a file with --body"),
        };
        let mut any = false;
        for month in months {
            if let Some(key) = IdentityKey::read(&dir, month)? {
                out!("{month} {} {}", key.id(), hash_of(&key));
                any = true;
            }
        }
        if let (Some(month), false) = (self.month, any) {
            month::of_month(&dir, month)?;
        }
        if !any && self.body.is_none() {
            crate::cli::warn(&said!(
                "no key: the audit holds cards as they are, or their keys are destroyed",
                "没有密钥：审计中的卡号未作散列，或其密钥已销毁"
            ));
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The bytes of a body.
fn read_body(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut body))
    };
    read.with_context(|| shown_path(file))?;
    Ok(body)
}

/// Destroy the identity key of a month: its card hashes can no longer be linked to cards. Irreversible.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit erase --config cmiot-proxy.toml --month 2026-01 --yes")]
pub(super) struct Erase {
    #[command(flatten)]
    folder: Folder,
    /// Month, which must have ended
    #[arg(long, value_parser = time_args::month)]
    month: Month,
    /// Confirm: this is irreversible. Copies of the key elsewhere are not removed
    #[arg(long, required = true)]
    yes: bool,
}

impl Erase {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (dir, month) = (self.folder.with_segments()?, self.month);
        erase(&dir, month, &acts::who(), Clock::system().now())?;
        say!(
            "the key of {month} is destroyed; the proxy records it within seconds, or at its next start",
            "{month} 的密钥已销毁；代理在几秒内或下次启动时记录此事"
        );
        let kept = keeps_more(&dir, month)?;
        if kept.all {
            say!(
                "{month} keeps more: rows from before the change to identifiers = \"keyed\" have whole card numbers, and the replies of the carrier if they were kept; to remove them, prune the month",
                "{month} 还留有信息：改为 identifiers = \"keyed\" 之前的记录含有完整卡号，以及当时保存的运营商应答；如需清除，请删除（prune）该月"
            );
        }
        if kept.last {
            say!(
                "{month} keeps more: rows of an earlier version show the first four and the last three digits of each card, which in a known list may be one card's; to remove them, prune the month",
                "{month} 还留有信息：早期版本的记录显示每个卡号的前四位和后三位，在已知名单中可能对应唯一一张卡；如需清除，请删除（prune）该月"
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Acknowledge that rows of the audit are lost or cannot be read: ends the alarm, and the refusal of requests from that
/// time.
///
/// First find out why they are missing, and restore them from a backup if there is one: `audit verify` names them. The
/// proxy writes the acknowledgement into the audit within seconds, or at its next start. Against anchors that were kept
/// elsewhere the loss stays damage.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy audit acknowledge --config cmiot-proxy.toml")]
pub(super) struct Acknowledge {
    #[command(flatten)]
    folder: Folder,
}

impl Acknowledge {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.path()?;
        // All segments may be lost; the folder then still has its anchors.
        if !dir.join(anchor::LOG).exists() {
            month::existing(&dir)?;
        }
        let losses = acknowledge(&dir, &acts::who(), Clock::system().now())?;
        for loss in &losses {
            say!("acknowledged: {loss}", "已确认：{loss}", loss = escape(loss));
        }
        if losses.is_empty() {
            say!("no loss is noted; the acknowledgement is noted anyway", "没有记录的丢失；仍然记下这次确认");
        }
        Ok(ExitCode::SUCCESS)
    }
}
