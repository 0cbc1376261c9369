//! `cargo xtask bench ...`: the project against its peers on the same work, in one run, as ratios.
//!
//! These machines are shared and noisy, so no bench asserts a time and CI only checks that they run. Quote
//! a ratio, with the command that printed it. A bench is a variant of [`Bench`] and a file of its name.

mod audit;
mod collapse;
mod firmware;
mod latency;
mod peers;
mod scale;
mod servers;
mod signer;
mod timing;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// The benches.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// A cached lookup against HAProxy, nginx, Varnish and a bare hyper server: requests per second, latency, CPU
    Peers(peers::Options),
    /// The cost of an audit record, and the time of queries
    Audit(audit::Options),
    /// Carrier calls and failures of the proxy, nginx, Varnish and Squid, with a working and a failing carrier
    Collapse(collapse::Options),
    /// The signer on emulated chips against mbedTLS and BearSSL in C: flash, stack, instructions
    Firmware,
    /// Latency of hits and misses at half of the saturating rate, compared with an fsync of the disk
    Latency(latency::Options),
    /// Many cards, a long replay window, many idle gateways: time to start, memory, cost of a card found again
    Scale(scale::Options),
    /// The signer on this host against OpenSSL's SHA-256 of the same bytes: ns per token, ns per request
    Signer(signer::Options),
    /// Time of the refusals of unknown, revoked and mistaken gateways: difference and noise
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
            Self::Latency(options) => latency::command(options)?,
            Self::Scale(options) => scale::command(options)?,
            Self::Signer(options) => signer::command(options)?,
            Self::Timing(options) => timing::command(options)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
