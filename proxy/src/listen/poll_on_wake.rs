//! A future that is polled only when its own waker fires, not on every poll of its task.
//!
//! A connection's task is polled for each request and each response. Its timer and its shutdown signal are not ready then,
//! and each poll of them takes locks.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Debug)]
pub(super) struct PollOnWake<F> {
    future: F,
    flag: Arc<WakeFlag>,
    /// The waker of the task that polled last.
    task: Waker,
}

/// The waker that the future gets.
#[derive(Debug)]
struct WakeFlag {
    woken: AtomicBool,
    task: Mutex<Waker>,
}

impl<F: Future + Unpin> PollOnWake<F> {
    pub(super) fn new(future: F) -> Self {
        let flag = WakeFlag { woken: true.into(), task: Waker::noop().clone().into() };
        Self { future, flag: Arc::new(flag), task: Waker::noop().clone() }
    }

    pub(super) fn get(&self) -> &F {
        &self.future
    }

    /// Access for a change of the future, which is polled again afterwards.
    pub(super) fn change(&mut self) -> &mut F {
        self.flag.woken.store(true, Ordering::Relaxed);
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for PollOnWake<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.task.will_wake(cx.waker()) {
            self.task = cx.waker().clone();
            self.flag.register(&self.task);
        }
        // Cleared before the poll, so that a wake during the poll counts.
        if !self.flag.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.flag));
        let polled = Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            // A completed future never wakes; the result of another poll is up to it.
            self.flag.woken.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl WakeFlag {
    /// Wakes another task from now on. A wake of the previous task came first, so `woken` is set.
    fn register(&self, task: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task.clone();
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::time::{Instant, Sleep, sleep, timeout};

    use super::*;

    /// Counts its polls.
    struct Counted<'a>(Pin<Box<Sleep>>, &'a AtomicUsize);

    impl Future for Counted<'_> {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.as_mut().poll(cx)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_was_not_woken_is_not_polled() {
        let (polls, start) = (AtomicUsize::new(0), Instant::now());
        let mut future = PollOnWake::new(Counted(Box::pin(sleep(Duration::from_secs(10))), &polls));
        for _ in 0..5 {
            assert!(timeout(Duration::from_secs(1), &mut future).await.is_err());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        (&mut future).await;
        assert_eq!((polls.load(Ordering::Relaxed), start.elapsed()), (2, Duration::from_secs(10)));

        let later = Instant::now() + Duration::from_secs(7);
        future.change().0.as_mut().reset(later);
        (&mut future).await;
        assert_eq!(start.elapsed(), Duration::from_secs(17));
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_the_task_that_polled_last() {
        let polls = AtomicUsize::new(0);
        let mut future = PollOnWake::new(Counted(Box::pin(sleep(Duration::from_secs(1))), &polls));
        let elsewhere = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
        assert!(elsewhere.is_pending());
        future.await;
    }
}
