//! Milliseconds since reset, by SysTick, and the time of day, once it was set.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::syst::SystClkSource;

/// Processor cycles per millisecond, with the clock setting after reset.
const CYCLES: u32 = if cfg!(machine = "microbit") {
    16_000
} else if cfg!(machine = "lm3s6965evb") {
    12_500
} else {
    25_000
};

/// Written only by the interrupt handler: a Cortex-M0 has no atomic operations except load and store.
static MILLISECONDS: AtomicU32 = AtomicU32::new(0);

/// Starts counting.
pub fn start() {
    // SAFETY: SysTick is not used elsewhere in an image that calls this.
    let mut timer = unsafe { cortex_m::Peripherals::steal() }.SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(CYCLES - 1);
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
}

/// Milliseconds since [`start`].
#[must_use]
pub fn milliseconds() -> u32 {
    MILLISECONDS.load(Ordering::Relaxed)
}

/// Counts a millisecond; the image's SysTick handler calls it.
pub fn tick() {
    MILLISECONDS.store(MILLISECONDS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// A time of day that continues from the last setting; a board without a battery starts without one.
#[derive(Clone, Copy)]
pub struct Clock {
    /// Unix seconds, and the milliseconds since reset at that time.
    set: Option<(u64, u32)>,
}

impl Clock {
    /// A clock that was never set.
    pub const UNSET: Self = Self { set: None };

    /// Sets it to this second (Unix time).
    pub fn set(&mut self, unix: u64) {
        self.set = Some((unix, milliseconds()));
    }

    /// Unix seconds; 0 if it was never set.
    #[must_use]
    pub fn unix(&self) -> u64 {
        let Some((unix, at)) = self.set else { return 0 };
        unix + u64::from(milliseconds().wrapping_sub(at) / 1000)
    }
}
