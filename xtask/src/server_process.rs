//! A server as a child process: start, address, memory, end.
//!
//! The servers here print their addresses to standard output, one per line, and nothing else.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::Run;

/// A running server; killed on drop.
pub(crate) struct ServerProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl ServerProcess {
    /// Starts it, without a standard input.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdout = BufReader::new(child.stdout.take().context("a pipe that was asked for")?);
        Ok(Self { child, stdout })
    }

    /// Waits for a line with this prefix, and returns the rest of it.
    pub(crate) fn wait_for_line(&mut self, prefix: &str) -> Result<String> {
        loop {
            let mut line = String::new();
            ensure!(
                self.stdout.read_line(&mut line)? > 0,
                "the server ended before it printed `{prefix}`: see above"
            );
            if let Some(rest) = line.trim().strip_prefix(prefix) {
                return Ok(rest.to_owned());
            }
        }
    }

    /// Number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("a process that should run is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Drains it, and expects success.
    pub(crate) fn drain(mut self) -> Result<()> {
        Run::new("kill").args(["-TERM", &self.child.id().to_string()]).output()?;
        let ended = self.child.wait()?;
        ensure!(ended.success(), "the server did not drain: {ended}");
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Mostly it has ended already.
        let _ = self.kill();
    }
}
