//! Startup code for RISC-V, in place of cortex-m-rt: stack, initialised data, zeroed data, `main`; a trap ends QEMU.

use core::arch::global_asm;

global_asm!(
    ".pushsection .init, \"ax\"",
    ".globl _start",
    "_start:",
    "la sp, _stack_top",
    "la t0, 6f",
    "csrw mtvec, t0",
    "la t0, _data",
    "la t1, _data_end",
    "la t2, _data_load",
    "1: bgeu t0, t1, 2f",
    "lw t3, 0(t2)",
    "sw t3, 0(t0)",
    "addi t0, t0, 4",
    "addi t2, t2, 4",
    "j 1b",
    "2: la t0, _bss",
    "la t1, _bss_end",
    "3: bgeu t0, t1, 4f",
    "sw zero, 0(t0)",
    "addi t0, t0, 4",
    "j 3b",
    "4: call main",
    "5: j 5b",
    // `mtvec` keeps its mode in the two lowest bits ("The RISC-V Instruction Set Manual", volume II, 3.1.7).
    ".balign 4",
    "6: tail {trap}",
    // The code after this has the same padding in every image.
    ".balign 16",
    ".popsection",
    trap = sym trap,
);

/// Ends QEMU: an image expects no trap.
extern "C" fn trap() -> ! {
    crate::console::print("a trap\n");
    crate::console::exit(102)
}
