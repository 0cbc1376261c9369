//! Hints: notifications that a flight has landed, for the followers of this node.
//!
//! A hint only shortens a wait, so each follower polls as well. After a new connection all followers get a hint, since
//! notifications were lost meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::store::fleet::Link;
use crate::store::fleet::connect::STATEMENT_TIMEOUT;
use crate::store::fleet::flights::SharedKey;
use crate::store::fleet::listen::listen;

/// Pause before another connection.
const PAUSE: Duration = Duration::from_secs(1);

/// Those who wait for a hint, by key.
#[derive(Debug, Default)]
pub struct Hints {
    waiting: Mutex<HashMap<SharedKey, watch::Sender<()>>>,
    /// A purge was ordered.
    purged: Notify,
}

/// One wait for the hints of a key.
#[derive(Debug)]
pub struct Hint {
    hints: Arc<Hints>,
    key: SharedKey,
    /// None only while it is dropped.
    heard: Option<watch::Receiver<()>>,
}

impl Hints {
    /// Hears the hints of this key from now on.
    pub fn expect(self: &Arc<Self>, key: SharedKey) -> Hint {
        let heard = self.waiting().entry(key).or_default().subscribe();
        Hint { hints: Arc::clone(self), key, heard: Some(heard) }
    }

    /// Listens to the database, and connects again whenever the connection ends. Runs until it is dropped.
    pub async fn run(&self, link: &Link) {
        let mut connection = link.dedicated("listen", STATEMENT_TIMEOUT);
        loop {
            if let Err(error) = listen(&mut connection, &|payload| self.hear(payload)).await {
                tracing::debug!(%error, "no notifications of the fleet: its followers poll");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits for a hint that a purge was ordered since the last call.
    pub async fn purged(&self) {
        self.purged.notified().await;
    }

    /// Passes a notification on; none for all.
    fn hear(&self, payload: Option<&str>) {
        if payload.is_none_or(|payload| payload.starts_with("purge ")) {
            self.purged.notify_one();
        }
        let waiting = self.waiting();
        let Some(payload) = payload else {
            for sender in waiting.values() {
                sender.send_replace(());
            }
            return;
        };
        if let Some(sender) = landed(payload).and_then(|key| waiting.get(&key)) {
            sender.send_replace(());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<SharedKey, watch::Sender<()>>> {
        // No code under this lock can panic in the middle of a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a payload about a flight.
fn landed(payload: &str) -> Option<SharedKey> {
    let key = payload.strip_prefix("landed ")?;
    data_encoding::HEXLOWER.decode(key.as_bytes()).ok()?.try_into().ok()
}

impl Hint {
    /// Waits for a hint that has come since the last call.
    pub async fn heard(&mut self) {
        match &mut self.heard {
            // The map keeps the sender while it has receivers.
            Some(heard) => _ = heard.changed().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        let mut waiting = self.hints.waiting();
        self.heard = None;
        if waiting.get(&self.key).is_some_and(|sender| sender.receiver_count() == 0) {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hint_reaches_those_who_wait_for_its_key_even_before_they_do() {
        let hints = Arc::new(Hints::default());
        let [mut first, mut second, mut other] = [1, 1, 2].map(|n| hints.expect([n; 16]));
        hints.hear(Some(&format!("landed {}", "01".repeat(16))));
        first.heard().await;
        second.heard().await;
        assert!(tokio::time::timeout(Duration::ZERO, other.heard()).await.is_err());
        hints.hear(None);
        other.heard().await;
        first.heard().await;
        assert!(tokio::time::timeout(Duration::ZERO, first.heard()).await.is_err(), "each is heard once");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_key_that_nobody_waits_for() {
        let hints = Arc::new(Hints::default());
        let first = hints.expect([1; 16]);
        drop(hints.expect([1; 16]));
        assert_eq!(hints.waiting().len(), 1);
        drop(first);
        assert!(hints.waiting().is_empty());
    }

    #[test]
    fn other_payloads_name_no_key() {
        for payload in
            ["", "landed", "landed 01", "landed zz", "purge 7", &format!("landed {}", "01".repeat(17))]
        {
            assert_eq!(landed(payload), None, "{payload}");
        }
    }
}
