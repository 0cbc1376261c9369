//! `cargo xtask release`: the static executables that are handed out, their sizes, and what an idle one holds.
//!
//! musl, so that one file runs on any Linux of its processor; zig is the C compiler and the linker, so that SQLite and
//! ring are built for both processors on either. Sizes and the idle memory have limits, since an edge box has: over one
//! is an error.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::{Run, root};
use crate::tools;

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

/// What builds them: the driver, and the compiler that it drives.
const ZIG: [&str; 2] = ["cargo-zigbuild==0.24.1", "ziglang==0.15.2"];

const MIB: f64 = 1_048_576.0;
/// Of an executable, in MiB.
const LARGEST: f64 = 12.0;
/// Resident, of the native one that serves and is asked nothing, in MiB.
const IDLE: f64 = 16.0;

/// Builds, measures and prints.
///
/// # Errors
/// When something cannot be built or started, or is over its limit.
pub(crate) fn command() -> Result<()> {
    tools::toolchain()?;
    let zig = tools::python("zig", &ZIG)?;
    let python_path = zig.to_str().context("the workspace's path is not UTF-8")?;
    let targets = TARGETS.iter().flat_map(|target| ["--target", target]);
    Run::new(zig.join("bin/cargo-zigbuild"))
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
        .args(targets)
        .env("PYTHONPATH", python_path)
        .run()?;
    println!("\n| executable | MiB | of at most |\n| --- | --- | --- |");
    let mut over = Vec::new();
    for target in TARGETS {
        let file = executable(target);
        let size = mebibytes(fs::metadata(&file).with_context(|| file.display().to_string())?.len());
        println!("| {target} | {size:.2} | {LARGEST} |");
        over.extend((size > LARGEST).then(|| format!("{target} is larger than {LARGEST} MiB")));
    }
    let native = TARGETS
        .into_iter()
        .find(|target| target.starts_with(std::env::consts::ARCH))
        .context("no executable is for this processor")?;
    let resident = idle(&executable(native))?;
    println!("| {native}, resident when idle | {resident:.2} | {IDLE} |");
    over.extend((resident > IDLE).then(|| format!("{native} holds more than {IDLE} MiB when idle")));
    ensure!(over.is_empty(), "{}", over.join("; "));
    Ok(())
}

fn executable(target: &str) -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    folder.join(target).join("dist/cmiot-proxy")
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an executable's size, far below 2^52")]
    let bytes = bytes as f64;
    bytes / MIB
}

/// What the proxy holds once it serves, in MiB.
fn idle(program: &Path) -> Result<f64> {
    let folder = root().join("target/release-idle");
    let _ = fs::remove_dir_all(&folder); // of a run that was cut off
    fs::create_dir_all(&folder)?;
    let config = folder.join("cmiot-proxy.toml");
    fs::write(
        &config,
        "gateway.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\ncarrier.base_url = \"http://127.0.0.1:9\"\n\
         [[account]]\nname = \"fleet\"\nappid = \"100001\"\nebid = \"0001000000009\"\npassword = \"carrier\"\n",
    )?;
    let mut proxy = Command::new(program)
        .args(["serve", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let resident = resident_once_it_serves(&mut proxy);
    proxy.kill()?;
    proxy.wait()?;
    fs::remove_dir_all(&folder)?;
    resident
}

fn resident_once_it_serves(proxy: &mut Child) -> Result<f64> {
    let mut line = String::new();
    BufReader::new(proxy.stdout.as_mut().context("a pipe")?).read_line(&mut line)?;
    ensure!(line.starts_with("gateway "), "the proxy did not say where it serves: {line}");
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.id())).context("the proxy is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(mebibytes(kib * 1_024))
}
