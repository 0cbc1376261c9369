//! Links the images for the board that QEMU emulates for the target.
//!
//! Linker arguments are here and not in `rustflags`, so that a RUSTFLAGS in the environment cannot drop them.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

/// The boards, one per target.
const MACHINES: &[(&str, &str)] = &[
    ("thumbv6m-none-eabi", "microbit"),
    ("thumbv7m-none-eabi", "lm3s6965evb"),
    ("thumbv7em-none-eabihf", "mps2-an386"),
    ("riscv32imc-unknown-none-elf", "virt"),
];

fn main() -> Result<(), Box<dyn Error>> {
    let target = env::var("TARGET")?;
    let Some((_, machine)) = MACHINES.iter().find(|(known, _)| *known == target) else {
        return Err(format!("no emulated board for {target}: pass --target with one of {MACHINES:?}").into());
    };
    let names: Vec<String> = MACHINES.iter().map(|(_, name)| format!("\"{name}\"")).collect();
    println!("cargo:rustc-check-cfg=cfg(machine, values({}))", names.join(", "));
    println!("cargo:rustc-cfg=machine=\"{machine}\"");

    let script = format!("machines/{machine}.x");
    println!("cargo:rerun-if-changed={script}");
    if target.starts_with("thumb") {
        // cortex-m-rt's link.x includes a file of this name.
        let out = PathBuf::from(env::var("OUT_DIR")?);
        fs::copy(&script, out.join("memory.x"))?;
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
    } else {
        let folder = env::var("CARGO_MANIFEST_DIR")?;
        println!("cargo:rustc-link-arg-bins=-T{folder}/{script}");
    }
    // Sections need not be aligned to pages: nothing pages here.
    println!("cargo:rustc-link-arg-bins=--nmagic");
    Ok(())
}
