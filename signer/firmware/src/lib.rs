//! The common parts of the images: console, exit, UART, flash, and the measurement of a workload.
//!
//! Code for one board is under `cfg(machine = "…")`, which `build.rs` sets from the target. `unsafe` is allowed here,
//! since registers are addresses; each block states why it is sound.
//!
//! | image | function |
//! | --- | --- |
//! | `tests` | the known answers, the readers' rules and the limits, on the chip |
//! | `gateway` | a gateway: signs, sends through its UART, reads the response, sets its clock, retries |
//! | `measure_*` | one workload per image: its stack and its instructions; the image's size shows its flash |
#![no_std]

// Its startup code.
#[cfg(target_arch = "arm")]
use cortex_m_rt as _;

#[cfg(target_arch = "arm")]
pub mod clock;
pub mod console;
pub mod flash;
pub mod measure;
pub mod pauses;
mod register;
#[cfg(target_arch = "riscv32")]
mod riscv;
#[cfg(target_arch = "arm")]
pub mod uart;
pub mod workloads;

/// The board that QEMU emulates.
pub const MACHINE: &str = if cfg!(machine = "microbit") {
    "microbit"
} else if cfg!(machine = "lm3s6965evb") {
    "lm3s6965evb"
} else if cfg!(machine = "mps2-an386") {
    "mps2-an386"
} else {
    "virt"
};

/// Makes a function of type `fn() -> !` the image's `main`, which the startup code calls.
#[macro_export]
macro_rules! entry {
    ($function:path) => {
        // SAFETY: no other function of an image has this name.
        #[unsafe(export_name = "main")]
        extern "C" fn main() -> ! {
            $function()
        }
    };
}
