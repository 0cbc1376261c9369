//! The packages, made from the release build of the benches: checked by lintian, rpmlint and the schema of CycloneDX, and
//! installed, started, upgraded and purged: the `.deb` without systemd in a view of this machine, the `.rpm` by rpm under
//! systemd, and the `.deb` by the commands of docs/quickstart-debian.md.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::bench::quick;
use crate::package::{self, Written};
use crate::run::{Run, root, target};
use crate::systemd::{self, quickstart};
use crate::tools;

/// Limit of a trial, which takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

pub(super) fn stage() -> Result<()> {
    tools::install(&["iproute2", "lintian", "rpm", "rpmlint"])?;
    // As the stage `bench` builds it.
    quick(Run::cargo("build --release --package cmiot-proxy --package cmiot-bench --bins --example floor"))
        .run()?;
    let program = target().join("release/cmiot-proxy");
    let folder = target().join("packages");
    let _ = fs::remove_dir_all(&folder); // of an earlier run
    let Written { deb, rpm, bill, .. } = package::write(&program, &folder, 1)?;
    package::sum_and_sign(&folder, None)?;
    Run::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).inside(&folder).run()?;
    let later = package::write(&program, &folder.join("later"), 2)?;

    Run::new("lintian").args(["--fail-on", "error,warning", "--allow-root"]).args([&deb]).run()?;
    Run::new("rpmlint")
        .args(["--config"])
        .args([root().join("packaging/rpm/rpmlint.toml")])
        .args([&rpm])
        .run()?;
    let python = tools::python("cyclonedx")?.join("bin/python");
    Run::new(python).args([root().join("xtask/src/package/validate_sbom.py"), bill]).run()?;

    Run::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh"])
        .args([&root().join("xtask/src/package/try_deb.sh"), &empty("try-deb")?, &deb, &later.deb])
        .run_within(LIMIT)?;
    let log =
        systemd::boot(&systemd::debian(systemd::SUITE)?, &systemd::script("rpm.sh"), &[&rpm, &later.rpm])?;
    print!("{log}");
    systemd::passed(&log)?;
    quickstart::run(&deb)
}

/// An empty folder of this name below the target folder.
fn empty(name: &str) -> Result<PathBuf> {
    let folder = target().join(name);
    let _ = fs::remove_dir_all(&folder); // of a run that was cut off
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
