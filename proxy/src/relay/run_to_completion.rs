//! A request goes on when its client has left: what it waits for may be paid for, and it has its record in any case.
//!
//! hyper drops the future of a request whose connection broke or whose HTTP/2 stream was reset. [`RunToCompletion`] is that
//! future for whatever waits: dropped before it is done, it goes on as a task that a drain waits for. A request that is
//! answered at once needs none of this, since its record is with the audit's writer before anything waits.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Work that is done to its end, whoever waits for it.
#[must_use = "it runs while it is polled, and when it is dropped"]
pub struct RunToCompletion<T: Send + 'static> {
    /// None once it is done.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    client_gone: CancellationToken,
    tasks: TaskTracker,
}

impl<T: Send + 'static> RunToCompletion<T> {
    /// Makes work, which is handed the token that is cancelled when its client has left. A token that is `given` belongs to
    /// the work around this one.
    pub fn new<F>(
        tasks: &TaskTracker,
        given: Option<CancellationToken>,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let left = given.unwrap_or_default();
        Self { work: Some(Box::pin(work(left.clone()))), client_gone: left, tasks: tasks.clone() }
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Polled after its end it stays pending, as a future may.
        let Some(work) = &mut self.work else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for RunToCompletion<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        self.client_gone.cancel();
        // Without a runtime there is nothing left that could go on, and no audit either.
        if Handle::try_current().is_ok() {
            self.tasks.spawn(async move {
                work.await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn work_that_is_dropped_goes_on_and_knows_it() {
        let (tasks, (go, gate), (done, result)) =
            (TaskTracker::new(), oneshot::channel(), oneshot::channel());
        let mut attended = RunToCompletion::new(&tasks, None, |left| async move {
            let _: Result<(), _> = gate.await;
            let _: Result<(), bool> = done.send(left.is_cancelled());
        });
        assert!(std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut attended).poll(cx).is_pending())).await);
        assert_eq!(tasks.len(), 0);
        drop(attended);
        assert_eq!(tasks.len(), 1, "a drain waits for it");
        go.send(()).unwrap();
        assert_eq!(result.await, Ok(true));
    }

    #[tokio::test]
    async fn work_that_is_done_is_not_done_again() {
        let tasks = TaskTracker::new();
        let mut attended = RunToCompletion::new(&tasks, None, |left| async move { left.is_cancelled() });
        assert!(!(&mut attended).await);
        drop(attended);
        assert_eq!(tasks.len(), 0);
    }
}
