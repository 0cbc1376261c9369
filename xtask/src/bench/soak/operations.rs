//! The work of operators while the proxy serves: reloads, purges, views of the cache, verification and export.
//!
//! Commands have the proxy's processor at the lowest priority. Those that read the whole audit take longer as it grows,
//! so they have a thread of their own, and a rest after each of them, in which the WAL must become short again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::super::peers::CARDS;
use super::super::servers::{SERVER_PROCESSOR, Server, config};
use super::FIRST_CARD;
use super::samples::{segment, wal_bytes};
use crate::run::{Run, root, write_private};

/// The setting that reloads change, and its other value.
pub(super) const FIRST_SETTING: &str = "carrier.queue_timeout = \"5s\"";
const OTHER_SETTING: &str = "carrier.queue_timeout = \"6s\"";

/// Pause between two operations of a thread, and rest of the WAL after an operation on the audit.
const PAUSE: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(10);

/// The length of a WAL that no reader keeps long, with a margin, and the longest wait for it: then the samples show a
/// longer one.
const SHORT_WAL: u64 = 80 << 20;
const WAIT: Duration = Duration::from_secs(60);

/// Time between two looks at a flag, a counter or a file.
const POLL: Duration = Duration::from_millis(200);

/// Time for a reload.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Operations on a running proxy.
pub(super) struct Operations<'a> {
    process: u32,
    program: PathBuf,
    config: PathBuf,
    data: PathBuf,
    folder: PathBuf,
    admin: SocketAddr,
    stop: &'a AtomicBool,
    /// Set while no command reads the audit.
    is_at_rest: &'a AtomicBool,
    counts: Mutex<BTreeMap<&'static str, Count>>,
}

/// Results of an operation.
#[derive(Clone, Copy, Default)]
struct Count {
    succeeded: u64,
    failed: u64,
}

impl<'a> Operations<'a> {
    /// Operations on this proxy until `stop` is set.
    pub(super) fn new(server: &Server, stop: &'a AtomicBool, is_at_rest: &'a AtomicBool) -> Result<Self> {
        let site = server.site();
        Ok(Self {
            process: server.id(),
            program: site.program.clone(),
            config: config(site),
            data: site.folder.join("data"),
            folder: site.folder.clone(),
            admin: admin(server)?,
            stop,
            is_at_rest,
            counts: Mutex::default(),
        })
    }

    /// Operations that take no longer as the audit grows, in turn.
    pub(super) fn few_seconds(&self) {
        for n in 0.. {
            let card = FIRST_CARD + n * 7 % u64::from(CARDS.count);
            let (card, other) = (card.to_string(), (FIRST_CARD + u64::from(CARDS.count) / 2).to_string());
            match n % 4 {
                0 => self.count("reload", self.reload()),
                1 => self.count("purge of a card", self.cache(&["purge", "--card", &card])),
                2 => self.count("purge of a status", self.cache(&["purge", "--status", "02"])),
                _ => self.count("cache show", self.cache(&["show", &other])),
            }
            if self.ends_within(PAUSE) {
                return;
            }
        }
    }

    /// Verification and export of the whole audit, in turn.
    pub(super) fn audit(&self) {
        for n in 0.. {
            self.is_at_rest.store(false, Ordering::Relaxed);
            match n % 2 {
                0 => self.count("audit verify", self.verify()),
                _ => self.count("audit export", self.export()),
            }
            self.wait_for_short_wal();
            self.is_at_rest.store(true, Ordering::Relaxed);
            if self.ends_within(REST) {
                return;
            }
        }
    }

    /// Verifies the audit after the load.
    pub(super) fn last_verify(&self) {
        self.count("audit verify", self.verify());
    }

