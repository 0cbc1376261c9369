//! The proxy inside the test, on a clock that only the test moves: sockets, carrier and files are as real as ever.

use std::ops::Deref;
use std::path::Path;

use cmiot_proxy::app::{App, open_store};
use cmiot_proxy::clock::{Clock, Hand, Time};
use cmiot_proxy::config::{Config, ConfigFile};
use tempfile::TempDir;

use super::{Answer, Door, Gateway, Line, Setup, secrets};

/// 2026-01-15T12:00:00+08:00: where the clock stands at first.
const NOON: Time = Time::from_secs(1_768_449_600);

/// A running [`App`] and the hand of its clock.
pub(crate) struct Clocked {
    /// Moves the clock of proxy and gateway alike.
    pub(crate) clock: Hand,
    app: App,
    door: Door,
    folder: TempDir,
}

impl Clocked {
    pub(crate) async fn start(setup: &Setup) -> Self {
        secrets::listen();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, NOON, setup).await
    }

    /// Drains it, and starts another one over its databases whose clock stands at `at`.
    pub(crate) async fn restart_at(self, at: Time, setup: &Setup) -> Self {
        self.app.drain().await;
        Self::start_in(self.folder, at, setup).await
    }

    async fn start_in(folder: TempDir, at: Time, setup: &Setup) -> Self {
        let (clock, hand) = Clock::manual(at);
        let file = ConfigFile::parse(Path::new("test.toml"), &setup.text()).expect("a good configuration");
        let config = Config::check(&file, folder.path()).expect("a good configuration");
        let store = open_store(&config, false, &clock).expect("a new store");
        let app = App::start(config, store, clock.clone()).await.expect("free ports");
        let door = Door { address: app.gateway().tcp().expect("TCP"), gateway: Gateway::new(clock) };
        Self { clock: hand, app, door, folder }
    }

    /// Takes over another configuration.
    pub(crate) fn reload(&self, setup: &Setup) {
        let file = ConfigFile::parse(Path::new("test.toml"), &setup.text()).expect("a good configuration");
        let config = Config::check(&file, self.folder.path()).expect("a good configuration");
        self.app.reload(config).expect("a configuration that can be applied");
    }

    /// Asks the operators' listener for a page.
    pub(crate) async fn admin(&self, path: &str) -> Answer {
        self.inspect(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n", self.authorization())).await
    }

    /// Posts JSON to the operators' listener.
    pub(crate) async fn admin_post(&self, path: &str, json: &str) -> Answer {
        let length = json.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{}", self.authorization());
        self.inspect(format!("{head}Content-Length: {length}\r\n\r\n{json}")).await
    }

    /// The header line with the token that the proxy made.
    fn authorization(&self) -> String {
        let token = std::fs::read_to_string(self.data().join("admin.token")).expect("a token");
        secrets::keep(&token);
        format!("Authorization: Bearer {token}\r\n")
    }

    async fn inspect(&self, request: String) -> Answer {
        let mut line = Line::to(self.app.admin().tcp().expect("TCP")).await;
        line.send(request).await;
        line.answer().await
    }

    /// The folder of the databases.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Drains it, and removes its folder.
    pub(crate) async fn stop(self) {
        if self.app.admin().tcp().is_some() {
            secrets::hold_none("/metrics", self.admin("/metrics").await.text());
        }
        self.app.drain().await;
        secrets::logged_none();
        self.folder.close().expect("a folder of ours");
    }
}

impl Deref for Clocked {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}
