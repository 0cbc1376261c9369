//! The real executable, `cmiot-proxy serve`: start, kill, drain, restart over the same folder.
//!
//! Dropping a [`Proxy`] asserts that no secret (`secrets.rs`) is in its output: standard output and error of all its
//! starts, and its metrics, which are read before each signal, kill and drop. So every test that starts a proxy also
//! checks for leaked secrets.

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

use super::{
    Connection, Gateway, GatewayClient, LookupRow, Machine, Response, Setup, rows, secrets, segments, within,
    write_config,
};

/// The log level: more verbose than the default, so that the check for secrets covers more.
const LOG_LEVEL: &str = "debug";

/// Environment variables of a measurement: another executable, and another log level.
const PROGRAM: &str = "CMIOT_TEST_PROGRAM";
const LOG: &str = "CMIOT_TEST_LOG";

/// A running `cmiot-proxy serve`.
pub(crate) struct Proxy {
    setup: Setup,
    folder: TempDir,
    machine: Machine,
    child: Child,
    client: GatewayClient,
    admin: SocketAddr,
    /// All metrics that were read, for the check for secrets.
    metrics_read: Mutex<String>,
}

impl Proxy {
    /// Starts in front of `carrier` with the default setup.
    pub(crate) async fn with_carrier(carrier: &Simulator) -> Self {
        Setup::with_carrier(carrier).start().await
    }

    pub(crate) async fn start(setup: Setup) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), setup).await
    }

    /// Starts with the log level `trace`.
    pub(crate) async fn start_tracing(setup: Setup) -> Self {
        Self::start_as(
            tempfile::tempdir().expect("a temporary folder"),
            setup,
            Machine::default(),
            &[],
            "trace",
        )
        .await
    }

    /// Starts in a folder that may contain databases.
    pub(crate) async fn start_in(folder: TempDir, setup: Setup) -> Self {
        Self::start_on_machine(folder, setup, Machine::default()).await
    }

    /// Starts on this machine.
    pub(crate) async fn start_on_machine(folder: TempDir, setup: Setup, machine: Machine) -> Self {
        Self::start_as(folder, setup, machine, &[], LOG_LEVEL).await
    }

    /// Starts in a folder with a lost state, with `--accept-lost-state`.
    pub(crate) async fn start_accepting_lost_state(folder: TempDir, setup: Setup) -> Self {
        Self::start_as(folder, setup, Machine::default(), &["--accept-lost-state"], LOG_LEVEL).await
    }

    async fn start_as(
        folder: TempDir,
        setup: Setup,
        machine: Machine,
        arguments: &[&str],
        log_level: &str,
    ) -> Self {
        write_config(&config_path(&folder), &setup.text());
        let (child, gateway, admin) = spawn(&folder, &machine, arguments, log_level).await;
        let client = GatewayClient { address: gateway, gateway: Gateway::new(Clock::system()) };
        Self { setup, folder, machine, child, client, admin, metrics_read: Mutex::default() }
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        config_path(&self.folder)
    }

    /// The folder of the databases; on a small disk, a copy of it.
    pub(crate) fn data(&self) -> PathBuf {
        if self.machine.private { self.copied() } else { self.folder.path().join("data") }
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its log so far. A line may reach the file after its response. Lines keep their order, so this requests a marker
    /// line and waits for that.
    pub(crate) fn log(&self) -> String {
        static MARKS: AtomicUsize = AtomicUsize::new(0);
        let mark = format!("/mark-{}-", MARKS.fetch_add(1, Ordering::Relaxed));
        let read = || std::fs::read_to_string(log_path(&self.folder)).expect("a log");
        if self.child.id().is_some()
            && self.ask_admin(&mark).is_ok_and(|response| response.starts_with("HTTP/"))
        {
            // At most one second: only the level "debug" logs requests to the admin listener.
            for _ in 0..200 {
                if read().contains(&mark) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5)); // to yield the processor
            }
        }
        read()
            .lines()
            .filter(|line| !line.contains("/mark-"))
            .fold(String::new(), |all, line| all + line + "\n")
    }

    /// GETs a page of the admin listener, blocking.
    fn ask_admin(&self, path: &str) -> std::io::Result<String> {
        const TIMEOUT: Duration = Duration::from_secs(1);
        let mut admin = TcpStream::connect_timeout(&self.admin, TIMEOUT)?;
        admin.set_read_timeout(Some(TIMEOUT))?;
        write!(admin, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin)?;
        let mut text = String::new();
        admin.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The current audit segment.
    pub(crate) fn audit_file(&self) -> PathBuf {
        segments(&self.data()).pop().expect("a segment")
    }

    /// All its audit records, oldest first.
    pub(crate) fn audit(&self) -> Vec<LookupRow> {
        rows(&self.data())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("a process that was not waited for")
    }

    /// Ends the process by SIGKILL.
    pub(crate) async fn kill9(&mut self) {
        self.read_metrics();
        within("the kill", self.child.kill()).await.expect("a process of ours");
    }

    /// Sends a signal by name.
    pub(crate) async fn signal(&self, name: &str) {
        self.read_metrics();
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().await;
        assert!(sent.expect("kill is on every system").success());
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within("the end of the process", self.child.wait()).await.expect("a process of ours")
    }

    /// Drains the proxy by SIGTERM, and returns its folder.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert!(status.success(), "{status}\n{}", self.log());
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    /// Starts the ended proxy again in the same folder, on other ports.
    pub(crate) async fn start_again(&mut self) {
        let (child, gateway, admin) = spawn(&self.folder, &self.machine, &[], LOG_LEVEL).await;
        self.child = child;
        self.client.address = gateway;
        self.admin = admin;
    }

    /// Drains the proxy, and starts it again in the same folder.
    pub(crate) async fn restart(&mut self) {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert!(status.success(), "{status}\n{}", self.log());
        self.start_again().await;
    }

    /// The address of the admin listener.
    pub(crate) fn admin_address(&self) -> std::net::SocketAddr {
        self.admin
    }

    /// The token that the proxy generated for its admin listener, if it did.
    pub(crate) fn generated_token(&self) -> Option<String> {
        let folder = if self.machine.private { self.disk() } else { self.data() };
        let token = std::fs::read_to_string(folder.join("admin.token")).ok()?;
        secrets::register(&token);
        Some(token)
    }

    /// The header line with the generated token, unless `headers` has another.
    fn authorization(&self, headers: &str) -> String {
        let token = self.generated_token().filter(|_| !headers.contains("Authorization:"));
        token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default()
    }

    /// GETs a page of the admin listener with more header lines, and with the generated token unless they have another.
    pub(crate) async fn admin(&self, path: &str, headers: &str) -> Response {
        let mut connection = Connection::to(self.admin).await;
        let authorization = self.authorization(headers);
        let host = self.admin;
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}{headers}\r\n")).await;
        let response = connection.response().await;
        self.metrics_read.lock().expect("nothing panics with it").push_str(response.text());
        response
    }

    /// Reads the metrics for the check for secrets. Does nothing after the process's end, or if they need a token or TLS.
    fn read_metrics(&self) {
        if self.child.id().is_some()
            && let Ok(text) = self.ask_admin("/metrics")
        {
            self.metrics_read.lock().expect("nothing panics with it").push_str(&text);
        }
    }

    /// POSTs JSON to the admin listener, with the same headers as [`Self::admin`].
    pub(crate) async fn admin_post(&self, path: &str, headers: &str, body: &str) -> Response {
        let mut connection = Connection::to(self.admin).await;
        let authorization = self.authorization(headers);
        let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n{authorization}{headers}", self.admin);
        connection.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        connection.response().await
    }

    /// The setup of its first start.
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }
}

