//! The operators' listener against its own description: Schemathesis makes requests out of `docs/openapi.yaml`, good and
//! bad ones, and checks that each response is one of the described ones.
//!
//! It comes from PyPI, every package at the version that `xtask/data/schemathesis.txt` names. The proxy stands before a simulated carrier, and wants a bearer token.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::debug_build;
use crate::run::{Run, root, target, write_private};
use crate::server_process::ServerProcess;
use crate::setup::{self, LISTEN};
use crate::tools;

/// Requests of a kind that are made up for each page. More find nothing that these do not.
const EXAMPLES: &str = "50";

const TOKEN: &str = "an-operators-token-for-schemathesis";

pub(super) fn stage() -> Result<()> {
    let schemathesis = tools::python("schemathesis")?.join("bin/schemathesis");
    let program = debug_build::program()?;
    let folder = target().join("api");
    let _ = fs::remove_dir_all(&folder); // of a run that was cut off
    fs::create_dir_all(&folder)?;
    let start = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        ServerProcess::start(command.args(arguments).env("RUST_LOG", "warn").current_dir(&folder))
    };
    let mut carrier = start(&["simulate", "--listen", LISTEN, "--account", &setup::account()])?;
    let base_url = carrier.wait_for_line("simulated carrier ")?;
    write_private(&folder.join("admin.token"), TOKEN)?;
    write_private(&folder.join("api.toml"), &setup::config(&base_url, "admin.token_file = \"admin.token\""))?;
    let mut proxy = start(&["serve", "--config", "api.toml"])?;
    let admin = proxy.wait_for_line("admin ")?;
    // The same requests every time: what fails must fail again.
    Run::new(schemathesis)
        .args(["--config-file"])
        .args([root().join("xtask/data/schemathesis.toml")])
        .args(["run", "--url", &admin, "--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--seed", "1", "--max-examples", EXAMPLES, "--request-timeout", "10", "--no-color"])
        .args([root().join("docs/openapi.yaml")])
        .inside(&folder)
        .run()?;
    proxy.drain().context("after all that")?;
    Ok(fs::remove_dir_all(&folder)?)
}
