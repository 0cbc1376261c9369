//! `cmiot-proxy`: the commands. One subcommand, one file under `cli/`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // `parse` prints help and usage errors itself and ends with 0 or 2.
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cmiot-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}
