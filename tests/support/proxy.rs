//! The real executable, serving: started, killed, drained, started again over the same folder.
//!
//! When one is dropped, all that it has told is looked through for secrets (see `secrets.rs`): its standard output and
//! error, from one start to the next, and its metrics, which are asked for before it is signalled, killed or dropped.
//! Every test that starts a proxy proves that along with its own sentence.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cmiot_proxy::clock::Clock;
use cmiot_simulator::Simulator;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{Answer, Door, Gateway, Ground, Line, Row, Setup, rows, secrets, segments, soon, write_config};

/// More than an operator sees by default, so that more is looked through.
const LOGGED: &str = "debug";

/// A running `cmiot-proxy serve`.
pub(crate) struct Proxy {
    setup: Setup,
    folder: TempDir,
    ground: Ground,
    child: Child,
    door: Door,
    admin: SocketAddr,
    /// What its metrics said.
    counted: Mutex<String>,
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
        Self::start_as(
            tempfile::tempdir().expect("a temporary folder"),
            setup,
            Ground::default(),
            &[],
            "trace",
        )
        .await
    }

    /// Over a folder that may hold databases already.
    pub(crate) async fn start_in(folder: TempDir, setup: Setup) -> Self {
        Self::start_on(folder, setup, Ground::default()).await
    }

    /// With a disk that can fail.
    pub(crate) async fn start_on(folder: TempDir, setup: Setup, ground: Ground) -> Self {
        Self::start_as(folder, setup, ground, &[], LOGGED).await
    }

    /// Over a folder whose state is lost.
    pub(crate) async fn start_over_in(folder: TempDir, setup: Setup) -> Self {
        Self::start_as(folder, setup, Ground::default(), &["--accept-lost-state"], LOGGED).await
    }

    async fn start_as(
        folder: TempDir,
        setup: Setup,
        ground: Ground,
        arguments: &[&str],
        logged: &str,
    ) -> Self {
        write_config(&config_path(&folder), &setup.text());
        let (child, gateway, admin) = spawn(&folder, &ground, arguments, logged).await;
        let door = Door { address: gateway, gateway: Gateway::new(Clock::system()) };
        Self { setup, folder, ground, child, door, admin, counted: Mutex::default() }
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        config_path(&self.folder)
    }

    /// The folder of the databases; a copy of it where the disk is small.
    pub(crate) fn data(&self) -> PathBuf {
        if self.ground.private { self.copied() } else { self.folder.path().join("data") }
    }

    pub(super) fn ground(&self) -> &Ground {
        &self.ground
    }

    /// What it has logged so far. Lines reach the file in their order and after the answers that they are about, so a
    /// line is asked for, and everything before it is there once that is.
    pub(crate) fn log(&self) -> String {
        static MARKS: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("/mark-{}-", MARKS.fetch_add(1, Ordering::Relaxed));
        let read = || std::fs::read_to_string(log_path(&self.folder)).expect("a log");
        if self.child.id().is_some() && self.ask_admin(&mark).is_ok_and(|answer| answer.starts_with("HTTP/"))
        {
            // A second of rounds: a log that is not at "debug" has no line of the operators' pages.
            for _ in 0..200 {
                if read().contains(&mark) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5)); // only so as not to spin
            }
        }
        read()
            .lines()
            .filter(|line| !line.contains("/mark-"))
            .fold(String::new(), |all, line| all + line + "\n")
    }

    /// Asks the operators' listener for a page, without waiting for a runtime.
    fn ask_admin(&self, path: &str) -> std::io::Result<String> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let mut admin = TcpStream::connect_timeout(&self.admin, PATIENCE)?;
        admin.set_read_timeout(Some(PATIENCE))?;
        write!(admin, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin)?;
        let mut text = String::new();
        admin.read_to_string(&mut text)?;
        Ok(text)
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
        self.count();
        soon("dying", self.child.kill()).await.expect("a process of ours");
    }

    /// Sends a signal by name.
    pub(crate) async fn signal(&self, name: &str) {
        self.count();
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
        let (child, gateway, admin) = spawn(&self.folder, &self.ground, &[], LOGGED).await;
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

    /// The token that it made for its admin listener, if it made one.
    pub(crate) fn made_token(&self) -> Option<String> {
        let folder = if self.ground.private { self.disk() } else { self.data() };
        let token = std::fs::read_to_string(folder.join("admin.token")).ok()?;
        secrets::keep(&token);
        Some(token)
    }

    /// The same as a header line, unless these headers have one.
    fn authorization(&self, headers: &str) -> String {
        let token = self.made_token().filter(|_| !headers.contains("Authorization:"));
        token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default()
    }

    /// Asks the admin listener, with more header lines; with the token that the proxy made, unless they have another.
    pub(crate) async fn admin(&self, path: &str, headers: &str) -> Answer {
        let mut line = Line::to(self.admin).await;
        let authorization = self.authorization(headers);
        let host = self.admin;
        line.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}{headers}\r\n")).await;
        let answer = line.answer().await;
        self.counted.lock().expect("nothing panics with it").push_str(answer.text());
        answer
    }

    /// Asks for the metrics, if they are to be had: not when it has ended, or where they need a token or TLS.
    fn count(&self) {
        if self.child.id().is_some()
            && let Ok(text) = self.ask_admin("/metrics")
        {
            self.counted.lock().expect("nothing panics with it").push_str(&text);
        }
    }

    /// Posts JSON to the admin listener in the same way.
    pub(crate) async fn admin_post(&self, path: &str, headers: &str, body: &str) -> Answer {
        let mut line = Line::to(self.admin).await;
        let authorization = self.authorization(headers);
        let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n{authorization}{headers}", self.admin);
        line.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
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
        if !std::thread::panicking() {
            self.count();
        }
        let _ = self.child.start_kill(); // ended already, mostly
        if std::thread::panicking() {
            return;
        }
        self.setup.keep_tokens();
        secrets::hold_none("/metrics", &self.counted.lock().expect("nothing panics with it"));
        for told in [log_path(&self.folder), out_path(&self.folder)] {
            // A test may have taken the folder away.
            if let Ok(bytes) = std::fs::read(&told) {
                secrets::hold_none(&told.display().to_string(), &String::from_utf8_lossy(&bytes));
            }
        }
    }
}

