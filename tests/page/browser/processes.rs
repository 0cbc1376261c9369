//! The processes of a browser, and their end, also after a test that was killed.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::within;

/// Starts chromedriver, and ends it and the browser that it started when standard input ends: a chromedriver that is killed
/// leaves its browser behind. Waits, since a browser that ends still writes into its folder. The shell closes its own
/// standard output, so that its end is the end of chromedriver.
const SCRIPT: &str = r#"trap "" TERM INT HUP
    chromedriver --port=0 2>&1 &
    driver=$!
    exec >&-
    read -r _
    browser=$(ps -o pid= --ppid "$driver")
    kill -KILL $browser "$driver"
    for one in $browser; do while kill -0 "$one"; do sleep 0.05; done; done
    rm -rf -- "$1""#;

/// chromedriver and its browser.
pub(super) struct Processes {
    guard: Child,
    port: u16,
    profile: TempDir,
}

impl Processes {
    /// Starts a chromedriver on a free port.
    ///
    /// chromedriver takes a free port of IPv4, then the same port of IPv6, and exits if another process has that one: hence
    /// the repetition.
    pub(super) async fn start() -> Self {
        let mut said = String::new();
        for _ in 0..5 {
            match within("chromedriver", Self::try_start()).await {
                Ok(started) => return started,
                Err(output) => said = output,
            }
        }
        panic!("chromedriver does not start (`cargo xtask ci page` installs it):\n{said}");
    }

    /// Starts a chromedriver; returns its output when it exits.
    async fn try_start() -> Result<Self, String> {
        let profile = tempfile::Builder::new().prefix("cmiot-page-").tempdir().expect("a temporary folder");
        let mut guard = Command::new("sh")
            .args(["-c", SCRIPT, "guard"])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A signal to the test's group must not end the shell before the browser.
            .process_group(0)
            .spawn()
            .expect("a shell is on every system");
        let mut lines = BufReader::new(guard.stdout.take().expect("a pipe")).lines();
        let mut said = String::new();
        while let Some(line) = lines.next_line().await.expect("a pipe") {
            let port = line.strip_prefix("ChromeDriver was started successfully on port ");
            if let Some(port) = port.and_then(|port| port.trim_end_matches('.').parse().ok()) {
                // The pipe stays open for what chromedriver prints later.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Self { guard, port, profile });
            }
            said.push_str(&line);
            said.push('\n');
        }
        Err(said)
    }

    /// The URL of chromedriver.
    pub(super) fn driver(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The folder of the browser's own files.
    pub(super) fn profile(&self) -> &Path {
        self.profile.path()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        for _ in 0..2_000 {
            if !matches!(self.guard.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5)); // to yield the processor
        }
        assert!(std::thread::panicking(), "the browser does not end");
    }
}
