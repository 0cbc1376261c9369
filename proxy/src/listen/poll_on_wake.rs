//! A future among others of a task that is polled when it rings, not whenever the task is.
//!
//! A connection's task is polled for each request and each answer. Its timer and its stop have nothing to say then, and
//! to ask them takes locks.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// See the module's text.
#[derive(Debug)]
pub(super) struct PollOnWake<F> {
    future: F,
    flag: Arc<WakeFlag>,
    /// Whom it rings for.
    task: Waker,
}

/// What the future wakes.
#[derive(Debug)]
struct WakeFlag {
    woken: AtomicBool,
    task: Mutex<Waker>,
}

impl<F: Future + Unpin> PollOnWake<F> {
    pub(super) fn new(future: F) -> Self {
        let rope = WakeFlag { woken: true.into(), task: Waker::noop().clone().into() };
        Self { future, flag: Arc::new(rope), task: Waker::noop().clone() }
    }

    pub(super) fn get(&self) -> &F {
        &self.future
    }

    /// To change the future: it is polled again.
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
        // Before the future is asked, so that a ring while it is asked counts.
        if !self.flag.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.flag));
        let polled = Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            // It will not ring again: what it says to whoever asks again is its own affair.
            self.flag.woken.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl WakeFlag {
    /// Rings for another task from now on. A pull that still woke the one before came first, so that `woken` says so.
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

    /// How often it was polled.
    struct Counted<'a>(Pin<Box<Sleep>>, &'a AtomicUsize);

    impl Future for Counted<'_> {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.as_mut().poll(cx)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_rung_is_not_asked() {
        let (polls, begun) = (AtomicUsize::new(0), Instant::now());
        let mut bell = PollOnWake::new(Counted(Box::pin(sleep(Duration::from_secs(10))), &polls));
        for _ in 0..5 {
            assert!(timeout(Duration::from_secs(1), &mut bell).await.is_err());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        (&mut bell).await;
        assert_eq!((polls.load(Ordering::Relaxed), begun.elapsed()), (2, Duration::from_secs(10)));

        let later = Instant::now() + Duration::from_secs(7);
        bell.change().0.as_mut().reset(later);
        (&mut bell).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(17));
    }

    #[tokio::test(start_paused = true)]
    async fn it_rings_for_the_task_that_asked_last() {
        let polls = AtomicUsize::new(0);
        let mut bell = PollOnWake::new(Counted(Box::pin(sleep(Duration::from_secs(1))), &polls));
        let elsewhere = Pin::new(&mut bell).poll(&mut Context::from_waker(Waker::noop()));
        assert!(elsewhere.is_pending());
        bell.await;
    }
}
