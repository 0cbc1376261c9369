//! A request that waits continues after its client has disconnected: its carrier call may already be paid for, and it has
//! an audit record in any case.
//!
//! hyper drops the future of a request whose connection broke or whose HTTP/2 stream was reset. If a [`RunToCompletion`] is
//! dropped before it is complete, it continues as a task that a drain waits for. A request that need not wait does without
//! it, since the audit writer has its record before the first wait.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A future that completes even if it is dropped.
#[must_use = "it runs while it is polled, and when it is dropped"]
pub struct RunToCompletion<T: Send + 'static> {
    /// `None` once it is complete.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    client_gone: CancellationToken,
    tasks: TaskTracker,
}

impl<T: Send + 'static> RunToCompletion<T> {
    /// Passes `work` the token that is cancelled when its client has disconnected: `outer`, if an enclosing future has one
    /// already.
    pub fn new<F>(
        tasks: &TaskTracker,
        outer: Option<CancellationToken>,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let client_gone = outer.unwrap_or_default();
        Self { work: Some(Box::pin(work(client_gone.clone()))), client_gone, tasks: tasks.clone() }
    }
}

impl<T: Send + 'static> Future for RunToCompletion<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Polled after its completion it stays pending, as a future may.
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
        // Without a runtime nothing can continue, and there is no audit.
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
    async fn dropped_work_continues_and_is_notified() {
        let (tasks, (go, gate), (done, result)) =
            (TaskTracker::new(), oneshot::channel(), oneshot::channel());
        let mut running = RunToCompletion::new(&tasks, None, |client_gone| async move {
            let _: Result<(), _> = gate.await;
            let _: Result<(), bool> = done.send(client_gone.is_cancelled());
        });
        assert!(std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut running).poll(cx).is_pending())).await);
        assert_eq!(tasks.len(), 0);
        drop(running);
        assert_eq!(tasks.len(), 1, "a drain waits for it");
        go.send(()).unwrap();
        assert_eq!(result.await, Ok(true));
    }

    #[tokio::test]
    async fn completed_work_is_not_run_again() {
        let tasks = TaskTracker::new();
        let mut running =
            RunToCompletion::new(&tasks, None, |client_gone| async move { client_gone.is_cancelled() });
        assert!(!(&mut running).await);
        drop(running);
        assert_eq!(tasks.len(), 0);
    }
}
