//! Samples of the proxy's process and store: /proc, sizes of files, and the audit's tables.
//!
//! No metric has the lag of the card index; it is the number of rows after the last block, read by a shell of SQLite.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::numbers;
use super::super::servers::Server;
use crate::run::Run;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(2);

/// The last row, and the last row in a block of the card index.
const ROWS: &str = "SELECT coalesce((SELECT max(last) FROM batch), before),
    coalesce((SELECT max(last) FROM card_block), before) FROM segment";

/// State of the proxy at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Resident memory, in bytes.
    pub(super) memory: u64,
    pub(super) descriptors: u64,
    pub(super) threads: u64,
    /// Bytes of all WALs.
    pub(super) wal: u64,
    /// Rows that no block of the card index has.
    pub(super) index_lag: u64,
    /// Rows written.
    pub(super) rows: u64,
    /// No command was reading the audit, or had just read it: nothing kept the WAL long.
    pub(super) is_at_rest: bool,
}

/// Samples so far.
pub(super) struct Sampler {
    process: u32,
    data: PathBuf,
    is_at_rest: AtomicBool,
    samples: Mutex<Samples>,
}

#[derive(Default)]
struct Samples {
    all: Vec<Sample>,
    failure: Option<anyhow::Error>,
}

impl Sampler {
    /// A sampler of this proxy; an error if the proxy cannot be sampled.
    pub(super) fn new(server: &Server) -> Result<Self> {
        let data = server.site().folder.join("data");
        let is_at_rest = AtomicBool::new(true);
        let sampler = Self { process: server.id(), data, is_at_rest, samples: Mutex::default() };
        sampler.sample()?;
        Ok(sampler)
    }

    /// Whether no command reads the audit; set by the thread that starts them.
    pub(super) fn is_at_rest(&self) -> &AtomicBool {
        &self.is_at_rest
    }

    /// Samples until `stop` is set, or a sample fails.
    pub(super) fn run(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let sample = self.sample();
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            match sample {
                Ok(sample) => samples.all.push(sample),
                Err(error) => {
                    samples.failure = Some(error);
                    return;
                }
            }
            drop(samples);
            thread::sleep(INTERVAL);
        }
    }

    /// The samples after the first `from`.
    ///
    /// # Errors
    /// The failure that ended the sampler.
    pub(super) fn since(&self, from: usize) -> Result<Vec<Sample>> {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = samples.failure.take() {
            return Err(failure.context("no sample of the proxy"));
        }
        Ok(samples.all[from..].to_vec())
    }

    fn sample(&self) -> Result<Sample> {
        let is_at_rest = self.is_at_rest.load(Ordering::Relaxed);
        let proc = PathBuf::from(format!("/proc/{}", self.process));
        let status = fs::read_to_string(proc.join("status")).context("the proxy is gone")?;
        let field = |name: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let value = value.and_then(|value| value.split_whitespace().next()).context(name.to_owned())?;
            Ok(value.parse()?)
        };
        let [rows, indexed] = query(&segment(&self.data)?, ROWS)?;
        Ok(Sample {
            memory: field("VmRSS:")? * 1_024,
            threads: field("Threads:")?,
            descriptors: fs::read_dir(proc.join("fd"))?.count() as u64,
            wal: wal_bytes(&self.data)?,
            index_lag: rows.saturating_sub(indexed),
            rows,
            is_at_rest,
        })
    }

    /// Records of lookups in all segments.
    pub(super) fn records(&self) -> Result<u64> {
        let mut all = 0;
        for segment in segments(&self.data)? {
            let [records] = query(&segment, "SELECT count(*) FROM record")?;
            all += records;
        }
        Ok(all)
    }
}

/// A row of numbers. A shell opens the segment for reading only, so that it makes no checkpoint.
fn query<const N: usize>(segment: &Path, sql: &str) -> Result<[u64; N]> {
    let printed = Run::new("sqlite3")
        .args(["-readonly", "-batch", "-noheader", "-separator", " ", "-cmd", ".timeout 5000"])
        .args([segment])
        .args([sql])
        .output()?;
    numbers(printed.trim())
}

/// The newest segment of a store.
///
/// # Errors
/// When there is no segment.
pub(super) fn segment(data: &Path) -> Result<PathBuf> {
    segments(data)?.pop().context("no segment")
}

/// The segments of a store, the oldest first.
fn segments(data: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(data).with_context(|| data.display().to_string())?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let is_segment = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("audit-2") && name.ends_with(".db")
    };
    let mut segments: Vec<PathBuf> = paths.filter(is_segment).collect();
    segments.sort();
    Ok(segments)
}

/// Bytes of the WALs in a folder.
pub(super) fn wal_bytes(data: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with("-wal") {
            // A WAL may be removed in between.
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok(bytes)
}
