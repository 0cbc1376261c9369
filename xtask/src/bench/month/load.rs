//! The load of hits, with results per window.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::peers::CARDS;
use crate::run::{root, target};
use crate::setup;

/// Connections kept open.
const CONNECTIONS: u32 = 256;

/// A running load; killed on drop.
pub(super) struct Load {
    child: Child,
    /// None once the load is ending.
    input: Option<ChildStdin>,
}

/// The hits that were due in one window.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) failed: u64,
    /// Microseconds at 50, 99 and 99.9 %.
    pub(super) times: [u64; 3],
}

impl Load {
    /// Starts to ask about the warm cards, at so many lookups per second, on processor 1.
    pub(super) fn start(address: SocketAddr, rate: u32) -> Result<Self> {
        let mut child = Command::new("taskset")
            .args(["-c", "1"])
            .arg(target().join("release/examples/load"))
            .args(["--windows", "--address", &address.to_string(), "--account", &setup::account()])
            .args(["--rate", &rate.to_string(), "--connections", &CONNECTIONS.to_string()])
            .args(["--cards", &CARDS.count.to_string(), "--first", "0"])
            .current_dir(root())
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
        printed.lines().filter_map(|line| line.strip_prefix("RESULT ")).map(Window::parse).collect()
    }
}

impl Window {
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<u64> =
            line.split(' ').map(str::parse).collect::<Result<_, _>>().context(line.to_owned())?;
        let [_, failed, p50, p99, p999] = fields[..] else { bail!("the load printed {line}") };
        Ok(Self { failed, times: [p50, p99, p999] })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Mostly it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
