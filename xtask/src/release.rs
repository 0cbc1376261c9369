//! `cargo xtask release`: the static executables of a release, their packages in `dist/`, their sizes, and the memory of
//! an idle one.
//!
//! Each is built twice, the second time with the profile of the first (`release/pgo.rs`). The native one is then built a
//! third time, in another folder with the same profile, and must have the same bytes: paths are replaced in what the
//! compilers write, and times are that of the commit. The executables list their crates (cargo-auditable).
//! `release/chips.rs` adds the signer's libraries for chips.
//! musl, so that one file runs on any Linux of its processor; zig is the C compiler and the linker, so that SQLite and
//! ring are built for both processors on either. Sizes and the idle memory have limits, since an edge box has: over one
//! is an error.

mod chips;
mod pgo;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::package;
use crate::run::{Run, root, target};
use crate::server_process::ServerProcess;
use crate::setup;
use crate::tools;
use pgo::Executable;

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

const MIB: f64 = 1_048_576.0;
/// Size limit of an executable, in MiB.
const LARGEST: f64 = 19.0;
/// Limit of the resident memory of an idle proxy, in MiB.
const IDLE: f64 = 16.0;

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Sign SHA256SUMS with this secret key of minisign
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Build for this processor only: x86_64 or aarch64
    #[arg(long, value_name = "ARCH", value_parser = ["x86_64", "aarch64"])]
    only: Option<String>,
    /// Build only the signer's static libraries for chips, into target/chips/dist
    #[arg(long, conflicts_with_all = ["only", "profiles", "sign_key"])]
    chips: bool,
    /// Folder with the profiles of a release (*.profdata), which are used instead of a training
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
}

/// Builds instrumented executables, collects their profiles, builds optimised ones, runs their demos, measures, compares
/// with another build, and makes the packages.
///
/// # Errors
/// When something cannot be built or started, is over its limit, or differs from the other build.
pub(crate) fn command(options: &Options) -> Result<()> {
    let wanted = |triple: &&str| options.only.as_ref().is_none_or(|arch| triple.starts_with(arch.as_str()));
    let targets: Vec<_> = TARGETS.into_iter().filter(wanted).collect();
    tools::toolchain()?;
    if options.chips {
        return libraries();
    }
    let profiles = match &options.profiles {
        Some(folder) => targets.iter().map(|triple| published(folder, triple)).collect::<Result<Vec<_>>>()?,
        None => train(&targets)?,
    };
    let optimised: Vec<_> = targets
        .iter()
        .zip(&profiles)
        .map(|(triple, profile)| (*triple, format!("profile-use={}", profile.display())))
        .collect();
    build(&optimised, &target())?;
    for triple in &targets {
        Executable::new(executable(&target(), triple), triple)?.demo()?;
        lists_its_crates(&executable(&target(), triple))?;
    }
    println!("\n| executable | MiB | of at most |\n| --- | --- | --- |");
    let mut over = Vec::new();
    for triple in &targets {
        let file = executable(&target(), triple);
        let size = mebibytes(fs::metadata(&file).with_context(|| file.display().to_string())?.len());
        println!("| {triple} | {size:.2} | {LARGEST} |");
        over.extend((size > LARGEST).then(|| format!("{triple} is larger than {LARGEST} MiB")));
    }
    let native = optimised.iter().find(|(triple, _)| triple.starts_with(std::env::consts::ARCH));
    if let Some((triple, option)) = native {
        let resident = idle(&executable(&target(), triple))?;
        println!("| {triple}, resident when idle | {resident:.2} | {IDLE} |");
        over.extend((resident > IDLE).then(|| format!("{triple} holds more than {IDLE} MiB when idle")));
        repeat(triple, option)?;
    }
    ensure!(over.is_empty(), "{}", over.join("; "));
    hand_out(&targets, &profiles, options.sign_key.as_deref())
}

/// Builds the signer's libraries for chips into `target/chips/dist`, and tries each as a firmware's build uses it.
///
/// # Errors
/// When a library does not build, or does not work as unpacked.
pub(crate) fn libraries() -> Result<()> {
    chips::write(&target().join("chips/dist"))
}

/// Builds instrumented executables, and returns the profile of each.
fn train(targets: &[&'static str]) -> Result<Vec<PathBuf>> {
    Run::cargo("build --locked --release --package cmiot-bench --example load").run()?;
    let instrumented = target().join("instrumented");
    let options: Vec<_> = targets.iter().map(|triple| (*triple, "profile-generate".to_owned())).collect();
    build(&options, &instrumented)?;
    let train = |triple: &&str| Executable::new(executable(&instrumented, triple), triple)?.collect_profile();
    targets.iter().map(train).collect()
}

/// The profile of a release for this target.
fn published(folder: &Path, triple: &str) -> Result<PathBuf> {
    let arch = triple.split('-').next().unwrap_or(triple);
    let end = format!("-{arch}.profdata");
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(&end) {
            return path.canonicalize().with_context(|| path.display().to_string());
        }
    }
    bail!("{} has no file *{end}", folder.display())
}

