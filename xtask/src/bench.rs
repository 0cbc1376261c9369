//! `cargo xtask bench ...`: the project against its peers on the same work, in one run, as ratios.
//!
//! These machines are shared and noisy, so no bench asserts a time and CI only checks that they run. Quote
//! a ratio, with the command that printed it. A bench is a variant of [`Bench`] and a file of its name. [`soak`] is a
//! command of its own.

mod audit;
mod collapse;
mod firmware;
mod fleet;
mod latency;
mod load;
mod month;
mod page;
mod peers;
mod scale;
mod servers;
mod signer;
pub(crate) mod soak;
mod timing;

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Subcommand;

/// The benches.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Compare a cached lookup with HAProxy, nginx, Varnish and a bare hyper server: requests per second, latency, CPU
    Peers(peers::Options),
    /// Measure the cost of an audit record, and the time of queries
    Audit(audit::Options),
    /// Count carrier calls and failures of the proxy, nginx, Varnish and Squid, with a working and a failing carrier
    Collapse(collapse::Options),
    /// Compare the signer on emulated chips with SHA-256 libraries in C, whose sources PEERS_DIR has: flash, stack, instructions
    Firmware,
    /// Count and time three nodes of a fleet over PostgreSQL: carrier calls, replays, budgets, purges, outages, hits, tables
    Fleet(fleet::Options),
    /// Measure the latency of hits and misses at half of the saturating rate, compared with an fsync of the disk
    Latency(latency::Options),
    /// Time queries, verification, backup and exports of a month's audit, and hits meanwhile
    Month(month::Options),
    /// Compare the CPU of a hit with ten viewers of the operators' page's live rows and without
    Page(page::Options),
    /// Measure many cards, a long replay window and many idle gateways: time to start, memory, cost of a card found again
    Scale(scale::Options),
    /// Compare the signer on this host with OpenSSL's SHA-256 of the same bytes: ns per token, ns per request
    Signer(signer::Options),
    /// Time the refusals of unknown, revoked and mistaken gateways: difference and noise
    Timing(timing::Options),
}

impl Bench {
    /// Measures and prints.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Peers(options) => peers::command(options)?,
            Self::Audit(options) => audit::command(options)?,
            Self::Collapse(options) => collapse::command(options)?,
            Self::Firmware => firmware::command()?,
            Self::Fleet(options) => fleet::command(options)?,
            Self::Latency(options) => latency::command(options)?,
            Self::Month(options) => month::command(options)?,
            Self::Page(options) => page::command(options)?,
            Self::Scale(options) => scale::command(options)?,
            Self::Signer(options) => signer::command(options)?,
            Self::Timing(options) => timing::command(options)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The numbers of a line that a program printed; there must be `N`.
fn numbers<const N: usize>(line: &str) -> Result<[u64; N]> {
    let numbers: Vec<u64> =
        line.split(' ').map(str::parse).collect::<Result<_, _>>().context(line.to_owned())?;
    numbers.try_into().map_err(|_| anyhow!("`{line}` is not {N} numbers"))
}
