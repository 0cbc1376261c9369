//! Measurement of a workload's stack and instructions.
//!
//! Stack: the free RAM below the stack pointer is painted, the workload runs, and RAM that lost its paint was used; the
//! call itself is included. Instructions: with QEMU's `-icount shift=0` one instruction takes one nanosecond. SysTick
//! counts processor cycles of a fixed length, and a loop of known length gives that length; RISC-V has a register that
//! counts instructions. All agree with the compiler's figures (`-Z emit-stack-sizes`) and with an instruction-counting
//! plugin.

use core::arch::asm;
use core::hint::black_box;

use crate::console::{exit, print, print_number};

/// A function to measure: returns true on success.
pub type Workload = fn() -> bool;

/// Measures each workload and prints a line with name, stack in bytes and instructions; then ends QEMU.
pub fn all(workloads: &[(&str, Workload)]) -> ! {
    let mut counter = counter::Counter::new();
    for &(name, workload) in black_box(workloads) {
        if !workload() {
            print(name);
            print(": the job failed\n");
            exit(1);
        }
        let stack = stack(workload);
        print(name);
        print(" ");
        print_number(stack);
        print(" ");
        print_number(counter.instructions(workload));
        print("\n");
    }
    exit(0)
}

/// Runs of a workload per figure: a tick is longer than an instruction.
const RUNS: u32 = 1_000;
const PAINT: u32 = 0xDEAD_BEEF;
/// The most stack that a workload may take.
const PAINTED: usize = 4 * 1024;
/// Stack of the painting loop itself.
const OWN_FRAME: usize = 64;

/// Runs a workload often, between two readings of a counter.
fn between<T>(workload: Workload, read: impl Fn() -> T) -> (T, T) {
    let start = read();
    for _ in 0..RUNS {
        black_box(black_box(workload)());
    }
    (start, read())
}

#[cfg(target_arch = "arm")]
mod counter {
    use core::arch::asm;
    use core::hint::black_box;

    use cortex_m::peripheral::SYST;
    use cortex_m::peripheral::syst::SystClkSource;

    use super::{Workload, between, empty};

    /// SysTick, and the ticks of known work.
    pub(super) struct Counter {
        timer: SYST,
        /// Ticks of the empty workload.
        none: u32,
        /// Ticks of [`KNOWN`] instructions.
        known: u32,
    }

    /// SysTick has 24 bits.
    const LONGEST: u32 = 0xFF_FFFF;
    /// Instructions of [`known_loop`] that [`empty`] lacks: two per turn, and one to load the counter.
    const KNOWN: u32 = 2 * TURNS + 1;
    const TURNS: u32 = 5_000;

    impl Counter {
        pub(super) fn new() -> Self {
            // SAFETY: SysTick is not used elsewhere in these images.
            let mut timer = unsafe { cortex_m::Peripherals::steal() }.SYST;
            timer.set_clock_source(SystClkSource::Core);
            timer.set_reload(LONGEST);
            let mut this = Self { timer, none: 0, known: 0 };
            this.none = this.ticks(empty);
            this.known = this.ticks(known_loop).saturating_sub(this.none);
            this
        }

        /// Instructions of a run.
        pub(super) fn instructions(&mut self, workload: Workload) -> u32 {
            let ticks = self.ticks(workload).saturating_sub(self.none);
            scaled(ticks, self.known)
        }

        #[inline(never)]
        fn ticks(&mut self, workload: Workload) -> u32 {
            self.timer.clear_current();
            self.timer.enable_counter();
            let (start, end) = between(workload, SYST::get_current);
            self.timer.disable_counter();
            start.wrapping_sub(end) & LONGEST
        }
    }

    /// Instructions of one run: `ticks` of all runs, where `known` ticks are [`KNOWN`] instructions per run.
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

    #[inline(never)]
    fn known_loop() -> bool {
        // SAFETY: counts a register down.
        unsafe { asm!("2:", "subs {0}, {0}, #1", "bne 2b", inout(reg) TURNS => _) };
        black_box(true)
    }
}

#[cfg(target_arch = "riscv32")]
mod counter {
    use core::arch::asm;

    use super::{RUNS, Workload, between, empty};

    /// The register `minstret`, which QEMU counts exactly under `-icount`.
    pub(super) struct Counter {
        /// Instructions of the empty workload, in all runs.
        none: u32,
    }

    impl Counter {
        pub(super) fn new() -> Self {
            Self { none: instructions(empty) }
        }

        /// Instructions of a run.
        pub(super) fn instructions(&mut self, workload: Workload) -> u32 {
            (instructions(workload).saturating_sub(self.none) + RUNS / 2) / RUNS
        }
    }

    #[inline(never)]
    fn instructions(workload: Workload) -> u32 {
        let (start, end) = between(workload, read);
        end.wrapping_sub(start)
    }

    fn read() -> u32 {
        let count;
        // SAFETY: reads a counter; it must not be moved over the calls between two readings.
        unsafe { asm!("csrr {0}, minstret", out(reg) count) };
        count
    }
}

/// The stack pointer.
#[inline(always)]
fn stack_pointer() -> usize {
    let here;
    // SAFETY: copies a register.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("mov {0}, sp", out(reg) here);
    }
    // SAFETY: as above.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        asm!("mv {0}, sp", out(reg) here);
    }
    here
}

/// Stack that a workload takes, in bytes; at most 4 KiB are measured.
#[inline(never)]
pub fn stack(workload: Workload) -> u32 {
    let here = stack_pointer();
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
