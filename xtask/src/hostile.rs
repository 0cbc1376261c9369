//! `cargo xtask hostile`: the proxy under attack, while good gateways keep asking.
//!
//! Simulator, proxy, good gateways and attackers are four processes of this machine, on its loopback; attackers have
//! addresses of their own there (127.0.0.16 and up). For each attack it prints how many good requests were asked and
//! answered, their p99 beside that of a calm time, what the attack did, and the proxy's memory. A good request that is
//! not answered, or memory that does not come back, fails the command.

mod attack;
mod good;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;

pub(crate) use attack::Attack;
use good::Tally;
use stage::Stage;

/// How long each attack lasts; longer than the proxy's time-outs, so that it meets them.
const LASTS: Duration = Duration::from_secs(12);

/// How much more memory than before may stay, in MiB: for the transids that were answered in the meantime, and for pages
/// that something long-lived lies on. What 14,000 connections took is many times that.
const MEMORY: u64 = 12;

/// Runs every attack, or the ones named.
///
/// # Errors
/// When something cannot be started. A good request that was not answered makes the exit code 1.
pub(crate) fn command(attacks: &[Attack], program: Option<PathBuf>) -> Result<ExitCode> {
    let attacks = if attacks.is_empty() { Attack::value_variants() } else { attacks };
    let stage = Stage::set(program)?;
    let calm = good::ask(stage.gateway, LASTS / 2)?;
    let calm_memory = stage.memory()?;
    println!(
        "{:<12}{:>8}{:>10}{:>10}{:>12}  what the attack saw",
        "", "asked", "answered", "p99 ms", "memory MiB"
    );
    print_line("calm", &calm, calm_memory, "");
    let mut well = calm.answered == calm.asked;
    for attack in attacks {
        let attacker = attack.start(stage.gateway, LASTS)?;
        let tally = good::ask(stage.gateway, LASTS)?;
        let saw = attacker.wait()?;
        let name = attack.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        print_line(&name, &tally, stage.memory()?, &saw);
        well &= tally.answered == tally.asked;
    }
    // What rests for lack of a request is let go by then.
    std::thread::sleep(Duration::from_secs(5));
    let after = stage.memory()?;
    println!("memory before {calm_memory} MiB, after {after} MiB");
    stage.strike()?;
    if after > calm_memory + MEMORY {
        bail!("memory did not come back");
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_line(name: &str, tally: &Tally, memory: u64, saw: &str) {
    let Tally { asked, answered, p99 } = tally;
    println!("{name:<12}{asked:>8}{answered:>10}{:>10.1}{memory:>12}  {saw}", p99.as_secs_f64() * 1e3);
}
