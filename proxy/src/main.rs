//! `cmiot-proxy`: the commands. One subcommand, one file under `cli/`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

mod cli;

use std::io;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // `parse` prints help and usage errors itself and ends with 0 or 2.
    match cli::Cli::parse().run() {
        Ok(code) => code,
        // `cmiot-proxy ... | head`: whoever read has seen enough.
        Err(error)
            if error.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cmiot-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}
