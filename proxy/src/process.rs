//! Process restrictions and limits, which the kernel applies from the start, before a secret is read.
//!
//! - No core dump and no debugger of the same user (prctl(2), `PR_SET_DUMPABLE`), unless `[process] allow_core_dumps`:
//!   both would show passwords.
//! - New files are accessible to their owner alone (umask 077); code that creates a file for other users sets its mode.
//! - The limit of open files is the hard limit: 10,000 connections exceed the usual soft limit of 1,024.

use std::io;
use std::sync::RwLock;
use std::thread;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::file;

/// The user who runs this process, for a note in the audit: the name in /etc/passwd, or the number. Behind it, for the
/// superuser, the user who called sudo, as sudo says.
pub fn user() -> String {
    let own = rustix::process::getuid();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(own.as_raw())).then_some(name)
    });
    let name = name.map_or_else(|| own.as_raw().to_string(), str::to_owned);
    let sudo = std::env::var("SUDO_USER").ok().filter(|user| own.is_root() && is_user_name(user));
    sudo.map_or_else(|| name.clone(), |user| format!("{name} sudo={user}"))
}

/// Whether a text from the environment has the form of a user name.
fn is_user_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    (1..=32).contains(&text.len()) && text.bytes().all(fits)
}

/// Makes every file that this process creates from now on accessible to its owner alone, unless its mode is set.
pub fn private_files() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Makes a write beyond the file-size limit (`ulimit -f`, `LimitFSIZE=`) an error, as on a full disk, instead of the end of
/// this process. Needs a tokio runtime.
///
/// # Errors
/// When the handler cannot be installed.
pub fn survive_file_size_limit() -> io::Result<()> {
    // tokio's handler stays installed when this receiver is dropped.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// Checks that this process can start so many threads at the same time, each with the default stack: tokio panics if its
/// first thread cannot start, and leaves work waiting without an error if a later one cannot.
///
/// # Errors
/// When the system does not start one of them: limits of memory or of threads.
pub fn can_start_threads(count: usize) -> io::Result<()> {
    let all_started = RwLock::new(());
    thread::scope(|scope| {
        // The threads wait for it, so that all of them exist at once.
        let _until_all_started = all_started.write();
        (0..count).try_for_each(|_| {
            let wait = || drop(all_started.read());
            thread::Builder::new().name("probe".to_owned()).spawn_scoped(scope, wait).map(drop)
        })
    })
}

/// Prevents core dumps and debuggers of the same user. Called before the configuration is read, which has secrets;
/// [`harden`] allows them again if the configuration does.
///
/// # Errors
/// When the kernel refuses.
pub fn protect_memory() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
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
