//! `examples/cmiot_signer.cmake` in a project of its own: its target is the project's or the compiler's, and a core that
//! cannot run the library does not compile. `tests/c.rs` builds a whole image with it.
//!
//! Needs gcc, arm-none-eabi-gcc, cmake and make; `cargo xtask test` brings them.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const M0: &str = "-DCMIOT_SIGNER_CPU=cortex-m0";
const M3: &str = "-DCMIOT_SIGNER_CPU=cortex-m3";

#[test]
fn a_target_that_is_set_before_the_include_counts_at_once() {
    for wanted in ["thumbv6m-none-eabi", "thumbv7m-none-eabi"] {
        let (_, text) = configured(wanted, &[M3, &format!("-DWANTED={wanted}")]);
        assert!(text.contains(&format!("target={wanted}.")), "{text}");
    }
    let (_, text) = configured("cached", &[M3, "-DCMIOT_SIGNER_TARGET=thumbv6m-none-eabi"]);
    assert!(text.contains("target=thumbv6m-none-eabi."), "{text}");
}

#[test]
fn without_one_the_compilers_flags_count() {
    for (cpu, target) in [(M0, "thumbv6m-none-eabi"), (M3, "thumbv7m-none-eabi")] {
        let (_, text) = configured(&format!("flags-{target}"), &[cpu]);
        assert!(text.contains(&format!("target={target}.")), "{text}");
    }
    let host = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cmake-host");
    let (_, text) = finished(&configure(&host).output().unwrap());
    assert!(text.contains(&format!("target={}-unknown-linux-gnu.", std::env::consts::ARCH)), "{text}");
    // No core is named: the compiler's default is none that the library runs on.
    let unknown = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cmake-unknown");
    let (success, text) = finished(&configure(&unknown).args(toolchain("arm7tdmi")).output().unwrap());
    assert!(!success && text.contains("name no chip that is known here"), "{text}");
}

#[test]
fn a_core_that_cannot_run_the_library_does_not_compile() {
    let m3 = "-DWANTED=thumbv7m-none-eabi";
    for (name, arguments, fits) in [
        ("fits", &[M3, m3][..], true),
        ("lesser", &[M3, "-DWANTED=thumbv6m-none-eabi"], true),
        ("global", &[M0, m3], false),
        // The executable's own flags, which no include() sees.
        ("own", &[M3, m3, "-DOPTIONS=-mcpu=cortex-m0"], false),
        ("floats", &[M3, m3, "-DOPTIONS=-mcpu=cortex-m4;-mfloat-abi=hard;-mfpu=fpv4-sp-d16"], false),
    ] {
        let (folder, _) = configured(&format!("core-{name}"), arguments);
        let (success, text) = check(&folder);
        assert_eq!(success, fits, "{name}: {text}");
        assert!(fits || text.contains("another core or float ABI"), "{name}: {text}");
    }
}

/// Configures the project for a chip and returns its folder and the output.
fn configured(name: &str, arguments: &[&str]) -> (PathBuf, String) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cmake-{name}"));
    let mut cmake = configure(&folder);
    cmake.args(toolchain("cortex-m3")).args(arguments);
    let (success, text) = finished(&cmake.output().unwrap());
    assert!(success, "{cmake:?}: {text}");
    (folder, text)
}

fn configure(folder: &Path) -> Command {
    // At the first configure a set() differs from a later one.
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
    let mut cmake = Command::new("cmake");
    cmake.args(["-G", "Unix Makefiles", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-S"]);
    cmake.arg(in_crate("tests/cmake")).arg("-B").arg(folder);
    cmake
}

fn toolchain(cpu: &str) -> [String; 2] {
    let file = in_crate("examples/arm-none-eabi.cmake");
    [format!("-DCMAKE_TOOLCHAIN_FILE={}", file.display()), format!("-DCMIOT_SIGNER_CPU={cpu}")]
}

/// Compiles the file that checks the core, as the project does.
fn check(folder: &Path) -> (bool, String) {
    let commands = fs::read_to_string(folder.join("compile_commands.json")).unwrap();
    let commands = commands.lines().filter_map(|line| line.trim().strip_prefix("\"command\": \""));
    let mut commands = commands.map(|line| line.trim_end_matches("\","));
    let command = commands.find(|line| line.ends_with("cmiot_signer_target.c")).unwrap();
    fs::create_dir_all(folder.join("CMakeFiles/mine.dir")).unwrap();
    let command = command.replace(" -o ", " -fsyntax-only -o ");
    finished(&Command::new("sh").args(["-c", &command]).current_dir(folder).output().unwrap())
}

/// Whether a program succeeded, and its output.
fn finished(output: &Output) -> (bool, String) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), format!("{out}{err}"))
}

fn in_crate(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
