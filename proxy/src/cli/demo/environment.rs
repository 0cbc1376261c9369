//! The environment of the demo: a simulated carrier, and a proxy configured as the README shows, on free ports of
//! loopback.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cmiot_proxy::app::{App, open_store};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::{Config, ConfigFile};
use cmiot_signer::{AppId, Card, Ebid, Password, Sequence, Signer, Stamp};
use cmiot_simulator::{Account, Simulator};
use tempfile::TempDir;

use crate::cli::http_client::{Address, HttpClient, Reply};

/// The appid that the demo's gateway signs with. Not a secret: it is valid only here.
pub(super) const GATEWAY_APPID: &str = "GW0001";
/// Its password.
pub(super) const GATEWAY_PASSWORD: &str = "demo-gateway-password";
/// The ebid of the account.
pub(super) const EBID: &str = "0001000000009";

/// The configuration; a short freshness, to the second, lets the tour wait for staleness, the rest is as by default.
const CONFIG: &str = r#"
[gateway]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
token = "none"
[carrier]
base_url = "CARRIER"
[cache]
ttl_jitter_percent = 0
[freshness]
normal = { fresh = "2s", stale_while_revalidate = "0s", stale_if_error = "24h" }
[[account]]
name = "fleet"
appid = "100001"
ebid = "0001000000009"
password = "demo-carrier-password"
[[client]]
group = "fleet"
appid = "GW0001"
password = "demo-gateway-password"
"#;

/// The running carrier and proxy.
pub(super) struct Environment {
    pub(super) carrier: Simulator,
    pub(super) app: App,
    /// The HTTP client of the demo's gateway.
    pub(super) gateway: HttpClient,
    folder: TempDir,
    clock: Clock,
}

impl Environment {
    /// Starts carrier and proxy.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let account = Account::new("100001", EBID, "demo-carrier-password");
        let carrier = Simulator::start_local(cmiot_simulator::Config::new([account]))
            .await
            .context("simulated carrier")?;
        let folder = tempfile::Builder::new().prefix("cmiot-demo-").tempdir().context("temporary folder")?;
        let written = CONFIG.replace("CARRIER", &carrier.base_url());
        let file = ConfigFile::parse(Path::new("the demo's configuration"), &written)?;
        let config = Config::check(&file, folder.path())?;
        let clock = Clock::system();
        let store = open_store(&config, false, &clock)?;
        let app = App::start(config, store, clock.clone()).await?;
        let url = Address::Url(format!("http://{}", app.gateway()));
        let gateway = HttpClient::new(&url, cmiot_proxy::tls::operator_without_roots()?)?;
        Ok(Self { carrier, app, gateway, folder, clock })
    }

    /// Drains the proxy and removes the folder.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.app.drain().await;
        self.carrier.stop().await;
        self.folder.close().context("removing the temporary folder")
    }

    /// A signed URL for one lookup.
    pub(super) fn sign(&self, card: &Card, sequence: u32) -> anyhow::Result<String> {
        let appid = AppId::parse(GATEWAY_APPID)?;
        let ebid = Ebid::parse(EBID)?;
        let password = Password::new(GATEWAY_PASSWORD.as_bytes())?;
        let stamp = Stamp::from_unix(self.clock.now().as_secs())?;
        let signed = Signer::new(&appid, &ebid, &password).sign(stamp, Sequence::new(sequence)?, card);
        let mut url = String::new();
        signed.write_url(&format!("http://{}", self.app.gateway()), cmiot_signer::PATH, &mut url)?;
        Ok(url)
    }

    /// Sends a request as a gateway does.
    pub(super) async fn ask(&self, url: &str) -> anyhow::Result<Reply> {
        self.gateway.get_url(url, &[]).await
    }

    /// The audit segment being written.
    pub(super) fn audit_file(&self) -> anyhow::Result<PathBuf> {
        let dir = self.folder.path().join("data");
        let mut segments: Vec<PathBuf> = std::fs::read_dir(&dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.starts_with("audit-") && name.ends_with(".db")
            })
            .collect();
        segments.sort();
        segments.pop().with_context(|| format!("no audit segment in {}", dir.display()))
    }
}
