//! The environments of the demo: a simulated carrier, and a proxy configured as the README shows, on free ports of
//! loopback.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cmiot_proxy::app::{App, open_store};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::{Config, ConfigFile};
use cmiot_signer::{AppId, Card, Ebid, Password, Sequence, Signer, Stamp};
use cmiot_simulator::{Account, Simulator, v5};
use tempfile::TempDir;

use crate::cli::http_client::{Address, HttpClient, Reply};

/// The demo's gateway. Its password is not a secret: it is valid only here.
pub(super) const GATEWAY: Gateway<'_> =
    Gateway { appid: "GW0001", password: "demo-gateway-password", ebid: "0001000000009" };

/// The configuration of the tour; a short freshness, to the second, lets it wait for staleness, the rest is as by default.
const TOUR: &str = r#"
[admin]
listen = "127.0.0.1:0"
token = "none"
[cache]
ttl_jitter_percent = 0
[freshness]
normal = { fresh = "2s", stale_while_revalidate = "0s", stale_if_error = "24h" }
[[account]]
name = "fleet"
appid = "100001"
ebid = "0001000000009"
password = "demo-carrier-password"
[[account]]
name = "newer"
group = "fleet"
api = "v5"
appid = "200001"
password = "demo-newer-password"
fallback = "not-found"
[[client]]
group = "fleet"
appid = "GW0001"
password = "demo-gateway-password"
"#;

/// The credentials that a gateway signs with.
#[derive(Clone, Copy)]
pub(super) struct Gateway<'a> {
    pub(super) appid: &'a str,
    pub(super) password: &'a str,
    pub(super) ebid: &'a str,
}

/// The running carrier and proxy.
pub(super) struct Environment {
    pub(super) carrier: Simulator,
    pub(super) app: App,
    /// The HTTP client of the demo's gateways.
    pub(super) gateways: HttpClient,
    pub(super) clock: Clock,
    folder: TempDir,
}

impl Environment {
    /// Starts carrier and proxy for the tour.
    pub(super) async fn for_tour() -> anyhow::Result<Self> {
        let older = Account::new("100001", GATEWAY.ebid, "demo-carrier-password");
        let newer = v5::Account::new("200001", "demo-newer-password");
        let carrier =
            cmiot_simulator::Config { v5_accounts: vec![newer], ..cmiot_simulator::Config::new([older]) };
        Self::start(TOUR, carrier, Clock::system()).await
    }

    /// Starts a carrier, and a proxy with these tables in its configuration.
    pub(super) async fn start(
        tables: &str,
        carrier: cmiot_simulator::Config,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let carrier = Simulator::start_local(carrier).await.context("simulated carrier")?;
        let folder = tempfile::Builder::new().prefix("cmiot-demo-").tempdir().context("temporary folder")?;
        let written = format!(
            "gateway.listen = \"127.0.0.1:0\"\ncarrier.base_url = \"{}\"\n{tables}",
            carrier.base_url()
        );
        let file = ConfigFile::parse(Path::new("the demo's configuration"), &written)?;
        let config = Config::check(&file, folder.path())?;
        let store = open_store(&config, false, &clock)?;
        let app = App::start(config, store, clock.clone()).await?;
        let url = Address::Url(format!("http://{}", app.gateway()));
        let gateways = HttpClient::new(&url, cmiot_proxy::tls::operator_without_roots()?)?;
        Ok(Self { carrier, app, gateways, clock, folder })
    }

    /// Drains the proxy and removes the folder.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.app.drain().await;
        self.carrier.stop().await;
        self.folder.close().context("removing the temporary folder")
    }

    /// The URL of one lookup, signed by a gateway now.
    pub(super) fn sign(&self, gateway: Gateway<'_>, card: &Card, sequence: u32) -> anyhow::Result<String> {
        let stamp = Stamp::from_unix(self.clock.now().as_secs())?;
        self.sign_at(stamp, gateway, card, sequence)
    }

    /// The URL of one lookup, with a stamp.
    pub(super) fn sign_at(
        &self,
        stamp: Stamp,
        gateway: Gateway<'_>,
        card: &Card,
        sequence: u32,
    ) -> anyhow::Result<String> {
        let appid = AppId::parse(gateway.appid)?;
        let ebid = Ebid::parse(gateway.ebid)?;
        let password = Password::new(gateway.password.as_bytes())?;
        let signed = Signer::new(&appid, &ebid, &password).sign(stamp, Sequence::new(sequence)?, card);
        let mut url = String::new();
        signed.write_url(&format!("http://{}", self.app.gateway()), cmiot_signer::PATH, &mut url)?;
        Ok(url)
    }

    /// Sends a request as a gateway does.
    pub(super) async fn ask(&self, url: &str) -> anyhow::Result<Reply> {
        self.gateways.get_url(url, &[]).await
    }

    /// The folder of the databases.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The audit segment being written.
    pub(super) fn audit_file(&self) -> anyhow::Result<PathBuf> {
        let dir = self.data();
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
