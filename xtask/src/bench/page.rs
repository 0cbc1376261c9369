//! `cargo xtask bench page`: what viewers of the live page cost a hit (`bench/page/`).

use std::path::PathBuf;

use anyhow::Result;

use crate::run::Run;
use crate::tools;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Viewers of the live page
    #[arg(long, default_value_t = 10)]
    viewers: u32,
    /// Seconds of each load
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Rounds, of a load with and one without viewers each
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// The proxy's executable, instead of a release build
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Builds and runs the bench; an error if the ratio is above its bound.
pub(crate) fn command(options: &Options) -> Result<()> {
    tools::wrk()?;
    let mut bench = Run::cargo("bench --package cmiot-proxy --bench page --")
        .args(["--viewers", &options.viewers.to_string(), "--seconds", &options.seconds.to_string()])
        .args(["--rounds", &options.rounds.to_string()])
        .env("CMIOT_TEST_LOG", "warn");
    if let Some(program) = &options.program {
        bench = bench.env("CMIOT_TEST_PROGRAM", &program.canonicalize()?.to_string_lossy());
    }
    bench.run()
}
