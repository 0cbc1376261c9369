//! `cargo xtask systemd`: the `.deb` under a real systemd, in namespaces of its own. Run by hand, as root.
//!
//! debootstrap makes the root folder once (`target/systemd-SUITE`). systemd starts in it as process 1 of its own process,
//! mount, network and cgroup namespaces, and runs `systemd/inside.sh` as a service, which installs the package, makes every
//! start, reload and stop, and powers off. Its log is printed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::package;
use crate::run::{Run, root, target};
use crate::tools;

/// Limit of one run.
const LIMIT: Duration = Duration::from_secs(300);

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Debian suite of the root folder: bookworm has systemd 252, trixie 257, the first of these two with notify-reload
    #[arg(long, default_value = "trixie")]
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
    tools::install(&["debootstrap"])?;
    let folder = target().join(format!("systemd-{}", options.suite));
    let ready = folder.join("var/lib/dpkg/status");
    if !ready.is_file() {
        let _ = fs::remove_dir_all(&folder); // of a run that was cut off
        Run::new("debootstrap")
            .args(["--variant=minbase", "--include=systemd,systemd-sysv,dbus,procps", &options.suite])
            .args([&folder])
            .run()?;
    }
    let program = options.program.clone().unwrap_or_else(|| target().join("release/cmiot-proxy"));
    let packages = target().join("systemd-packages");
    let _ = fs::remove_dir_all(&packages); // of an earlier run
    let first = package::write(&program, &packages, 1)?.deb;
    let second = package::write(&program, &packages, 2)?.deb;
    let scripts = root().join("xtask/src/systemd");
    let log = target().join("systemd.log");
    let result = Run::new("unshare")
        .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child", "sh"])
        .args([&scripts.join("boot.sh"), &folder, &scripts.join("inside.sh"), &first, &second, &log])
        .run_within(LIMIT);
    let printed = fs::read_to_string(&log).unwrap_or_default();
    print!("{printed}");
    result.or_else(|error| if printed.is_empty() { Err(error) } else { Ok(()) })?;
    ensure!(printed.ends_with("all steps passed\n"), "a step failed: see above");
    Ok(())
}
