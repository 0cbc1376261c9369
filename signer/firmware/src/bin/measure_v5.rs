//! Writes both requests of API v5 and reads their replies.
#![no_std]
#![no_main]

use cmiot_signer_firmware::{measure, workloads};

cmiot_signer_firmware::entry!(run);

fn run() -> ! {
    measure::all(&[("v5", workloads::v5)])
}

/// Links only if the optimiser proves that the code above cannot panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn a_panic_survived() -> !;
    }
    // SAFETY: never linked.
    unsafe { a_panic_survived() }
}
