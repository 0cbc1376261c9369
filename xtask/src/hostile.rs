//! `cargo xtask hostile`: the proxy under attack, while legitimate gateways send requests.
//!
//! Simulator, proxy, legitimate gateways and attackers are four processes on the loopback of this machine; attackers
//! have their own addresses there (127.0.0.16 and up). For each attack the command prints the legitimate requests sent
//! and answered, their p99 (first line: without an attack), the attacker's counts, and the proxy's memory. It fails if
//! a legitimate request is not answered, or if memory does not return to its level before.

mod attack;
mod environment;
mod legitimate;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

pub(crate) use attack::Attack;
use environment::Environment;
use legitimate::Tally;

/// Duration of each attack; longer than the proxy's timeouts, so that they fire.
const LASTS: Duration = Duration::from_secs(12);

/// Largest growth of memory, in MiB: transids of the meantime, and pages with a long-lived allocation. 14,000
/// connections took many times as much.
const MEMORY: u64 = 12;

/// Runs every attack, or the ones named.
///
/// # Errors
/// When something cannot be started. A legitimate request without a response makes the exit code 1.
pub(crate) fn command(attacks: &[Attack], program: Option<PathBuf>) -> Result<ExitCode> {
    let attacks = if attacks.is_empty() { Attack::value_variants() } else { attacks };
    let environment = Environment::start(program)?;
    let calm = legitimate::ask(environment.gateway, LASTS / 2)?;
    let calm_memory = environment.memory()?;
    println!(
        "{:<12}{:>8}{:>10}{:>10}{:>12}  what the attack saw",
        "", "asked", "answered", "p99 ms", "memory MiB"
    );
    print_line("calm", &calm, calm_memory, "");
    let mut well = calm.answered == calm.asked;
    for attack in attacks {
        let attacker = attack.start(environment.gateway, LASTS)?;
        let tally = legitimate::ask(environment.gateway, LASTS)?;
        let saw = attacker.wait()?;
        let name = attack.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        print_line(&name, &tally, environment.memory()?, &saw);
        well &= tally.answered == tally.asked;
    }
    // Idle connections are closed by then.
    std::thread::sleep(Duration::from_secs(5));
    let after = environment.memory()?;
    println!("memory before {calm_memory} MiB, after {after} MiB");
    environment.stop()?;
    if after > calm_memory + MEMORY {
        bail!("memory did not come back");
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_line(name: &str, tally: &Tally, memory: u64, saw: &str) {
    let Tally { asked, answered, p99 } = tally;
    println!("{name:<12}{asked:>8}{answered:>10}{:>10.1}{memory:>12}  {saw}", p99.as_secs_f64() * 1e3);
}
