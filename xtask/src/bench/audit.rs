//! `cargo xtask bench audit`: what an audit record costs, and how fast it is found again (`bench/benches/audit.rs`).

use anyhow::Result;

use crate::run::Run;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds for each number of callers in each durability
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Sizes of the files in which records are found, in rows
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000, 10_000_000])]
    rows: Vec<u64>,
}

/// Builds and runs the bench.
pub(crate) fn command(options: &Options) -> Result<()> {
    let rows: Vec<String> = options.rows.iter().map(u64::to_string).collect();
    Run::cargo("bench --package cmiot-proxy --package cmiot-bench --bench audit --")
        .args(["--seconds", &options.seconds.to_string(), "--rows", &rows.join(",")])
        .run()
}
