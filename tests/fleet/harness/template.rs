//! The data folder that each test's server starts from: `initdb` once for all tests, a copy for each.
//!
//! PostgreSQL's programs refuse to run as root, so that root runs them as the user `postgres`. Folders that this user
//! must reach are temporary ones; the template is in Cargo's target folder, which it need not reach.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The oldest version that the proxy supports.
const OLDEST: u32 = 15;

/// SQL of the template, one statement per line: the owner of the shared tables, the role of the proxies, the database.
/// Rights of that role are part of the proxy's migrations.
const SQL: &str = "CREATE ROLE cmiot_owner LOGIN;
CREATE ROLE cmiot_node LOGIN;
CREATE DATABASE cmiot OWNER cmiot_owner;
";

/// The server programs, and the user that they run as.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    folder: PathBuf,
    /// User and group for a test that root runs.
    user: Option<(u32, u32)>,
}

impl Programs {
    /// The newest ones of this machine.
    pub(super) fn find() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
        let numbers = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let newest = numbers.filter(|number| *number >= OLDEST).max();
        let newest = newest.expect("PostgreSQL 15 or newer: `cargo xtask ci fleet` installs it");
        let folder = PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"));
        let user = rustix::process::geteuid().is_root().then(user_of_postgres);
        Self { folder, user }
    }

    /// A server program.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.current_dir("/").env_clear().env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// A temporary folder that the programs may write.
    pub(super) fn folder(&self) -> TempDir {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().expect("a temporary folder");
        self.own(folder.path());
        folder
    }

    /// Gives a file to the user that the programs run as.
    pub(super) fn own(&self, path: &Path) {
        if let Some((user, group)) = self.user {
            chown(path, Some(user), Some(group)).expect("root");
        }
    }

    /// Copies the template to `data`.
    pub(super) fn create(&self, data: &Path) {
        copy(&self.template(), data);
    }

    /// The template, which the first test creates while the others wait.
    fn template(&self) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let template = folder.join(self.name());
        // Released with the process, also when it is killed.
        let lock = File::create(folder.join("postgres.lock")).expect("Cargo's folder");
        lock.lock().expect("a file of ours");
        if !template.exists() {
            let built = self.folder();
            self.build(&built.path().join("data"));
            let unfinished = folder.join("postgres.new");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished).expect("a folder of ours");
            }
            copy(&built.path().join("data"), &unfinished);
            fs::rename(&unfinished, &template).expect("a folder of ours");
        }
        template
    }

    /// A name for each version of the server, of its user and of the SQL.
    fn name(&self) -> String {
        let version = output(self.command("postgres").arg("--version"), "");
        let version = version.split_whitespace().nth(2).expect("postgres (PostgreSQL) 15.18");
        let sum = SQL.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let user = self.user.map_or_else(|| "own".to_owned(), |(user, _)| user.to_string());
        format!("postgres-{version}-{user}-{sum:08x}")
    }

    fn build(&self, data: &Path) {
        // Small WAL files: each test copies one.
        let options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"];
        output(
            self.command("initdb").args(options).args(["--no-sync", "--wal-segsize=1", "--pgdata"]).arg(data),
            "",
        );
        let options = ["--single", "-c", "fsync=off", "-D"];
        output(self.command("postgres").args(options).arg(data).arg("postgres"), SQL);
    }
}

/// User and group of `postgres`, which Debian's package creates.
fn user_of_postgres() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("a list of users");
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:"));
    let mut fields = line.expect("the user of Debian's package").split(':').skip(1);
    let mut number = || fields.next().and_then(|field| field.parse().ok()).expect("a number");
    (number(), number())
}

/// Runs a program to its end with this standard input; its standard output.
fn output(command: &mut Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a program of PostgreSQL");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("a program that reads");
    let output = child.wait_with_output().expect("a process of ours");
    let error = String::from_utf8_lossy(&output.stderr);
    // `postgres --single` reports a failed statement and exits with 0.
    assert!(output.status.success() && !error.contains("ERROR"), "{command:?}: {}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Copies a folder with owners and permissions.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).args([from, to]).status();
    assert!(status.expect("cp is on every system").success());
    // The server demands it of its data folder.
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("a folder of ours");
}
