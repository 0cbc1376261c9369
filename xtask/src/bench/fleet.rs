//! `cargo xtask bench fleet`: what three nodes of a fleet cost and keep (`bench/fleet/`).

use std::path::PathBuf;

use anyhow::Result;

use crate::run::Run;
use crate::tools;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these measurements, such as M1,M3
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Percent of the usual counts of requests, cards, rounds and seconds
    #[arg(long, default_value_t = 100)]
    scale: u32,
    /// Seconds of each load of M10
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// The proxy's executable, instead of a release build
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Builds and runs the bench; an error if a count is not within its bound.
pub(crate) fn command(options: &Options) -> Result<()> {
    tools::postgres()?;
    tools::wrk()?;
    let mut bench = Run::cargo("bench --package cmiot-proxy --bench fleet --")
        .args(["--scale", &options.scale.to_string(), "--seconds", &options.seconds.to_string()])
        .env("CMIOT_TEST_LOG", "warn");
    if !options.only.is_empty() {
        bench = bench.args(["--only", &options.only.join(",")]);
    }
    if let Some(program) = &options.program {
        bench = bench.env("CMIOT_TEST_PROGRAM", &program.canonicalize()?.to_string_lossy());
    }
    bench.run()
}
