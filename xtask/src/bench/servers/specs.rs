//! The servers of `bench peers` and their command lines.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{Site, Spec};
use crate::run::{target, write_private};
use crate::setup::{
    APPID, Certificate, Credentials, EBID, GROUP, LISTEN, PASSWORD, account_table, client_table,
};

/// The proxy whose records survive a power loss.
pub(in crate::bench) const POWER: Spec = Spec {
    name: "cmiot-proxy power",
    is_ours: true,
    command: |site| ours(site, "freshness.normal = \"2h\"\naudit.durability = \"power\"", ""),
};

/// The same with memory for any number of cards that a bench has.
pub(in crate::bench) const FLEET: Spec = Spec {
    name: "cmiot-proxy fleet",
    is_ours: true,
    command: |site| {
        let settings =
            "freshness.normal = \"2h\"\naudit.durability = \"power\"\ncache.memory_entries = 10_000_000";
        ours(site, settings, "")
    },
};

/// The proxy whose records survive a kill.
pub(in crate::bench) const PROCESS: Spec = Spec {
    name: "cmiot-proxy process",
    is_ours: true,
    command: |site| ours(site, "freshness.normal = \"2h\"\naudit.durability = \"process\"", ""),
};

/// The proxy that looks cards up by API v5, for a client of its own.
pub(in crate::bench) const V5: Spec = Spec {
    name: "cmiot-proxy v5",
    is_ours: true,
    command: |site| {
        let account = format!(
            "[[account]]\nname = \"{GROUP}\"\napi = \"v5\"\nappid = \"{APPID_V5}\"\npassword = \"{PASSWORD}\"\n\
             {}ebid = \"{EBID}\"\n",
            client_table(Credentials { appid: APPID, password: PASSWORD })
        );
        start(site, "freshness.normal = \"2h\"\naudit.durability = \"power\"", &account)
    },
};

/// The appid of the account of API v5.
const APPID_V5: &str = "200001";

/// Adds the arguments that start the simulated carrier with that account.
pub(super) fn simulate_v5(command: &mut Command) -> &mut Command {
    let account = format!("{APPID_V5}:{PASSWORD}");
    command.args(["simulate", "--api", "v5", "--listen", LISTEN, "--account", &account])
}

/// A hyper server that answers a constant.
pub(in crate::bench) const BASELINE: Spec = Spec {
    name: "bare hyper (floor)",
    is_ours: false,
    command: |site| {
        let mut command = Command::new(target().join("release/examples/floor"));
        command.arg(site.address.to_string());
        command.args(site.tls.iter().flat_map(|tls| [&tls.chain, &tls.key]));
        Ok(command)
    },
};

/// Every server of `bench peers`, the proxy first.
pub(in crate::bench) const ALL: [Spec; 6] = [
    POWER,
    PROCESS,
    BASELINE,
    Spec { name: "HAProxy", is_ours: false, command: haproxy },
    Spec { name: "nginx", is_ours: false, command: |site| nginx(site, "nginx.conf") },
    Spec {
        name: "Varnish",
        is_ours: false,
        command: |site| {
            let mut command = varnish(site, "varnish.vcl")?;
            command.args(["-p", "thread_pools=1"]);
            Ok(command)
        },
    },
];

/// The proxy with these settings, and these of its account.
pub(in crate::bench) fn ours(site: &Site, settings: &str, account_settings: &str) -> Result<Command> {
    start(site, settings, &format!("{}{account_settings}", account_table()))
}

/// The proxy with these settings, and these tables of accounts and clients.
fn start(site: &Site, settings: &str, tables: &str) -> Result<Command> {
    write(site, settings, tables)?;
    let mut command = Command::new(&site.program);
    // The peers do not log requests either.
    command.args(["serve", "--config"]).arg(config(site)).env("RUST_LOG", "warn");
    Ok(command)
}

/// Writes the configuration of the proxy.
pub(in crate::bench) fn configure(site: &Site, settings: &str, account_settings: &str) -> Result<()> {
    write(site, settings, &format!("{}{account_settings}", account_table()))
}

fn write(site: &Site, settings: &str, tables: &str) -> Result<()> {
    let tls = site.tls.as_ref().map_or_else(String::new, Certificate::settings);
    let text = format!(
        "gateway.listen = \"{}\"\nadmin.listen = \"{LISTEN}\"\ncarrier.base_url = \"http://{}\"\n{tls}\
         # callgrind_control needs them.\nprocess.allow_core_dumps = true\n\
         # One client has the whole load.\ngateway.max_transids_per_client = 3000000\n{settings}\n{tables}\n",
        site.address, site.carrier,
    );
    write_private(&config(site), &text)
}

/// The configuration file of the proxy.
pub(in crate::bench) fn config(site: &Site) -> PathBuf {
    site.folder.join("cmiot-proxy.toml")
}

fn haproxy(site: &Site) -> Result<Command> {
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(site.fill("haproxy.cfg")?);
    Ok(command)
}

/// nginx with the configuration of this template.
pub(in crate::bench) fn nginx(site: &Site, template: &str) -> Result<Command> {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&site.folder).arg("-c").arg(site.fill(template)?);
    Ok(command)
}

/// Varnish with the configuration of this template.
pub(in crate::bench) fn varnish(site: &Site, template: &str) -> Result<Command> {
    let mut command = Command::new("varnishd");
    command.arg("-F").arg("-n").arg(site.folder.join("varnish")).arg("-a").arg(site.address.to_string());
    command.arg("-f").arg(site.fill(template)?).args(["-s", "malloc,256m"]);
    Ok(command)
}
