//! Semihosting: the host's console, the image's arguments, and the way out of QEMU.
//!
//! A breakpoint with immediate 0xAB hands an operation in `r0` and its argument in `r1` to the debugger, here QEMU
//! ("Semihosting for AArch32 and AArch64", Arm). Nothing here uses `core::fmt`, so that a measuring image can print.

use core::arch::asm;
use core::fmt;

/// Writes a text.
pub fn print(text: &str) {
    text.bytes().for_each(put);
}

/// Writes a number in decimal.
pub fn print_number(number: u32) {
    let mut unit = 1_000_000_000;
    while unit > 1 && number < unit {
        unit /= 10;
    }
    while unit > 0 {
        put(b'0' + (number / unit % 10) as u8);
        unit /= 10;
    }
}

/// The console as a sink for `core::fmt`.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print(text);
        Ok(())
    }
}

/// Ends QEMU with this exit code.
pub fn exit(code: u32) -> ! {
    /// `ADP_Stopped_ApplicationExit`
    const APPLICATION_EXIT: u32 = 0x20026;
    let block = [APPLICATION_EXIT, code];
    loop {
        call(SYS_EXIT_EXTENDED, block.as_ptr().addr());
    }
}

const SYS_WRITEC: usize = 0x03;
const SYS_EXIT_EXTENDED: usize = 0x20;

fn put(byte: u8) {
    call(SYS_WRITEC, (&raw const byte).addr());
}

/// One semihosting call.
fn call(operation: usize, argument: usize) -> usize {
    let result;
    // SAFETY: the debugger reads and writes only the memory that the argument names, which each caller owns for the
    // call; `asm!` is taken to touch any memory, as it is not marked otherwise.
    unsafe { asm!("bkpt 0xAB", inout("r0") operation => result, in("r1") argument) };
    result
}
