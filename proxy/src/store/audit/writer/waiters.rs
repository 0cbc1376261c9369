//! Who waits for a commit: one waiter a look-up, in the order of the queued rows.
//!
//! A timer for each of them would cost more than the waiting. So time is counted in rounds: whoever has been waiting for
//! too many of them when one ends is told that no commit came; its place stays until the writer comes to its row. One whose
//! row is being committed waits on: what it was told must not differ from what its row says.
//!
//! To wake a task from the writer's thread costs the runtime a system call, if it has no thread to spare. So the writer
//! wakes one task a batch, the herald, which wakes the others from within; without one it tells them itself.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::store::audit::AuditUnavailable;

/// What a waiter is told.
pub(crate) type CommitResult = Result<(), AuditUnavailable>;

/// See the module's text.
#[derive(Default)]
pub(crate) struct Waiters {
    queue: Mutex<WaiterQueue>,
    notifier: Mutex<Option<mpsc::UnboundedSender<Completion>>>,
}

/// What became of the rows of those who waited for them.
pub(crate) struct Completion {
    waiting: Vec<oneshot::Sender<CommitResult>>,
    told: CommitResult,
}

#[derive(Default)]
struct WaiterQueue {
    waiters: VecDeque<Waiter>,
    /// Rounds that have ended.
    tick: u64,
}

pub(crate) struct Waiter {
    /// None once it was told.
    waiter: Option<oneshot::Sender<CommitResult>>,
    /// Rounds that had ended when it came.
    queued_at: u64,
}

impl Waiters {
    /// Queues a row by `push` and takes the place behind it, so that places and rows are in one order.
    pub(crate) fn join<E>(
        &self,
        push: impl FnOnce() -> Result<(), E>,
    ) -> Result<oneshot::Receiver<CommitResult>, E> {
        let (waiter, told) = oneshot::channel();
        let mut line = self.lock();
        push()?;
        let came = line.tick;
        line.waiters.push_back(Waiter { waiter: Some(waiter), queued_at: came });
        Ok(told)
    }

    /// Takes those at the front, so many, out of the line: those of them who are still to be told.
    pub(crate) fn leave(&self, count: usize) -> Vec<oneshot::Sender<CommitResult>> {
        self.lock().waiters.drain(..count).filter_map(|place| place.waiter).collect()
    }

    /// Tells those who have left the line what became of their rows.
    pub(crate) fn notify(&self, waiting: Vec<oneshot::Sender<CommitResult>>, told: CommitResult) {
        let news = Completion { waiting, told };
        let untold = match &*self.notifier_sender() {
            Some(herald) => herald.send(news).err().map(|untold| untold.0),
            None => Some(news),
        };
        if let Some(news) = untold {
            news.tell();
        }
    }

    /// A herald, who is from now on the one to be told.
    pub(crate) fn notifier(&self) -> NotifierTask<'_> {
        let (sender, news) = mpsc::unbounded_channel();
        *self.notifier_sender() = Some(sender);
        NotifierTask { news, waiters: self }
    }

    fn notifier_sender(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Completion>>> {
        self.notifier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a round; whoever has waited for `most` of them is told that it was for nothing. `withdraw` is handed each place
    /// of those from the front of the line, how many stand in the line, and says which of them may be told. Says for how
    /// many rounds the first in the line has waited.
    pub(crate) fn expire(&self, most: u64, withdraw: impl FnOnce(Late<'_>)) -> u64 {
        let mut line = self.lock();
        line.tick += 1;
        let round = line.tick;
        let waited = line.waiters.front().map_or(0, |place| round - place.queued_at);
        let late = line.waiters.iter().take_while(|place| round - place.queued_at > most).count();
        let mut told = Vec::new();
        if late > 0 {
            withdraw(Late { places: &mut line.waiters, late, told: &mut told });
        }
        drop(line);
        told.into_iter().for_each(|waiter| tell(waiter, Err(AuditUnavailable::Full)));
        waited
    }

    /// For the writer to hold: when it goes, all are let go of, and are told by that.
    pub(crate) fn close_on_drop(&self) -> CloseOnDrop<'_> {
        CloseOnDrop(self)
    }

    /// A panic elsewhere leaves the line whole: nothing that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, WaiterQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those who have waited for too long, at the front of the line.
pub(crate) struct Late<'a> {
    places: &'a mut VecDeque<Waiter>,
    late: usize,
    told: &'a mut Vec<oneshot::Sender<CommitResult>>,
}

impl Late<'_> {
    /// How many stand in the line, those who have not waited for too long among them.
    pub(crate) fn queued(&self) -> usize {
        self.places.len()
    }

    /// Gives up the place of this index, if it is of those. False when nobody was to be told.
    pub(crate) fn expire_waiter(&mut self, index: usize) -> bool {
        // One that has gone away by itself was told nothing.
        let waiter = self
            .places
            .get_mut(index)
            .filter(|_| index < self.late)
            .and_then(|place| place.waiter.take_if(|waiter| !waiter.is_closed()));
        let given_up = waiter.is_some();
        self.told.extend(waiter);
        given_up
    }
}

