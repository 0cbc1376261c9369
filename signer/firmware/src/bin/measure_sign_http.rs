//! Signs, writes an HTTP request and takes its answer.
#![no_std]
#![no_main]

use cmiot_signer_firmware::{jobs, measure};

#[cortex_m_rt::entry]
fn main() -> ! {
    measure::all(&[("http", jobs::http)])
}

/// Links only as long as the optimiser proves that nothing above can panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn a_panic_survived() -> !;
    }
    // SAFETY: never linked.
    unsafe { a_panic_survived() }
}
