//! `cargo xtask firmware`: the signer on emulated chips: its tests pass there, and it stays within its budgets.
//!
//! | figure | how it is found |
//! | --- | --- |
//! | flash, static RAM | the image that does a job, less the image that does none |
//! | stack | free RAM is painted, and what the job overwrote is counted, the job's own query buffer included |
//! | instructions | QEMU runs one a nanosecond (`-icount shift=0`), the chip's SysTick, or RISC-V's `minstret`, counts 1,000 runs |
//! | panics | the images' panic handler calls a function that does not exist: they link only while none is left |
//!
//! The C library's figures are measured in the same way, from images in C, and are a table of their own.
//!
//! All of it is exact, so any growth fails: over a budget for good, over the baseline until `--rebase` records it.
//! Both are in `signer/firmware/budgets.tsv`.

mod budget;
mod c;
pub(crate) mod image;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::tools;
use budget::Figure;
use image::{CHIPS, Chip};

/// Features of the images. The first is measured; with the others they must link.
const PROFILES: &[&str] = &["release", "s", "three"];
/// The images that must hold no panic.
const WITHOUT_PANICS: &[&str] = &[
    "measure_none",
    "measure_sign",
    "measure_sign_scan",
    "measure_sign_http",
    "measure_sign_lease",
    "measure_v5",
];

/// The command: tests, measures, compares. With `rebase`, records what was measured as the new baseline.
///
/// # Errors
/// When something is missing or does not build, a test fails, or a figure is over its budget or baseline.
pub(crate) fn command(rebase: bool) -> Result<ExitCode> {
    tools::toolchain()?;
    run(rebase)?;
    Ok(ExitCode::SUCCESS)
}

/// The CI stage.
///
/// # Errors
/// As [`command`].
pub(crate) fn stage() -> Result<()> {
    run(false)
}

/// Builds the gateway that the end-to-end tests run, for each chip.
///
/// # Errors
/// When one does not build.
pub(crate) fn build_gateways() -> Result<()> {
    let mut chips = CHIPS.iter().filter(|chip| chip.has_gateway);
    chips.try_for_each(|chip| chip.build(PROFILES[0], &["gateway"]))
}

fn run(rebase: bool) -> Result<()> {
    tools::packages()?;
    let mut figures = Vec::new();
    for chip in CHIPS {
        chip.build(PROFILES[0], &["tests", "measure_sign_parse"])?;
        chip.build(PROFILES[0], WITHOUT_PANICS).context("a panic is left in an image that must have none")?;
        if chip.has_gateway {
            chip.build(PROFILES[0], &["gateway"])?;
        }
        tests(chip)?;
        measure(chip, &mut figures)?;
        c::measure(chip, &mut figures)?;
        for profile in &PROFILES[1..] {
            chip.build(profile, WITHOUT_PANICS).context("a panic is left in an image that must have none")?;
        }
        // They have linked with each profile, or we would not be here.
        figures.push(Figure::new("panics linked (z, s, 3)", chip.name, 0));
    }
    budget::settle(&figures, rebase)
}

/// Runs the on-target tests.
fn tests(chip: &Chip) -> Result<()> {
    let output = chip.run("tests", &[])?;
    let closing = output.lines().last().unwrap_or_default();
    println!("{closing}");
    let passed = closing.split_once(": ").and_then(|(_, counts)| counts.split_once(" passed, 0 failed"));
    ensure!(passed.is_some_and(|(passed, _)| passed != "0"), "the on-target tests did not pass:\n{output}");
    Ok(())
}

/// Measures every job.
fn measure(chip: &Chip, figures: &mut Vec<Figure>) -> Result<()> {
    let none = chip.size("measure_none")?;
    let mut ram = 0;
    for (image, job, reader) in [
        ("measure_sign", "sign + query", None),
        ("measure_sign_scan", "sign + query + scan", Some("scan")),
        ("measure_sign_parse", "sign + query + parse", Some("parse")),
        ("measure_sign_http", "sign + http", Some("http")),
        ("measure_sign_lease", "sign + query + lease", Some("lease")),
        ("measure_v5", "v5", Some("v5")),
    ] {
        let size = chip.size(image)?;
        let grown =
            |with: u64, without: u64| with.checked_sub(without).context("the job made the image smaller");
        figures.push(Figure::new(format!("{job}, flash B"), chip.name, grown(size.flash, none.flash)?));
        ram += grown(size.ram, none.ram)?;
        let output = chip.run(image, &["-icount", "shift=0"])?;
        let (name, job) = reader.map_or(("sign", job), |reader| (reader, reader));
        let [stack, instructions] = measured(&output, name)?;
        figures.push(Figure::new(format!("{job}, stack B"), chip.name, stack));
        figures.push(Figure::new(format!("{job}, instructions"), chip.name, instructions));
    }
    figures.push(Figure::new("static RAM B", chip.name, ram));
    Ok(())
}

/// Stack and instructions of a job, in what an image printed.
///
/// # Errors
/// When they are not there.
pub(crate) fn measured(output: &str, name: &str) -> Result<[u64; 2]> {
    let row = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let numbers = row
        .and_then(|row| row.split_once(' '))
        .and_then(|(stack, instructions)| Some([stack.parse().ok()?, instructions.trim().parse().ok()?]));
    numbers.with_context(|| format!("no figures for {name} in what the image printed:\n{output}"))
}

#[cfg(test)]
mod tests {
    use super::measured;

    #[test]
    fn figures_are_found_by_name() {
        let output = "sign 796 11534\nscan 200 3647\n";
        assert_eq!(measured(output, "scan").unwrap(), [200, 3647]);
        assert!(measured(output, "sca").is_err());
        assert!(measured("sign: the job failed\n", "sign").is_err());
    }
}
