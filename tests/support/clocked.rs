//! The proxy inside the test, with a manual clock. Sockets, carrier and files are real.

use std::ops::Deref;
use std::path::Path;

use cmiot_proxy::app::{App, open_store};
use cmiot_proxy::clock::{Clock, ManualClock, Time};
use cmiot_proxy::config::{Config, ConfigFile};
use tempfile::TempDir;

use super::{Connection, Gateway, GatewayClient, Response, Setup, secrets};

/// 2026-01-15T12:00:00+08:00, the initial time.
const START: Time = Time::from_secs(1_768_449_600);

/// A running [`App`] with a manual clock.
pub(crate) struct Clocked {
    /// The clock of both the proxy and the gateways.
    pub(crate) clock: ManualClock,
    app: App,
    client: GatewayClient,
    folder: TempDir,
}

impl Clocked {
    pub(crate) async fn start(setup: &Setup) -> Self {
        secrets::capture_log();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, START, setup).await
    }

    /// Drains the proxy, and starts another one over its databases, with the clock at `at`.
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
        let client =
            GatewayClient { address: app.gateway().tcp().expect("TCP"), gateway: Gateway::new(clock) };
        Self { clock: hand, app, client, folder }
    }

    /// Applies another configuration, as a reload does.
    pub(crate) fn reload(&self, setup: &Setup) {
        let file = ConfigFile::parse(Path::new("test.toml"), &setup.text()).expect("a good configuration");
        let config = Config::check(&file, self.folder.path()).expect("a good configuration");
        self.app.reload(config).expect("a configuration that can be applied");
    }

    /// GETs a page of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        self.request_admin(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n", self.authorization())).await
    }

    /// POSTs JSON to the admin listener.
    pub(crate) async fn admin_post(&self, path: &str, json: &str) -> Response {
        let length = json.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{}", self.authorization());
        self.request_admin(format!("{head}Content-Length: {length}\r\n\r\n{json}")).await
    }

    /// The header line with the generated token.
    fn authorization(&self) -> String {
        let token = std::fs::read_to_string(self.data().join("admin.token")).expect("a token");
        secrets::register(&token);
        format!("Authorization: Bearer {token}\r\n")
    }

    async fn request_admin(&self, request: String) -> Response {
        let mut connection = Connection::to(self.app.admin().tcp().expect("TCP")).await;
        connection.send(request).await;
        connection.response().await
    }

    /// The folder of the databases.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// Drains the proxy, asserts that it logged no secret, and removes its folder.
    pub(crate) async fn stop(self) {
        if self.app.admin().tcp().is_some() {
            secrets::assert_no_secret("/metrics", self.admin("/metrics").await.text());
        }
        self.app.drain().await;
        secrets::assert_no_secret_logged();
        self.folder.close().expect("a folder of ours");
    }
}

impl Deref for Clocked {
    type Target = GatewayClient;

    fn deref(&self) -> &GatewayClient {
        &self.client
    }
}
