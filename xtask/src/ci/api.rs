//! The operators' listener against its own description: Schemathesis makes requests out of `docs/openapi.yaml`, good and
//! bad ones, and looks whether each answer is one that stands there.
//!
//! It comes from PyPI into a virtual environment of its own below the target folder, every package of it at the version
//! that `xtask/data/schemathesis.txt` names. The proxy stands before a simulated carrier, and wants a bearer token.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::{Run, root, target};
use crate::tools;

/// What is installed; a change of it makes a new environment.
const PACKAGES: &str = "xtask/data/schemathesis.txt";

/// Requests of a kind that are made up for each page. More find nothing that these do not.
const EXAMPLES: &str = "50";

const TOKEN: &str = "an-operators-token-for-schemathesis";

pub(super) fn stage() -> Result<()> {
    let schemathesis = install()?;
    Run::cargo("build --package cmiot-proxy").run()?;
    let folder = target().join("api");
    let _ = fs::remove_dir_all(&folder); // of a run that was cut off
    fs::create_dir_all(&folder)?;
    let mut carrier =
        Running::start(&folder, &["simulate", "--listen", "127.0.0.1:0", "--account", "100001:1:carrier"])?;
    let base_url = carrier.told("simulated carrier ")?;
    fs::write(folder.join("admin.token"), TOKEN)?;
    fs::set_permissions(folder.join("admin.token"), Permissions::from_mode(0o600))?;
    fs::write(
        folder.join("api.toml"),
        format!(
            "[gateway]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"admin.token\"\n\
             [carrier]\nbase_url = \"{base_url}\"\n\
             [[account]]\nname = \"fleet\"\nappid = \"100001\"\nebid = \"1\"\npassword = \"carrier\"\n"
        ),
    )?;
    let mut proxy = Running::start(&folder, &["serve", "--config", "api.toml"])?;
    let admin = proxy.told("admin ")?;
    // The same requests every time: what fails must fail again.
    Run::new(schemathesis)
        .args(["run", "--url", &admin, "--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--seed", "1", "--max-examples", EXAMPLES, "--request-timeout", "10", "--no-color"])
        .args([root().join("docs/openapi.yaml")])
        .inside(&folder)
        .run()?;
    Run::new("kill").args(["-TERM", &proxy.child.id().to_string()]).output()?;
    let ended = proxy.child.wait()?;
    ensure!(ended.success(), "the proxy did not drain after all that: {ended}");
    drop((proxy, carrier));
    Ok(fs::remove_dir_all(&folder)?)
}

/// The program, in its environment.
fn install() -> Result<PathBuf> {
    let environment = target().join("schemathesis");
    let (program, installed) = (environment.join("bin/schemathesis"), environment.join("installed.txt"));
    let wanted = fs::read_to_string(root().join(PACKAGES)).context(PACKAGES)?;
    if program.is_file() && fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(program);
    }
    tools::install(&["python3-venv"])?;
    Run::new("python3").args(["-m", "venv", "--clear"]).args([&environment]).run()?;
    Run::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement", PACKAGES])
        .run()?;
    fs::write(installed, wanted)?;
    Ok(program)
}

/// A process of ours, which ends with this.
struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    fn start(folder: &Path, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(target().join("debug/cmiot-proxy"))
            .args(arguments)
            .env("RUST_LOG", "warn")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the proxy that was just built")?;
        let said = BufReader::new(child.stdout.take().context("a pipe that was asked for")?);
        Ok(Self { child, said })
    }

    /// What follows these words at the beginning of a line of its standard output.
    fn told(&mut self, begins: &str) -> Result<String> {
        loop {
            let mut line = String::new();
            ensure!(self.said.read_line(&mut line)? > 0, "it ended before it said `{begins}`");
            if let Some(told) = line.trim().strip_prefix(begins) {
                return Ok(told.to_owned());
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // has ended, mostly
        let _ = self.child.wait();
    }
}