fn config_path(folder: &TempDir) -> PathBuf {
    folder.path().join("cmiot-proxy.toml")
}

fn log_path(folder: &TempDir) -> PathBuf {
    folder.path().join("log")
}

/// What it has written to standard output.
fn out_path(folder: &TempDir) -> PathBuf {
    folder.path().join("out")
}

async fn spawn(
    folder: &TempDir,
    ground: &Ground,
    arguments: &[&str],
    logged: &str,
) -> (Child, SocketAddr, SocketAddr) {
    let before = std::fs::read(out_path(folder)).map_or(0, |told| told.len());
    let mut child = command_after(&ground.before, folder.path())
        .env("RUST_LOG", logged)
        .envs(ground.environment.iter().cloned())
        .arg("serve")
        .arg("--config")
        .arg(config_path(folder))
        .args(arguments)
        .stdout(appended(&out_path(folder)))
        .stderr(appended(&log_path(folder)))
        .spawn()
        .expect("the executable that was built along with the tests");
    let started = async {
        loop {
            let told = std::fs::read_to_string(out_path(folder)).expect("a file of ours");
            if let Some((gateway, admin)) = addresses(&told[before..]) {
                return Some((gateway, admin));
            }
            if child.try_wait().expect("a process of ours").is_some() {
                return None;
            }
            // Only so as not to spin: nothing depends on how long this is.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let Some((gateway, admin)) = soon("starting", started).await else {
        let log = std::fs::read_to_string(log_path(folder)).unwrap_or_default();
        panic!("the proxy did not start:\n{log}");
    };
    (child, gateway, admin)
}

/// The executable, in a folder and with nothing of the tests' environment that matters to it.
pub(crate) fn command(folder: &Path) -> Command {
    command_after(&[], folder)
}

/// The same, started by other words before its own.
fn command_after(before: &[OsString], folder: &Path) -> Command {
    let mut words = before.iter().cloned().chain([OsString::from(env!("CARGO_BIN_EXE_cmiot-proxy"))]);
    let mut command = Command::new(words.next().expect("the executable at least"));
    command.args(words);
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("CMIOT_PASSWORD").env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

fn appended(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a writable folder")
}

/// What `serve` says on its standard output once it serves.
fn addresses(told: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut lines = told.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let mut next = |what: &str| {
        let (scheme, address) = lines.next()?.strip_prefix(what)?.split_once("://")?;
        ["http", "https"].contains(&scheme).then_some(address.parse().ok()?)
    };
    Some((next("gateway ")?, next("admin ")?))
}
