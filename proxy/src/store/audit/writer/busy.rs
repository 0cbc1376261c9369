//! For how long the writer has been at one piece of work: a sync that hangs shows before anybody waits behind it.
//!
//! Rounds are counted instead of time, as in [`waiters`](crate::store::audit::writer::waiters): whoever ends rounds looks here too.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module's text. The default is idle.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// How often the writer has begun or ended a piece of work: odd while it is at one.
    turns: AtomicU64,
    /// The same when the last round ended.
    seen: AtomicU64,
    /// Whole rounds that the present piece of work has taken.
    rounds: AtomicU64,
}

impl Busy {
    /// The writer begins a piece of work, or ends it and waits for the next one.
    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Release);
    }

    /// Ends a round; says for how many whole ones the writer has been at its piece of work. One caller at a time.
    pub(crate) fn end_round(&self) -> u64 {
        let turns = self.turns.load(Ordering::Acquire);
        let same = self.seen.swap(turns, Ordering::Relaxed) == turns;
        let rounds = match same && turns % 2 == 1 {
            true => self.rounds.load(Ordering::Relaxed).saturating_add(1),
            false => 0,
        };
        self.rounds.store(rounds, Ordering::Relaxed);
        rounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_piece_of_work_that_lasts_is_counted() {
        let busy = Busy::default();
        assert_eq!([busy.end_round(), busy.end_round()], [0, 0], "idle");
        busy.turn();
        assert_eq!([busy.end_round(), busy.end_round(), busy.end_round()], [0, 1, 2]);
        busy.turn();
        busy.turn();
        assert_eq!([busy.end_round(), busy.end_round()], [0, 1], "another one");
        busy.turn();
        assert_eq!([busy.end_round(), busy.end_round()], [0, 0], "idle again");
    }
}
