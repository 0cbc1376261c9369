//! Who waits for a commit: one waiter a look-up, in the order of the queued rows.
//!
//! A timer for each of them would cost more than the waiting. So time is counted in rounds: whoever has been waiting for
//! too many of them when one ends is told that no commit came; its place stays until the writer comes to its row.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::AuditUnavailable;

/// What a waiter is told.
pub(super) type Told = Result<(), AuditUnavailable>;

/// See the module's text.
#[derive(Default)]
pub(super) struct Waiters(Mutex<Line>);

#[derive(Default)]
struct Line {
    places: VecDeque<Place>,
    /// Rounds that have ended.
    round: u64,
}

struct Place {
    /// None once it was told.
    waiter: Option<oneshot::Sender<Told>>,
    /// Rounds that had ended when it came.
    came: u64,
}

impl Waiters {
    /// Queues a row by `push` and takes the place behind it, so that places and rows are in one order.
    pub(super) fn join<E>(&self, push: impl FnOnce() -> Result<(), E>) -> Result<oneshot::Receiver<Told>, E> {
        let (waiter, told) = oneshot::channel();
        let mut line = self.lock();
        push()?;
        let came = line.round;
        line.places.push_back(Place { waiter: Some(waiter), came });
        Ok(told)
    }

    /// Takes those at the front, so many, out of the line: those of them who are still to be told, as [`tell`] does.
    pub(super) fn leave(&self, count: usize) -> Vec<oneshot::Sender<Told>> {
        self.lock().places.drain(..count).filter_map(|place| place.waiter).collect()
    }

    /// Ends a round; whoever has waited for `most` of them is told that it was for nothing. Says how many those were.
    pub(super) fn end_round(&self, most: u64) -> usize {
        let mut line = self.lock();
        line.round += 1;
        let round = line.round;
        let late = line.places.iter_mut().take_while(|place| round - place.came > most);
        // One that has gone away by itself is counted if its row is lost.
        let told: Vec<_> =
            late.filter_map(|place| place.waiter.take_if(|waiter| !waiter.is_closed())).collect();
        drop(line);
        let count = told.len();
        told.into_iter().for_each(|waiter| tell(waiter, Err(AuditUnavailable::Full)));
        count
    }

    /// For the writer to hold: when it goes, all are let go of, and are told by that.
    pub(super) fn until_dropped(&self) -> Held<'_> {
        Held(self)
    }

    /// A panic elsewhere leaves the line whole: nothing that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Waiters::until_dropped`].
pub(super) struct Held<'a>(&'a Waiters);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().places.clear();
    }
}

/// Tells what became of a row; with the line free, since whoever is woken may come back to it. One who has gone away is
/// not told.
pub(super) fn tell(waiter: oneshot::Sender<Told>, result: Told) {
    let _: Result<(), Told> = waiter.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_too_long_is_told_so_and_keeps_no_other_from_being_told() {
        let waiters = Waiters::default();
        let join = || waiters.join(|| Ok::<_, ()>(())).unwrap();
        let mut early = join();
        let mut gone = join();
        gone.close();
        assert_eq!(waiters.end_round(1), 0, "not a whole round yet");
        let mut late = join();
        assert_eq!(waiters.end_round(1), 1, "who has gone away is not refused");
        assert_eq!(early.try_recv(), Ok(Err(AuditUnavailable::Full)));
        assert!(late.try_recv().is_err(), "still waits");
        let waiting = waiters.leave(3);
        assert_eq!(
            waiting.len(),
            2,
            "who was told is not told, or counted, twice; who has gone away is counted once"
        );
        waiting.into_iter().for_each(|waiter| tell(waiter, Ok(())));
        assert_eq!(late.try_recv(), Ok(Ok(())));
        assert_eq!(waiters.end_round(1), 0);
    }

    #[test]
    fn a_row_that_was_not_queued_has_no_place() {
        let waiters = Waiters::default();
        assert_eq!(waiters.join(|| Err("full")).unwrap_err(), "full");
        let mut one = waiters.join(|| Ok::<_, ()>(())).unwrap();
        waiters.leave(1).into_iter().for_each(|waiter| tell(waiter, Ok(())));
        assert_eq!(one.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn nobody_waits_for_a_writer_that_is_no_more() {
        let waiters = Waiters::default();
        let mut one = waiters.join(|| Ok::<_, ()>(())).unwrap();
        drop(waiters.until_dropped());
        assert_eq!(one.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
