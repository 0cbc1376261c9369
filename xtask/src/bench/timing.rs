//! `cargo xtask bench timing`: whether the time of a refusal tells who is known (`bench/benches/timing.rs`).

use anyhow::Result;

use crate::run::Run;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Tries of each kind of refusal
    #[arg(long, default_value_t = 100_000)]
    tries: u32,
}

/// Builds and runs the bench.
pub(crate) fn command(options: &Options) -> Result<()> {
    Run::cargo("bench --package cmiot-proxy --package cmiot-bench --bench timing --")
        .args(["--tries", &options.tries.to_string()])
        .run()
}
