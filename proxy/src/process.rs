//! What this process may do with its secrets, and how much it may hold: asked of the kernel once, before anything is read.
//!
//! - No core dump and no debugger of the same user (prctl(2), `PR_SET_DUMPABLE`), unless `[process] allow_core_dumps`:
//!   both would show passwords.
//! - Files that it creates belong to it alone (umask 077); what others may read is opened by whoever creates it.
//! - As many open files as the hard limit allows: 10,000 connections do not fit into the customary 1,024.

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::config::file;

/// Has every file that this process creates from here on belong to its owner alone, unless its mode is set.
pub fn private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Applies the rules to this process.
///
/// # Errors
/// The kernel's; nothing should be served then.
pub fn harden(settings: &file::Process) -> Result<(), Errno> {
    let dumpable = match settings.allow_core_dumps {
        true => DumpableBehavior::Dumpable,
        false => DumpableBehavior::NotDumpable,
    };
    rustix::process::set_dumpable_behavior(dumpable)?;
    private_files();
    let files = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })
}
