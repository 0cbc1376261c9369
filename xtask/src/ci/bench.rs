//! Every bench, except those of the firmware, of a fleet and of the page, for a second or so, to see that it builds, runs
//! and prints; nothing is timed here.

use anyhow::Result;

use crate::run::Run;

/// The benches at their smallest.
const BENCHES: &[&str] = &[
    "peers --seconds 1 --rounds 1 --connections 16",
    "peers --seconds 1 --rounds 1 --connections 16 --before target/release/cmiot-proxy",
    "latency --seconds 1",
    "audit --seconds 1 --rows 5000",
    "collapse --only cmiot-proxy,nginx --cards 200 --outage 1 --hang 1",
    "scale --cards 1000 --window 1000 --idle 50 --seconds 1",
    "signer --short",
    "timing --tries 500",
];

pub(super) fn stage() -> Result<()> {
    BENCHES.iter().try_for_each(|bench| quick(Run::cargo(&format!("xtask bench {bench}"))).run())
}

/// A command that builds for release: without link-time optimisation, which takes minutes, since CI times nothing.
pub(super) fn quick(run: Run) -> Run {
    run.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
}
