//! Measurement of a workload's stack and instructions.
//!
//! Stack: the free RAM below the stack pointer is painted, the workload runs, and RAM that lost its paint was used; the
//! call itself is included. Instructions: with QEMU's `-icount shift=0` one instruction takes one nanosecond, and
//! SysTick counts processor cycles of a fixed length; a loop of known length gives that length. Both agree with the
//! compiler's figures (`-Z emit-stack-sizes`) and with an instruction-counting plugin.

use core::arch::asm;
use core::hint::black_box;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::register::msp;

use crate::console::{exit, print, print_number};

/// A function to measure: returns true on success.
pub type Workload = fn() -> bool;

/// Measures each workload and prints a line with name, stack in bytes and instructions; then ends QEMU.
pub fn all(workloads: &[(&str, Workload)]) -> ! {
    // SAFETY: SysTick is not used elsewhere in these images.
    let mut timer = unsafe { cortex_m::Peripherals::steal() }.SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(LONGEST);
    let known = ticks(&mut timer, known_loop);
    let none = ticks(&mut timer, empty);
    for &(name, workload) in black_box(workloads) {
        if !workload() {
            print(name);
            print(": the job failed\n");
            exit(1);
        }
        let stack = stack(workload);
        let ticks = ticks(&mut timer, workload).saturating_sub(none);
        print(name);
        print(" ");
        print_number(stack);
        print(" ");
        print_number(scaled(ticks, known.saturating_sub(none)));
        print("\n");
    }
    exit(0)
}

/// SysTick has 24 bits.
const LONGEST: u32 = 0xFF_FFFF;
/// Runs of a workload per figure: a tick is longer than an instruction.
const RUNS: u32 = 1_000;
/// Instructions of [`known_loop`] that [`empty`] lacks: two per turn, and one to load the counter.
const KNOWN: u32 = 2 * TURNS + 1;
const TURNS: u32 = 5_000;
const PAINT: u32 = 0xDEAD_BEEF;
/// The most stack that a workload may take.
const PAINTED: usize = 4 * 1024;
/// Stack of the painting loop itself.
const OWN_FRAME: usize = 64;

/// Instructions of one run: `ticks` of [`RUNS`] runs, where `known` ticks are [`KNOWN`] instructions.
///
/// This is long division, since the product needs 64 bits, and the library's 64-bit division would be linked.
fn scaled(ticks: u32, known: u32) -> u32 {
    let (mut quotient, mut rest) = (0u32, 0u32);
    for bit in (0..64).rev() {
        let product = u64::from(ticks) * u64::from(KNOWN) + u64::from(known / 2);
        rest = rest << 1 | (product >> bit) as u32 & 1;
        quotient <<= 1;
        if rest >= known {
            rest -= known;
            quotient |= 1;
        }
    }
    quotient
}

fn ticks(timer: &mut SYST, workload: Workload) -> u32 {
    timer.clear_current();
    timer.enable_counter();
    let start = SYST::get_current();
    for _ in 0..RUNS {
        black_box(black_box(workload)());
    }
    let end = SYST::get_current();
    timer.disable_counter();
    start.wrapping_sub(end) & LONGEST
}

/// Stack that a workload takes, in bytes; at most 4 KiB are measured.
#[inline(never)]
pub fn stack(workload: Workload) -> u32 {
    let here = msp::read() as usize;
    let (low, high) = (here - PAINTED, here - OWN_FRAME);
    for address in (low..high).step_by(4) {
        // SAFETY: RAM between the statics' end and this frame: each board has 16 KiB, of which statics and the callers
        // take less than two.
        unsafe { (address as *mut u32).write_volatile(PAINT) };
    }
    black_box(black_box(workload)());
    let mut lowest = low;
    // SAFETY: as above.
    while lowest < high && unsafe { (lowest as *const u32).read_volatile() } == PAINT {
        lowest += 4;
    }
    (here - lowest) as u32
}

/// The empty workload.
#[inline(never)]
pub fn empty() -> bool {
    black_box(true)
}

#[inline(never)]
fn known_loop() -> bool {
    // SAFETY: counts a register down.
    unsafe { asm!("2:", "subs {0}, {0}, #1", "bne 2b", inout(reg) TURNS => _) };
    black_box(true)
}