impl Deref for Proxy {
    type Target = GatewayClient;

    fn deref(&self) -> &GatewayClient {
        &self.client
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.read_metrics();
        }
        let _ = self.child.start_kill(); // an error if it has ended
        if std::thread::panicking() {
            return;
        }
        self.setup.register_tokens();
        secrets::assert_no_secret("/metrics", &self.metrics_read.lock().expect("nothing panics with it"));
        for path in [log_path(&self.folder), out_path(&self.folder)] {
            // A test may have removed the folder.
            if let Ok(bytes) = std::fs::read(&path) {
                secrets::assert_no_secret(&path.display().to_string(), &String::from_utf8_lossy(&bytes));
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

/// The file of its standard output.
fn out_path(folder: &TempDir) -> PathBuf {
    folder.path().join("out")
}

async fn spawn(
    folder: &TempDir,
    machine: &Machine,
    arguments: &[&str],
    log_level: &str,
) -> (Child, SocketAddr, SocketAddr) {
    let before = std::fs::read(out_path(folder)).map_or(0, |output| output.len());
    let mut child = wrapped_command(&machine.wrapper, folder.path())
        .env("RUST_LOG", std::env::var(LOG).unwrap_or_else(|_| log_level.to_owned()))
        .envs(machine.environment.iter().cloned())
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
            let output = std::fs::read_to_string(out_path(folder)).expect("a file of ours");
            if let Some((gateway, admin)) = addresses(&output[before..]) {
                return Some((gateway, admin));
            }
            if child.try_wait().expect("a process of ours").is_some() {
                return None;
            }
            // To yield the processor; no test depends on this duration.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let Some((gateway, admin)) = within("the start", started).await else {
        let log = std::fs::read_to_string(log_path(folder)).unwrap_or_default();
        panic!("the proxy did not start:\n{log}");
    };
    (child, gateway, admin)
}

/// The executable with this working directory, without the variables of the tests' environment that affect it.
pub(crate) fn command(folder: &Path) -> Command {
    wrapped_command(&[], folder)
}

/// The executable, started by a wrapper command.
fn wrapped_command(wrapper: &[OsString], folder: &Path) -> Command {
    let program = std::env::var_os(PROGRAM).unwrap_or_else(|| env!("CARGO_BIN_EXE_cmiot-proxy").into());
    let mut words = wrapper.iter().cloned().chain([program]);
    let mut command = Command::new(words.next().expect("the executable at least"));
    command.args(words);
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("CMIOT_PASSWORD").env_remove("RUST_LOG").env("NO_COLOR", "1");
    command.env_remove("LC_ALL").env_remove("LC_MESSAGES").env_remove("LANG");
    command
}

fn appended(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a writable folder")
}

/// The addresses that `serve` prints to standard output once it listens.
fn addresses(output: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut lines = output.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let mut next = |name: &str| {
        let (scheme, address) = lines.next()?.strip_prefix(name)?.split_once("://")?;
        ["http", "https"].contains(&scheme).then_some(address.parse().ok()?)
    };
    Some((next("gateway ")?, next("admin ")?))
}
