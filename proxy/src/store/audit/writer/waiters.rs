//! Waiters for commits: one per lookup, in the order of the queued rows.
//!
//! A timer per waiter would cost more than the wait. So time is counted in ticks: a waiter that has waited for too many
//! ticks gets the result that no commit came; its slot stays in the queue until the writer comes to its row. A waiter whose
//! row is being committed waits on: its result must not differ from what its row says.
//!
//! Waking a task from the writer thread may cost a system call, if the runtime has no spare thread. The writer therefore
//! wakes one task per batch, the notifier, which wakes the waiters from inside the runtime; without a notifier the writer
//! wakes them itself.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::store::audit::AuditUnavailable;

pub(crate) type CommitResult = Result<(), AuditUnavailable>;

/// The queue of waiters, and the notifier while there is one.
#[derive(Default)]
pub(crate) struct Waiters {
    queue: Mutex<WaiterQueue>,
    notifier: Mutex<Option<mpsc::UnboundedSender<Completion>>>,
}

/// The commit result of a batch, and the waiters that get it.
pub(crate) struct Completion {
    waiting: Vec<oneshot::Sender<CommitResult>>,
    result: CommitResult,
}

#[derive(Default)]
struct WaiterQueue {
    waiters: VecDeque<Waiter>,
    /// Ticks so far.
    tick: u64,
}

pub(crate) struct Waiter {
    /// None once it has its result.
    sender: Option<oneshot::Sender<CommitResult>>,
    /// The tick at which it was queued.
    queued_at: u64,
}

impl Waiters {
    /// Queues a row by `push` and its waiter under one lock, so that waiters and rows are in the same order.
    pub(crate) fn join<E>(
        &self,
        push: impl FnOnce() -> Result<(), E>,
    ) -> Result<oneshot::Receiver<CommitResult>, E> {
        let (sender, result) = oneshot::channel();
        let mut queue = self.lock();
        push()?;
        let queued_at = queue.tick;
        queue.waiters.push_back(Waiter { sender: Some(sender), queued_at });
        Ok(result)
    }

    /// Takes so many waiters from the front of the queue; returns those that have no result yet.
    pub(crate) fn leave(&self, count: usize) -> Vec<oneshot::Sender<CommitResult>> {
        self.lock().waiters.drain(..count).filter_map(|waiter| waiter.sender).collect()
    }

    /// Delivers the commit result to waiters that have left the queue.
    pub(crate) fn notify(&self, waiting: Vec<oneshot::Sender<CommitResult>>, result: CommitResult) {
        let completion = Completion { waiting, result };
        let undelivered = match &*self.notifier_sender() {
            Some(notifier) => notifier.send(completion).err().map(|error| error.0),
            None => Some(completion),
        };
        if let Some(completion) = undelivered {
            completion.deliver();
        }
    }

    /// A new notifier. From now on it delivers the results.
    pub(crate) fn notifier(&self) -> NotifierTask<'_> {
        let (sender, completions) = mpsc::unbounded_channel();
        *self.notifier_sender() = Some(sender);
        NotifierTask { completions, waiters: self }
    }

    fn notifier_sender(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Completion>>> {
        self.notifier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a tick. If some have waited for more than `most` ticks, calls `withdraw`, which chooses those of them that
    /// time out. Returns for how many ticks the first waiter has waited.
    pub(crate) fn expire(&self, most: u64, withdraw: impl FnOnce(OverdueWaiters<'_>)) -> u64 {
        let mut queue = self.lock();
        queue.tick += 1;
        let tick = queue.tick;
        let waited = queue.waiters.front().map_or(0, |waiter| tick - waiter.queued_at);
        let overdue = queue.waiters.iter().take_while(|waiter| tick - waiter.queued_at > most).count();
        let mut expired = Vec::new();
        if overdue > 0 {
            withdraw(OverdueWaiters { waiters: &mut queue.waiters, overdue, expired: &mut expired });
        }
        drop(queue);
        expired.into_iter().for_each(|waiter| deliver(waiter, Err(AuditUnavailable::Full)));
        waited
    }

    /// A guard for the writer: when it is dropped, all waiters are dropped, which ends their wait.
    pub(crate) fn close_on_drop(&self) -> CloseOnDrop<'_> {
        CloseOnDrop(self)
    }

    /// A panic elsewhere leaves the queue intact: no code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, WaiterQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waiters that have waited too long, at the front of the queue.
pub(crate) struct OverdueWaiters<'a> {
    waiters: &'a mut VecDeque<Waiter>,
    overdue: usize,
    expired: &'a mut Vec<oneshot::Sender<CommitResult>>,
}

impl OverdueWaiters<'_> {
    /// The length of the queue, with those that have not waited too long.
    pub(crate) fn queued(&self) -> usize {
        self.waiters.len()
    }

    /// Times out the waiter of this index, if it is overdue. False when no waiter was there to get the result.
    pub(crate) fn expire_waiter(&mut self, index: usize) -> bool {
        // A waiter that has gone away gets no result.
        let sender = self
            .waiters
            .get_mut(index)
            .filter(|_| index < self.overdue)
            .and_then(|waiter| waiter.sender.take_if(|sender| !sender.is_closed()));
        let has_expired = sender.is_some();
        self.expired.extend(sender);
        has_expired
    }
}

