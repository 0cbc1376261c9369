//! Build facts for `--version`: the commit and the target.
//!
//! The commit is `CMIOT_COMMIT`, or what git says in an optimized build; otherwise "unknown": a build of every commit would
//! compile the package again during development. Nothing depends on the time, so builds stay reproducible.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CMIOT_COMMIT");
    let variable = |name| std::env::var(name).unwrap_or_default();
    let given = Some(variable("CMIOT_COMMIT")).filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| if variable("PROFILE") == "release" { of_git() } else { None });
    let commit = commit.filter(|commit| commit.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    println!("cargo::rustc-env=CMIOT_BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=CMIOT_BUILD_TARGET={}", variable("TARGET"));
}

/// The commit of this repository; none if the package was unpacked elsewhere, be it in another repository.
fn of_git() -> Option<String> {
    if git(&["rev-parse", "--show-prefix"])? != "proxy/" {
        return None;
    }
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// The first line of git's output.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok())??;
    text.lines().next().map(str::to_owned)
}
