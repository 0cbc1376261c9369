//! `cmiot-proxy audit verify`: checks that the audit is as it was written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cmiot_proxy::clock::Time;
use cmiot_proxy::printable::escape;
use cmiot_proxy::store::audit::anchor::{self, Anchor, PublicKey};
use cmiot_proxy::store::audit::month::Month;
use cmiot_proxy::store::audit::verify::{Damage, Report, Scope, verify};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Folder, time_args};

/// The most lines of a segment's damage outside of batches; more is counted.
const MOST_LINES: usize = 10;
/// The most lines for a segment's first damaged batch.
const MOST_REASONS: usize = 3;

/// Verify the audit: every row of every batch, links, manifests, indexes, the schema, and the chain against anchors.
///
/// The chain has no key: a person who can write the files can hash them again, truncate or remove them. Only anchors
/// that were kept on another machine show that: --anchors, and --public-key to check who signed them. Without --anchors
/// the folder's own anchors.log is compared, which the owner of the folder could have written too.
///
/// Exits 0 when everything in scope is as it was written. Exits 1 on damage, when no segment is in scope, and when
/// --anchors has no anchor of a segment in scope. Names the first damaged batch of each segment and counts the others.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy audit verify --config cmiot-proxy.toml
  cmiot-proxy audit verify --dir /mnt/copy --anchors anchors.log --public-key 5f1c...
  journalctl -u cmiot-proxy -o json > journal.json
  cmiot-proxy audit verify --dir /mnt/copy --anchors journal.json --public-key 5f1c...")]
pub(super) struct Verify {
    #[command(flatten)]
    folder: Folder,
    /// First month, such as 2026-01
    #[arg(long, value_parser = time_args::month)]
    from: Option<Month>,
    /// Last month
    #[arg(long, value_parser = time_args::month)]
    to: Option<Month>,
    /// Anchors that were kept elsewhere: anchors.log, the proxy's text or JSON log, or `journalctl` output (-o json too)
    #[arg(long, value_name = "FILE", num_args = 1..)]
    anchors: Vec<PathBuf>,
    /// Key that signed the anchors: 64 hex digits, as in audit-anchor.pub; repeat the option for each key if it was
    /// changed
    #[arg(long, value_name = "HEX")]
    public_key: Vec<String>,
}

/// The anchors to compare the chain with.
struct Anchors {
    all: Vec<Anchor>,
    /// Whether they are the folder's own.
    own: bool,
    keys: Vec<PublicKey>,
}

impl Verify {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let dir = self.folder.path()?;
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from > to
        {
            anyhow::bail!("--from {from} is after --to {to}");
        }
        // Read before the segments: a later anchor would name rows that are not read.
        let anchors = self.anchors(&dir)?;
        let scope = Scope {
            from: self.from,
            to: self.to,
            anchors: &anchors.all,
            own_anchors: anchors.own,
            public_keys: &anchors.keys,
        };
        let bar = bar();
        let report = verify(&dir, &scope, |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        say_damage(&report)?;
        say_anchors(&report, &anchors)?;
        let whole = verdict(&report, &anchors)?;
        Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn anchors(&self, dir: &Path) -> anyhow::Result<Anchors> {
        let key = |text: &String| {
            PublicKey::parse(text)
                .ok_or_else(|| anyhow::anyhow!("--public-key {text}: it is not 64 hex digits"))
        };
        let keys = self.public_key.iter().map(key).collect::<anyhow::Result<_>>()?;
        let own = self.anchors.is_empty();
        let files = if own { vec![dir.join(anchor::LOG)] } else { self.anchors.clone() };
        let mut all = Vec::new();
        for file in files {
            if own && !file.exists() {
                continue;
            }
            let lines = anchor::read(&file)?;
            lines.warnings.iter().for_each(|warning| crate::cli::warn(warning));
            all.extend(lines.anchors);
        }
        Ok(Anchors { all, own, keys })
    }
}

fn say_damage(report: &Report) -> anyhow::Result<()> {
    for (pruned, at) in &report.pruned {
        let (since, until) = (Time::from_micros(pruned.since), Time::from_micros(pruned.until));
        let (month, count) = (escape(&pruned.month), pruned.count);
        say!(
            "{month}: not here; its manifest: {count} rows, {since} to {until}; pruned, as noted at {at}",
            "{month}：不在此处；其清单：{count} 行，{since} 至 {until}；已删除（prune），记录于 {at}"
        );
    }
    for loss in &report.losses {
        say!("LOST {loss}", "丢失 {loss}", loss = escape(loss));
    }
    let mut segments: BTreeMap<Month, Vec<&Damage>> = BTreeMap::new();
    for damage in &report.damage {
        segments.entry(damage.segment).or_default().push(damage);
    }
    for (segment, all) in segments {
        let (batches, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|damage| damage.batch.is_some());
        for damage in others.iter().take(MOST_LINES) {
            say!("DAMAGE {segment}: {what}", "损坏 {segment}：{what}", what = escape(&damage.what));
        }
        if let Some(more) = others.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
            say!("DAMAGE {segment}: {more} more", "损坏 {segment}：另有 {more} 处");
        }
        let first = batches.iter().filter_map(|damage| damage.batch).min_by_key(|batch| batch.last);
        let Some(first) = first else { continue };
        for damage in batches.iter().filter(|damage| damage.batch == Some(first)).take(MOST_REASONS) {
            say!(
                "DAMAGE {segment}: batch of rows {from} to {to} from {begins}: {what}",
                "损坏 {segment}：第 {from} 至 {to} 行的批次，始于 {begins}：{what}",
                from = first.first,
                to = first.last,
                begins = Time::from_micros(first.begins),
                what = escape(&damage.what)
            );
        }
        let mut more: Vec<i64> =
            batches.iter().filter_map(|damage| damage.batch.map(|batch| batch.last)).collect();
        more.sort_unstable();
        more.dedup();
        if more.len() > 1 {
            let more = more.len() - 1;
            say!("DAMAGE {segment}: {more} more batches", "损坏 {segment}：另有 {more} 个批次");
        }
    }
    Ok(())
}

