//! What stands between the askers and the one writer thread of a file.
//!
//! A bounded list under one lock. The writer takes everything that has come since it last looked, in order,
//! and makes one transaction of it: the slower the disk, the larger the batches. First it lets the others run that are
//! about to push: on a processor that it shares with them, whoever was told of the last transaction would otherwise
//! have pushed one item by now, and the next transaction would be of one, and so on.

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
    /// Whether the taker sleeps: it is woken only then.
    asleep: bool,
}

/// Why an item was not queued; it has been dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PushError {
    Full,
    Closed,
}

/// The writer's end. When it goes, by a panic too, the queue closes and what waits is dropped, so that
/// nobody waits for a writer that is no more.
pub(super) struct Consumer<'a, T>(&'a Queue<T>);

/// How often the writer gives way while more comes: bounded, so that no stream of items keeps it.
const GIVE_WAY: u32 = 8;

/// What [`Consumer::take`] came back with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// At least one item.
    Items,
    /// None, and the patience is over.
    Nothing,
    /// None, and none will come.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new(limit: usize) -> Self {
        let list = List { items: Vec::new(), closed: false, asleep: false };
        Self { list: Mutex::new(list), arrived: Condvar::new(), limit }
    }

    /// Queues an item unless `limit` of them wait already. Never blocks for longer than a push.
    pub(super) fn push(&self, item: T) -> Result<(), PushError> {
        self.insert(item, self.limit)
    }

    /// Queues one of the few items that may not be refused for want of room.
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

    /// The writer's end, for its thread to hold.
    pub(super) fn consumer(&self) -> Consumer<'_, T> {
        Consumer(self)
    }

    /// Lets nothing more in; what waits is still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Looks at the items that wait, which the taker does not have yet, and may change them.
    pub(super) fn waiting<R>(&self, look: impl FnOnce(&mut [T]) -> R) -> R {
        look(&mut self.lock().items)
    }

    /// Whether an item that came now would be queued.
    pub(super) fn has_room(&self) -> bool {
        let list = self.lock();
        !list.closed && list.items.len() < self.limit
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// A panic elsewhere leaves the list whole: nothing that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, List<T>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Consumer<'_, T> {
    /// Waits for items, at most `patience` if given, and moves all of them into `batch`, which is empty.
    pub(super) fn take(&self, batch: &mut Vec<T>, patience: Option<Duration>) -> Received {
        let mut list = self.0.lock();
        while list.items.is_empty() {
            if list.closed {
                return Received::Closed;
            }
            list.asleep = true;
            let timed_out;
            (list, timed_out) = match patience {
                None => (self.0.arrived.wait(list).unwrap_or_else(PoisonError::into_inner), false),
                Some(patience) => {
                    let woken = self.0.arrived.wait_timeout(list, patience);
                    let (list, how) = woken.unwrap_or_else(PoisonError::into_inner);
                    (list, how.timed_out())
                }
            };
            list.asleep = false;
            if timed_out && list.items.is_empty() && !list.closed {
                return Received::Nothing;
            }
        }
        drop(list);
        self.yield_to_producers();
        let mut list = self.0.lock();
        // Swapped, not drained: both vectors keep their capacity.
        std::mem::swap(&mut list.items, batch);
        Received::Items
    }

    /// Whether nothing waits, those who are about to push having been let run.
    pub(super) fn is_idle(&self) -> bool {
        std::thread::yield_now();
        self.0.len() == 0
    }

    /// Lets those run who are about to push. Returns at once where nobody is: with a processor to spare.
    fn yield_to_producers(&self) {
        let mut seen = 0;
        for _ in 0..GIVE_WAY {
            let waiting = self.0.len();
            if waiting == seen {
                break;
            }
            seen = waiting;
            std::thread::yield_now();
        }
    }
}

impl<T> Drop for Consumer<'_, T> {
    fn drop(&mut self) {
        let mut list = self.0.lock();
        list.closed = true;
        let abandoned = std::mem::take(&mut list.items);
        // Dropping an item can wake whoever waits for it: not under the lock.
        drop(list);
        drop(abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_is_taken_in_order_and_at_once() {
        let queue = Queue::new(2);
        let taker = queue.consumer();
        let mut batch = Vec::new();
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(PushError::Full));
        assert_eq!(queue.push_unbounded(4), Ok(()));
        assert_eq!(taker.take(&mut batch, None), Received::Items);
        assert_eq!((batch.as_slice(), queue.len()), ([1, 2, 4].as_slice(), 0));
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::new(2);
        let taker = queue.consumer();
        let mut batch = Vec::new();
        assert_eq!(taker.take(&mut batch, Some(Duration::ZERO)), Received::Nothing);
        assert_eq!(queue.push(1), Ok(()));
        queue.close();
        assert_eq!(queue.push(2), Err(PushError::Closed));
        assert_eq!(taker.take(&mut batch, None), Received::Items);
        batch.clear();
        assert_eq!(taker.take(&mut batch, None), Received::Closed);
    }

    #[test]
    fn a_sleeping_taker_is_woken() {
        let queue = Queue::new(1);
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| {
                let taker = queue.consumer();
                let mut batch = Vec::new();
                let mut seen = Vec::new();
                while taker.take(&mut batch, None) == Received::Items {
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
    fn what_waits_when_the_taker_goes_is_dropped() {
        let queue = Queue::new(2);
        let item = std::sync::Arc::new(());
        let taker = queue.consumer();
        queue.push(std::sync::Arc::clone(&item)).unwrap();
        drop(taker);
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
        assert_eq!(queue.push(item), Err(PushError::Closed));
    }
}