/// Builds again in another folder, and compares.
fn repeat(triple: &str, option: &str) -> Result<()> {
    let again = target().join("again");
    let _ = fs::remove_dir_all(&again); // of an earlier run
    build(&[(triple, option.to_owned())], &again)?;
    let read = |folder: &Path| {
        let path = executable(folder, triple);
        fs::read(&path).with_context(|| path.display().to_string())
    };
    ensure!(read(&target())? == read(&again)?, "two builds for {triple} from one profile differ");
    println!("two builds for {triple} from one profile have the same bytes");
    Ok(fs::remove_dir_all(&again)?)
}

/// Fills `dist/`: executables, profiles, packages, the signer's libraries for chips, checksums.
fn hand_out(targets: &[&str], profiles: &[PathBuf], key: Option<&Path>) -> Result<()> {
    let dist = root().join("dist");
    let _ = fs::remove_dir_all(&dist); // of an earlier release
    for (triple, profile) in targets.iter().zip(profiles) {
        let program = executable(&target(), triple);
        let stem = package::write(&program, &dist, 1)?.stem;
        fs::copy(&program, dist.join(&stem))?;
        fs::copy(profile, dist.join(format!("{stem}.profdata")))?;
    }
    chips::write(&dist)?;
    package::sum_and_sign(&dist, key)?;
    println!("dist/ has the release");
    Ok(())
}

/// Builds for these targets into a folder; each option is passed to rustc and to the C compiler.
fn build(targets: &[(&str, String)], folder: &Path) -> Result<()> {
    let replaced = replaced_paths(folder)?;
    let remap: String =
        replaced.iter().map(|(from, to)| format!(" --remap-path-prefix={from}={to}")).collect();
    let c_remap: String =
        replaced.iter().map(|(from, to)| format!(" -ffile-prefix-map={from}={to}")).collect();
    let zig = tools::python("zig")?.join("bin");
    let path = std::env::var("PATH").context("PATH")?;
    let python = root().join("xtask/src/release/python.sh");
    let build = tools::AUDITABLE
        .ready()?
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
        .env("SOURCE_DATE_EPOCH", &package::time()?.to_string())
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
            .env(
                &format!("CARGO_TARGET_{}_RUSTFLAGS", triple_name.to_uppercase()),
                &format!("-C{option}{remap}"),
            )
            .env(&format!("CFLAGS_{triple_name}"), &format!("-f{option}{c_remap}"))
    });
    build.run()
}

/// Paths that compilers write into an executable, and what they write instead; the later ones are within the earlier.
fn replaced_paths(folder: &Path) -> Result<[(String, &'static str); 3]> {
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let paths = [
        (home.context("HOME")?, "/cargo"),
        (root().display().to_string(), "/cmiot"),
        (folder.display().to_string(), "/build"),
    ];
    for (path, _) in &paths {
        ensure!(
            !path.contains(char::is_whitespace),
            "{path} has a space in it, where a compiler's flag ends"
        );
    }
    Ok(paths)
}

/// Fails if the executable has no section with the list of its crates, which cargo-auditable adds.
fn lists_its_crates(program: &Path) -> Result<()> {
    const SECTION: &[u8] = b"\0.dep-v0\0";
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let found = bytes.windows(SECTION.len()).any(|window| window == SECTION);
    ensure!(found, "{} does not list its crates: its section .dep-v0 is missing", program.display());
    Ok(())
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
    let config = configure(&folder, "http://127.0.0.1:9", "")?;
    let mut proxy = ServerProcess::start(
        Command::new(program).args(["serve", "--config"]).arg(&config).stderr(Stdio::null()),
    )?;
    proxy.wait_for_line("gateway ")?;
    let resident = proxy.resident()?;
    drop(proxy);
    fs::remove_dir_all(&folder)?;
    Ok(mebibytes(resident))
}

/// Writes a configuration with the account and these settings into this folder; returns its path.
fn configure(folder: &Path, base_url: &str, settings: &str) -> Result<PathBuf> {
    let config = folder.join("cmiot-proxy.toml");
    crate::run::write_private(&config, &setup::config(base_url, settings))?;
    Ok(config)
}