fn say_anchors(report: &Report, anchors: &Anchors) -> anyhow::Result<()> {
    let compared = report.anchors;
    if compared == 0 {
        if anchors.own {
            say!(
                "no anchors: tail and origin not shown; the chain has no key, so a person who can write the files can hash them again",
                "没有锚点：无法证明末尾和来源；哈希链不含密钥，能写入这些文件的人可以重新计算"
            );
        } else {
            say!(
                "no anchor of a segment in scope: the chain is compared with none",
                "范围内的分段没有锚点：哈希链没有与任何锚点比对"
            );
        }
        return Ok(());
    }
    let signed = match anchors.keys.is_empty() {
        true => {
            said!("who signed them is not checked without --public-key", "没有 --public-key 时不检查由谁签名")
        }
        false => said!("signed by the key", "均由该密钥签名"),
    };
    if anchors.own {
        say!(
            "{compared} anchors of the folder itself compared, {signed}: the owner of the folder could have written both; --anchors compares with what was kept elsewhere",
            "已比对目录自身的 {compared} 个锚点，{signed}：目录的所有者可以同时改写两者；--anchors 与保存在别处的锚点比对"
        );
    } else {
        say!("{compared} anchors compared, {signed}", "已比对 {compared} 个锚点，{signed}");
    }
    match (&report.confirmed, &report.head) {
        (Some((month, row)), Some((last, _))) if row < last && report.damage.is_empty() => {
            say!(
                "rows after {row} of {month} are after the last anchor: a truncation or change of them cannot be detected",
                "{month} 第 {row} 行之后的记录晚于最后一个锚点：对它们的截断或改动无法发现"
            );
        }
        _ => {}
    }
    Ok(())
}

/// Prints the verdict; whether it is good.
fn verdict(report: &Report, anchors: &Anchors) -> anyhow::Result<bool> {
    if let Some((last, head)) = &report.head {
        say!("head: row {last}, {head}", "链头：第 {last} 行，{head}");
    }
    let (verdict, good) = if report.segments.is_empty() && report.damage.is_empty() {
        (said!("nothing verified: no segment in scope", "没有校验任何内容：范围内没有分段"), false)
    } else if !report.damage.is_empty() {
        (said!("chain DAMAGED", "哈希链已损坏"), false)
    } else if !anchors.own && report.anchors == 0 {
        (said!("chain NOT COMPARED with an anchor", "哈希链未与锚点比对"), false)
    } else {
        (said!("chain ok", "哈希链完好"), true)
    };
    let (segments, batches, rows) = (report.segments.len(), report.batches, report.rows);
    say!(
        "{segments} segments, {batches} batches, {rows} rows: {verdict}",
        "{segments} 个分段，{batches} 个批次，{rows} 行：{verdict}"
    );
    Ok(good)
}

/// A progress bar on standard error, if that is a terminal.
pub(in super::super) fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(&said!(
        "{{wide_bar}} {{human_pos}} of {{human_len}} rows, {{eta}} left",
        "{{wide_bar}} 第 {{human_pos}} 行，共 {{human_len}} 行，剩余 {{eta}}"
    ));
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
