//! The pauses of the example gateways after failures, in C and in Rust: each doubles up to a limit. No test waits for one.
#![allow(clippy::unwrap_used)] // In a test, to panic is to fail.

#[path = "../../firmware/src/pauses.rs"]
#[allow(unreachable_pub, reason = "the gateway's crate has it public")]
mod pauses;

use std::env;
use std::path::Path;
use std::process::Command;

use pauses::{FIRST, LONGEST, Pauses};

/// The pauses between eight attempts.
const EXPECTED: [u32; 7] = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 32_000];

#[test]
fn the_pauses_of_the_gateway_in_rust_double_up_to_the_longest() {
    let mut pauses = Pauses::new();
    assert_eq!(EXPECTED.map(|_| pauses.next_pause()), EXPECTED);
    assert_eq!((FIRST, LONGEST), (EXPECTED[0], EXPECTED[6]));
    assert_eq!(Pauses::default().next_pause(), FIRST, "each lookup begins anew");
}

#[test]
fn the_pauses_of_the_gateway_in_c_double_up_to_the_longest() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateways");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut library = Command::new(cargo);
    library.args([
        "rustc",
        "--quiet",
        "--package",
        "cmiot-signer-capi",
        "--lib",
        "--crate-type",
        "staticlib",
    ]);
    library.arg("--target-dir").arg(&folder).env_remove("RUSTFLAGS");
    output(&mut library);
    let image = folder.join("gateway-host");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(root).args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Iinclude"]);
    gcc.arg("tests/c/gateway_host.c").arg(folder.join("debug/libcmiot_signer_capi.a")).arg("-o").arg(&image);
    output(&mut gcc);
    let printed = output(&mut Command::new(image));
    let pauses: Vec<u32> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pauses, EXPECTED);
}

/// The output of a program, which must exit with 0.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}
