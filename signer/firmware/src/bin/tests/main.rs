//! The on-target tests: known answers, the readers' rules and the limits, on the chip itself.
//!
//! A failing test panics; the panic handler prints the position, and QEMU exits with 1. The closing line is
//! `firmware tests on MACHINE: N passed, 0 failed`.
#![no_std]
#![no_main]

mod limits;
mod reply;
mod v5;
mod vectors;

use core::fmt::Write;

use cmiot_signer_firmware::MACHINE;
use cmiot_signer_firmware::console::{Console, exit, print, print_number};

/// A test's name and function.
pub(crate) type Test = (&'static str, fn());

/// All tests; each file lists its own at its head.
const SUITES: &[&[Test]] = &[vectors::TESTS, reply::TESTS, v5::TESTS, limits::TESTS];

cmiot_signer_firmware::entry!(run);

fn run() -> ! {
    let mut passed = 0;
    for &(name, test) in SUITES.iter().copied().flatten() {
        print("test ");
        print(name);
        print(" ... ");
        test();
        print("ok\n");
        passed += 1;
    }
    print("firmware tests on ");
    print(MACHINE);
    print(": ");
    print_number(passed);
    print(" passed, 0 failed\n");
    exit(0)
}

#[panic_handler]
fn panic(panic: &core::panic::PanicInfo<'_>) -> ! {
    // What cannot be printed changes nothing: the exit code tells.
    let _ = writeln!(Console, "FAILED\n{panic}\nfirmware tests on {MACHINE}: 1 failed");
    exit(1)
}

#[cfg(target_arch = "arm")]
#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    let _ = writeln!(Console, "FAILED\n{frame:#x?}\nfirmware tests on {MACHINE}: 1 failed, by a hard fault");
    exit(1)
}
