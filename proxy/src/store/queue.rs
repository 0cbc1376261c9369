//! The queue between the callers and the one writer thread of a file.
//!
//! A bounded list under one lock. The writer takes everything that is queued, in order, and commits it as one transaction:
//! the slower the disk, the larger the batches. It first yields to producers that are about to push. Otherwise, on a shared
//! processor, one caller that was notified of the last commit would have pushed one item, the next transaction would
//! consist of that item, and so on.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue of many producers and one [`Consumer`].
pub(super) struct Queue<T> {
    list: Mutex<List<T>>,
    arrived: Condvar,
    limit: usize,
}

struct List<T> {
    items: Vec<T>,
    closed: bool,
    /// Whether the consumer waits: only then does a push notify it.
    asleep: bool,
}

/// The reason for which an item was dropped and not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PushError {
    Full,
    Closed,
}

/// The writer's end. Dropping it, also by a panic, closes the queue and drops its items, so that no caller waits for a
/// writer that has ended.
pub(super) struct Consumer<'a, T>(&'a Queue<T>);

/// Times that the writer yields while items arrive: bounded, so that a steady stream cannot delay it without limit.
const MAX_YIELDS: u32 = 8;

/// Result of [`Consumer::take`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// At least one item.
    Items,
    /// No item within the timeout.
    TimedOut,
    /// No item, and the queue is closed.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new(limit: usize) -> Self {
        let list = List { items: Vec::new(), closed: false, asleep: false };
        Self { list: Mutex::new(list), arrived: Condvar::new(), limit }
    }

    /// Queues an item unless `limit` items are queued. Blocks only while another call holds the lock.
    pub(super) fn push(&self, item: T) -> Result<(), PushError> {
        self.insert(item, self.limit)
    }

    /// Queues an item regardless of the limit: for the few that must not be dropped.
    pub(super) fn push_unbounded(&self, item: T) -> Result<(), PushError> {
        self.insert(item, usize::MAX)
    }

    fn insert(&self, item: T, limit: usize) -> Result<(), PushError> {
        let mut list = self.lock();
        if list.closed {
            return Err(PushError::Closed);
        }
        if list.items.len() >= limit {
            return Err(PushError::Full);
        }
        list.items.push(item);
        let asleep = list.asleep;
        drop(list);
        if asleep {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// The end for the writer thread.
    pub(super) fn consumer(&self) -> Consumer<'_, T> {
        Consumer(self)
    }

    /// Refuses further items; the consumer still takes the queued ones.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Passes the queued items, which the consumer has not taken yet, to `visit`, which may change them.
    pub(super) fn waiting<R>(&self, visit: impl FnOnce(&mut [T]) -> R) -> R {
        visit(&mut self.lock().items)
    }

    /// Whether a push would succeed now.
    pub(super) fn has_room(&self) -> bool {
        let list = self.lock();
        !list.closed && list.items.len() < self.limit
    }

    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// A poisoned lock is no error: no code that can panic runs under it, so the list is consistent.
    fn lock(&self) -> MutexGuard<'_, List<T>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Consumer<'_, T> {
    /// Waits for items, at most `timeout` if given, and moves all of them into `batch`, which is empty.
    pub(super) fn take(&self, batch: &mut Vec<T>, timeout: Option<Duration>) -> Received {
        let mut list = self.0.lock();
        while list.items.is_empty() {
            if list.closed {
                return Received::Closed;
            }
            list.asleep = true;
            let timed_out;
            (list, timed_out) = match timeout {
                None => (self.0.arrived.wait(list).unwrap_or_else(PoisonError::into_inner), false),
                Some(timeout) => {
                    let woken = self.0.arrived.wait_timeout(list, timeout);
                    let (list, result) = woken.unwrap_or_else(PoisonError::into_inner);
                    (list, result.timed_out())
                }
            };
            list.asleep = false;
            if timed_out && list.items.is_empty() && !list.closed {
                return Received::TimedOut;
            }
        }
        drop(list);
        self.yield_to_producers();
        let mut list = self.0.lock();
        // Swapped, not drained: both vectors keep their capacity.
        std::mem::swap(&mut list.items, batch);
        Received::Items
    }

    /// Whether the queue is empty after yielding once to producers that are about to push.
    pub(super) fn is_idle(&self) -> bool {
        std::thread::yield_now();
        self.0.len() == 0
    }

    /// Yields while producers push. Returns at once if none does, as on a machine with an idle processor.
    fn yield_to_producers(&self) {
        let mut seen = 0;
        for _ in 0..MAX_YIELDS {
            let queued = self.0.len();
            if queued == seen {
                break;
            }
            seen = queued;
            std::thread::yield_now();
        }
    }
}

impl<T> Drop for Consumer<'_, T> {
    fn drop(&mut self) {
        let mut list = self.0.lock();
        list.closed = true;
        let abandoned = std::mem::take(&mut list.items);
        // Dropping an item can wake its waiter, so it happens outside the lock.
        drop(list);
        drop(abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_items_are_taken_together_and_in_order() {
        let queue = Queue::new(2);
        let consumer = queue.consumer();
        let mut batch = Vec::new();
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(PushError::Full));
        assert_eq!(queue.push_unbounded(4), Ok(()));
        assert_eq!(consumer.take(&mut batch, None), Received::Items);
        assert_eq!((batch.as_slice(), queue.len()), ([1, 2, 4].as_slice(), 0));
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::new(2);
        let consumer = queue.consumer();
        let mut batch = Vec::new();
        assert_eq!(consumer.take(&mut batch, Some(Duration::ZERO)), Received::TimedOut);
        assert_eq!(queue.push(1), Ok(()));
        queue.close();
        assert_eq!(queue.push(2), Err(PushError::Closed));
        assert_eq!(consumer.take(&mut batch, None), Received::Items);
        batch.clear();
        assert_eq!(consumer.take(&mut batch, None), Received::Closed);
    }

    #[test]
    fn a_waiting_consumer_is_woken() {
        let queue = Queue::new(1);
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| {
                let consumer = queue.consumer();
                let mut batch = Vec::new();
                let mut seen = Vec::new();
                while consumer.take(&mut batch, None) == Received::Items {
                    seen.append(&mut batch);
                }
                seen
            });
            let mut sent = 0;
            while sent < 1_000 {
                if queue.push(sent).is_ok() {
                    sent += 1;
                } else {
                    std::thread::yield_now();
                }
            }
            queue.close();
            assert_eq!(taken.join().unwrap(), (0..1_000).collect::<Vec<_>>());
        });
    }

    #[test]
    fn dropping_the_consumer_drops_the_queued_items() {
        let queue = Queue::new(2);
        let item = std::sync::Arc::new(());
        let consumer = queue.consumer();
        queue.push(std::sync::Arc::clone(&item)).unwrap();
        drop(consumer);
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
        assert_eq!(queue.push(item), Err(PushError::Closed));
    }
}
