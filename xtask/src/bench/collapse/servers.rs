//! The servers of `bench collapse`, with entries that expire during the bench.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use tokio::time::{Duration, sleep};

use crate::bench::servers::{Server, Site, Spec, configure, nginx, ours, varnish};

/// Every server, the proxy first.
pub(super) const ALL: [Spec; 4] = [
    Spec { name: "cmiot-proxy", is_ours: true, command: |site| ours(site, &settings(site), "") },
    Spec { name: "nginx", is_ours: false, command: |site| nginx(site, "collapse/nginx.conf") },
    Spec { name: "Varnish", is_ours: false, command: |site| varnish(site, "collapse/varnish.vcl") },
    Spec { name: SQUID, is_ours: false, command: squid },
];

const SQUID: &str = "Squid";

/// Seconds for which a server's entries are fresh: Squid counts in minutes.
pub(super) fn fresh(spec: &Spec) -> u64 {
    if spec.name == SQUID { 60 } else { 8 }
}

/// Stale at once while the carrier is called for an hour, as with the peers; durations a tenth of the defaults.
fn settings(site: &Site) -> String {
    format!(
        "gateway.deadline = \"2s\"\ncache.ttl_jitter_percent = 0\ncarrier.timeout = \"2s\"\n\
         carrier.stale_timeout = \"200ms\"\nfreshness.normal = {{ fresh = \"{}s\", \
         stale_while_revalidate = \"1h\", stale_if_error = \"24h\" }}",
        site.fresh
    )
}

/// Limits the carrier calls of the proxy while it serves. The peers have no such setting.
pub(super) async fn limit_calls(server: &Server) -> Result<()> {
    if server.is_ours() {
        configure(server.site(), &settings(server.site()), "calls_per_second = 180")?;
        let status = Command::new("kill").args(["-s", "HUP", &server.id().to_string()]).status()?;
        ensure!(status.success(), "kill: {status}");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

fn squid(site: &Site) -> Result<Command> {
    let file = site.fill("collapse/squid.conf")?;
    // Squid does not run as root, and changes to its own user.
    fs::set_permissions(&site.folder, fs::Permissions::from_mode(0o777))?;
    // Its folders are made by a run of their own.
    let made = Command::new("squid").args(["-z", "-N", "-f"]).arg(&file).stderr(Stdio::null()).status()?;
    ensure!(made.success(), "squid -z: {made}");
    let mut command = Command::new("squid");
    command.args(["-N", "-f"]).arg(file);
    Ok(command)
}
