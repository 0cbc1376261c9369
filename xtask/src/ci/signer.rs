//! The signer's promise about builds: on each chip, with each set of its features, and with the oldest
//! Rust that its manifest names. Features and Rust are read from the manifest, so that a new one is checked unasked.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::firmware::image::{CHIPS, Chip};
use crate::run::{self, Run};
use crate::tools;

/// Builds the signer with every set of its features for one chip, and with none, each, and all for every other. These
/// targets have no standard library, so one that slipped in through a dependency fails the build.
///
/// # Errors
/// When a build fails or warns.
pub(super) fn no_std() -> Result<()> {
    for (chip, Chip { target, .. }) in CHIPS.iter().enumerate() {
        // No feature depends on the chip.
        let sets = if chip == 0 { "--feature-powerset" } else { "--each-feature" };
        tools::HACK
            .ready()?
            .args(["rustc", "--quiet", "--package", "cmiot-signer", "--lib", "--target", target])
            // `default` is a choice of the others; these two change no function, and are in the examples' build.
            .args([sets, "--exclude-features", "default,defmt,small", "--", "-D", "warnings"])
            .run()?;
    }
    Run::cargo("build --quiet --package cmiot-signer --examples --target thumbv7em-none-eabihf")
        .args(["--no-default-features", "--features", "defmt,flash,http,scan,small,v5"])
        .run()
}

/// Packages the signer and its C interface as for the registry, and builds the packages without this folder.
///
/// # Errors
/// When a file or a dependency is missing in a package, or it does not build.
pub(super) fn publish() -> Result<()> {
    let folder = run::target().join("publish");
    forget_packages(&folder)?;
    // What is not committed yet is packaged, too.
    Run::cargo("publish --dry-run --locked --allow-dirty")
        .args(["--package", "cmiot-signer", "--package", "cmiot-signer-capi"])
        .args([Path::new("--target-dir"), &folder])
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

/// Removes what cargo has unpacked and compiled of the two packages: it uses that for a package of a known version, even
/// if the sources have changed since.
fn forget_packages(target: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(target); // of an earlier run
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let registry = Path::new(&home.context("HOME")?).join("registry");
    for kind in ["cache", "src"] {
        // A folder per registry; the one of a dry run has no host in its name.
        for folder in fs::read_dir(registry.join(kind)).into_iter().flatten().flatten() {
            if !folder.file_name().to_string_lossy().starts_with('-') {
                continue;
            }
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_name().to_string_lossy().starts_with("cmiot-signer-") {
                    let removed =
                        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                    removed.with_context(|| path.display().to_string())?;
                }
            }
        }
    }
    Ok(())
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
