//! A program that serves: started, heard where it listens, and ended with its handle.
//!
//! What serves here says at which addresses on its standard output, a line each, and nothing else there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::Run;

/// A running program of ours; killed when dropped.
pub(crate) struct Serving {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Serving {
    /// Starts it, without a standard input.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let said = BufReader::new(child.stdout.take().context("a pipe that was asked for")?);
        Ok(Self { child, said })
    }

    /// What follows these words at the beginning of a line. Waits for it.
    pub(crate) fn told(&mut self, begins: &str) -> Result<String> {
        loop {
            let mut line = String::new();
            ensure!(self.said.read_line(&mut line)? > 0, "it ended before it said `{begins}`: see above");
            if let Some(told) = line.trim().strip_prefix(begins) {
                return Ok(told.to_owned());
            }
        }
    }

    /// Its process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("a process that should run is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1_024)
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills it, as a crash does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Has it drain, which it must still be able to.
    pub(crate) fn drain(mut self) -> Result<()> {
        Run::new("kill").args(["-TERM", &self.child.id().to_string()]).output()?;
        let ended = self.child.wait()?;
        ensure!(ended.success(), "it did not drain: {ended}");
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Has ended, mostly.
        let _ = self.kill();
    }
}
