//! `tests/c/vectors.c` with the static library: on this host, under gcc's sanitizers, and on emulated chips, where the
//! image must not contain a panic. The CMake files must build an image, too.
//!
//! Needs gcc for this host, Arm and RISC-V, cmake, make and QEMU for both; `cargo xtask test` brings them.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const WARNINGS: &[&str] = &["-std=c11", "-Wall", "-Wextra", "-Werror"];

#[test]
fn passes_on_this_host() {
    let image = build("gcc", &["-O2"], &["tests/c/console_host.c"], &library(None), "vectors-host");
    passes(&mut Command::new(image));
}

#[test]
fn passes_under_address_and_undefined_behaviour_sanitizers() {
    let sanitizers = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let image = build("gcc", &sanitizers, &["tests/c/console_host.c"], &library(None), "vectors-sanitized");
    passes(&mut Command::new(image));
}

#[test]
fn passes_on_cortex_m3() {
    on_chip(
        "thumbv7m-none-eabi",
        ARM,
        &["-mcpu=cortex-m3", "-mthumb"],
        &["qemu-system-arm", "-M", "lm3s6965evb"],
    );
}

#[test]
fn passes_on_cortex_m0() {
    on_chip(
        "thumbv6m-none-eabi",
        ARM,
        &["-mcpu=cortex-m0", "-mthumb"],
        &["qemu-system-arm", "-M", "microbit"],
    );
}

#[test]
fn passes_on_riscv() {
    let options = ["-march=rv32imc_zicsr", "-mabi=ilp32"];
    let qemu = ["qemu-system-riscv32", "-M", "virt", "-bios", "none"];
    on_chip("riscv32imc-unknown-none-elf", ("riscv64-unknown-elf-", "virt.ld"), &options, &qemu);
}

/// The prefix of the compiler's programs, and the linker script.
const ARM: (&str, &str) = ("arm-none-eabi-", "link.ld");

#[test]
fn cmake_builds_the_bare_metal_example() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cmake");
    let toolchain = in_crate("examples/arm-none-eabi.cmake");
    let mut configure = Command::new("cmake");
    configure
        .args(["-G", "Unix Makefiles", "-DCMAKE_BUILD_TYPE=MinSizeRel", "-S"])
        .arg(in_crate("examples/bare"));
    configure.arg("-B").arg(&folder).arg(format!("-DCMAKE_TOOLCHAIN_FILE={}", toolchain.display()));
    output(&mut configure);
    output(Command::new("cmake").arg("--build").arg(&folder));
    without_panics("arm-none-eabi-nm", &folder.join("gateway.elf"), "cmiot_http_request");
}

fn on_chip(target: &str, (prefix, script): (&str, &str), options: &[&str], qemu: &[&str]) {
    let script = format!("-Texamples/bare/{script}");
    let freestanding = ["-Os", "-ffreestanding", "-ffunction-sections", "-nostdlib"];
    let link = ["-Wl,--gc-sections,--no-warn-execstack", &script];
    let options: Vec<_> = options.iter().copied().chain(freestanding).chain(link).collect();
    let image = build(
        &format!("{prefix}gcc"),
        &options,
        &["examples/bare/startup.c"],
        &library(Some(target)),
        &format!("vectors-{target}.elf"),
    );

    without_panics(&format!("{prefix}nm"), &image, "cmiot_sign");
    let console =
        ["-chardev", "stdio,id=console", "-semihosting-config", "enable=on,target=native,chardev=console"];
    let quiet = ["-display", "none", "-monitor", "none", "-serial", "none"];
    let mut emulated = Command::new("timeout");
    emulated.arg("100").args(qemu).args(quiet).args(console).arg("-kernel").arg(image);
    passes(&mut emulated);
}

/// Asserts that an image contains this function and no panic.
fn without_panics(nm: &str, image: &Path, function: &str) {
    let symbols = output(Command::new(nm).arg(image));
    let panics: Vec<_> =
        symbols.lines().filter(|line| line.contains("panic") || line.contains("unwind")).collect();
    assert!(symbols.contains(function) && panics.is_empty(), "panics are linked: {panics:#?}");
}

/// The static library for a chip, or for this host.
fn library(target: Option<&str>) -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // `rustc --crate-type`: with an rlib as well, cargo does no link-time optimisation, and then some panics stay.
    build.args(["rustc", "--quiet", "--package", "cmiot-signer-capi", "--lib", "--crate-type", "staticlib"]);
    build.args(["--features", "v5"]);
    // A separate folder: otherwise this build and the workspace's would invalidate each other.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
    build.arg("--target-dir").arg(&folder).env_remove("RUSTFLAGS");
    let built = match target {
        Some(target) => {
            build.args(["--profile", "chip", "--target", target]);
            folder.join(target).join("chip")
        }
        None => folder.join("debug"),
    };
    output(&mut build);
    built.join("libcmiot_signer_capi.a")
}

/// The test program.
fn build(compiler: &str, options: &[&str], sources: &[&str], library: &Path, name: &str) -> PathBuf {
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let vectors = in_crate("../tests/vectors.tsv");
    let mut build = Command::new(compiler);
    build.current_dir(in_crate("")).args(WARNINGS).args(options).args(["-Iinclude", "-Itests/c"]);
    build
        .arg(format!("-DVECTORS=\"{}\"", vectors.display()))
        .arg("-DV5")
        .arg("tests/c/vectors.c")
        .args(sources);
    build.arg(library).arg("-o").arg(&image);
    output(&mut build);
    image
}

fn passes(program: &mut Command) {
    let printed = output(program);
    let count = printed.trim().strip_prefix("c tests: ").and_then(|rest| rest.strip_suffix(" checks passed"));
    assert!(count.is_some_and(|count| count.parse::<u32>().unwrap() > 400), "{printed}");
}

/// The output of a program, which must exit with 0.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

fn in_crate(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
