//! The command line: one module per subcommand.

/// Prints lines to standard output with control characters escaped. A closed pipe is an error, which `main` treats as
/// success. A path or a name is escaped before, since a line break in it is not one of the output.
macro_rules! out {
    ($($line:tt)*) => { $crate::cli::print_lines(format_args!($($line)*))? };
}

/// A message in the language of this process: the English and the Chinese format string, and the arguments of both.
macro_rules! said {
    ($($message:tt)*) => { crate::cli::language::said(::cmiot_proxy::language::text!($($message)*)) };
}

/// Prints a message in the language of this process as a line to standard output.
macro_rules! say {
    ($($message:tt)*) => { out!("{}", said!($($message)*)) };
}

mod acts;
mod admin_client;
mod audit;
mod backup;
mod cache;
mod card;
mod check;
mod client;
#[cfg(feature = "demo")]
mod demo;
mod fleet;
mod health;
mod http_client;
pub(crate) mod language;
mod listener;
mod lookup;
mod serve;
mod sign;
#[cfg(feature = "demo")]
mod simulate;
mod status;
mod table;
mod version;
mod webhook;

use std::io::Write as _;
use std::ops::Deref;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

/// Edge proxy for SIM-card lookups on China Mobile's IoT platform.
#[derive(Parser)]
#[command(version = version::text(), about, after_help = "Begin with `cmiot-proxy demo`: it needs no account and no network.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "a process holds one")]
enum Command {
    Serve(serve::Serve),
    Audit(audit::Audit),
    Backup(backup::Backup),
    Restore(backup::Restore),
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    Check(check::Check),
    Cache(cache::Cache),
    Client(client::ClientCommand),
    Fleet(fleet::FleetCommand),
    Health(health::Health),
    Status(status::Status),
    Lookup(lookup::Lookup),
    Sign(sign::Sign),
    Webhook(webhook::Webhook),
    #[cfg(feature = "demo")]
    Simulate(simulate::Simulate),
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        // Copies, exports and lists hold card numbers, whatever the umask of the shell.
        cmiot_proxy::process::private_files();
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Audit(audit) => audit.run(),
            Command::Backup(backup) => backup.run(),
            Command::Restore(restore) => restore.run(),
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run(),
            Command::Check(check) => check.run(),
            Command::Cache(cache) => cache.run(),
            Command::Client(client) => client.run(),
            Command::Fleet(fleet) => fleet.run(),
            Command::Health(health) => health.run(),
            Command::Status(status) => status.run(),
            Command::Lookup(lookup) => lookup.run(),
            Command::Sign(sign) => sign.run(),
            Command::Webhook(webhook) => webhook.run(),
            #[cfg(feature = "demo")]
            Command::Simulate(simulate) => simulate.run(),
        }
    }
}

/// Prints lines to standard output with control characters escaped.
fn print_lines(lines: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", cmiot_proxy::printable::escape_lines(&lines.to_string()))
}

/// A path without control characters.
fn shown_path(path: &std::path::Path) -> String {
    cmiot_proxy::printable::escape(&path.to_string_lossy()).into_owned()
}

/// Prints a line to standard error with control characters escaped; a failure to write is ignored.
pub(crate) fn warn(line: &str) {
    write_error(&cmiot_proxy::printable::escape(line));
}

/// Prints a text to standard error that is escaped already; a failure to write is ignored.
pub(crate) fn write_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}"); // see above
}

/// Threads besides those of the runtime's workers: the writers of the databases, the log, and work on files.
const OTHER_THREADS: usize = 8;

/// The runtime of the commands that use a network. With one processor a single-threaded runtime saves the cost of work
/// stealing: shared queues and wakes.
///
/// # Errors
/// When this machine does not let the process start its threads.
fn runtime() -> anyhow::Result<Runtime> {
    use anyhow::Context;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let count = processors + OTHER_THREADS;
    cmiot_proxy::process::can_start_threads(count).with_context(|| {
        said!(
            "cannot start {count} threads: raise the limits of memory (`ulimit -v`, `LimitAS=`, `MemoryMax=`) and of threads \
             (`ulimit -u`, `TasksMax=`)",
            "无法启动 {count} 个线程：请提高内存限制（`ulimit -v`、`LimitAS=`、`MemoryMax=`）和线程数限制（`ulimit -u`、`TasksMax=`）"
        )
    })?;
    let alone = processors == 1;
    let mut builder = if alone { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    let runtime = builder.enable_all().build().context("cannot start the async runtime")?;
    Ok(Runtime(Some(runtime)))
}

/// A runtime whose drop does not wait for threads that a system call blocks: a resolver or a file system that does not
/// respond.
struct Runtime(Option<tokio::runtime::Runtime>);

impl Deref for Runtime {
    type Target = tokio::runtime::Runtime;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("taken by the drop alone")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}