/// See [`Waiters::close_on_drop`].
pub(crate) struct CloseOnDrop<'a>(&'a Waiters);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().waiters.clear();
    }
}

/// Forwards commit results. On drop, forwards those that are still queued.
pub(crate) struct NotifierTask<'a> {
    completions: mpsc::UnboundedReceiver<Completion>,
    waiters: &'a Waiters,
}

impl NotifierTask<'_> {
    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        while let Some(completion) = self.completions.recv().await {
            completion.deliver();
        }
    }
}

impl Drop for NotifierTask<'_> {
    fn drop(&mut self) {
        let left: Vec<_> = {
            // No sender can enqueue while this lock is held, so one drain is complete.
            let _sender = self.waiters.notifier_sender();
            self.completions.close();
            std::iter::from_fn(|| self.completions.try_recv().ok()).collect()
        };
        left.into_iter().for_each(Completion::deliver);
    }
}

impl Completion {
    fn deliver(self) {
        self.waiting.into_iter().for_each(|waiter| deliver(waiter, self.result));
    }
}

/// Delivers a result, with the queue unlocked: the task that wakes may use the queue. A waiter that has gone away gets none.
fn deliver(waiter: oneshot::Sender<CommitResult>, result: CommitResult) {
    let _: Result<(), CommitResult> = waiter.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_that_waits_too_long_gets_a_result_and_blocks_no_other() {
        let waiters = Waiters::default();
        let join = || waiters.join(|| Ok::<_, ()>(())).unwrap();
        let mut early = join();
        let mut gone = join();
        gone.close();
        let never = |_: OverdueWaiters<'_>| panic!("not a whole tick yet");
        assert_eq!(waiters.expire(1, never), 1);
        let mut late = join();
        let mut expired = Vec::new();
        let waited = waiters.expire(1, |mut those| {
            expired.extend((0..those.queued()).map(|index| those.expire_waiter(index)));
        });
        assert_eq!(
            (waited, expired),
            (2, vec![true, false, false]),
            "a waiter that has gone away is not refused"
        );
        assert_eq!(early.try_recv(), Ok(Err(AuditUnavailable::Full)));
        assert!(late.try_recv().is_err(), "still waits");
        let waiting = waiters.leave(3);
        assert_eq!(
            waiting.len(),
            2,
            "an expired waiter is neither notified nor counted twice; one that has gone away is counted once"
        );
        waiters.notify(waiting, Ok(()));
        assert_eq!(late.try_recv(), Ok(Ok(())));
        assert_eq!(waiters.expire(1, |_| panic!("no waiter is late")), 0);
    }

    #[test]
    fn a_row_that_was_not_queued_has_no_waiter() {
        let waiters = Waiters::default();
        assert_eq!(waiters.join(|| Err("full")).unwrap_err(), "full");
        let mut one = waiters.join(|| Ok::<_, ()>(())).unwrap();
        waiters.notify(waiters.leave(1), Ok(()));
        assert_eq!(one.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn waiters_do_not_outlive_the_writer() {
        let waiters = Waiters::default();
        let mut one = waiters.join(|| Ok::<_, ()>(())).unwrap();
        drop(waiters.close_on_drop());
        assert_eq!(one.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test]
    async fn a_notifier_delivers_and_leaves_nothing_queued_when_dropped() {
        let waiters = Waiters::default();
        let join = || waiters.join(|| Ok::<_, ()>(())).unwrap();
        let notifier = waiters.notifier();
        let (first, second, mut third) = (join(), join(), join());
        waiters.notify(waiters.leave(2), Ok(()));
        tokio::select! {
            () = notifier.run() => panic!("it runs until it is dropped"),
            results = async { (first.await, second.await) } => assert_eq!(results, (Ok(Ok(())), Ok(Ok(())))),
        }
        waiters.notify(waiters.leave(1), Err(AuditUnavailable::Failed));
        assert_eq!(
            third.try_recv(),
            Ok(Err(AuditUnavailable::Failed)),
            "the writer delivers by itself again"
        );

        let (notifier, mut fourth) = (waiters.notifier(), join());
        waiters.notify(waiters.leave(1), Ok(()));
        assert!(fourth.try_recv().is_err(), "the notifier delivers it");
        drop(notifier);
        assert_eq!(fourth.try_recv(), Ok(Ok(())));
    }
}
