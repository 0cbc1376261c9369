//! The signer's static libraries for chips: one archive per target, with header, CMake package and pkg-config file.
//!
//! Cargo builds each with link-time optimisation, as `docs/firmware.md` says. An archive is then unpacked and tried as a
//! firmware's build would use it: CMake finds the package, and the known answers of `signer/capi/tests/c` pass under QEMU
//! with this library.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::firmware::image::{CHIPS, Chip};
use crate::package;
use crate::run::{Run, root, target};
use crate::tools;

/// Writes the archives into `out`.
///
/// # Errors
/// When a library does not build, or does not work as unpacked.
pub(super) fn write(out: &Path) -> Result<()> {
    tools::packages()?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    CHIPS.iter().try_for_each(|chip| write_archive(chip, out))
}

fn write_archive(chip: &Chip, out: &Path) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let stem = format!("cmiot-signer-{version}-{}", chip.target);
    let archive = out.join(format!("{stem}.tar.gz"));
    let library = chip.c_library(&target().join("chips"), "")?;
    let filled = |path: &str| -> Result<Vec<u8>> {
        let text = String::from_utf8(read(path)?)?;
        Ok(text.replace("@VERSION@", version).replace("@TARGET@", chip.target).into_bytes())
    };
    let files = [
        ("include/cmiot_signer.h", read("signer/capi/include/cmiot_signer.h")?),
        ("lib/libcmiot_signer.a", fs::read(&library).with_context(|| library.display().to_string())?),
        (
            "lib/cmake/cmiot_signer/cmiot_signer-config.cmake",
            filled("packaging/signer/cmiot_signer-config.cmake")?,
        ),
        (
            "lib/cmake/cmiot_signer/cmiot_signer-config-version.cmake",
            filled("packaging/signer/cmiot_signer-config-version.cmake")?,
        ),
        (
            "lib/cmake/cmiot_signer/cmiot_signer_check.cmake",
            read("signer/capi/examples/cmiot_signer_check.cmake")?,
        ),
        ("lib/cmake/cmiot_signer/cmiot_signer_target.c", read("signer/capi/examples/cmiot_signer_target.c")?),
        ("lib/pkgconfig/cmiot_signer.pc", filled("packaging/signer/cmiot_signer.pc")?),
        ("LICENSE-APACHE", read("LICENSE-APACHE")?),
        ("LICENSE-MIT", read("LICENSE-MIT")?),
    ];
    package::tarball::plain(&archive, &stem, &files)?;
    try_archive(chip, &archive, &stem)?;
    println!("{} is written and tried", archive.display());
    Ok(())
}

/// Unpacks an archive, links the known answers with it, and runs them.
fn try_archive(chip: &Chip, archive: &Path, stem: &str) -> Result<()> {
    let folder = target().join("chips/try");
    let _ = fs::remove_dir_all(folder.join(stem)); // of an earlier run
    fs::create_dir_all(&folder)?;
    Run::new("tar").args(["-xzf"]).args([archive]).args(["-C"]).args([&folder]).run()?;
    let unpacked = folder.join(stem);
    finds_the_package(&unpacked)?;
    let image = unpacked.join("vectors.elf");
    let vectors = format!("-DVECTORS=\"{}\"", root().join("signer/tests/vectors.tsv").display());
    let include = format!("-I{}", unpacked.join("include").display());
    chip.gcc()
        .args([&include, "-Itests/c", &vectors, "tests/c/vectors.c"])
        .args([unpacked.join("lib/libcmiot_signer.a")])
        .args([Path::new("-nostdlib"), Path::new("-o"), &image])
        .run()?;
    let printed = chip.run_file(&image, &[])?;
    ensure!(printed.trim_end().ends_with("checks passed"), "{stem}: {printed}");
    println!("{stem}: {}", printed.trim());
    Ok(())
}

/// Configures a project that finds the package of an unpacked archive, at this version.
fn finds_the_package(unpacked: &Path) -> Result<()> {
    let folder = unpacked.join("project");
    fs::create_dir_all(&folder)?;
    let lines = format!(
        "cmake_minimum_required(VERSION 3.20)\nproject(mine LANGUAGES NONE)\n\
         find_package(cmiot_signer {} CONFIG REQUIRED PATHS \"{}\" NO_DEFAULT_PATH)\n\
         get_target_property(file cmiot_signer IMPORTED_LOCATION)\nif(NOT EXISTS \"${{file}}\")\n\
         message(FATAL_ERROR \"no library\")\nendif()\n",
        env!("CARGO_PKG_VERSION"),
        unpacked.display()
    );
    fs::write(folder.join("CMakeLists.txt"), lines)?;
    Run::new("cmake").args(["-S"]).args([&folder]).args(["-B"]).args([folder.join("build")]).output()?;
    Ok(())
}

fn read(path: &str) -> Result<Vec<u8>> {
    let file = root().join(path);
    fs::read(&file).with_context(|| file.display().to_string())
}
