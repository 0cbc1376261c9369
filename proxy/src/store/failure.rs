//! The store cannot go on in this process: what is written next could not be trusted, or nobody writes any more.
//!
//! Whoever notices it calls [`Failure::fail`] once; `/ready` says no from then on, and `serve` drains and exits with an
//! error, so that a supervisor starts the process again: a start recovers what the disk has.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Whether the store has failed for good, and why. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Failure(Arc<State>);

#[derive(Debug, Default)]
struct State {
    why: OnceLock<String>,
    failed: CancellationToken,
}

impl Failure {
    /// The store has failed for good. The first reason is kept. Nothing is logged here, since a thread that panics may
    /// call this: whoever waits for the failure logs it.
    pub fn fail(&self, why: impl Into<String>) {
        // A second reason is dropped.
        let _: Result<(), String> = self.0.why.set(why.into());
        self.0.failed.cancel();
    }

    /// The reason, once the store has failed.
    pub fn get(&self) -> Option<&str> {
        self.0.why.get().map(String::as_str)
    }

    /// Resolves to the reason when the store fails.
    pub async fn wait(&self) -> &str {
        self.0.failed.cancelled().await;
        // Set before the token is cancelled.
        self.get().unwrap_or_default()
    }

    /// For a thread of the store to hold: its panic is a failure of the store.
    pub(super) fn of_thread(&self, name: &'static str) -> OfThread {
        OfThread { failure: self.clone(), name }
    }
}

/// See [`Failure::of_thread`].
pub(super) struct OfThread {
    failure: Failure,
    name: &'static str,
}

impl Drop for OfThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failure.fail(format!(
                "the thread {} panicked, and nothing it wrote is written any more; start the proxy again, and report the panic that the log shows",
                self.name
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_is_kept_and_wakes_whoever_waits() {
        let failure = Failure::default();
        assert_eq!(failure.get(), None);
        let other = failure.clone();
        other.fail("first");
        other.fail("second");
        assert_eq!(failure.wait().await, "first");
        assert_eq!(failure.get(), Some("first"));
    }

    #[test]
    fn a_thread_that_ends_in_order_is_no_failure_and_one_that_panics_is() {
        for panics in [false, true] {
            let failure = Failure::default();
            let guard = failure.of_thread("audit-writer");
            let thread = std::thread::spawn(move || {
                let _guard = guard;
                assert!(!panics, "as the test wants it");
            });
            assert_eq!(thread.join().is_err(), panics);
            assert_eq!(failure.get().is_some_and(|why| why.contains("audit-writer")), panics);
        }
    }
}
