//! The library in other build systems: `add_subdirectory` and FetchContent build an image; a prebuilt library is found in
//! an archive; the ESP-IDF component and the Zephyr module are configured with stubs of those systems' functions, which no
//! test installs.
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
    let lines = format!("{IDF}add_subdirectory(\"@packaging@/esp-idf/cmiot_signer\" component)\n{PRINT}");
    let folder = project("esp-idf", &lines, "NONE");
    for (chip, target) in [
        ("esp32c3", "riscv32imc-unknown-none-elf"),
        ("esp32c6", "riscv32imac-unknown-none-elf"),
        ("esp32p4", "riscv32imafc-unknown-none-elf"),
    ] {
        let printed = configure(&folder, &[&format!("-DIDF_TARGET={chip}")]);
        assert!(printed.contains(&format!("{target}/chip/libcmiot_signer_capi.a")), "{chip}: {printed}");
    }
    for (chip, said) in
        [("esp32s3", "xtensa-esp32s3-none-elf"), ("esp32", "Xtensa"), ("esp33", "no target is known")]
    {
        assert!(refused(&folder, &[&format!("-DIDF_TARGET={chip}")]).contains(said), "{chip}");
    }
    // The project's own choice, with the compiler for it.
    let chosen = ["-DIDF_TARGET=esp32s3", "-DCMIOT_SIGNER_TARGET=xtensa-esp32s3-none-elf"];
    let printed = configure(&folder, &chosen);
    assert!(printed.contains("xtensa-esp32s3-none-elf/chip/libcmiot_signer_capi.a"), "{printed}");
}

#[test]
fn the_zephyr_module_chooses_the_target_of_the_processor() {
    let lines = format!("{ZEPHYR}add_subdirectory(\"@packaging@/zephyr/zephyr\" module)\n{PRINT}");
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

#[test]
fn a_prebuilt_library_takes_the_place_of_cargo() {
    let archive = archive("prebuilt", "thumbv7m-none-eabi");
    let cmake = "include(\"@capi@/examples/cmiot_signer.cmake\")\n".to_owned();
    let idf = format!("{IDF}add_subdirectory(\"@packaging@/esp-idf/cmiot_signer\" component)\n");
    let zephyr = format!("{ZEPHYR}add_subdirectory(\"@packaging@/zephyr/zephyr\" module)\n");
    for (name, lines, option) in [
        ("cmake", cmake, "CMIOT_SIGNER_PREBUILT"),
        ("esp-idf", idf, "CONFIG_CMIOT_SIGNER_PREBUILT"),
        ("zephyr", zephyr, "CONFIG_CMIOT_SIGNER_PREBUILT"),
    ] {
        let folder = project(&format!("prebuilt-{name}"), &format!("{lines}{PRINT}"), "NONE");
        let option = format!("-D{option}={}", archive.display());
        let printed = configure(&folder, &[&option, "-DCONFIG_CMIOT_SIGNER=y"]);
        let library = archive.join("lib/libcmiot_signer.a");
        assert!(printed.contains(&format!("file {}", library.display())), "{name}: {printed}");
    }
}

#[test]
fn a_prebuilt_library_is_found_by_its_version_and_refuses_another_core() {
    let archive = archive("found", "thumbv7m-none-eabi");
    let version = env!("CARGO_PKG_VERSION");
    let lines = format!(
        "find_package(cmiot_signer ${{WANTED}} CONFIG REQUIRED PATHS \"{}\" NO_DEFAULT_PATH)\n\
         add_executable(mine main.c)\ntarget_link_libraries(mine PRIVATE cmiot_signer)\n\
         target_link_options(mine PRIVATE -nostdlib -Wl,-e,start)\n",
        archive.display()
    );
    let folder = project("found", &lines, "C");
    fs::write(folder.join("main.c"), "int start(void) { return 0; }\n").unwrap();
    let toolchain =
        format!("-DCMAKE_TOOLCHAIN_FILE={}", root("signer/capi/examples/arm-none-eabi.cmake").display());
    for wanted in ["0.0.9", "0.1.99", "0.2", "1.0"] {
        let said = refused(&folder, &[&toolchain, &format!("-DWANTED={wanted}")]);
        assert!(
            said.contains("none was accepted") || said.contains(&format!("version: {version}")),
            "{said}"
        );
    }
    for (cpu, fits) in [("cortex-m3", true), ("cortex-m0", false)] {
        fs::remove_dir_all(folder.join("build")).unwrap();
        let cpu = format!("-DCMIOT_SIGNER_CPU={cpu}");
        configure(&folder, &[&toolchain, &format!("-DWANTED={version}"), &cpu]);
        let built = Command::new("cmake").arg("--build").arg(folder.join("build")).output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert_eq!(built.status.success(), fits, "{cpu}: {said}");
        assert!(fits || said.contains("another core or float ABI"), "{cpu}: {said}");
    }
}

#[test]
fn cargo_gets_the_arguments_that_a_project_sets() {
    let lines = "set(CMIOT_SIGNER_TARGET thumbv7m-none-eabi)\n\
        set(CMIOT_SIGNER_CARGO_ARGS \"+nightly -Zbuild-std=core\")\n\
        include(\"@capi@/examples/cmiot_signer.cmake\")\n";
    let folder = project("cargo-args", lines, "NONE");
    configure(&folder, &[]);
    let rules = folder.join("build/CMakeFiles/cmiot_signer_build.dir/build.make");
    let rules = fs::read_to_string(rules).unwrap();
    assert!(rules.contains("cargo +nightly -Zbuild-std=core rustc --quiet"), "{rules}");
}

/// A folder like that of an unpacked archive for this target, with an empty library.
fn archive(name: &str, target: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("archive").join(name);
    let package = folder.join("lib/cmake/cmiot_signer");
    fs::create_dir_all(&package).unwrap();
    fs::create_dir_all(folder.join("include")).unwrap();
    fs::write(folder.join("lib/libcmiot_signer.a"), "!<arch>\n").unwrap();
    for file in ["cmiot_signer-config.cmake", "cmiot_signer-config-version.cmake"] {
        let text = fs::read_to_string(root("packaging/signer").join(file)).unwrap();
        let text = text.replace("@TARGET@", target).replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        fs::write(package.join(file), text).unwrap();
    }
    for file in ["cmiot_signer_check.cmake", "cmiot_signer_target.c"] {
        fs::copy(root("signer/capi/examples").join(file), package.join(file)).unwrap();
    }
    folder
}

/// Stubs of ESP-IDF's and Zephyr's functions.
const IDF: &str = "function(idf_component_register)\nadd_library(component INTERFACE)\n\
    set(COMPONENT_LIB component PARENT_SCOPE)\nendfunction()\n";
const ZEPHYR: &str = "function(zephyr_link_libraries library)\nif(NOT TARGET ${library})\n\
    message(FATAL_ERROR \"no target\")\nendif()\nendfunction()\n";

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

/// The errors of a configuration that fails, without line breaks.
fn refused(folder: &Path, options: &[&str]) -> String {
    let output = cmake(folder, options).output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ")
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
