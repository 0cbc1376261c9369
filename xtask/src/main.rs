//! The project's own commands, run as `cargo xtask COMMAND`: this file is their table of contents.
//!
//! | file | contents |
//! | --- | --- |
//! | `test.rs` | `cargo xtask test`: fetch what the tests need, then run them all |
//! | `ci.rs`, `ci/` | `cargo xtask ci [STAGE]...`: everything that a change must pass, one function per stage |
//! | `crash.rs` | `cargo xtask crash`: kill -9 and power loss under load, then the search for every answer |
//! | `bench.rs`, `bench/` | `cargo xtask bench NAME`: the project against its peers in one run |
//! | `bench/soak.rs`, `bench/soak/` | `cargo xtask soak`: an hour under load and operation, after which nothing may have grown |
//! | `firmware.rs`, `firmware/` | `cargo xtask firmware`: the signer on emulated chips, tested and measured |
//! | `hostile.rs`, `hostile/` | `cargo xtask hostile`: the proxy under attack, while legitimate gateways send requests |
//! | `prose.rs`, `prose/` | `cargo xtask prose`: words and patterns that comments, messages and documents do without |
//! | `package.rs`, `package/` | `cargo xtask package`: packages, container archive and bill of materials from one executable |
//! | `systemd.rs`, `systemd/` | `cargo xtask systemd`: the package under a real systemd, in namespaces of its own |
//! | `release.rs`, `release/` | `cargo xtask release`: the static executables of a release, built with profile-guided optimisation, their sizes and packages |
//! | `screenshots.rs` | `cargo xtask screenshots`: the README's pictures of the operators' page |
//! | `tools.rs` | the tools that a machine must have, and their installation |
//! | `setup.rs` | the account, the client and the configuration of the systems that commands start |
//! | `server_process.rs` | a server as a child process, from its start to its end |
//! | `run.rs` | one child process: its command line is printed, its failure is an error |
//!
//! A new command is a variant of [`Command`] and a file of its name; a new CI stage is a row of `ci::STAGES`.
//! Nothing is skipped: what is missing is fetched, and what cannot be fetched fails the command.

mod bench;
mod ci;
mod crash;
mod debug_build;
mod firmware;
mod hostile;
mod package;
mod prose;
mod release;
mod run;
mod screenshots;
mod server_process;
mod setup;
mod systemd;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch what the tests need, then run every test of the workspace
    Test,
    /// Run the stages that a change must pass, or the ones named; `peers` and `fuzz` run by name only
    Ci {
        /// Stages to run, in the order of the list below whatever the order given
        #[arg(value_name = "STAGE", value_parser = ci::stage_names())]
        stages: Vec<String>,
    },
    /// Kill the proxy under load, again and again, and look for every answer in the audit
    Crash(crash::Options),
    /// Compare with peers on the same work in one run
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Load the proxy for an hour while operators work on it: no lookup may be lost, and nothing may grow
    Soak(bench::soak::Options),
    /// Test the signer on emulated chips, measure it, and compare with its budgets
    Firmware {
        /// Record what is measured as the new baseline
        #[arg(long)]
        rebase: bool,
    },
    /// Attack the proxy while legitimate gateways send requests, and print the results of these
    Hostile {
        /// Attacks to make; all when none is named
        attacks: Vec<hostile::Attack>,
        /// The executable to attack, instead of a release build
        #[arg(long, value_name = "FILE")]
        program: Option<std::path::PathBuf>,
    },
    /// Check the words of comments, messages and documents, or lower the counts of what is still allowed
    Prose(prose::Options),
    /// Build the static executables for x86_64 and aarch64 and their packages, and print their sizes and what an idle one
    /// holds
    Release(release::Options),
    /// Make the packages of one executable: .deb, .rpm, .tar.gz, container archive, bill of materials, checksums
    Package(package::Options),
    /// Install the .deb in a root folder with a real systemd, and start, reload, hang, upgrade and purge the service there
    Systemd(systemd::Options),
    /// Take the README's pictures of the operators' page, from the demo in a browser
    Screenshots,
    /// Run one attacker, as `hostile` starts it
    #[command(hide = true)]
    Attack { attack: hostile::Attack, to: std::net::SocketAddr, seconds: u64 },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Test => test::command(),
        Command::Crash(options) => crash::command(&options).map(|()| ExitCode::SUCCESS),
        Command::Bench { bench } => bench.run(),
        Command::Soak(options) => bench::soak::command(&options).map(|()| ExitCode::SUCCESS),
        Command::Ci { stages } => ci::command(&stages),
        Command::Firmware { rebase } => firmware::command(rebase),
        Command::Prose(options) => prose::command(&options).map(|()| ExitCode::SUCCESS),
        Command::Release(options) => release::command(&options).map(|()| ExitCode::SUCCESS),
        Command::Package(options) => package::command(&options).map(|()| ExitCode::SUCCESS),
        Command::Systemd(options) => systemd::command(&options).map(|()| ExitCode::SUCCESS),
        Command::Screenshots => screenshots::command().map(|()| ExitCode::SUCCESS),
        Command::Hostile { attacks, program } => hostile::command(&attacks, program),
        Command::Attack { attack, to, seconds } => attack.run(to, seconds).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
