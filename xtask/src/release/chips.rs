//! The signer's static libraries for chips: one archive per target, with header, CMake package and pkg-config file.
//!
//! Cargo builds each with link-time optimisation, as `docs/firmware.md` says. An archive is then unpacked and tried as a
//! firmware's build would use it: CMake finds the package, and on chips that QEMU has, the known answers of
//! `signer/capi/tests/c` pass with this library.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::package;
use crate::run::{Run, root, target};
use crate::tools;

/// A target: rustc's name, and gcc's flags and QEMU's options if the archive is tried.
struct Chip {
    target: &'static str,
    compiler: &'static str,
    flags: &'static [&'static str],
    /// The board on which the known answers run.
    machine: Option<&'static str>,
}

const CHIPS: &[Chip] = &[
    Chip {
        target: "thumbv6m-none-eabi",
        compiler: ARM,
        flags: &["-mcpu=cortex-m0", "-mthumb"],
        machine: Some("microbit"),
    },
    Chip {
        target: "thumbv7m-none-eabi",
        compiler: ARM,
        flags: &["-mcpu=cortex-m3", "-mthumb"],
        machine: Some("lm3s6965evb"),
    },
    Chip {
        target: "thumbv7em-none-eabihf",
        compiler: ARM,
        flags: &["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
        machine: Some("mps2-an386"),
    },
    Chip {
        target: "riscv32imc-unknown-none-elf",
        compiler: "riscv64-unknown-elf-gcc",
        flags: &["-march=rv32imc", "-mabi=ilp32"],
        machine: None,
    },
];

const ARM: &str = "arm-none-eabi-gcc";

/// Writes the archives into `out`.
///
/// # Errors
/// When a library does not build, or does not work as unpacked.
pub(super) fn write(out: &Path) -> Result<()> {
    tools::packages()?;
    tools::install(&["gcc-riscv64-unknown-elf"])?;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    CHIPS.iter().try_for_each(|chip| chip.write(out))
}

impl Chip {
    fn write(&self, out: &Path) -> Result<()> {
        let Self { target: triple, .. } = self;
        let folder = target().join("chips");
        Run::cargo("rustc --quiet --locked --package cmiot-signer-capi --lib --crate-type staticlib")
            .args(["--profile", "chip", "--target", triple])
            .args([Path::new("--target-dir"), &folder])
            .without_env("RUSTFLAGS")
            .run()?;
        let version = env!("CARGO_PKG_VERSION");
        let stem = format!("cmiot-signer-{version}-{triple}");
        let archive = out.join(format!("{stem}.tar.gz"));
        let library = folder.join(triple).join("chip/libcmiot_signer_capi.a");
        let pkg_config =
            String::from_utf8(read("packaging/signer/cmiot_signer.pc")?)?.replace("VERSION", version);
        let files = [
            ("include/cmiot_signer.h", read("signer/capi/include/cmiot_signer.h")?),
            ("lib/libcmiot_signer.a", fs::read(&library).with_context(|| library.display().to_string())?),
            (
                "lib/cmake/cmiot_signer/cmiot_signer-config.cmake",
                read("packaging/signer/cmiot_signer-config.cmake")?,
            ),
            ("lib/pkgconfig/cmiot_signer.pc", pkg_config.into_bytes()),
            ("LICENSE-APACHE", read("LICENSE-APACHE")?),
            ("LICENSE-MIT", read("LICENSE-MIT")?),
        ];
        package::tarball::plain(&archive, &stem, &files)?;
        self.try_archive(&archive, &stem)?;
        println!("{} is written and tried", archive.display());
        Ok(())
    }

    /// Unpacks an archive, links the known answers with it, and runs them.
    fn try_archive(&self, archive: &Path, stem: &str) -> Result<()> {
        let folder = target().join("chips/try");
        let _ = fs::remove_dir_all(folder.join(stem)); // of an earlier run
        fs::create_dir_all(&folder)?;
        Run::new("tar").args(["-xzf"]).args([archive]).args(["-C"]).args([&folder]).run()?;
        let unpacked = folder.join(stem);
        finds_the_package(&unpacked)?;
        let image = unpacked.join("vectors.elf");
        let include = format!("-I{}", unpacked.join("include").display());
        let library = unpacked.join("lib/libcmiot_signer.a");
        let gcc =
            Run::new(self.compiler).args(self.flags).args(["-Os", "-std=c11", "-ffreestanding", &include]);
        let Some(machine) = self.machine else {
            // QEMU's board has no startup code in C here: the header compiles and the functions resolve.
            let source = unpacked.join("link.c");
            fs::write(&source, LINK)?;
            return gcc
                .args(["-nostdlib", "-Wl,--gc-sections,-e,start"])
                .args([&source, &library])
                .args([Path::new("-o"), &image])
                .run();
        };
        let vectors = format!("-DVECTORS=\"{}\"", root().join("signer/tests/vectors.tsv").display());
        gcc.args(["-ffunction-sections", "-nostdlib", "-Wl,--gc-sections,--no-warn-execstack", "-Itests/c"])
            .args(["-Texamples/bare/link.ld", &vectors, "tests/c/vectors.c", "examples/bare/startup.c"])
            .args([&library])
            .args([Path::new("-o"), &image])
            .within("signer/capi")
            .run()?;
        let printed = Run::new("timeout")
            .args(["100", "qemu-system-arm", "-M", machine, "-display", "none", "-monitor", "none"])
            .args(["-serial", "none", "-chardev", "stdio,id=console"])
            .args(["-semihosting-config", "enable=on,target=native,chardev=console"])
            .args([Path::new("-kernel"), &image])
            .output()?;
        ensure!(printed.trim_end().ends_with("checks passed"), "{stem}: {printed}");
        println!("{stem}: {}", printed.trim());
        Ok(())
    }
}

/// Links every part of the library once.
const LINK: &str = r#"#include "cmiot_signer.h"
int32_t start(void) {
    static cmiot_account account;
    static const cmiot_text text = {"100001", 6};
    static char query[CMIOT_QUERY_SIZE];
    const cmiot_card card = {CMIOT_MSISDN, {"14765004176", 11}};
    cmiot_account_init(&account, text, text, text);
    return cmiot_sign(&account, 1413444630, 80000001, card, query, sizeof query);
}
"#;

/// Configures a project that finds the package of an unpacked archive.
fn finds_the_package(unpacked: &Path) -> Result<()> {
    let folder = unpacked.join("project");
    fs::create_dir_all(&folder)?;
    let lines = format!(
        "cmake_minimum_required(VERSION 3.20)\nproject(mine LANGUAGES NONE)\n\
         find_package(cmiot_signer CONFIG REQUIRED PATHS \"{}\" NO_DEFAULT_PATH)\n\
         get_target_property(file cmiot_signer IMPORTED_LOCATION)\nif(NOT EXISTS \"${{file}}\")\n\
         message(FATAL_ERROR \"no library\")\nendif()\n",
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
