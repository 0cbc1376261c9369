//! The fuzz targets of `fuzz/`: with the corpus in the tree only, or fuzzed for a while.
//!
//! Fuzzing needs a nightly compiler, of a fixed date so that no run depends on its day. What a run finds goes into
//! `target/fuzz`; a crash fails the stage and leaves its input in `fuzz/artifacts`.

use anyhow::{Context, Result, ensure};

use crate::debug_build;
use crate::run::{Run, root, target};
use crate::tools;

/// The compiler that cargo-fuzz's instrumentation needs.
const NIGHTLY: &str = "nightly-2026-08-01";

/// Seconds a target.
const SECONDS: u32 = 20;

/// Builds the targets without instrumentation, and runs each once with every input of its corpus.
///
/// # Errors
/// When a target does not build, has no corpus, or fails.
pub(super) fn corpus() -> Result<()> {
    tools::cpp()?;
    debug_build::all()?;
    for name in targets()? {
        let corpus = root().join("fuzz/corpus").join(&name);
        let inputs = std::fs::read_dir(&corpus).with_context(|| corpus.display().to_string())?.count();
        ensure!(inputs > 0, "{} is empty", corpus.display());
        let options = ["-runs=0", "-timeout=10", "-rss_limit_mb=2048"];
        Run::new(target().join("debug").join(&name)).args([&corpus]).args(options).run()?;
    }
    Ok(())
}

pub(super) fn stage() -> Result<()> {
    tools::cpp()?;
    Run::new("rustup")
        .args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--no-self-update"])
        .run()?;
    // Cargo-fuzz has no `--locked`: it would bring the lock file up to date in silence.
    Run::cargo("metadata --locked --format-version 1").output()?;
    for target in &targets()? {
        let found = root().join("target/fuzz/corpus").join(target);
        std::fs::create_dir_all(&found)?;
        tools::FUZZ
            .ready()?
            // Cargo-fuzz starts cargo, which takes its compiler from here.
            .env("RUSTUP_TOOLCHAIN", NIGHTLY)
            // Instrumented code takes minutes to optimize.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only")
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            // More units build on both processors; the targets run for seconds.
            .args(["run", "--codegen-units", "16", "--target-dir", "target/fuzz", target])
            .args([found, root().join("fuzz/corpus").join(target)])
            .args(["--", &format!("-max_total_time={SECONDS}"), "-timeout=10", "-rss_limit_mb=2048"])
            .run()?;
    }
    Ok(())
}

/// Names of the targets.
fn targets() -> Result<Vec<String>> {
    let mut targets: Vec<String> = std::fs::read_dir(root().join("fuzz/fuzz_targets"))
        .context("fuzz/fuzz_targets")?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    targets.sort();
    ensure!(!targets.is_empty(), "fuzz/fuzz_targets is empty");
    Ok(targets)
}
