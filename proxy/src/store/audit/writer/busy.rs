//! The time that the writer has spent on its present piece of work, so that a sync that hangs is detected before a request
//! waits for it.
//!
//! It is counted in the ticks of [`waiters`](super::waiters).

use std::sync::atomic::{AtomicU64, Ordering};

/// The default is idle.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// Counts starts and ends of pieces of work: odd while the writer works.
    toggles: AtomicU64,
    /// `toggles` at the last tick.
    last_seen: AtomicU64,
    /// Whole ticks that the present piece of work has taken.
    ticks: AtomicU64,
}

impl Busy {
    /// The writer begins a piece of work, or ends it and waits for the next one.
    pub(crate) fn toggle(&self) {
        self.toggles.fetch_add(1, Ordering::Release);
    }

    /// Counts a tick; returns how many whole ones the present piece of work has taken. One caller at a time.
    pub(crate) fn tick(&self) -> u64 {
        let toggles = self.toggles.load(Ordering::Acquire);
        let same = self.last_seen.swap(toggles, Ordering::Relaxed) == toggles;
        let ticks = match same && toggles % 2 == 1 {
            true => self.ticks.load(Ordering::Relaxed).saturating_add(1),
            false => 0,
        };
        self.ticks.store(ticks, Ordering::Relaxed);
        ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_piece_of_work_that_lasts_is_counted() {
        let busy = Busy::default();
        assert_eq!([busy.tick(), busy.tick()], [0, 0], "idle");
        busy.toggle();
        assert_eq!([busy.tick(), busy.tick(), busy.tick()], [0, 1, 2]);
        busy.toggle();
        busy.toggle();
        assert_eq!([busy.tick(), busy.tick()], [0, 1], "another one");
        busy.toggle();
        assert_eq!([busy.tick(), busy.tick()], [0, 0], "idle again");
    }
}
