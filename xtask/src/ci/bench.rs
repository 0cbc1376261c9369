//! Every bench, except those of the firmware, of a fleet and of the page, for a second or so, to see that it builds, runs
//! and prints; nothing is timed here. Those with peers are a stage of their own.

use anyhow::Result;

use crate::run::Run;

/// The benches of our own code alone, at their smallest.
const BENCHES: &[&str] = &["audit --seconds 1 --rows 5000", "signer --short", "timing --tries 500"];

/// The benches with other servers or with Debian's load generator, and `month`, at their smallest.
const WITH_PEERS: &[&str] = &[
    "peers --seconds 1 --rounds 1 --connections 16",
    "peers --seconds 1 --rounds 1 --connections 16 --before target/release/cmiot-proxy",
    "latency --seconds 1",
    "collapse --only cmiot-proxy,nginx --cards 200 --outage 1 --hang 1",
    "scale --cards 1000 --window 1000 --idle 50 --seconds 1",
    "month --rows 10000 --seconds 0",
];

pub(super) fn stage() -> Result<()> {
    run(BENCHES)
}

pub(super) fn peers() -> Result<()> {
    run(WITH_PEERS)
}

fn run(benches: &[&str]) -> Result<()> {
    benches.iter().try_for_each(|bench| quick(Run::cargo(&format!("xtask bench {bench}"))).run())
}

/// A command that builds for release without the optimisations that take minutes, since CI times nothing.
pub(super) fn quick(run: Run) -> Run {
    run.env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
}
