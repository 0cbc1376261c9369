//! Process restrictions and limits, which the kernel applies from the start, before a secret is read.
//!
//! - No core dump and no debugger of the same user (prctl(2), `PR_SET_DUMPABLE`), unless `[process] allow_core_dumps`:
//!   both would show passwords.
//! - New files are accessible to their owner alone (umask 077); code that creates a file for other users sets its mode.
//! - The limit of open files is the hard limit: 10,000 connections exceed the usual soft limit of 1,024.

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::config::file;

/// Makes every file that this process creates from now on accessible to its owner alone, unless its mode is set.
pub fn private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Applies the restrictions and limits to this process.
///
/// # Errors
/// When the kernel refuses; the proxy must not serve then.
pub fn harden(settings: &file::Process) -> Result<(), Errno> {
    let dumpable =
        if settings.allow_core_dumps { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    rustix::process::set_dumpable_behavior(dumpable)?;
    private_files();
    let files = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })
}
