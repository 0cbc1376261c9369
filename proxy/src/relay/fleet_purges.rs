//! Purges of the fleet on this node: applied in their order, before the node acts with the others again and while it does.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Relay;
use crate::cache::{PurgeMode, Purged};
use crate::fleet::Fleet;
use crate::store::StoreError;
use crate::store::cache::{PurgeMark, Selection};
use crate::store::fleet::LinkError;

/// Rounds between two deletions of old purges; a round takes a second without a notification.
const SWEEP_ROUNDS: u32 = 600;

/// The purges that this node's cache has applied.
#[derive(Debug, Default)]
pub struct AppliedPurges {
    /// The last one; none before it is read from `cache.db`, or in a new file.
    mark: Option<PurgeMark>,
    /// The life and the number that the database has.
    reported: Option<(i64, i64)>,
}

/// Failure to apply the purges of the fleet.
#[derive(Debug, thiserror::Error)]
pub enum PurgeFailure {
    /// The database of the fleet.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// `cache.db`.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Relay {
    /// Applies the purges that this node's cache has not applied, and reports the last one under `life`. Returns the
    /// entries that were purged.
    ///
    /// # Errors
    /// [`PurgeFailure`]; the purges that were applied stay so, and the next call continues.
    pub async fn apply_purges(&self, fleet: &Fleet, life: i64) -> Result<Purged, PurgeFailure> {
        // One at a time: the mark must not go back.
        let mut applied = self.applied_purges.lock().await;
        let AppliedPurges { mark, reported } = &mut *applied;
        if mark.is_none() {
            let store = Arc::clone(self.cache.store());
            // A task that does not end normally has not read it.
            *mark = tokio::task::spawn_blocking(move || store.purge_mark()).await.ok().transpose()?.flatten();
        }
        let mut total = Purged { memory: 0, file: 0, generation: self.cache.generation() };
        while let Some(pending) = fleet.pending_purges(mark.as_ref()).await? {
            let everything = pending.everything.then(|| (Selection::default(), false));
            for (selection, soft) in everything.into_iter().chain(pending.purges) {
                let mode = if soft { PurgeMode::Soft } else { PurgeMode::Hard };
                let purged = self.purge(&selection, mode).await?;
                total.memory += purged.memory;
                total.file += purged.file;
                total.generation = purged.generation;
            }
            self.cache.store().set_purge_mark(pending.mark.clone()).await?;
            *mark = Some(pending.mark);
            if !pending.more {
                break;
            }
        }
        let generation = mark.as_ref().map_or(0, |mark| mark.generation);
        if *reported != Some((life, generation)) {
            fleet.report_purged(life, generation).await?;
            *reported = Some((life, generation));
        }
        Ok(total)
    }

    /// Applies the purges that were ordered while this node was down, and those of each later time without the database
    /// before the node acts with the others again.
    pub async fn catch_up_with(self: &Arc<Self>, fleet: &Arc<Fleet>) {
        let (relay, weak) = (Arc::downgrade(self), Arc::downgrade(fleet));
        fleet.set_catch_up(Box::new(move |life| {
            let (relay, fleet) = (relay.upgrade(), weak.upgrade());
            Box::pin(async move {
                let (Some(relay), Some(fleet)) = (relay, fleet) else { return Ok(()) };
                relay.catch_up(&fleet, life).await
            })
        }));
        if let Some(life) = fleet.life()
            && let Err(error) = self.catch_up(fleet, life).await
        {
            tracing::warn!(%error, "the purges of the fleet are not applied: this node starts alone");
            fleet.continue_alone();
        }
    }

    async fn catch_up(&self, fleet: &Fleet, life: i64) -> Result<(), LinkError> {
        match self.apply_purges(fleet, life).await {
            Ok(_) => Ok(()),
            Err(PurgeFailure::Link(error)) => Err(error),
            Err(PurgeFailure::Store(error)) => {
                tracing::warn!(%error, "the purges of the fleet are not applied, so this node stays alone");
                Err(LinkError::Away)
            }
        }
    }

    /// Applies purges of other nodes until `stop`.
    pub async fn follow_purges(self: Arc<Self>, fleet: Arc<Fleet>, stop: CancellationToken) {
        let following = async {
            for round in 1_u32.. {
                fleet.purge_may_follow().await;
                let Some(life) = fleet.life() else { continue };
                if let Err(error) = self.apply_purges(&fleet, life).await {
                    tracing::warn!(%error, "the purges of the fleet are not applied yet");
                }
                if round.is_multiple_of(SWEEP_ROUNDS) {
                    fleet.sweep_purges().await;
                }
            }
        };
        stop.run_until_cancelled(following).await;
    }
}
