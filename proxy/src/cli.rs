//! The command line: what can be asked of the program, and where it is done.

/// Prints a line to standard output. A reader that has left is an error, which `main` takes for a good end.
macro_rules! out {
    ($($line:tt)*) => {
        ::std::io::Write::write_fmt(&mut ::std::io::stdout(), format_args!("{}\n", format_args!($($line)*)))?
    };
}

mod admin_client;
mod audit;
mod cache;
mod card;
mod check;
mod client;
#[cfg(feature = "demo")]
mod demo;
mod http;
mod lookup;
mod serve;
mod sign;
#[cfg(feature = "demo")]
mod simulate;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

/// The edge proxy of a fleet for SIM-card look-ups on China Mobile's IoT platform.
#[derive(Parser)]
#[command(version, about, after_help = "Begin with `cmiot-proxy demo`: it needs no account and no network.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Audit(audit::Audit),
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    Check(check::Check),
    Cache(cache::Cache),
    Client(client::Client),
    Lookup(lookup::Lookup),
    Sign(sign::Sign),
    #[cfg(feature = "demo")]
    Simulate(simulate::Simulate),
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        // Copies, exports and lists hold card numbers, whatever the umask of the shell.
        cmiot_proxy::process::private_files();
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Audit(audit) => audit.run(),
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run(),
            Command::Check(check) => check.run(),
            Command::Cache(cache) => cache.run(),
            Command::Client(client) => client.run(),
            Command::Lookup(lookup) => lookup.run(),
            Command::Sign(sign) => sign.run(),
            #[cfg(feature = "demo")]
            Command::Simulate(simulate) => simulate.run(),
        }
    }
}

/// Prints a line to standard error, if it can be written: that it cannot is no reason to do less.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}"); // as said
}

/// The runtime of the commands that talk to a network. With one processor there is nobody to share the work with, and
/// what sharing costs (queues that others may look into, wakes) is saved.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context;
    let alone = std::thread::available_parallelism().is_ok_and(|processors| processors.get() == 1);
    let mut builder = if alone { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.enable_all().build().context("cannot start the async runtime")
}