    /// Prints the count of each operation; whether all have succeeded, and each was made.
    pub(super) fn print(&self) -> Result<bool> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let words = counts.iter().map(|(name, count)| match count.failed {
            0 => format!("{name} {}", count.succeeded),
            failed => format!("{name} {}, {failed} FAILED", count.succeeded + failed),
        });
        println!("\noperations: {}", words.collect::<Vec<_>>().join("; "));
        let text = self.metrics()?;
        let outcomes = ["hit", "stale", "miss", "collapsed", "refused", "failed"].map(|outcome| {
            format!("{outcome} {}", sum(&text, &format!("cmiot_lookups_total{{outcome=\"{outcome}\"")))
        });
        let calls = sum(&text, "cmiot_carrier_calls_total{");
        println!("outcomes: {}; {calls} carrier calls", outcomes.join(", "));
        Ok(counts.len() == 6 && counts.values().all(|count| count.failed == 0))
    }

    fn count(&self, name: &'static str, result: Result<()>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name).or_default();
        match result {
            Ok(()) => count.succeeded += 1,
            Err(error) => {
                count.failed += 1;
                println!("{name}: {error:#}");
            }
        }
    }

    /// Changes the configuration and sends SIGHUP; expects that the proxy accepts it.
    fn reload(&self) -> Result<()> {
        let accepted = "cmiot_config_reloads_total{result=\"accepted\"";
        let before = sum(&self.metrics()?, accepted);
        let text = fs::read_to_string(&self.config)?;
        let (from, to) = match text.contains(FIRST_SETTING) {
            true => (FIRST_SETTING, OTHER_SETTING),
            false => (OTHER_SETTING, FIRST_SETTING),
        };
        // In one step: the proxy also watches the file.
        let next = self.config.with_extension("next");
        write_private(&next, &text.replace(from, to))?;
        fs::rename(next, &self.config)?;
        Run::new("kill").args(["-s", "HUP", &self.process.to_string()]).output()?;
        for _ in 0..RELOAD_TIMEOUT.as_millis() / POLL.as_millis() {
            let now = self.metrics()?;
            ensure!(sum(&now, "cmiot_config_reloads_total{result=\"refused\"") == 0, "a reload was refused");
            if sum(&now, accepted) > before {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("no reload within {} s", RELOAD_TIMEOUT.as_secs())
    }

    fn cache(&self, words: &[&str]) -> Result<()> {
        let config = self.config.to_string_lossy();
        let all: Vec<&str> = ["cache"].iter().chain(words).copied().chain(["--config", &*config]).collect();
        self.run(&all)
    }

    fn verify(&self) -> Result<()> {
        self.run(&["audit", "verify", "--dir", &self.data.to_string_lossy()])
    }

    /// Exports the newest month, which is all of the soak unless a month begins in it, and removes the files.
    fn export(&self) -> Result<()> {
        let segment = segment(&self.data)?;
        let name = segment.file_stem().unwrap_or_default().to_string_lossy();
        let month = name.strip_prefix("audit-").context("a segment is named for its month")?;
        let folder = self.folder.join("export");
        fs::create_dir_all(&folder)?;
        let file = folder.join("month.parquet");
        let (data, to) = (self.data.to_string_lossy(), file.to_string_lossy());
        let words = ["audit", "export", "--dir", &data, "--month", month, "--format", "parquet", &to];
        let result = self.run(&words);
        fs::remove_dir_all(&folder)?;
        result
    }

    /// Runs a command of the proxy.
    fn run(&self, words: &[&str]) -> Result<()> {
        let output = Command::new("nice")
            .args(["-n", "19", "taskset", "-c", SERVER_PROCESSOR])
            .arg(&self.program)
            .args(words)
            .current_dir(root())
            .output()?;
        if !output.status.success() {
            let [out, error] = [output.stdout, output.stderr].map(|text| {
                let text = String::from_utf8_lossy(&text).into_owned();
                text.trim().to_owned()
            });
            bail!("{}: {out} {error}", output.status);
        }
        Ok(())
    }

    /// Waits until the WAL is short, which is when it was written from its start again.
    fn wait_for_short_wal(&self) {
        for _ in 0..WAIT.as_millis() / POLL.as_millis() {
            let is_short = wal_bytes(&self.data).is_ok_and(|bytes| bytes <= SHORT_WAL);
            if is_short || self.ends_within(POLL) {
                return;
            }
        }
    }

    /// Sleeps for this time, or until the operations are to end; whether they are.
    fn ends_within(&self, time: Duration) -> bool {
        for _ in 0..time.as_millis().div_ceil(POLL.as_millis()) {
            if self.stop.load(Ordering::Relaxed) {
                return true;
            }
            thread::sleep(POLL);
        }
        self.stop.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        // HTTP/1.0: the body is not in chunks.
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.contains(" 200 "), "/metrics: {}", text.lines().next().unwrap_or_default());
        Ok(text)
    }
}

/// The address of the admin listener, which the proxy prints when it serves.
fn admin(server: &Server) -> Result<SocketAddr> {
    let log = server.site().folder.join("log");
    for _ in 0..RELOAD_TIMEOUT.as_millis() / POLL.as_millis() {
        let text = fs::read_to_string(&log)?;
        if let Some(address) = text.lines().find_map(|line| line.strip_prefix("admin http://")) {
            return Ok(address.trim().parse()?);
        }
        thread::sleep(POLL);
    }
    bail!("{}: no address of the admin listener", log.display())
}

/// The sum of the metrics whose lines begin like this.
fn sum(metrics: &str, prefix: &str) -> u64 {
    let values = metrics.lines().filter(|line| line.starts_with(prefix)).filter_map(|line| {
        let (_, value) = line.rsplit_once(' ')?;
        value.parse::<u64>().ok()
    });
    values.sum()
}
