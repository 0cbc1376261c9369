//! What the images have in common: a console, a way out, a UART, flash, and the measuring of a job.
//!
//! Everything that is particular to a board stands in `cfg(machine = "…")`, which `build.rs` sets from the target.
//! `unsafe` is allowed here, as registers are bare addresses; each block says why it is sound.
//!
//! | image | what it does |
//! | --- | --- |
//! | `tests` | the known answers, the readers' rules and the limits, on the chip |
//! | `gateway` | a gateway at work: signs, sends through its UART, reads the answer, sets its clock, asks again |
//! | `measure_*` | one job each: its stack and its instructions; their sizes differ by what the job links |
#![no_std]

pub mod clock;
pub mod console;
pub mod flash;
pub mod jobs;
pub mod measure;
mod register;
pub mod uart;

/// The board that QEMU emulates.
pub const MACHINE: &str = if cfg!(machine = "microbit") {
    "microbit"
} else if cfg!(machine = "lm3s6965evb") {
    "lm3s6965evb"
} else {
    "mps2-an386"
};
