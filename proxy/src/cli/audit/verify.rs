//! `cmiot-proxy audit verify`: whether the audit is as it was written.

use std::path::PathBuf;
use std::process::ExitCode;

use cmiot_proxy::clock::Time;
use cmiot_proxy::store::audit::anchor::{Anchor, PublicKey};
use cmiot_proxy::store::audit::segment::Month;
use cmiot_proxy::store::audit::verify::{Damage, Report, Scope, verify};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Folder, span};

/// Verify the chain: every row of every batch, links, manifests, indexes, views.
///
/// A tail that was cut off shows only against anchors that were kept on another machine: --anchors, and --public-key to
/// tell that they are the proxy's. Exits 1 on damage, and names the first bad batch of each segment.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy audit verify --config cmiot-proxy.toml
  cmiot-proxy audit verify --dir /mnt/copy --anchors anchors.log --public-key 5f1c...")]
pub(super) struct Verify {
    #[command(flatten)]
    folder: Folder,
    /// First month, such as 2026-01
    #[arg(long, value_parser = span::month)]
    from: Option<Month>,
    /// Last month
    #[arg(long, value_parser = span::month)]
    to: Option<Month>,
    /// Anchors that were kept elsewhere: anchors.log, or a log that has its lines
    #[arg(long, value_name = "FILE")]
    anchors: Option<PathBuf>,
    /// The key that signs them: 64 hex digits, as in audit-anchor.pub
    #[arg(long, value_name = "HEX", requires = "anchors")]
    public_key: Option<String>,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.path()?;
        let anchors = self.anchors.as_deref().map(Anchor::read_all).transpose()?;
        let key = match &self.public_key {
            Some(text) => {
                Some(PublicKey::parse(text).ok_or_else(|| anyhow::anyhow!("--public-key: 64 hex digits"))?)
            }
            None => None,
        };
        let scope = Scope {
            from: self.from,
            to: self.to,
            anchors: anchors.as_deref().unwrap_or_default(),
            public_key: key.as_ref(),
        };
        let bar = bar();
        let report = verify(&dir, &scope, |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        self.tell(&report)?;
        Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn tell(&self, report: &Report) -> anyhow::Result<()> {
        for pruned in &report.pruned {
            let (since, until) = (Time::from_micros(pruned.since), Time::from_micros(pruned.until));
            out!("{}: not here; its manifest: {} rows, {since} to {until}", pruned.month, pruned.count);
        }
        for Damage { segment, batch, what } in &report.damage {
            match batch {
                Some(batch) => out!(
                    "DAMAGE {segment}: batch of rows {} to {} from {}: {what}",
                    batch.first,
                    batch.last,
                    Time::from_micros(batch.begins)
                ),
                None => out!("DAMAGE {segment}: {what}"),
            }
        }
        match (&self.anchors, &self.public_key) {
            (None, _) => out!("the tail is not checkable without --anchors that were kept elsewhere"),
            (Some(_), None) => {
                out!("{} anchors compared; whose they are is not known without --public-key", report.anchors);
            }
            (Some(_), Some(_)) => out!("{} anchors compared, all signed by the key", report.anchors),
        }
        if let Some((last, head)) = &report.head {
            out!("head: row {last}, {head}");
        }
        let verdict = if report.damage.is_empty() { "ok" } else { "DAMAGED" };
        out!(
            "{} segments, {} batches, {} rows: chain {verdict}",
            report.segments.len(),
            report.batches,
            report.rows
        );
        Ok(())
    }
}

/// On standard error, where that is a terminal.
pub(super) fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} rows, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
