//! The system under attack: a simulated carrier and a proxy, one process each, in a folder that is removed on drop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::run::{Run, target};
use crate::server_process::ServerProcess;
use crate::setup::{self, Credentials, GATEWAY};

/// Credentials of the legitimate gateways, and of one that exceeds its rate.
pub(super) const LEGITIMATE: Credentials = GATEWAY;
pub(super) const EXCESSIVE: Credentials = Credentials { appid: "EXCESSIVE", password: "excessive-password" };

/// The processes, and their folder, which is dropped last.
pub(super) struct Environment {
    _carrier: ServerProcess,
    proxy: ServerProcess,
    pub(super) gateway: SocketAddr,
    _folder: Folder,
}

/// A folder that is removed on drop.
struct Folder(PathBuf);

impl Environment {
    pub(super) fn start(program: Option<PathBuf>) -> Result<Self> {
        let program = match program {
            Some(program) => program,
            None => {
                Run::cargo("build --release --package cmiot-proxy").run()?;
                target().join("release/cmiot-proxy")
            }
        };
        let folder = Folder(target().join("hostile"));
        let _ = std::fs::remove_dir_all(&folder.0); // of an interrupted run
        std::fs::create_dir_all(&folder.0)?;

        let mut carrier =
            ServerProcess::start(setup::simulate(&mut Command::new(&program)).stderr(Stdio::null()))?;
        let base_url = carrier.wait_for_line("simulated carrier ")?;
        let clients = [LEGITIMATE, EXCESSIVE].map(setup::client_table).concat();
        let config = setup::config(&base_url, "") + &clients + "rate = 50\n";
        crate::run::write_private(&folder.0.join("hostile.toml"), &config)?;
        let mut proxy = ServerProcess::start(
            Command::new(&program)
                .args(["serve", "--config"])
                .arg(folder.0.join("hostile.toml"))
                .env("RUST_LOG", "error"),
        )?;
        let gateway = proxy.wait_for_line("gateway http://")?.parse().context("the proxy's address")?;
        Ok(Self { _carrier: carrier, proxy, gateway, _folder: folder })
    }

    /// Resident memory of the proxy, in MiB.
    pub(super) fn memory(&self) -> Result<u64> {
        Ok(self.proxy.resident()? >> 20)
    }

    /// Drains the proxy, and expects success.
    pub(super) fn stop(self) -> Result<()> {
        self.proxy.drain()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
