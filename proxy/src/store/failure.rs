//! A permanent failure of the store in this process: further writes would be unreliable, or the writer thread has ended.
//!
//! The module that detects it calls [`Failure::fail`]. `/ready` is 503 from then on, and `serve` drains and exits with an
//! error, so that a supervisor restarts the process: the start recovers everything that is on the disk.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Whether the store has failed permanently, and the reason. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Failure(Arc<State>);

#[derive(Debug, Default)]
struct State {
    reason: OnceLock<String>,
    failed: CancellationToken,
}

impl Failure {
    /// Records a permanent failure. The first reason is kept. The caller of [`Failure::wait`] logs it: a panicking thread may
    /// call this, and must not log.
    pub fn fail(&self, reason: impl Into<String>) {
        // A second reason is dropped.
        let _: Result<(), String> = self.0.reason.set(reason.into());
        self.0.failed.cancel();
    }

    /// The reason, once the store has failed.
    pub fn get(&self) -> Option<&str> {
        self.0.reason.get().map(String::as_str)
    }

    /// Resolves to the reason when the store fails.
    pub async fn wait(&self) -> &str {
        self.0.failed.cancelled().await;
        // Set before the token is cancelled.
        self.get().unwrap_or_default()
    }

    /// A guard for a thread of the store: if the thread panics, the store has failed.
    pub(super) fn thread_guard(&self, name: &'static str) -> ThreadGuard {
        ThreadGuard { failure: self.clone(), name }
    }
}

/// See [`Failure::thread_guard`].
pub(super) struct ThreadGuard {
    failure: Failure,
    name: &'static str,
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failure.fail(format!(
                "the thread {} panicked and writes nothing more; restart the proxy, and report the panic from the log",
                self.name
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_is_kept_and_wakes_the_waiters() {
        let failure = Failure::default();
        assert_eq!(failure.get(), None);
        let other = failure.clone();
        other.fail("first");
        other.fail("second");
        assert_eq!(failure.wait().await, "first");
        assert_eq!(failure.get(), Some("first"));
    }

    #[test]
    fn only_a_thread_that_panics_is_a_failure() {
        for panics in [false, true] {
            let failure = Failure::default();
            let guard = failure.thread_guard("audit-writer");
            let thread = std::thread::spawn(move || {
                let _guard = guard;
                assert!(!panics, "the panic of the test");
            });
            assert_eq!(thread.join().is_err(), panics);
            assert_eq!(failure.get().is_some_and(|why| why.contains("audit-writer")), panics);
        }
    }
}
