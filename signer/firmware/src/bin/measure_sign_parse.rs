//! Signs, writes the query and reads the reply with serde-json-core.
#![no_std]
#![no_main]

use cmiot_signer_firmware::{measure, workloads};

cmiot_signer_firmware::entry!(run);

fn run() -> ! {
    measure::all(&[("sign", workloads::sign), ("parse", workloads::parse)])
}

/// serde-json-core links panics that the signer's guard keeps from being reached.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    cmiot_signer_firmware::console::exit(101)
}
