//! Upkeep of the transids of the fleet: the insertion of those that were accepted while the node was alone, the floor, and
//! the removal of rows below it.

use std::sync::Arc;
use std::time::Duration;

use super::{Alone, AloneReport, BATCH, SharedReplay, UsedTransid, columns, lock};
use crate::clock::Time;
use crate::store::audit::{AuditStore, NoteRow};
use crate::store::fleet::LinkError;
use crate::store::fleet::replay::SETTLE;

/// The interval of the upkeep.
const INTERVAL: Duration = Duration::from_secs(1);

/// Stamps are stored for this long after they have left the widest window, for nodes with slow clocks.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// Statements of one sweep that remove rows, at most.
const REMOVALS: usize = 1_000;

/// A floor that was read, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    number: i64,
    read: Duration,
}

/// The facts of the process that the upkeep needs.
pub struct Upkeep<W> {
    /// The widest window of the clients of this node.
    pub window: W,
    /// The number of the first transid of a Unix second.
    pub first_number: fn(u64) -> i64,
    /// The audit, which has a note about each transid that two nodes have accepted.
    pub audit: Arc<AuditStore>,
}

impl SharedReplay {
    /// Does the upkeep until it is dropped. Nothing is done while the node is alone.
    pub async fn run<W: Fn() -> Duration>(&self, upkeep: Upkeep<W>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if self.fleet.life().is_none() {
                continue;
            }
            match self.insert_alone().await {
                Ok(Some(report)) => self.note(report, &upkeep.audit).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "transids that were accepted alone are inserted later");
                }
            }
            let due = lock(&self.floor).is_none_or(|floor| self.age(floor) >= SETTLE);
            if due && let Err(error) = self.sweep((upkeep.window)(), upkeep.first_number).await {
                tracing::debug!(%error, "used transids are removed later");
            }
        }
    }

    /// Inserts the transids that were accepted while the node was alone. Returns the counts once all are inserted; none if
    /// there were none.
    ///
    /// # Errors
    /// [`LinkError`]; the next call continues.
    pub async fn insert_alone(&self) -> Result<Option<AloneReport>, LinkError> {
        loop {
            let mut batch: Vec<UsedTransid> = {
                let mut alone = lock(&self.alone);
                let length = alone.listed.len().min(BATCH);
                alone.listed.drain(..length).collect()
            };
            if batch.is_empty() {
                let Alone { report, listed } = &mut *lock(&self.alone);
                if !listed.is_empty() {
                    continue;
                }
                listed.shrink_to_fit();
                let report = std::mem::take(report);
                return Ok((report != AloneReport::default()).then_some(report));
            }
            batch.sort_unstable();
            let inserted = self.fleet.link.insert_transids_late(self.process, &columns(batch.iter())).await;
            let mut alone = lock(&self.alone);
            match inserted {
                Ok((inserted, twice)) => {
                    alone.report.inserted += inserted;
                    alone.report.twice += twice;
                }
                Err(error) => {
                    // In the order of their stamps: the first of them leave the window first.
                    batch.into_iter().rev().for_each(|transid| alone.listed.push_front(transid));
                    return Err(error);
                }
            }
        }
    }

    /// Raises the floor of the fleet, and removes rows below the floor that the last sweep has read.
    ///
    /// A row stays until its stamp is older than the widest window of all nodes by `CLOCK_MARGIN`, both by the clock of
    /// the database and by the time that this node believes: one clock that is ahead removes nothing. No node accepts a
    /// stamp below the floor, whatever its own clock and window say, so that each row stays as long as its transid could be
    /// accepted.
    ///
    /// # Errors
    /// [`LinkError`]; the next call continues.
    pub async fn sweep(&self, window: Duration, first_number: fn(u64) -> i64) -> Result<(), LinkError> {
        let link = &self.fleet.link;
        let (now, widest) = link.store_transid_window(self.process.node, window).await?;
        let now = now.min(self.clock.believed().as_secs());
        let oldest = now.saturating_sub(widest.saturating_add(CLOCK_MARGIN).as_secs());
        let number = link.raise_transid_floor(first_number(oldest)).await?;
        let read = self.clock.monotonic();
        let previous = *lock(&self.floor);
        if let Some(previous) = previous.filter(|floor| self.age(*floor) >= SETTLE) {
            for _ in 0..REMOVALS {
                if !link.remove_transids(previous.number).await? {
                    break;
                }
            }
        }
        *lock(&self.floor) = Some(Floor { number, read });
        Ok(())
    }

    /// Logs and notes the transids that were accepted while the node was alone.
    async fn note(&self, report: AloneReport, audit: &AuditStore) {
        let AloneReport { inserted, twice, unlisted } = report;
        self.metrics.fleet_accepted_twice(twice);
        if twice > 0 || unlisted > 0 {
            tracing::warn!(
                inserted,
                twice,
                unlisted,
                "transids that were accepted while this node was alone: another node has accepted some of them too \
                 (fleet.accepted_twice), or some are not listed"
            );
        } else {
            tracing::info!(inserted, "transids that were accepted while this node was alone are shared now");
        }
        let detail = format!("accepted={} twice={twice} unlisted={unlisted}", inserted + twice + unlisted);
        let note = NoteRow { at: self.now(), what: "fleet-replays", detail };
        if let Err(error) = audit.append_note(note).await {
            tracing::warn!(%error, twice, "the transids that two nodes have accepted are not noted in the audit");
        }
    }

    fn age(&self, floor: Floor) -> Duration {
        self.clock.monotonic().saturating_sub(floor.read)
    }

    fn now(&self) -> Time {
        self.clock.now()
    }
}
