//! `cargo xtask systemd`: the `.deb` under a real systemd, in namespaces of its own. Run by hand, as root.
//!
//! debootstrap makes the root folder once (`target/systemd-SUITE`). systemd starts in a copy-on-write view of it, as process
//! 1 of its own process, mount, network and cgroup namespaces, and runs a script as a service, which powers off at its end.
//! The script of the command is `systemd/inside.sh`: it installs the package and makes every start, reload and stop. The CI
//! stage `packages` boots the same root with `systemd/rpm.sh` and with the commands of docs/quickstart-debian.md
//! (`systemd/quickstart.rs`).

pub(crate) mod quickstart;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::package;
use crate::run::{Run, root, target};
use crate::tools;

/// Limit of one run.
const LIMIT: Duration = Duration::from_secs(300);

/// The Debian suite of the root folder, unless another one is named.
pub(crate) const SUITE: &str = "trixie";

/// The packages of the root folder in addition to Debian's smallest set.
const INCLUDED: &str = "dbus,procps,rpm,systemd,systemd-sysv";

/// The last line of a script of which every step succeeded.
const PASSED: &str = "all steps passed\n";

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Debian suite of the root folder: bookworm has systemd 252, trixie 257, the first of these two with notify-reload
    #[arg(long, default_value = SUITE)]
    suite: String,
    /// Executable to package; the release build of this folder by default
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// The command.
///
/// # Errors
/// When the root folder cannot be made, systemd does not start, or a step fails; the log has the step.
pub(crate) fn command(options: &Options) -> Result<()> {
    let folder = debian(&options.suite)?;
    let program = options.program.clone().unwrap_or_else(|| target().join("release/cmiot-proxy"));
    let packages = target().join("systemd-packages");
    let _ = fs::remove_dir_all(&packages); // of an earlier run
    let first = package::write(&program, &packages, 1)?.deb;
    let second = package::write(&program, &packages, 2)?.deb;
    let log = boot(&folder, &script("inside.sh"), &[&first, &second])?;
    print!("{log}");
    passed(&log)
}

/// The root folder of a Debian suite with systemd and rpm; debootstrap makes it once.
///
/// # Errors
/// When debootstrap is missing and cannot be installed, or fails.
pub(crate) fn debian(suite: &str) -> Result<PathBuf> {
    tools::install(&["debootstrap"])?;
    let folder = target().join(format!("systemd-{suite}"));
    let complete = folder.with_extension("complete");
    if fs::read_to_string(&complete).is_ok_and(|included| included == INCLUDED) {
        return Ok(folder);
    }
    let _ = fs::remove_dir_all(&folder); // of a run that was cut off, or with other packages
    Run::new("debootstrap")
        .args(["--variant=minbase", &format!("--include={INCLUDED}"), suite])
        .args([&folder])
        .run()?;
    fs::write(&complete, INCLUDED).with_context(|| complete.display().to_string())?;
    Ok(folder)
}

/// A script of the folder `systemd/`.
pub(crate) fn script(name: &str) -> PathBuf {
    root().join("xtask/src/systemd").join(name)
}

/// Boots systemd in a view of this root folder. It runs the script in the folder `/packages`, which has copies of the
/// files, with their names as arguments. Returns the output of the script.
///
/// # Errors
/// When systemd does not start.
pub(crate) fn boot(folder: &Path, script: &Path, files: &[&Path]) -> Result<String> {
    let log = target().join("systemd.log");
    let _ = fs::remove_file(&log); // of an earlier run
    // Its exit status is that of a process 1 that powers off, which says nothing.
    let result = Run::new("unshare")
        .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child", "sh"])
        .args([&self::script("boot.sh"), folder, &log, script])
        .args(files)
        .run_within(LIMIT);
    let printed = fs::read_to_string(&log).unwrap_or_default();
    if printed.is_empty() {
        result.context("systemd did not start")?;
    }
    Ok(printed)
}

/// Fails unless every step of a script succeeded.
///
/// # Errors
/// When its output does not end with [`PASSED`].
pub(crate) fn passed(log: &str) -> Result<()> {
    ensure!(log.ends_with(PASSED), "a step failed: see above");
    Ok(())
}
