//! What the signer promises about where it builds: on each chip, with each set of its features, and with the oldest
//! Rust that its manifest names. All of it is read from the manifest, so that a new feature is checked unasked.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::Run;

/// Cortex-M0, M3, M4F and an ESP32-C3: no operating system, and on the first no atomic compare-and-swap.
const CHIPS: &[&str] =
    &["thumbv6m-none-eabi", "thumbv7m-none-eabi", "thumbv7em-none-eabihf", "riscv32imc-unknown-none-elf"];

/// Builds the signer for every chip with every set of features. These targets have no standard library, so one that
/// slipped in through a dependency fails the build.
///
/// # Errors
/// When a build fails or warns.
pub(super) fn no_std() -> Result<()> {
    let features = features(&manifest()?)?;
    for chip in CHIPS {
        for set in subsets(&features) {
            Run::cargo("rustc --quiet --package cmiot-signer --lib --no-default-features")
                .args(["--target", chip, "--features", &set.join(",")])
                .args(["--", "-D", "warnings"])
                .run()?;
        }
    }
    Ok(())
}

/// Checks the signer with the oldest Rust it promises (`rust-version`).
///
/// # Errors
/// When that toolchain cannot be had, or the check fails.
pub(super) fn msrv() -> Result<()> {
    let manifest = manifest()?;
    let oldest = manifest["rust_version"].as_str().context("the signer's manifest has no rust-version")?;
    Run::new("rustup")
        .args(["toolchain", "install", oldest, "--profile", "minimal", "--no-self-update"])
        .run()?;
    Run::new("rustup")
        .args(["run", oldest, "cargo", "check", "--locked", "--package", "cmiot-signer", "--all-features"])
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

/// The features that a firmware can choose; `default` is a choice of them.
fn features(manifest: &Value) -> Result<Vec<String>> {
    let features = manifest["features"].as_object().context("the signer's manifest has no features")?;
    Ok(features.keys().filter(|name| *name != "default").cloned().collect())
}

/// Every subset, the empty one first.
fn subsets(features: &[String]) -> Vec<Vec<String>> {
    features.iter().fold(vec![Vec::new()], |mut sets, feature| {
        let with = sets
            .iter()
            .map(|set| [set.as_slice(), std::slice::from_ref(feature)].concat())
            .collect::<Vec<_>>();
        sets.extend(with);
        sets
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_of_two() {
        let sets = subsets(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(sets.iter().map(|set| set.join("+")).collect::<Vec<_>>(), ["", "a", "b", "a+b"]);
    }

    #[test]
    fn the_signers_features_are_its_manifests_without_default() {
        let manifest = serde_json::json!({ "features": { "default": ["serde"], "serde": ["dep:serde"] } });
        assert_eq!(features(&manifest).unwrap(), ["serde"]);
    }
}
