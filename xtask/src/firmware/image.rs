//! The images of `signer/firmware`: built for a chip, run in QEMU, weighed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::run::{Run, Stream, target};

/// A chip, and the board that QEMU has for it.
pub(crate) struct Chip {
    /// As the tables say it.
    pub(crate) name: &'static str,
    /// As rustc says it.
    pub(crate) target: &'static str,
    /// QEMU's program, and its options that choose the board.
    pub(crate) qemu: &'static [&'static str],
    /// Whether the example gateway has drivers for the board.
    pub(crate) has_gateway: bool,
    /// The C compiler, its options for the chip, and the linker script of `signer/capi/examples/bare` for the board.
    gcc: (&'static str, &'static [&'static str], &'static str),
}

/// The chips, in the order of the table. A release has a library for each, and the signer builds for each.
pub(crate) const CHIPS: &[Chip] = &[
    Chip {
        name: "M3",
        target: "thumbv7m-none-eabi",
        qemu: &[QEMU_ARM, "-M", "lm3s6965evb"],
        has_gateway: true,
        gcc: (GCC_ARM, &["-mcpu=cortex-m3", "-mthumb"], "link.ld"),
    },
    Chip {
        name: "M0",
        target: "thumbv6m-none-eabi",
        qemu: &[QEMU_ARM, "-M", "microbit"],
        has_gateway: true,
        gcc: (GCC_ARM, &["-mcpu=cortex-m0", "-mthumb"], "link.ld"),
    },
    Chip {
        name: "M4F",
        target: "thumbv7em-none-eabihf",
        qemu: &[QEMU_ARM, "-M", "mps2-an386"],
        has_gateway: true,
        gcc: (GCC_ARM, &["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"], "link.ld"),
    },
    Chip {
        name: "RISC-V",
        target: "riscv32imc-unknown-none-elf",
        qemu: &["qemu-system-riscv32", "-M", "virt", "-bios", "none"],
        has_gateway: false,
        // Zicsr: the startup code sets a trap handler, and the measurement reads a counter.
        gcc: ("riscv64-unknown-elf-gcc", &["-march=rv32imc_zicsr", "-mabi=ilp32"], "virt.ld"),
    },
];

const QEMU_ARM: &str = "qemu-system-arm";
const GCC_ARM: &str = "arm-none-eabi-gcc";

/// Size of an image, in bytes.
pub(crate) struct Size {
    pub(crate) flash: u64,
    pub(crate) ram: u64,
}

impl Chip {
    /// Builds the images of these names with a profile.
    ///
    /// # Errors
    /// When one does not build.
    pub(crate) fn build(&self, profile: &str, names: &[&str]) -> Result<()> {
        let chosen = names.iter().flat_map(|name| ["--bin", name]);
        Run::cargo("build --quiet --locked --target")
            .args([self.target, "--profile", profile])
            .args(chosen)
            .args([Path::new("--target-dir"), &target_dir()])
            .within("signer/firmware")
            // It is part of the figures.
            .without_env("RUSTFLAGS")
            .run()
    }

    /// Runs an image of the release profile to its end and returns what it printed.
    ///
    /// # Errors
    /// When it does not exit with 0, or not within two minutes.
    pub(crate) fn run(&self, name: &str, options: &[&str]) -> Result<String> {
        self.run_file(&self.image(name), options)
    }

    /// Runs an image of any origin.
    ///
    /// # Errors
    /// As [`Chip::run`].
    pub(crate) fn run_file(&self, image: &Path, options: &[&str]) -> Result<String> {
        let mut output = String::new();
        let status = Run::new("timeout")
            .args(["120"])
            .args(self.qemu)
            .args(["-display", "none", "-monitor", "none", "-serial", "none", "-chardev", "stdio,id=console"])
            .args(["-semihosting-config", "enable=on,target=native,chardev=console"])
            .args(options)
            .args([Path::new("-kernel"), image])
            .run_reading(Stream::Stdout, |line| {
                output.push_str(line);
                output.push('\n');
            })?;
        ensure!(status.success(), "{} on {}: {status}", image.display(), self.name);
        Ok(output)
    }

    /// gcc for this chip and its board, in `signer/capi`: an image without a library of C, with the startup code of
    /// `examples/bare`. The caller adds sources, libraries and the output.
    pub(crate) fn gcc(&self) -> Run {
        let (program, options, script) = self.gcc;
        Run::new(program)
            .args(options)
            .args(["-Os", "-std=c11", "-ffreestanding", "-ffunction-sections", "-fdata-sections"])
            .args(["-nostartfiles", "-Wl,--gc-sections,--no-warn-execstack"])
            .args([format!("-Texamples/bare/{script}"), "-Iexamples/bare".to_owned()])
            .args(["examples/bare/startup.c"])
            .within("signer/capi")
    }

    /// The C library as `docs/firmware.md` says to build it, with these features more than its defaults (such as `v5`), in a
    /// folder of build output.
    ///
    /// # Errors
    /// When it does not build.
    pub(crate) fn c_library(&self, folder: &Path, features: &str) -> Result<PathBuf> {
        Run::cargo("rustc --quiet --locked --package cmiot-signer-capi --lib --crate-type staticlib")
            .args(["--features", features])
            .args(["--profile", "chip", "--target", self.target])
            .args([Path::new("--target-dir"), folder])
            .without_env("RUSTFLAGS")
            .run()?;
        Ok(folder.join(self.target).join("chip/libcmiot_signer_capi.a"))
    }

    /// Size of an image of the release profile.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn size(&self, name: &str) -> Result<Size> {
        size(&self.image(name))
    }

    fn image(&self, name: &str) -> PathBuf {
        target_dir().join(self.target).join("release").join(name)
    }
}

/// Folder of the images, apart from the workspace's own output.
pub(crate) fn target_dir() -> PathBuf {
    target().join("firmware")
}

/// Size of an image.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn size(image: &Path) -> Result<Size> {
    let printed = Run::new("size").args([image]).output()?;
    berkeley(&printed).with_context(|| format!("not the table that size prints:\n{printed}"))
}

/// Reads `text data bss dec hex filename` over one row of numbers. Initialised data is in flash and in RAM.
fn berkeley(table: &str) -> Option<Size> {
    let mut numbers = table.lines().nth(1)?.split_whitespace().map(str::parse::<u64>);
    let (text, data, bss) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Size { flash: text + data, ram: data + bss })
}

#[cfg(test)]
mod tests {
    use super::berkeley;

    #[test]
    fn initialised_data_lies_in_flash_and_in_ram() {
        let table = "   text\t   data\t    bss\t    dec\t    hex\tfilename\n   4996\t     12\t   1024\t   6032\t   1790\timage\n";
        let size = berkeley(table).unwrap();
        assert_eq!((size.flash, size.ram), (5008, 1036));
        assert!(berkeley("size: no such file\n").is_none());
    }
}
