//! `cargo xtask bench signer`: what a token and a request cost a host, against OpenSSL's SHA-256 of the same bytes.
//!
//! The measuring is a program of its own (`bench/signer`), optimised and linked to Debian's libssl, of which nothing
//! else here knows.

use anyhow::Result;

use crate::run::Run;
use crate::tools;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A few rounds, to see that it runs
    #[arg(long)]
    short: bool,
}

/// Builds it, runs it; it prints.
pub(crate) fn command(options: &Options) -> Result<()> {
    tools::install(&["libssl-dev", "pkg-config"])?;
    let run = Run::cargo(
        "run --release --locked --manifest-path bench/signer/Cargo.toml --target-dir target/bench-signer",
    );
    if options.short { run.args(["--", "short"]) } else { run }.run()
}
