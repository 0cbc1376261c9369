//! The load of hits, with results per window.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context, Result, ensure};

use crate::bench::load::{PREFIX, Window, command};

/// Connections kept open.
const CONNECTIONS: u32 = 256;

/// A running load; killed on drop.
pub(super) struct Load {
    child: Child,
    /// None once the load is ending.
    input: Option<ChildStdin>,
}

impl Load {
    /// Starts to ask about the warm cards, at so many lookups per second.
    pub(super) fn start(address: SocketAddr, rate: u32) -> Result<Self> {
        let mut child = command(address, f64::from(rate), CONNECTIONS, 0)
            .arg("--windows")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the load")?;
        let input = child.stdin.take();
        Ok(Self { child, input })
    }

    /// Ends a window and begins the next.
    pub(super) fn next_window(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("a pipe that was asked for")?;
        input.write_all(b"\n").context("the load ended: see above")
    }

    /// Ends it; the windows in order.
    pub(super) fn finish(mut self) -> Result<Vec<Window>> {
        drop(self.input.take());
        let mut printed = String::new();
        self.child.stdout.take().context("a pipe that was asked for")?.read_to_string(&mut printed)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the load: {status}");
        printed.lines().filter_map(|line| line.strip_prefix(PREFIX)).map(Window::parse).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Mostly it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
