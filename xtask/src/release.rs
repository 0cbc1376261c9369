//! `cargo xtask release`: the static executables that are handed out, their sizes, and what an idle one holds.
//!
//! Each is built twice, the second time by what the first one counted at work (`release/train.rs`).
//! musl, so that one file runs on any Linux of its processor; zig is the C compiler and the linker, so that SQLite and
//! ring are built for both processors on either. Sizes and the idle memory have limits, since an edge box has: over one
//! is an error.

mod train;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{Run, root, target};
use crate::serving::Serving;
use crate::tools;
use train::Trainee;

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

const MIB: f64 = 1_048_576.0;
/// Of an executable, in MiB.
const LARGEST: f64 = 12.0;
/// Resident, of the native one that serves and is asked nothing, in MiB.
const IDLE: f64 = 16.0;

/// Builds, trains, builds again, runs the demo of each, measures and prints.
///
/// # Errors
/// When something cannot be built or started, or is over its limit.
pub(crate) fn command() -> Result<()> {
    let place = target().display().to_string();
    ensure!(!place.contains(char::is_whitespace), "{place} has a space in it, where a compiler's flag ends");
    tools::toolchain()?;
    Run::cargo("build --locked --release --package cmiot-bench --example load").run()?;
    let counting = target().join("counting");
    build(&TARGETS.map(|triple| (triple, "profile-generate".to_owned())), &counting)?;
    let mut trained = Vec::new();
    for triple in TARGETS {
        let counted = Trainee::new(executable(&counting, triple), triple)?.train()?;
        trained.push((triple, format!("profile-use={}", counted.display())));
    }
    build(&trained, &target())?;
    for triple in TARGETS {
        Trainee::new(executable(&target(), triple), triple)?.demo()?;
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

/// Builds for these targets, each with an option of both compilers', rustc's and that of C, into a folder.
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
        // Any of these would take the place of the flags for a target, or come after them.
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

/// What [`build`] leaves in its folder.
fn executable(folder: &Path, triple: &str) -> PathBuf {
    folder.join(triple).join("dist/cmiot-proxy")
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an executable's size, far below 2^52")]
    let bytes = bytes as f64;
    bytes / MIB
}

/// What the proxy holds once it serves, in MiB.
fn idle(program: &Path) -> Result<f64> {
    let folder = target().join("release-idle");
    let _ = fs::remove_dir_all(&folder); // of a run that was cut off
    fs::create_dir_all(&folder)?;
    let config = configure(&folder, "http://127.0.0.1:9", "100001:0001000000009:carrier")?;
    let mut proxy =
        Serving::start(Command::new(program).args(["serve", "--config"]).arg(&config).stderr(Stdio::null()))?;
    proxy.told("gateway ")?;
    let resident = proxy.resident()?;
    drop(proxy);
    fs::remove_dir_all(&folder)?;
    Ok(mebibytes(resident))
}

/// A configuration in this folder, for a carrier and one account with it, APPID:EBID:PASSWORD.
fn configure(folder: &Path, base_url: &str, account: &str) -> Result<PathBuf> {
    let [appid, ebid, password] = account.split(':').collect::<Vec<_>>()[..] else {
        bail!("no account: {account}")
    };
    let config = folder.join("cmiot-proxy.toml");
    crate::run::write_private(
        &config,
        &format!(
            "gateway.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\ncarrier.base_url = \"{base_url}\"\n\
             [[account]]\nname = \"fleet\"\nappid = \"{appid}\"\nebid = \"{ebid}\"\npassword = \"{password}\"\n"
        ),
    )?;
    Ok(config)
}
