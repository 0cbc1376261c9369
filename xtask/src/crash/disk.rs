//! A disk that keeps only what was synced, and whose syncs fail on command: the preload `disk.c`, and what a power loss
//! leaves of each file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::run::{Run, root};

/// The pages of which a power loss keeps some and not others.
const PAGE: usize = 4_096;

/// The disk of one data folder.
pub(super) struct Disk {
    data: PathBuf,
    kept: PathBuf,
    fails: PathBuf,
    preload: PathBuf,
    random: u64,
}

impl Disk {
    /// Builds the preload; everything but the data is below `folder`.
    pub(super) fn new(folder: &Path, data: PathBuf) -> Result<Self> {
        let (kept, fails, preload) = (folder.join("kept"), folder.join("fails"), folder.join("disk.so"));
        fs::create_dir_all(&kept)?;
        fs::write(&fails, [0; 8])?;
        Run::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
            .args([&preload, &root().join("xtask/src/crash/disk.c")])
            .run()?;
        Ok(Self { data, kept, fails, preload, random: 0x9e37_79b9_7f4a_7c15 })
    }

    /// Has a program's files be on this disk.
    pub(super) fn under(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.preload)
            .env("DISK_DIR", &self.data)
            .env("DISK_KEPT", &self.kept)
            .env("DISK_FAILS", &self.fails);
    }

    /// From now on `left` syncs of an audit segment or of `state.db` fail, and each `every`-th (0: none).
    pub(super) fn fail(&self, left: i32, every: i32) -> Result<()> {
        let mut numbers = left.to_ne_bytes().to_vec();
        numbers.extend(every.to_ne_bytes());
        // In place: the preload has the file mapped.
        fs::OpenOptions::new().write(true).open(&self.fails)?.write_all_at(&numbers, 0)?;
        Ok(())
    }

    /// The power is lost: each file is what was synced of it, and of its other pages the given share (in percent), at
    /// random, as they were written. Returns how many pages were changed by that.
    pub(super) fn lose_power(&mut self, share: u64) -> Result<u32> {
        let mut changed = 0;
        for entry in fs::read_dir(&self.data)? {
            let path = entry?.path();
            if path.is_dir() {
                continue;
            }
            // The index of a WAL is in memory; the next process rebuilds it.
            if path.to_string_lossy().ends_with("-shm") {
                fs::remove_file(&path)?;
                continue;
            }
            let kept = self.kept.join(fs::metadata(&path)?.ino().to_string());
            let written = fs::read(&path)?;
            // What was never synced may be there in name alone.
            let mut left = fs::read(&kept).unwrap_or_default();
            let pages = written.len().max(left.len()).div_ceil(PAGE);
            for at in (0..pages).map(|page| page * PAGE) {
                let of = |bytes: &[u8]| bytes.get(at..).map(|rest| rest[..rest.len().min(PAGE)].to_vec());
                let (new, old) = (of(&written).unwrap_or_default(), of(&left).unwrap_or_default());
                if new == old {
                    continue;
                }
                changed += 1;
                if !new.is_empty() && self.below(100) < share {
                    left.resize(left.len().max(at + new.len()), 0);
                    left[at..at + new.len()].copy_from_slice(&new);
                }
            }
            if left != written {
                // In place: by its number the disk knows the file.
                let mut file = fs::OpenOptions::new().write(true).truncate(true).open(&path)?;
                file.write_all(&left)?;
            }
            fs::write(&kept, &left)?;
        }
        Ok(changed)
    }

    /// A number below `end`, the same ones in each run (xorshift64).
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }
}
