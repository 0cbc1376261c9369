//! The real executable, serving: started, killed, drained, started again over the same folder.
//!
//! When one is dropped its log is read, and holds nothing that a log must not hold: every test that starts a proxy
//! proves that along with its own sentence.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::PoisonError;

use cmiot_proxy::clock::Clock;
use cmiot_simulator::Simulator;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::{ACCOUNT_PASSWORD, Answer, Door, Gateway, Line, Row, SECRETS, Setup, rows, segments, soon};

/// More than an operator sees by default, so that more is looked through.
const LOGGED: &str = "debug";

/// A running `cmiot-proxy serve`.
pub(crate) struct Proxy {
    setup: Setup,
    folder: TempDir,
    child: Child,
    door: Door,
    admin: SocketAddr,
}

impl Proxy {
    /// In front of `carrier`, everything by default.
    pub(crate) async fn before(carrier: &Simulator) -> Self {
        Setup::before(carrier).start().await
    }

    pub(crate) async fn start(setup: Setup) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), setup).await
    }

    /// The same, logging everything that any part of it can log.
    pub(crate) async fn start_tracing(setup: Setup) -> Self {
        Self::start_as(tempfile::tempdir().expect("a temporary folder"), setup, &[], "trace").await
    }

    /// Over a folder that may hold databases already.
    pub(crate) async fn start_in(folder: TempDir, setup: Setup) -> Self {
        Self::start_as(folder, setup, &[], LOGGED).await
    }

    /// Over a folder whose state is lost.
    pub(crate) async fn start_over_in(folder: TempDir, setup: Setup) -> Self {
        Self::start_as(folder, setup, &["--accept-lost-state"], LOGGED).await
    }

    async fn start_as(folder: TempDir, setup: Setup, arguments: &[&str], logged: &str) -> Self {
        std::fs::write(config_path(&folder), setup.text()).expect("a writable folder");
        let (child, gateway, admin) = spawn(&folder, arguments, logged).await;
        let door = Door { address: gateway, gateway: Gateway::new(Clock::system()) };
        Self { setup, folder, child, door, admin }
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        config_path(&self.folder)
    }

    /// The folder of the databases.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_path(&self.folder)).expect("a log")
    }

    /// The segment of its audit that is being written.
    pub(crate) fn audit_file(&self) -> PathBuf {
        segments(&self.data()).pop().expect("a segment")
    }

    /// What its audit holds.
    pub(crate) fn audit(&self) -> Vec<Row> {
        rows(&self.data())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("a process that was not waited for")
    }

    /// Ends the process at once, as a power cut or the kernel would.
    pub(crate) async fn kill9(&mut self) {
        soon("dying", self.child.kill()).await.expect("a process of ours");
    }

    /// Sends a signal by name.
    pub(crate) async fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().await;
        assert!(sent.expect("kill is on every system").success());
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        soon("ending", self.child.wait()).await.expect("a process of ours")
    }

    /// Drains it as an init system does, and takes its folder back.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert!(status.success(), "{status}\n{}", self.log());
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    /// Starts again over the same folder, at other ports. Only after it ended.
    pub(crate) async fn start_again(&mut self) {
        let (child, gateway, admin) = spawn(&self.folder, &[], LOGGED).await;
        self.child = child;
        self.door.address = gateway;
        self.admin = admin;
    }

    /// Drains, and starts again over the same folder.
    pub(crate) async fn restart(&mut self) {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert!(status.success(), "{status}\n{}", self.log());
        self.start_again().await;
    }

    /// Where operators look.
    pub(crate) fn admin_address(&self) -> std::net::SocketAddr {
        self.admin
    }

    /// Asks the operators' listener, with more header lines.
    pub(crate) async fn admin(&self, path: &str, headers: &str) -> Answer {
        let mut line = Line::to(self.admin).await;
        line.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.admin)).await;
        line.answer().await
    }

    /// What it was started with.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }
}

impl Deref for Proxy {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.start_kill(); // ended already, mostly
        if !std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(log_path(&self.folder))
        {
            holds_no_secret(&log);
        }
    }
}

/// Nothing that was signed with, signed, or asked about stands in a log.
#[track_caller]
pub(crate) fn holds_no_secret(log: &str) {
    let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets.iter().map(String::as_str).chain([ACCOUNT_PASSWORD]) {
        if let Some(line) = log.lines().find(|line| line.contains(secret)) {
            panic!("a log shows {secret}: {line}");
        }
    }
    let line = log.lines().find(|line| line.contains("token="));
    assert_eq!(line, None, "a log shows a query");
}

fn config_path(folder: &TempDir) -> PathBuf {
    folder.path().join("cmiot-proxy.toml")
}

fn log_path(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}

async fn spawn(folder: &TempDir, arguments: &[&str], logged: &str) -> (Child, SocketAddr, SocketAddr) {
    let mut child = command(folder.path())
        .env("RUST_LOG", logged)
        .arg("serve")
        .arg("--config")
        .arg(config_path(folder))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(log_file(folder))
        .spawn()
        .expect("the executable that was built along with the tests");
    let stdout = child.stdout.take().expect("a pipe that was asked for");
    let told = soon("starting", addresses(stdout)).await;
    let Some((gateway, admin)) = told else {
        let log = std::fs::read_to_string(log_path(folder)).unwrap_or_default();
        panic!("the proxy did not start:\n{log}");
    };
    (child, gateway, admin)
}

/// The executable, in a folder and with nothing of the tests' environment that matters to it.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cmiot-proxy"));
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("CMIOT_PASSWORD").env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

fn log_file(folder: &TempDir) -> File {
    let path = log_path(folder);
    OpenOptions::new().create(true).append(true).open(path).expect("a writable folder")
}

/// What `serve` says on its standard output once it serves.
async fn addresses(stdout: ChildStdout) -> Option<(SocketAddr, SocketAddr)> {
    let mut lines = BufReader::new(stdout).lines();
    let mut next = async |what: &str| {
        let line = lines.next_line().await.ok()??;
        line.strip_prefix(what)?.parse().ok()
    };
    Some((next("gateway http://").await?, next("admin http://").await?))
}
