//! Instructions in user space a hit, as callgrind counts them: they vary little on a busy machine.
//!
//! The server runs under valgrind, some fifty times slower; every card is asked about once, then the counters are set to
//! zero, and what they hold after a load is divided by its requests.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Cards, wrk};
use crate::bench::servers::{Carrier, Server, Spec};
use crate::run::Run;

/// As many connections as make batches of a common size.
const CONNECTIONS: u32 = 64;

/// Few enough to be warm within a slow second or two.
const CARDS: Cards = Cards { count: 500, stride: 1 };

/// Seconds that warm it, and the least that it is loaded for.
const WARM: u32 = 5;

/// Runs of each executable, where there are as many rounds; the median counts.
const RUNS: u32 = 3;

/// Instructions a hit of each program.
pub(super) fn count(
    spec: &Spec,
    programs: [&Path; 2],
    folder: &Path,
    carrier: &Carrier,
    rounds: u32,
    seconds: u32,
) -> Result<[f64; 2]> {
    let mut counts = [Vec::new(), Vec::new()];
    for run in 0..rounds.min(RUNS) {
        for (which, program) in programs.into_iter().enumerate() {
            let site_folder = folder.join(format!("{}-callgrind-{run}-{which}", spec.name));
            counts[which].push(one(spec, program, &site_folder, carrier, seconds)?);
        }
    }
    Ok(counts.map(super::middle))
}

fn one(spec: &Spec, program: &Path, site_folder: &Path, carrier: &Carrier, seconds: u32) -> Result<f64> {
    let out = site_folder.join("callgrind.out");
    let under =
        ["valgrind", "--quiet", "--tool=callgrind", &format!("--callgrind-out-file={}", out.display())]
            .map(str::to_owned);
    let mut site = super::site(site_folder, carrier, program)?;
    site.runner.extend(under);
    let server = Server::start(spec, site)?;
    let process = server.id().to_string();
    wrk(&server.url(), CONNECTIONS, CARDS, WARM, 0)?;
    Run::new("callgrind_control").args(["--zero", &process]).output()?;
    let load = wrk(&server.url(), CONNECTIONS, CARDS, seconds.max(WARM), 10_000_000)?;
    Run::new("callgrind_control").args(["--dump", &process]).output()?;
    drop(server);
    // The first dump; the second is written at the end.
    let dump = out.with_added_extension("1");
    let text = fs::read_to_string(&dump).with_context(|| dump.display().to_string())?;
    let total = text.lines().find_map(|line| {
        line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))?.trim().parse::<f64>().ok()
    });
    match total {
        Some(total) => Ok(total / load.requests as f64),
        None => bail!("{}: holds no totals", dump.display()),
    }
}
