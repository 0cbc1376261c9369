//! The signer's promise about builds: on each chip, with each set of its features, and with the oldest
//! Rust that its manifest names. Features and Rust are read from the manifest, so that a new one is checked unasked.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::Run;
use crate::tools;

/// Cortex-M0, M3, M4F and an ESP32-C3: no operating system, and on the first no atomic compare-and-swap.
const CHIPS: &[&str] =
    &["thumbv6m-none-eabi", "thumbv7m-none-eabi", "thumbv7em-none-eabihf", "riscv32imc-unknown-none-elf"];

/// Builds the signer for every chip with every set of features. These targets have no standard library, so one that
/// slipped in through a dependency fails the build.
///
/// # Errors
/// When a build fails or warns.
pub(super) fn no_std() -> Result<()> {
    for chip in CHIPS {
        tools::HACK
            .ready()?
            .args(["rustc", "--quiet", "--package", "cmiot-signer", "--lib", "--target", chip])
            // `default` is a choice of the others; these two change no function, and are in the examples' build.
            .args(["--feature-powerset", "--exclude-features", "default,defmt,small", "--", "-D", "warnings"])
            .run()?;
    }
    Run::cargo("build --quiet --package cmiot-signer --examples --target thumbv7em-none-eabihf")
        .args(["--no-default-features", "--features", "defmt,flash,http,scan,small"])
        .run()
}

/// Packages the signer and its C interface as for the registry, and builds the packages without this folder.
///
/// # Errors
/// When a file or a dependency is missing in a package, or it does not build.
pub(super) fn publish() -> Result<()> {
    // What is not committed yet is packaged, too.
    Run::cargo("publish --dry-run --locked --allow-dirty")
        .args(["--package", "cmiot-signer", "--package", "cmiot-signer-capi"])
        .run()
}

/// Checks the signer, and its C interface, with the oldest Rust it promises (`rust-version`).
///
/// # Errors
/// When that toolchain is not available, or the check fails.
pub(super) fn msrv() -> Result<()> {
    let manifest = manifest()?;
    let oldest = manifest["rust_version"].as_str().context("the signer's manifest has no rust-version")?;
    Run::new("rustup")
        .args(["toolchain", "install", oldest, "--profile", "minimal", "--no-self-update"])
        .run()?;
    Run::new("rustup")
        .args(["run", oldest, "cargo", "check", "--locked", "--all-features"])
        .args(["--package", "cmiot-signer", "--package", "cmiot-signer-capi"])
        .run()
}

/// The signer's manifest, as cargo reads it.
fn manifest() -> Result<Value> {
    let metadata = Run::cargo("metadata --no-deps --format-version 1").output()?;
    let mut metadata: Value = serde_json::from_str(&metadata).context("cargo's metadata is no JSON")?;
    metadata["packages"]
        .as_array_mut()
        .and_then(|packages| packages.iter_mut().find(|package| package["name"] == "cmiot-signer"))
        .map(Value::take)
        .context("the workspace has no package cmiot-signer")
}
