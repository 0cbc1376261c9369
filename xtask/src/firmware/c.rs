//! The figures of the C library: each workload of `signer/capi/measure` is an image of its own, linked with the library
//! as a firmware in C links it. They differ from Rust's: C checks its credentials at run time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::budget::Figure;
use super::image::{Chip, size, target_dir};
use super::measured;
use crate::run::Run;

/// The beginning of the figures' names.
pub(super) const PREFIX: &str = "C: ";

/// Each workload: its macro and its name.
const WORKLOADS: &[(&str, &str)] = &[
    ("JOB_SIGN", "init + sign + query"),
    ("JOB_SCAN", "scan"),
    ("JOB_HTTP", "init + sign + http"),
    ("JOB_LEASE", "lease"),
];

/// Measures every workload on a Cortex-M.
///
/// # Errors
/// When the library or an image does not build, or a workload fails.
pub(super) fn measure(chip: &Chip, figures: &mut Vec<Figure>) -> Result<()> {
    let Some(options) = options(chip.target) else { return Ok(()) };
    let library = library(chip)?;
    let none = size(&image(chip, options, &library, "JOB_NONE")?)?;
    for (job, name) in WORKLOADS {
        let image = image(chip, options, &library, job)?;
        let flash = size(&image)?.flash.checked_sub(none.flash).context("the job made the image smaller")?;
        let [stack, instructions] = measured(&chip.run_file(&image, &["-icount", "shift=0"])?, "sign")?;
        for (figure, value) in [("flash B", flash), ("stack B", stack), ("instructions", instructions)] {
            figures.push(Figure::new(format!("{PREFIX}{name}, {figure}"), chip.name, value));
        }
    }
    Ok(())
}

/// The compiler's options for a target that is measured.
fn options(target: &str) -> Option<&'static [&'static str]> {
    match target {
        "thumbv6m-none-eabi" => Some(&["-mcpu=cortex-m0"]),
        "thumbv7m-none-eabi" => Some(&["-mcpu=cortex-m3"]),
        "thumbv7em-none-eabihf" => Some(&["-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]),
        _ => None,
    }
}

/// The static library, as `docs/firmware.md` says to build it.
fn library(chip: &Chip) -> Result<PathBuf> {
    let folder = target_dir().join("capi");
    Run::cargo(
        "rustc --quiet --locked --package cmiot-signer-capi --lib --crate-type staticlib --profile chip",
    )
    .args(["--config", "../firmware/.cargo/config.toml", "--target", chip.target])
    .args([Path::new("--target-dir"), &folder])
    .within("signer/capi")
    .without_env("RUSTFLAGS")
    .run()?;
    Ok(folder.join(chip.target).join("chip/libcmiot_signer_capi.a"))
}

/// The image of a workload.
fn image(chip: &Chip, options: &[&str], library: &Path, job: &str) -> Result<PathBuf> {
    let image = target_dir().join(format!("capi/{job}-{}.elf", chip.name));
    Run::new("arm-none-eabi-gcc")
        .args(options)
        .args(["-mthumb", "-Os", "-std=c11", "-Wall", "-Wextra", "-Werror", "-ffreestanding"])
        .args([
            "-ffunction-sections",
            "-fdata-sections",
            "-nostdlib",
            "-Wl,--gc-sections,--no-warn-execstack",
        ])
        .args(["-Texamples/bare/link.ld", "-Iexamples/bare", "-Iinclude", "-I../firmware/peers"])
        .args([format!("-D{job}")])
        .args(["measure/workloads.c", "../firmware/peers/measure.c", "examples/bare/startup.c"])
        .args([library, Path::new("-lgcc"), Path::new("-o"), &image])
        .within("signer/capi")
        .run()?;
    Ok(image)
}
