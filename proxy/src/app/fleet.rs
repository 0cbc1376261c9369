//! The part of the process in a fleet: the node, and the tasks that keep its life and its cache up to date.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{CANCEL_TIMEOUT, StartError};
use crate::clock::{Clock, timeout};
use crate::config::Config;
use crate::fleet::ship::Shipper;
use crate::fleet::{self, Fleet};
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::store::{Store, StoreError, audit};

/// The tasks of a node: one renews its life, one applies the purges of other nodes, one copies the audit. They run until the
/// flights have ended: those of a life that is gone are taken over by other nodes.
pub(super) struct FleetTasks {
    task: AbortOnDropHandle<()>,
    /// Applies the purges of other nodes.
    _purges: AbortOnDropHandle<()>,
    /// Copies the audit, and the token that ends it.
    copy: Option<(AbortOnDropHandle<()>, CancellationToken)>,
    stop: CancellationToken,
}

impl FleetTasks {
    /// Starts the tasks of a node; `dir` has the audit.
    ///
    /// # Errors
    /// When the key of the audit's anchors cannot be read.
    pub(super) fn start(relay: &Arc<Relay>, fleet: Arc<Fleet>, dir: &Path) -> Result<Self, StoreError> {
        let stop = CancellationToken::new();
        let copy = Shipper::of(&fleet, dir)?.map(|shipper| {
            let stop = CancellationToken::new();
            (AbortOnDropHandle::new(tokio::spawn(shipper.run(stop.clone()))), stop)
        });
        let purges = Arc::clone(relay).follow_purges(Arc::clone(&fleet), stop.clone());
        Ok(Self {
            task: AbortOnDropHandle::new(tokio::spawn(fleet.run(stop.clone()))),
            _purges: AbortOnDropHandle::new(tokio::spawn(purges)),
            copy,
            stop,
        })
    }

    /// Ends them, and the life of the node.
    pub(super) async fn end(self) {
        if let Some((copy, stop)) = self.copy {
            stop.cancel();
            if timeout(CANCEL_TIMEOUT, copy).await.is_err() {
                tracing::warn!("the copy of the audit did not end: the next start continues it");
            }
        }
        self.stop.cancel();
        if timeout(CANCEL_TIMEOUT, self.task).await.is_err() {
            tracing::warn!("the life of this node did not end in the database: its lease ends by itself");
        }
    }
}

/// This node of the configured fleet; none without `[fleet]`.
///
/// # Errors
/// When the store has no readable identity.
pub(super) fn node(
    config: &Config,
    store: &Store,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Fleet>>, StartError> {
    let Some(settings) = &config.fleet else { return Ok(None) };
    let key = audit::anchor::PublicKey::of_folder(&config.store_dir)?;
    let local = fleet::Local {
        identity: fleet::identity_of(config.carrier.node, *key.as_bytes(), &config.store_dir)?,
        clock: clock.clone(),
        alarms: store.alarms.clone(),
        audit: Arc::clone(&store.audit),
        metrics: Arc::clone(metrics),
    };
    let fleet = Fleet::new(settings, local);
    fleet.set_agreement(config);
    Ok(Some(Arc::new(fleet)))
}
