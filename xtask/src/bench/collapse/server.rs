//! A cache in front of the carrier: started in a process group of its own, ended by its id, started again over the
//! same folder.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{APPID, EBID, PASSWORD};
use crate::run::{root, target};

/// A server to try.
#[derive(Clone, Copy)]
pub(super) struct Spec {
    /// Its name in the table.
    pub(super) name: &'static str,
    /// Seconds that its entries are fresh: Squid counts in minutes.
    fresh: u64,
    command: fn(&Site) -> Result<Command>,
}

impl Spec {
    /// Whether it is ours.
    pub(super) fn is_ours(&self) -> bool {
        self.name == "cmiot-proxy"
    }
}

/// Where a server runs, and before whom.
struct Site {
    folder: PathBuf,
    carrier: SocketAddr,
    port: u16,
    fresh: u64,
}

/// Every server, ours first.
pub(super) fn all() -> [Spec; 4] {
    [
        Spec { name: "cmiot-proxy", fresh: 8, command: ours },
        Spec { name: "nginx", fresh: 8, command: nginx },
        Spec { name: "Varnish", fresh: 8, command: varnish },
        Spec { name: "Squid", fresh: 60, command: squid },
    ]
}

fn ours(site: &Site) -> Result<Command> {
    let config = site.folder.join("cmiot-proxy.toml");
    crate::run::write_private(&config, &configuration(site, ""))?;
    let mut command = Command::new(target().join("release/cmiot-proxy"));
    command.args(["serve", "--config"]).arg(config).env("RUST_LOG", "warn");
    Ok(command)
}

/// Stale at once while asking for an hour, as the peers are; everything else by default, scaled where time is.
fn configuration(site: &Site, limit: &str) -> String {
    format!(
        r#"
        gateway.listen = "127.0.0.1:{}"
        gateway.deadline = "2s"
        admin.listen = "127.0.0.1:0"
        cache.ttl_jitter_percent = 0
        carrier.base_url = "http://{}"
        carrier.timeout = "2s"
        carrier.stale_wait = "200ms"
        freshness.normal = {{ fresh = "{}s", stale_while_revalidate = "1h", stale_if_error = "24h" }}
        [[account]]
        name = "bench"
        appid = "{APPID}"
        ebid = "{EBID}"
        password = "{PASSWORD}"
        {limit}
        "#,
        site.port, site.carrier, site.fresh
    )
}

fn nginx(site: &Site) -> Result<Command> {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&site.folder).arg("-c").arg(template("nginx.conf", site)?);
    Ok(command)
}

fn varnish(site: &Site) -> Result<Command> {
    let mut command = Command::new("varnishd");
    command
        .arg("-F")
        .arg("-n")
        .arg(site.folder.join("varnish"))
        .arg("-a")
        .arg(format!("127.0.0.1:{}", site.port));
    command.arg("-f").arg(template("varnish.vcl", site)?);
    command.args(["-s", "malloc,256m"]);
    Ok(command)
}

fn squid(site: &Site) -> Result<Command> {
    let file = template("squid.conf", site)?;
    // It will not work as root, and becomes its own user.
    fs::set_permissions(&site.folder, fs::Permissions::from_mode(0o777))?;
    // Its folders are made by a run of their own.
    let made = Command::new("squid").args(["-z", "-N", "-f"]).arg(&file).stderr(Stdio::null()).status()?;
    if !made.success() {
        bail!("squid -z: {made}");
    }
    let mut command = Command::new("squid");
    command.args(["-N", "-f"]).arg(file);
    Ok(command)
}

fn template(name: &str, site: &Site) -> Result<PathBuf> {
    let text = fs::read_to_string(root().join("bench/peers/collapse").join(name))?
        .replace("@PORT@", &site.port.to_string())
        .replace("@ORIGIN@", &site.carrier.to_string())
        .replace("@ORIGIN_HOST@", &site.carrier.ip().to_string())
        .replace("@ORIGIN_PORT@", &site.carrier.port().to_string())
        .replace("@FRESH@", &site.fresh.to_string())
        .replace("@ROOT@", &root().display().to_string())
        .replace("@DIR@", &site.folder.display().to_string());
    let file = site.folder.join(name);
    fs::write(&file, text)?;
    Ok(file)
}

/// A running server.
pub(super) struct Server {
    spec: Spec,
    site: Site,
    process: Child,
}

impl Server {
    /// Starts it and waits until it accepts.
    pub(super) async fn start(spec: &Spec, folder: &Path, carrier: SocketAddr) -> Result<Self> {
        // Free a moment ago; a bench that loses this race fails and is run again.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let site = Site { folder: folder.to_owned(), carrier, port, fresh: spec.fresh };
        let process = spawn(spec, &site)?;
        let mut server = Self { spec: *spec, site, process };
        server.accepts().await?;
        Ok(server)
    }

    /// Ends it and starts it again over the same folder.
    pub(super) async fn restart(&mut self) -> Result<()> {
        self.end();
        self.process = spawn(&self.spec, &self.site)?;
        self.accepts().await
    }

    /// Tells ours the carrier's limit, as it serves. The peers have no such setting.
    pub(super) async fn limit_calls(&self) -> Result<()> {
        if !self.spec.is_ours() {
            return Ok(());
        }
        let config = self.site.folder.join("cmiot-proxy.toml");
        crate::run::write_private(&config, &configuration(&self.site, "calls_per_second = 180"))?;
        let told = Command::new("kill").args(["-s", "HUP", &self.process.id().to_string()]).status()?;
        anyhow::ensure!(told.success(), "kill: {told}");
        sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.site.port).into()
    }

    pub(super) fn fresh(&self) -> u64 {
        self.site.fresh
    }

    async fn accepts(&mut self) -> Result<()> {
        for _ in 0..200 {
            if TcpStream::connect(self.address()).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("{}: {status}; see {}", self.spec.name, self.site.folder.display());
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("{} does not accept; see {}", self.spec.name, self.site.folder.display())
    }

    fn end(&mut self) {
        // The whole group: the peers have children.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-s", "TERM", "--", &group]).status();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(spec: &Spec, site: &Site) -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(site.folder.join("log"))?;
    let mut command = (spec.command)(site)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir(root()).process_group(0);
    command.spawn().with_context(|| spec.name.to_owned())
}
