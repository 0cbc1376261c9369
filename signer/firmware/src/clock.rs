//! Milliseconds since reset, by SysTick; and the time of day, once somebody has said it.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::syst::SystClkSource;

/// Processor cycles of a millisecond, as the board starts.
const CYCLES: u32 = if cfg!(machine = "microbit") {
    16_000
} else if cfg!(machine = "lm3s6965evb") {
    12_500
} else {
    25_000
};

/// Counted by the interrupt alone: a Cortex-M0 loads and stores atomically, but does no more.
static MILLISECONDS: AtomicU32 = AtomicU32::new(0);

/// Starts counting.
pub fn start() {
    // SAFETY: nobody else uses SysTick in an image that calls this.
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

/// To be called from the image's SysTick handler.
pub fn tick() {
    MILLISECONDS.store(MILLISECONDS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// A time of day that runs on from when it was set; a board without a battery begins with none.
#[derive(Clone, Copy)]
pub struct Clock {
    /// Unix seconds, and the milliseconds at which it was that time.
    set: Option<(u64, u32)>,
}

impl Clock {
    /// Never set.
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
