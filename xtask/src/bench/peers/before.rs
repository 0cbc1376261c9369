//! `cargo xtask bench peers --before FILE`: two executables of the proxy on the same work, as the ratio of their cost.
//!
//! Both are loaded in every round, A B and then B A, so that a machine that slows down slows both sides of a ratio. The
//! verdict is the median of the rounds' ratios; the quartiles say how far rounds differ. Instructions are counted apart.

use std::path::Path;

use anyhow::{Result, ensure};

use super::{CARDS, Options, Sample, instructions, measure, site};
use crate::bench::servers::{Carrier, POWER, PROCESS, Server, Spec};

/// Fewer rounds than this give no verdict.
const ROUNDS: u32 = 15;

/// Largest cost of a hit, relative to before.
const BOUND: f64 = 1.05;

/// The proxy as it is measured: each durability has costs of its own.
const SPECS: [Spec; 2] = [POWER, PROCESS];

/// Measures and prints.
pub(super) fn compare(options: &Options, before: &Path, folder: &Path, carrier: &Carrier) -> Result<()> {
    ensure!(before.is_file(), "{}: no such file", before.display());
    let before = &before.canonicalize()?;
    let rounds = options.rounds.unwrap_or(ROUNDS);
    let programs = [carrier.program.as_path(), before];
    println!("now: {}\nbefore: {}", programs[0].display(), programs[1].display());
    let mut sequence = 0;
    for &connections in &options.connections {
        println!("\n{connections} connections, {rounds} rounds, CPU µs a hit: now / before");
        for spec in &SPECS {
            let mut pairs = Vec::new();
            for round in 0..rounds {
                let mut costs = [0.0; 2];
                for turn in 0..2 {
                    let which = if round % 2 == 0 { turn } else { 1 - turn };
                    let site_folder = folder.join(format!("{}-{connections}-{round}-{which}", spec.name));
                    let server = Server::start(spec, site(&site_folder, carrier, programs[which])?)?;
                    let sample = measure(&server, connections, CARDS, options.seconds, &mut sequence);
                    costs[which] = sample.as_ref().map_or(0.0, Sample::cpu_us);
                    sample?;
                    drop(server);
                    // Its databases are as large as its load was long.
                    std::fs::remove_dir_all(&site_folder)?;
                }
                println!("{:<24} round {:>2}: {:.2} / {:.2}", spec.name, round + 1, costs[0], costs[1]);
                pairs.push(costs);
            }
            println!("{}", line(spec.name, &pairs));
        }
    }
    println!("\ninstructions a hit, in thousands: now / before (callgrind, which knows no SHA extensions)");
    for spec in &SPECS {
        let [now, then] = instructions::count(spec, programs, folder, carrier, rounds, options.seconds)?;
        let ratio = now / then;
        println!("{:<24} {:.2} / {:.2} = {ratio:.3}, {}", spec.name, now / 1e3, then / 1e3, verdict(ratio));
    }
    Ok(())
}

/// The median of the ratios with its quartiles, and whether it meets the bound.
fn line(name: &str, pairs: &[[f64; 2]]) -> String {
    let [lower, median, upper] = quartiles(pairs.iter().map(|[now, before]| now / before).collect());
    let verdict = match pairs.len() < ROUNDS as usize {
        true => format!("no verdict from fewer than {ROUNDS} rounds"),
        false => verdict(median).to_owned(),
    };
    format!("{name:<24} median {median:.3}, quartiles {lower:.3} to {upper:.3}: {verdict}")
}

fn verdict(ratio: f64) -> &'static str {
    if ratio <= BOUND { "within the bound of 1.05" } else { "ABOVE the bound of 1.05" }
}

/// The quartiles of at least one figure, between two neighbours where they fall there.
pub(super) fn quartiles(mut figures: Vec<f64>) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    let last = figures.len() - 1;
    [0.25, 0.5, 0.75].map(|part| {
        let rank = part * last as f64;
        let (below, above) = (rank.floor() as usize, rank.ceil() as usize);
        figures[below] + (figures[above] - figures[below]) * rank.fract()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_paired_and_few_rounds_give_no_verdict() {
        assert_eq!(quartiles(vec![4.0, 1.0, 3.0, 2.0, 5.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(vec![2.0, 1.0]), [1.25, 1.5, 1.75]);
        // Each round's machine is another one; the ratio is the same.
        let rounds: Vec<[f64; 2]> =
            (1..=15).map(|speed| [f64::from(speed) * 1.04, f64::from(speed)]).collect();
        let met = line("ours", &rounds);
        assert!(met.contains("median 1.040") && met.contains("within the bound"), "{met}");
        assert!(line("ours", &rounds[1..]).contains("no verdict"));
        let above: Vec<[f64; 2]> = rounds.iter().map(|[_, before]| [before * 1.06, *before]).collect();
        assert!(line("ours", &above).contains("ABOVE"));
    }
}
