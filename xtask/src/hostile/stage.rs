//! What is attacked: a simulated carrier and a proxy in front of it, each a process, in a folder that goes away.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::run::{Run, target};
use crate::serving::Serving;

/// Who may ask: a good gateway, and one that may ask and asks too much.
pub(super) const GOOD: (&str, &str) = ("GOOD", "the-good-ones");
pub(super) const GREEDY: (&str, &str) = ("GREEDY", "the-greedy-ones");
pub(super) const EBID: &str = "0001000000009";

/// The processes, and last what they stand on: however a run ends, nothing of it stays.
pub(super) struct Stage {
    _carrier: Serving,
    proxy: Serving,
    pub(super) gateway: SocketAddr,
    _folder: Folder,
}

/// A folder that goes away.
struct Folder(PathBuf);

impl Stage {
    pub(super) fn set(program: Option<PathBuf>) -> Result<Self> {
        let program = match program {
            Some(program) => program,
            None => {
                Run::cargo("build --release --package cmiot-proxy").run()?;
                target().join("release/cmiot-proxy")
            }
        };
        let folder = Folder(target().join("hostile"));
        let _ = std::fs::remove_dir_all(&folder.0); // of a run that was cut off
        std::fs::create_dir_all(&folder.0)?;

        let account = format!("100001:{EBID}:carrier");
        let mut carrier = Serving::start(
            Command::new(&program)
                .args(["simulate", "--listen", "127.0.0.1:0", "--account", &account])
                .stderr(Stdio::null()),
        )?;
        let base_url = carrier.told("simulated carrier ")?;
        let config = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [carrier]\nbase_url = \"{base_url}\"\n\
             [[account]]\nname = \"fleet\"\nappid = \"100001\"\nebid = \"{EBID}\"\npassword = \"carrier\"\n\
             [[client]]\ngroup = \"fleet\"\nappid = \"{}\"\npassword = \"{}\"\n\
             [[client]]\ngroup = \"fleet\"\nappid = \"{}\"\npassword = \"{}\"\nrate = 50\n",
            GOOD.0, GOOD.1, GREEDY.0, GREEDY.1
        );
        crate::run::write_private(&folder.0.join("hostile.toml"), &config)?;
        let mut proxy = Serving::start(
            Command::new(&program)
                .args(["serve", "--config"])
                .arg(folder.0.join("hostile.toml"))
                .env("RUST_LOG", "error"),
        )?;
        let gateway = proxy.told("gateway http://")?.parse().context("the proxy's address")?;
        Ok(Self { _carrier: carrier, proxy, gateway, _folder: folder })
    }

    /// The proxy's resident memory, in MiB.
    pub(super) fn memory(&self) -> Result<u64> {
        Ok(self.proxy.resident()? >> 20)
    }

    /// Drains the proxy, which must still be able to.
    pub(super) fn strike(self) -> Result<()> {
        self.proxy.drain()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
