//! `cargo xtask release`: the static executables of a release, their sizes, and the memory of an idle one.
//!
//! Each is built twice, the second time with the profile of the first (`release/pgo.rs`).
//! musl, so that one file runs on any Linux of its processor; zig is the C compiler and the linker, so that SQLite and
//! ring are built for both processors on either. Sizes and the idle memory have limits, since an edge box has: over one
//! is an error.

mod pgo;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::{Run, root, target};
use crate::server_process::ServerProcess;
use crate::setup;
use crate::tools;
use pgo::Executable;

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

const MIB: f64 = 1_048_576.0;
/// Size limit of an executable, in MiB.
const LARGEST: f64 = 12.0;
/// Limit of the resident memory of an idle proxy, in MiB.
const IDLE: f64 = 16.0;

/// Builds instrumented executables, collects their profiles, builds optimised ones, runs their demos, and measures.
///
/// # Errors
/// When something cannot be built or started, or is over its limit.
pub(crate) fn command() -> Result<()> {
    let folder = target().display().to_string();
    ensure!(
        !folder.contains(char::is_whitespace),
        "{folder} contains a space, which would end a compiler's flag"
    );
    tools::toolchain()?;
    Run::cargo("build --locked --release --package cmiot-bench --example load").run()?;
    let instrumented = target().join("instrumented");
    build(&TARGETS.map(|triple| (triple, "profile-generate".to_owned())), &instrumented)?;
    let mut optimised = Vec::new();
    for triple in TARGETS {
        let profile = Executable::new(executable(&instrumented, triple), triple)?.collect_profile()?;
        optimised.push((triple, format!("profile-use={}", profile.display())));
    }
    build(&optimised, &target())?;
    for triple in TARGETS {
        Executable::new(executable(&target(), triple), triple)?.demo()?;
    }
    println!("\n| executable | MiB | of at most |\n| --- | --- | --- |");
    let mut over = Vec::new();
    for triple in TARGETS {
        let file = executable(&target(), triple);
        let size = mebibytes(fs::metadata(&file).with_context(|| file.display().to_string())?.len());
        println!("| {triple} | {size:.2} | {LARGEST} |");
        over.extend((size > LARGEST).then(|| format!("{triple} is larger than {LARGEST} MiB")));
    }
    let native = TARGETS
        .into_iter()
        .find(|target| target.starts_with(std::env::consts::ARCH))
        .context("no executable is for this processor")?;
    let resident = idle(&executable(&target(), native))?;
    println!("| {native}, resident when idle | {resident:.2} | {IDLE} |");
    over.extend((resident > IDLE).then(|| format!("{native} holds more than {IDLE} MiB when idle")));
    ensure!(over.is_empty(), "{}", over.join("; "));
    Ok(())
}

/// Builds for these targets into a folder; each option is passed to rustc and to the C compiler.
fn build(targets: &[(&str, String)], folder: &Path) -> Result<()> {
    let zig = tools::python("zig")?.join("bin");
    let path = std::env::var("PATH").context("PATH")?;
    let python = root().join("xtask/src/release/python.sh");
    let build = Run::new(zig.join("cargo-zigbuild"))
        .args([
            "zigbuild",
            "--locked",
            "--profile",
            "dist",
            "--package",
            "cmiot-proxy",
            "--bin",
            "cmiot-proxy",
        ])
        .args(["--target-dir"])
        .args([folder])
        .env("PATH", &format!("{}:{path}", zig.display()))
        .env("CARGO_ZIGBUILD_PYTHON_PATH", &python.display().to_string())
        // Any of these would replace the flags for a target, or follow them.
        .without_env("RUSTFLAGS")
        .without_env("CARGO_ENCODED_RUSTFLAGS")
        .without_env("CFLAGS")
        .without_env("TARGET_CFLAGS");
    let build = targets.iter().fold(build, |build, (triple, option)| {
        let triple_name = triple.replace('-', "_");
        build
            .args(["--target", triple])
            .without_env(&format!("CFLAGS_{triple}"))
            .without_env(&format!("CC_{triple}"))
            .without_env(&format!("CC_{triple_name}"))
            .env(&format!("CARGO_TARGET_{}_RUSTFLAGS", triple_name.to_uppercase()), &format!("-C{option}"))
            .env(&format!("CFLAGS_{triple_name}"), &format!("-f{option}"))
    });
    build.run()
}

/// Path of an executable that [`build`] made.
fn executable(folder: &Path, triple: &str) -> PathBuf {
    folder.join(triple).join("dist/cmiot-proxy")
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an executable's size, far below 2^52")]
    let bytes = bytes as f64;
    bytes / MIB
}

/// Resident memory of the proxy once it serves, in MiB.
fn idle(program: &Path) -> Result<f64> {
    let folder = target().join("release-idle");
    let _ = fs::remove_dir_all(&folder); // of a run that was cut off
    fs::create_dir_all(&folder)?;
    let config = configure(&folder, "http://127.0.0.1:9")?;
    let mut proxy = ServerProcess::start(
        Command::new(program).args(["serve", "--config"]).arg(&config).stderr(Stdio::null()),
    )?;
    proxy.wait_for_line("gateway ")?;
    let resident = proxy.resident()?;
    drop(proxy);
    fs::remove_dir_all(&folder)?;
    Ok(mebibytes(resident))
}

/// Writes a configuration with the account into this folder; returns its path.
fn configure(folder: &Path, base_url: &str) -> Result<PathBuf> {
    let config = folder.join("cmiot-proxy.toml");
    crate::run::write_private(&config, &setup::config(base_url, ""))?;
    Ok(config)
}
