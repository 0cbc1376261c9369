//! `cmiot-proxy backup|restore`: all databases of a proxy, into a folder and back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::config::Config;
use cmiot_proxy::store::backup::{About, back_up, restore};

use super::acts;

/// Back up all databases of a proxy into a new folder, while the proxy serves.
///
/// The folder contains cache.db, state.db, all segments of the audit, its anchors, and manifest.json with the hash of each
/// file. It gets its name when it is complete: an interrupted backup leaves DIR.part, which the next run replaces. It holds
/// card numbers and, with --keys, private keys: protect it as you protect the folder of the proxy. It does not contain the
/// configuration, the files that the configuration names, or the token of the admin listener.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  cmiot-proxy backup /mnt/backup/$(date +%F) --config /etc/cmiot-proxy/cmiot-proxy.toml"
)]
pub(super) struct Backup {
    /// Folder to write, which must not exist or be empty
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// Configuration of the proxy
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Include the private keys: that of the audit's anchors, and the identity keys of the months. `audit erase` does not
    /// find them in a backup
    #[arg(long)]
    keys: bool,
}

impl Backup {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = Config::load(&self.config)?;
        let done = back_up(&config.store_dir, &self.to, &about(&config, Clock::system().now()), self.keys)?;
        let manifest = &done.manifest;
        let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let keys = match self.keys {
            true => said!("with the private keys", "含私钥"),
            false => said!("without the private keys", "不含私钥"),
        };
        say!(
            "{to}: {files} files, {size} MiB, {keys}",
            "{to}：{files} 个文件，{size} MiB，{keys}",
            to = self.to.display(),
            files = manifest.files.len(),
            size = bytes.div_ceil(1 << 20)
        );
        if let Some(head) = &manifest.head {
            say!(
                "the audit ends at row {last} of {segment}, head {head}",
                "审计止于 {segment} 第 {last} 行，链头 {head}",
                last = head.last,
                segment = head.segment,
                head = head.head
            );
        }
        if let Some(error) = done.without_cache {
            super::warn(&said!(
                "without cache.db, which the proxy creates again: {error}",
                "不含 cache.db，代理会重新创建它：{error}"
            ));
        }
        if let Some(error) = done.not_noted {
            super::warn(&said!("not recorded in the audit: {error}", "没有记入审计：{error}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Restore a backup into the empty folder of a proxy that does not run.
///
/// Refuses, before it writes anything: a backup that is incomplete, altered, made by a later version or for other accounts;
/// a folder that is in use or not empty (keys that belong to the backup may be there); a clock that is earlier than the
/// backup. Carrier transids then start above all that can have been used; the cached responses are stale; requests stamped
/// before the restore are refused (code 7), since the lost records may include them, and an alarm says so until `audit
/// acknowledge`. Run it as the proxy's user, or as root over a folder that belongs to the proxy's user. Never run the
/// original and the restored proxy at the same time.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  cmiot-proxy restore /mnt/backup/2026-01-15 --config /etc/cmiot-proxy/cmiot-proxy.toml"
)]
pub(super) struct Restore {
    /// Folder of the backup
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// Configuration of the proxy, with the folder to restore into
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl Restore {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (config, _) = Config::load(&self.config)?;
        let clock = Clock::system();
        let about = about(&config, clock.now());
        let done = restore(&self.from, &config.store_dir, config.audit.group, &about, &clock)?;
        let floor = Time::from_secs(i64::try_from(done.floor).unwrap_or(i64::MAX));
        say!(
            "restored to {dir} the backup of {time}",
            "已把 {time} 的备份恢复到 {dir}",
            dir = config.store_dir.display(),
            time = done.manifest.time
        );
        say!("carrier transids continue at {floor}", "运营商事务编码从 {floor} 继续");
        say!(
            "requests with a stamp before {through} plus the widest clock_skew are refused with code 7, until `cmiot-proxy audit \
             acknowledge`: the lost records may include them",
            "时间早于 {through} 加最大 clock_skew 的请求以返回码 7 被拒绝，直到运行 `cmiot-proxy audit acknowledge`：丢失的记录\
             可能包含它们",
            through = done.through
        );
        // A restore of the same backup in this second would choose the same transids again.
        std::thread::sleep(Duration::from_secs(1));
        Ok(ExitCode::SUCCESS)
    }
}

/// This program and this configuration.
fn about(config: &Config, now: Time) -> About {
    let mut accounts: Vec<_> = config.accounts().map(|account| account.appid.to_string()).collect();
    accounts.sort_unstable();
    accounts.dedup();
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        accounts,
        node: config.carrier.node,
        by: acts::who(),
        now,
    }
}
