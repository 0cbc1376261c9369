//! Rules for dependencies (`deny.toml`): licences, bans, sources, and known faults.
//!
//! Faults are looked up in the RustSec advisory database. The current one is fetched; where that fails, the snapshot
//! in `xtask/data` is used instead, and either way the database's date is printed. `CARGO_NET_OFFLINE=true` goes
//! straight to the snapshot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::{Run, root};
use crate::tools;

/// The snapshot that travels with the sources; `xtask/data/README.md` says where it is from.
const SNAPSHOT: &str = "xtask/data/advisory-db-2026-08-21.tgz";
/// When the snapshot was taken.
const SNAPSHOT_DATE: &str = "2026-08-21";
/// The folder in which cargo-deny looks for the database: a name it makes out of the URL in `deny.toml`.
const DATABASE: &str = "advisory-db-3157b0e258782691";
/// The variable by which `deny.toml` lets itself be pointed at another set of databases.
const DATABASES_VARIABLE: &str = "XTASK_ADVISORY_DBS";
/// Enough to fetch a few megabytes; a network that swallows packets must not hold a run up for longer.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Every workspace of the tree: each has a Cargo.lock of its own.
const MANIFESTS: &[&str] = &["./Cargo.toml", "./signer/firmware/Cargo.toml", "./bench/signer/Cargo.toml"];

/// Checks the dependencies of every Cargo.lock.
///
/// # Errors
/// When a dependency is not allowed, or cargo-deny or the crates are not available.
pub(super) fn stage() -> Result<()> {
    let databases = match fetch_database(tools::DENY.ready()?) {
        Ok(fetched) => fetched,
        Err(error) => {
            println!("The current advisory database is not available, so the snapshot is used: {error:#}");
            unpack_snapshot()?
        }
    };
    // Each is checked, whether or not one before it failed.
    let checked: Vec<Result<()>> = MANIFESTS.iter().map(|manifest| check(manifest, &databases)).collect();
    println!("Advisories looked up in the database of {}.", date(&databases)?);
    checked.into_iter().collect()
}

/// Checks the dependencies of one lock file.
fn check(manifest: &str, databases: &Path) -> Result<()> {
    // What cargo-deny reads offline below, those of other systems' crates included that no build has needed.
    Run::cargo("fetch --locked --manifest-path").args([manifest]).run()?;
    let deny = tools::DENY.ready()?.args([
        "--offline",
        "--manifest-path",
        manifest,
        "--config",
        "deny.toml",
        "check",
    ]);
    deny.env(DATABASES_VARIABLE, utf8(databases)?).run().with_context(|| manifest.to_owned())
}

/// Fetches the current database, and returns its folder.
fn fetch_database(deny: Run) -> Result<PathBuf> {
    if std::env::var_os("CARGO_NET_OFFLINE").is_some_and(|value| value == "true") {
        bail!("CARGO_NET_OFFLINE is set");
    }
    let databases = root().join("target/advisory-dbs");
    deny.args(["fetch", "db"]).env(DATABASES_VARIABLE, utf8(&databases)?).run_within(FETCH_LIMIT)?;
    Ok(databases)
}

/// Unpacks the snapshot as the git repository that cargo-deny expects, and returns its folder.
fn unpack_snapshot() -> Result<PathBuf> {
    let databases = root().join("target/advisory-snapshot");
    let database = databases.join(DATABASE);
    if databases.exists() {
        fs::remove_dir_all(&databases).with_context(|| format!("cannot clear {}", databases.display()))?;
    }
    fs::create_dir_all(&database).with_context(|| format!("cannot make {}", database.display()))?;
    let git = || Run::new("git").args(["-C", "target/advisory-snapshot"]).args(["-C", DATABASE]);
    Run::new("tar").args(["-xzf", SNAPSHOT, "--strip-components", "1", "-C"]).args([&database]).run()?;
    git().args(["init", "--quiet"]).run()?;
    git().args(["add", "--all"]).run()?;
    // The commit's date is the one that is printed as the database's.
    let midnight = format!("{SNAPSHOT_DATE}T00:00:00Z");
    git()
        .args(["-c", "user.name=xtask", "-c", "user.email=xtask@localhost", "-c", "commit.gpgsign=false"])
        .args(["commit", "--quiet", "--message", "Advisory snapshot"])
        .env("GIT_AUTHOR_DATE", &midnight)
        .env("GIT_COMMITTER_DATE", &midnight)
        .run()?;
    Ok(databases)
}

/// The day of a database's last change.
fn date(databases: &Path) -> Result<String> {
    let log =
        Run::new("git").args(["-C"]).args([databases.join(DATABASE)]).args(["log", "-1", "--format=%cs"]);
    Ok(log.output()?.trim().to_owned())
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8, which cargo-deny needs", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lock_file_is_checked() {
        let tracked =
            Run::new("git").args(["ls-files", "--", "Cargo.lock", "*/Cargo.lock"]).output().unwrap();
        let mut locks: Vec<String> =
            tracked.lines().map(|lock| format!("./{}", lock.replace(".lock", ".toml"))).collect();
        let mut checked: Vec<String> = MANIFESTS.iter().map(|manifest| (*manifest).to_owned()).collect();
        locks.sort();
        checked.sort();
        assert_eq!(checked, locks);
    }
}
