//! `cargo xtask package`: what a release hands out, from one executable: `.deb`, `.rpm`, `.tar.gz`, a container archive, a
//! software bill of materials, and their checksums.
//!
//! The archives are written by libraries: building cargo-deb and cargo-generate-rpm takes minutes of a cold CI run, and
//! neither makes the other formats. The same executable and commit give the same bytes: every time in an archive is
//! `SOURCE_DATE_EPOCH`, or that of the commit.

mod checksums;
mod container;
mod contents;
mod deb;
mod dependencies;
mod elf;
mod notices;
mod rpm;
mod sbom;
pub(crate) mod tarball;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{Run, target};
use contents::Entry;
use dependencies::Dependencies;
use elf::Executable;

/// Name of the package, the executable, the user and the service.
const NAME: &str = "cmiot-proxy";
const SUMMARY: &str = "edge proxy for SIM-card status lookups on China Mobile's IoT platform";
const DESCRIPTION: &str = "It authenticates gateways, answers from its cache, collapses concurrent identical lookups into \
                           one carrier call, signs that call, and commits an audit record before each response.";
const LICENCE: &str = "MIT OR Apache-2.0";
const MAINTAINER: &str = "The cmiot engineers <cmiot-proxy@cmiot.example>";

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Executable to package; the release build of this folder by default
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Folder for the packages; target/packages by default
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Sign SHA256SUMS with this secret key of minisign
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
}

/// One release for one processor.
struct Package {
    version: String,
    /// Time of every file, in seconds since 1970.
    time: u64,
    executable: Executable,
    files: Vec<Entry>,
    /// Version that archives name; an upgrade has a higher one.
    revision: u32,
}

/// The command.
///
/// # Errors
/// When the executable is none for a processor that is known, or something cannot be read or written.
pub(crate) fn command(options: &Options) -> Result<()> {
    let program = options.program.clone().unwrap_or_else(|| target().join("release").join(NAME));
    let out = options.out.clone().unwrap_or_else(|| target().join("packages"));
    let _ = fs::remove_dir_all(&out); // of an earlier run
    write(&program, &out, 1)?;
    checksums::write(&out, options.sign_key.as_deref())?;
    for file in files(&out)? {
        println!("{}", file.display());
    }
    Ok(())
}

/// The paths of files that were written.
pub(crate) struct Written {
    /// Name, version and processor.
    pub(crate) stem: String,
    pub(crate) deb: PathBuf,
    pub(crate) rpm: PathBuf,
    /// The software bill of materials.
    pub(crate) bill: PathBuf,
}

/// Writes all archives of an executable into a folder.
///
/// # Errors
/// As [`command`].
pub(crate) fn write(program: &Path, out: &Path, revision: u32) -> Result<Written> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let executable = Executable::read(&program.display().to_string(), &bytes)?;
    let dependencies = Dependencies::of(executable.arch.triple())?;
    let version = dependencies.version.clone();
    let time = time()?;
    let components = sbom::write(&dependencies, time)?;
    let files = contents::gather(bytes, &dependencies, &components, time)?;
    let package = Package { version, time, executable, files, revision };
    let arch = package.executable.arch.rpm();
    let stem = format!("{NAME}-{}-{arch}", package.version);
    let bill = out.join(format!("{stem}.cdx.json"));
    fs::write(&bill, &components)?;
    tarball::write(&package, &out.join(format!("{stem}-linux.tar.gz")))?;
    container::write(&package, &out.join(format!("{stem}.oci.tar")))?;
    let deb =
        out.join(format!("{NAME}_{}-{revision}_{}.deb", package.version, package.executable.arch.debian()));
    deb::write(&package, &deb)?;
    let rpm = out.join(format!("{NAME}-{}-{revision}.{arch}.rpm", package.version));
    rpm::write(&package, &rpm)?;
    Ok(Written { stem, deb, rpm, bill })
}

/// Adds SHA256SUMS for all files of a folder, and signs it with this key.
///
/// # Errors
/// When a file cannot be read or written, or the key cannot be used.
pub(crate) fn sum_and_sign(out: &Path, key: Option<&Path>) -> Result<()> {
    checksums::write(out, key)
}

/// `SOURCE_DATE_EPOCH`, or the time of the commit.
pub(crate) fn time() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => Run::new("git").args(["log", "-1", "--format=%ct"]).output()?,
    };
    text.trim().parse().with_context(|| format!("no time in seconds: `{}`", text.trim()))
}

/// All files of a folder, sorted by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    Ok(files)
}
