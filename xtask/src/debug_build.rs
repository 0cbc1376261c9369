//! Builds of single targets that share all dependencies with the build of the tests.
//!
//! The features of a dependency are those that the selected packages and targets need together. An example, as a test, needs
//! what only tests depend on; so with one, and with all packages, a build has the features of `cargo test --workspace`, and
//! compiles nothing that the tests have compiled.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::run::{Run, target};

/// Builds the proxy, and returns the path of its executable.
///
/// # Errors
/// When it does not build.
pub(crate) fn program() -> Result<PathBuf> {
    Run::cargo("build --workspace --bin cmiot-proxy --example manual").run()?;
    existing("debug/cmiot-proxy")
}

/// Builds the example that writes the manual pages, and returns its path.
///
/// # Errors
/// When it does not build.
pub(crate) fn manual() -> Result<PathBuf> {
    Run::cargo("build --workspace --example manual").run()?;
    existing("debug/examples/manual")
}

/// Builds everything but tests and benches, the fuzz targets included.
///
/// # Errors
/// When something does not build.
pub(crate) fn all() -> Result<()> {
    Run::cargo("build --locked --workspace --bins --examples").run()
}

fn existing(name: &str) -> Result<PathBuf> {
    let path = target().join(name);
    ensure!(path.is_file(), "{} is not built", path.display());
    Ok(path)
}
