//! Rows of flights that this node may have, and does not lead: a statement whose reply was lost has inserted them, or they
//! could not be given up. Nodes would follow them until their time has ended; so they are deleted as soon as the database
//! answers.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Fleet;
use crate::store::fleet::LinkError;
use crate::store::fleet::flights::{self, SharedKey};

/// Interval of the attempts.
const PAUSE: Duration = Duration::from_millis(300);

/// Attempts: for longer than a row is valid.
const ATTEMPTS: usize = 1_000;

/// The fences of the flights that this node leads.
#[derive(Debug, Default)]
pub(super) struct Fences(Mutex<HashSet<i64>>);

impl Fences {
    pub(super) fn insert(&self, fence: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(fence);
    }

    pub(super) fn remove(&self, fence: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&fence);
    }

    fn all(&self) -> Vec<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

/// A row that has no leader.
#[derive(Clone, Copy, Debug)]
pub(super) enum Orphan {
    /// The row of this fence.
    Fence(i64),
    /// Any row of this life that no flight of this process leads.
    Life(i64),
}

impl Fleet {
    /// Deletes the row of a key in the background, if there is one.
    pub(super) fn disown(self: &Arc<Self>, key: SharedKey, orphan: Orphan) {
        // Outside of a runtime the process has ended.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let fleet = Arc::clone(self);
        runtime.spawn(async move {
            for _ in 0..ATTEMPTS {
                match fleet.delete(&key, orphan).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::trace!(%error, "the row of a flight without a leader is not deleted yet");
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    async fn delete(&self, key: &SharedKey, orphan: Orphan) -> Result<(), LinkError> {
        match orphan {
            Orphan::Fence(fence) => flights::delete(&self.link, key, fence).await,
            Orphan::Life(life) => flights::disown(&self.link, key, life, &self.fences.all()).await,
        }
    }
}
