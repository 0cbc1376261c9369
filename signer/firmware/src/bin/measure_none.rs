//! The empty workload: the baseline of the others.
#![no_std]
#![no_main]

use cmiot_signer_firmware::measure;

#[cortex_m_rt::entry]
fn main() -> ! {
    measure::all(&[("none", measure::empty)])
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