/// See [`Waiters::close_on_drop`].
pub(crate) struct CloseOnDrop<'a>(&'a Waiters);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().waiters.clear();
    }
}

/// Passes news on. When it goes, what it was told last is passed on all the same.
pub(crate) struct NotifierTask<'a> {
    news: mpsc::UnboundedReceiver<Completion>,
    waiters: &'a Waiters,
}

impl NotifierTask<'_> {
    /// Until it is dropped.
    pub(crate) async fn run(mut self) {
        while let Some(news) = self.news.recv().await {
            news.tell();
        }
    }
}

impl Drop for NotifierTask<'_> {
    fn drop(&mut self) {
        let left: Vec<_> = {
            // Under this lock it is told nothing more: what it will find is all there is.
            let _told_to = self.waiters.notifier_sender();
            self.news.close();
            std::iter::from_fn(|| self.news.try_recv().ok()).collect()
        };
        left.into_iter().for_each(Completion::tell);
    }
}

impl Completion {
    fn tell(self) {
        self.waiting.into_iter().for_each(|waiter| tell(waiter, self.told));
    }
}

/// Tells what became of a row; with the line free, since whoever is woken may come back to it. One who has gone away is
/// not told.
fn tell(waiter: oneshot::Sender<CommitResult>, result: CommitResult) {
    let _: Result<(), CommitResult> = waiter.send(result);
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
        let never = |_: Late<'_>| panic!("not a whole round yet");
        assert_eq!(waiters.expire(1, never), 1);
        let mut late = join();
        let mut given_up = Vec::new();
        let waited = waiters.expire(1, |mut line| {
            given_up.extend((0..line.queued()).map(|index| line.expire_waiter(index)));
        });
        assert_eq!((waited, given_up), (2, vec![true, false, false]), "who has gone away is not refused");
        assert_eq!(early.try_recv(), Ok(Err(AuditUnavailable::Full)));
        assert!(late.try_recv().is_err(), "still waits");
        let waiting = waiters.leave(3);
        assert_eq!(
            waiting.len(),
            2,
            "who was told is not told, or counted, twice; who has gone away is counted once"
        );
        waiters.notify(waiting, Ok(()));
        assert_eq!(late.try_recv(), Ok(Ok(())));
        assert_eq!(waiters.expire(1, |_| panic!("nobody is late")), 0);
    }

    #[test]
    fn a_row_that_was_not_queued_has_no_place() {
        let waiters = Waiters::default();
        assert_eq!(waiters.join(|| Err("full")).unwrap_err(), "full");
        let mut one = waiters.join(|| Ok::<_, ()>(())).unwrap();
        waiters.notify(waiters.leave(1), Ok(()));
        assert_eq!(one.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn nobody_waits_for_a_writer_that_is_no_more() {
        let waiters = Waiters::default();
        let mut one = waiters.join(|| Ok::<_, ()>(())).unwrap();
        drop(waiters.close_on_drop());
        assert_eq!(one.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test]
    async fn a_herald_tells_them_and_goes_without_keeping_anything_to_itself() {
        let waiters = Waiters::default();
        let join = || waiters.join(|| Ok::<_, ()>(())).unwrap();
        let herald = waiters.notifier();
        let (first, second, mut third) = (join(), join(), join());
        waiters.notify(waiters.leave(2), Ok(()));
        tokio::select! {
            () = herald.run() => panic!("it runs until it is dropped"),
            told = async { (first.await, second.await) } => assert_eq!(told, (Ok(Ok(())), Ok(Ok(())))),
        }
        waiters.notify(waiters.leave(1), Err(AuditUnavailable::Failed));
        assert_eq!(third.try_recv(), Ok(Err(AuditUnavailable::Failed)), "the writer tells by itself again");

        let (herald, mut fourth) = (waiters.notifier(), join());
        waiters.notify(waiters.leave(1), Ok(()));
        assert!(fourth.try_recv().is_err(), "the herald's to tell");
        drop(herald);
        assert_eq!(fourth.try_recv(), Ok(Ok(())));
    }
}
