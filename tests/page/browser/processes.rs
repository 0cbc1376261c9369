//! The processes of a browser, and their end, also after a test that was killed.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::within;

/// Starts chromedriver, and ends it and the browser that it started when standard input ends: a chromedriver that is killed
/// leaves its browser behind. Waits, since a browser that ends still writes into its folder.
const SCRIPT: &str = r#"trap "" TERM INT HUP
    chromedriver --port=0 &
    driver=$!
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
    pub(super) async fn start() -> Self {
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
        let port = within("chromedriver", async {
            while let Some(line) = lines.next_line().await.expect("a pipe") {
                let port = line.strip_prefix("ChromeDriver was started successfully on port ");
                if let Some(port) = port.and_then(|port| port.trim_end_matches('.').parse().ok()) {
                    return port;
                }
            }
            panic!("chromedriver did not start: `cargo xtask ci page` installs it");
        })
        .await;
        Self { guard, port, profile }
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
