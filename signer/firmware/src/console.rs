//! Semihosting: the host's console, the image's arguments, and the exit from QEMU.
//!
//! A breakpoint with immediate 0xAB hands an operation in `r0` and its argument in `r1` to the debugger, here QEMU
//! ("Semihosting for AArch32 and AArch64", Arm); on RISC-V three instructions do so, with `a0` and `a1`.
//! Nothing here uses `core::fmt`, so that a measuring image can print.

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

/// The values of QEMU's `-semihosting-config arg=…`, separated by blanks; empty if they do not fit or are not UTF-8.
pub fn arguments(buffer: &mut [u8]) -> &str {
    /// Argument of `SYS_GET_CMDLINE`: the buffer and its size; after the call, the line's length.
    #[repr(C)]
    struct Line {
        buffer: *mut u8,
        len: usize,
    }
    let mut line = Line { buffer: buffer.as_mut_ptr(), len: buffer.len() };
    if call(SYS_GET_CMDLINE, (&raw mut line).expose_provenance()) != 0 {
        return "";
    }
    let text = buffer.split(|&byte| byte == 0).next().unwrap_or_default();
    core::str::from_utf8(text).unwrap_or_default()
}

/// Ends QEMU with this exit code.
pub fn exit(code: u32) -> ! {
    /// `ADP_Stopped_ApplicationExit`
    const APPLICATION_EXIT: u32 = 0x20026;
    let block = [APPLICATION_EXIT, code];
    loop {
        call(SYS_EXIT_EXTENDED, block.as_ptr().expose_provenance());
    }
}

const SYS_WRITEC: usize = 0x03;
const SYS_GET_CMDLINE: usize = 0x15;
const SYS_EXIT_EXTENDED: usize = 0x20;

fn put(byte: u8) {
    call(SYS_WRITEC, (&raw const byte).expose_provenance());
}

/// One semihosting call.
fn call(operation: usize, argument: usize) -> usize {
    let result;
    // SAFETY: the debugger reads and writes only the memory that the argument names, which each caller owns for the
    // call; `asm!` is taken to touch any memory, as it is not marked otherwise.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("bkpt 0xAB", inout("r0") operation => result, in("r1") argument);
    }
    // SAFETY: as above. The three instructions have 32 bits each and must be in one page ("RISC-V Semihosting").
    #[cfg(target_arch = "riscv32")]
    unsafe {
        asm!(
            ".option push",
            ".option norvc",
            ".balign 16",
            "slli x0, x0, 0x1f",
            "ebreak",
            "srai x0, x0, 7",
            ".option pop",
            inout("a0") operation => result,
            in("a1") argument,
        );
    }
    result
}
