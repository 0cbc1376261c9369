//! The load generator of this workspace, `bench/examples/load.rs`, and its results.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;

use super::numbers;
use super::peers::CARDS;
use super::servers::CARRIER_PROCESSOR;
use crate::run::{root, target};
use crate::setup;

/// Begin of the line that the load prints for a window.
pub(super) const PREFIX: &str = "RESULT ";

/// Results of the lookups that were due in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) answered: u64,
    pub(super) failed: u64,
    /// Microseconds at 50, 99 and 99.9 %.
    pub(super) times: [u64; 3],
    /// Connections opened.
    pub(super) opened: u64,
}

impl Window {
    /// Reads what follows [`PREFIX`].
    pub(super) fn parse(line: &str) -> Result<Self> {
        let [answered, failed, p50, p99, p999, opened] = numbers(line)?;
        Ok(Self { answered, failed, times: [p50, p99, p999], opened })
    }
}

/// A load of the warm cards at `rate` lookups per second, on the carrier's processor; the first transid has the
/// sequence number `first`. The caller adds the windows.
pub(super) fn command(address: SocketAddr, rate: f64, connections: u32, first: u32) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", CARRIER_PROCESSOR]).arg(target().join("release/examples/load")).current_dir(root());
    command.args(["--address", &address.to_string(), "--account", &setup::account()]);
    command.args(["--rate", &rate.to_string(), "--connections", &connections.to_string()]);
    command.args(["--cards", &CARDS.count.to_string(), "--first", &first.to_string()]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_six_numbers() {
        let window = Window { answered: 9, failed: 1, times: [20, 30, 40], opened: 2 };
        assert_eq!(Window::parse("9 1 20 30 40 2").unwrap(), window);
        for line in ["9 1 20 30 40", "9 1 20 30 40 2 3", "9 1 20 30 40 x"] {
            let error = Window::parse(line).unwrap_err();
            assert!(format!("{error:#}").contains(line), "{error:#}");
        }
    }
}
