//! What is attacked: a simulated carrier and a proxy in front of it, each a process, in a folder that goes away.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::{Run, target};

/// Who may ask: a good gateway, and one that may ask and asks too much.
pub(super) const GOOD: (&str, &str) = ("GOOD", "the-good-ones");
pub(super) const GREEDY: (&str, &str) = ("GREEDY", "the-greedy-ones");
pub(super) const EBID: &str = "0001000000009";

/// The processes.
pub(super) struct Stage {
    carrier: Child,
    proxy: Child,
    pub(super) gateway: SocketAddr,
    folder: PathBuf,
}

impl Stage {
    pub(super) fn set(program: Option<PathBuf>) -> Result<Self> {
        let program = match program {
            Some(program) => program,
            None => {
                Run::cargo("build --release --package cmiot-proxy").run()?;
                target().join("release/cmiot-proxy")
            }
        };
        let folder = target().join("hostile");
        let _ = std::fs::remove_dir_all(&folder); // of a run that was cut off
        std::fs::create_dir_all(&folder)?;

        let mut carrier = Command::new(&program)
            .args(["simulate", "--listen", "127.0.0.1:0", "--account", "100001:0001000000009:carrier"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let base_url = told(&mut carrier.stdout, "simulated carrier ")?;
        let config = format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [carrier]\nbase_url = \"{base_url}\"\n\
             [[account]]\nname = \"fleet\"\nappid = \"100001\"\nebid = \"{EBID}\"\npassword = \"carrier\"\n\
             [[client]]\ngroup = \"fleet\"\nappid = \"{}\"\npassword = \"{}\"\n\
             [[client]]\ngroup = \"fleet\"\nappid = \"{}\"\npassword = \"{}\"\nrate = 50\n",
            GOOD.0, GOOD.1, GREEDY.0, GREEDY.1
        );
        std::fs::write(folder.join("hostile.toml"), config)?;
        let mut proxy = Command::new(&program)
            .args(["serve", "--config"])
            .arg(folder.join("hostile.toml"))
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()?;
        let gateway = told(&mut proxy.stdout, "gateway http://")?.parse().context("the proxy's address")?;
        Ok(Self { carrier, proxy, gateway, folder })
    }

    /// The proxy's resident memory, in MiB.
    pub(super) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proxy.id()))
            .context("the proxy is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1_024)
    }

    /// Drains the proxy, which must still be able to.
    pub(super) fn strike(mut self) -> Result<()> {
        Run::new("kill").args(["-TERM", &self.proxy.id().to_string()]).output()?;
        let ended = self.proxy.wait()?;
        ensure!(ended.success(), "the proxy did not drain: {ended}");
        Ok(())
    }
}

/// However a run ends, nothing of it stays.
impl Drop for Stage {
    fn drop(&mut self) {
        for child in [&mut self.carrier, &mut self.proxy] {
            let _ = child.kill(); // has ended, mostly
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The rest of the first line, which begins so.
fn told(stdout: &mut Option<ChildStdout>, begins: &str) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stdout.as_mut().context("a pipe")?).read_line(&mut line)?;
    line.trim()
        .strip_prefix(begins)
        .map(str::to_owned)
        .with_context(|| format!("`{line}` does not begin with {begins}"))
}
