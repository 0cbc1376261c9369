//! The library in other build systems: `add_subdirectory` and FetchContent build an image; the ESP-IDF component and the
//! Zephyr module are configured with stubs of those systems' functions, which no test installs.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_project_adds_the_folder_and_links_the_library() {
    let add = "add_subdirectory(\"@capi@\" cmiot_signer)";
    let fetch = "include(FetchContent)\nFetchContent_Declare(cmiot_signer SOURCE_DIR \"@capi@\")\n\
        FetchContent_MakeAvailable(cmiot_signer)";
    for (name, line) in [("add", add), ("fetch", fetch)] {
        let folder = project(
            name,
            &format!(
                "set(CMIOT_SIGNER_TARGET thumbv7m-none-eabi)\n{line}\nadd_executable(mine main.c)\n\
                 target_link_libraries(mine PRIVATE cmiot_signer)\n\
                 target_link_options(mine PRIVATE -nostdlib -Wl,--gc-sections,-e,start)\n"
            ),
            "C",
        );
        let main = "#include \"cmiot_signer.h\"\n\
            int32_t start(void) { return cmiot_sequence_next(1, 0, 0); }\n";
        fs::write(folder.join("main.c"), main).unwrap();
        let toolchain = root("signer/capi/examples/arm-none-eabi.cmake");
        configure(&folder, &[&format!("-DCMAKE_TOOLCHAIN_FILE={}", toolchain.display())]);
        output(Command::new("cmake").arg("--build").arg(folder.join("build")));
        let symbols = output(Command::new("arm-none-eabi-nm").arg(folder.join("build/mine")));
        assert!(symbols.contains("cmiot_sequence_next"), "{name}: {symbols}");
    }
}

#[test]
fn the_esp_idf_component_chooses_the_target_of_the_chip() {
    let stubs = "function(idf_component_register)\nadd_library(component INTERFACE)\n\
        set(COMPONENT_LIB component PARENT_SCOPE)\nendfunction()\n";
    let lines = format!("{stubs}add_subdirectory(\"@packaging@/esp-idf/cmiot_signer\" component)\n{PRINT}");
    let folder = project("esp-idf", &lines, "NONE");
    for (chip, target) in [
        ("esp32c3", "riscv32imc-unknown-none-elf"),
        ("esp32c6", "riscv32imac-unknown-none-elf"),
        ("esp32p4", "riscv32imafc-unknown-none-elf"),
    ] {
        let printed = configure(&folder, &[&format!("-DIDF_TARGET={chip}")]);
        assert!(printed.contains(&format!("{target}/chip/libcmiot_signer_capi.a")), "{chip}: {printed}");
    }
    let refused = cmake(&folder, &["-DIDF_TARGET=esp32s3"]).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Xtensa"));
}

#[test]
fn the_zephyr_module_chooses_the_target_of_the_processor() {
    let stubs = "function(zephyr_link_libraries library)\nif(NOT TARGET ${library})\n\
        message(FATAL_ERROR \"no target\")\nendif()\nendfunction()\n";
    let lines = format!("{stubs}add_subdirectory(\"@packaging@/zephyr/zephyr\" module)\n{PRINT}");
    for (name, options, target) in [
        ("m0", &["-DCONFIG_CPU_CORTEX_M0PLUS=y"][..], "thumbv6m-none-eabi"),
        ("m4", &["-DCONFIG_CPU_CORTEX_M4=y"], "thumbv7em-none-eabi"),
        ("m4f", &["-DCONFIG_CPU_CORTEX_M4=y", "-DCONFIG_FP_HARDABI=y"], "thumbv7em-none-eabihf"),
        ("riscv", &["-DCONFIG_RISCV=y"], "riscv32imc-unknown-none-elf"),
    ] {
        let folder = project(&format!("zephyr-{name}"), &lines, "NONE");
        let options: Vec<_> = ["-DCONFIG_CMIOT_SIGNER=y"].iter().chain(options).copied().collect();
        let printed = configure(&folder, &options);
        assert!(printed.contains(&format!("{target}/chip/libcmiot_signer_capi.a")), "{name}: {printed}");
    }
}

/// Prints the library's file.
const PRINT: &str =
    "get_target_property(file cmiot_signer IMPORTED_LOCATION)\nmessage(STATUS \"file ${file}\")\n";

/// A folder with this project.
fn project(name: &str, lines: &str, language: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging").join(name);
    let _ = fs::remove_dir_all(&folder); // of an earlier run
    fs::create_dir_all(&folder).unwrap();
    let lines = lines
        .replace("@capi@", &root("signer/capi").display().to_string())
        .replace("@packaging@", &root("packaging").display().to_string());
    let head = format!("cmake_minimum_required(VERSION 3.20)\nproject(mine LANGUAGES {language})\n");
    fs::write(folder.join("CMakeLists.txt"), head + &lines).unwrap();
    folder
}

fn configure(folder: &Path, options: &[&str]) -> String {
    output(&mut cmake(folder, options))
}

fn cmake(folder: &Path, options: &[&str]) -> Command {
    let mut cmake = Command::new("cmake");
    cmake.args(["-G", "Unix Makefiles", "-S"]).arg(folder).arg("-B").arg(folder.join("build")).args(options);
    cmake
}

/// The output of a program, which must exit with 0.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
