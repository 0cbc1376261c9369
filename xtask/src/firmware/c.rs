//! The figures of the C library: each workload of `signer/capi/measure` is an image of its own, linked with the library
//! as a firmware in C links it. They differ from Rust's: C checks its credentials at run time.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::budget::Figure;
use super::image::{Chip, size, target_dir};
use super::measured;

/// The beginning of the figures' names.
pub(super) const PREFIX: &str = "C: ";

/// Each workload: its macro, its name, and the features of its library.
const WORKLOADS: &[(&str, &str, &str)] = &[
    ("JOB_SIGN", "init + sign + query", ""),
    ("JOB_SCAN", "scan", ""),
    ("JOB_HTTP", "init + sign + http", ""),
    ("JOB_LEASE", "lease", ""),
    ("JOB_V5", "v5", "v5"),
];

/// Measures every workload on a chip.
///
/// # Errors
/// When the library or an image does not build, or a workload fails.
pub(super) fn measure(chip: &Chip, figures: &mut Vec<Figure>) -> Result<()> {
    let folder = target_dir().join("capi");
    let none = size(&image(chip, &chip.c_library(&folder, "")?, "JOB_NONE")?)?;
    for (job, name, features) in WORKLOADS {
        let library = chip.c_library(&folder, features)?;
        let image = image(chip, &library, job)?;
        let flash = size(&image)?.flash.checked_sub(none.flash).context("the job made the image smaller")?;
        let [stack, instructions] = measured(&chip.run_file(&image, &["-icount", "shift=0"])?, "sign")?;
        for (figure, value) in [("flash B", flash), ("stack B", stack), ("instructions", instructions)] {
            figures.push(Figure::new(format!("{PREFIX}{name}, {figure}"), chip.name, value));
        }
    }
    Ok(())
}

/// The image of a workload.
fn image(chip: &Chip, library: &Path, job: &str) -> Result<PathBuf> {
    let image = target_dir().join(format!("capi/{job}-{}.elf", chip.name));
    chip.gcc()
        .args(["-Wall", "-Wextra", "-Werror", "-Iinclude", "-I../firmware/peers", &format!("-D{job}")])
        .args(["measure/workloads.c", "../firmware/peers/measure.c"])
        .args([library, Path::new("-nostdlib"), Path::new("-lgcc"), Path::new("-o"), &image])
        .run()?;
    Ok(image)
}
