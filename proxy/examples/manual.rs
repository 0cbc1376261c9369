//! Writes the manual pages and the shell completions of `cmiot-proxy` into a folder, for the packages.
//!
//! An example, so that the executable carries neither the pages nor the code that renders them.

#[path = "../src"]
mod source {
    #[allow(dead_code, reason = "only the description of the commands is used")]
    pub(crate) mod cli;
}

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use source::cli;

/// The name of the executable.
const NAME: &str = "cmiot-proxy";

fn main() -> anyhow::Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).context("usage: manual FOLDER")?.into();
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut command = without_help(cli::Cli::command().name(NAME).bin_name(NAME));
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, NAME, &folder)?;
    }
    clap_mangen::generate_to(command, &folder)?;
    Ok(())
}

/// Without the subcommands `help`, of which each would have a page.
fn without_help(command: clap::Command) -> clap::Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}
