//! Webhooks: signed messages about events to receivers of the operator, in the form of Standard Webhooks.
//!
//! The outbox is the audit. Each webhook has a position in it, a row number in `state.db`: the events in all rows up to it
//! are delivered or dead. A position moves after a delivery, so a message is delivered at least once; its id is derived
//! from its row, so a repetition has the same id. Alarms and breakers get rows for this purpose (`conditions`): notes. A
//! new webhook begins at the end of the audit.
//!
//! [`Webhooks::run`] is a task of its own, with one task per webhook, so that a receiver that does not respond delays
//! neither lookups nor other webhooks. Files are read and written on blocking threads. A drain ends the tasks at once: what
//! was not delivered is delivered after the next start.
//!
//! | module | contents |
//! | --- | --- |
//! | `outbox` | one webhook: pages of the audit, attempts, back-off, dead letters |
//! | `changes` | in a fleet: the STATUS before, over all nodes |
//! | `conditions` | notes about alarms and breakers |
//! | `client` | one attempt |
//! | `message`, `signature` | the body of a message; its signature |

mod changes;
mod client;
mod conditions;
mod message;
mod outbox;
mod signature;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::client::Client;
pub use self::client::Failure;
use self::conditions::Conditions;
use self::message::Message;
use self::outbox::Outbox;
use crate::clock::Clock;
use crate::config::Webhook;
use crate::relay::Relay;
use crate::store::audit::query;
use crate::store::{Store, StoreError, blocking};

/// The interval between two looks at the audit, the alarms, the breakers and the configuration.
const INTERVAL: Duration = Duration::from_millis(500);

/// All webhooks of a running proxy.
pub struct Webhooks {
    relay: Arc<Relay>,
    store: Arc<Store>,
    /// The folder of the databases.
    dir: PathBuf,
    conditions: Conditions,
    running: Vec<Running>,
    /// The webhooks that run. A whole configuration is not kept: it holds passwords that a reload may have retired.
    applied: Vec<Arc<Webhook>>,
    /// The last row of the audit.
    head: watch::Sender<i64>,
}

/// The task of one webhook.
struct Running {
    webhook: Arc<Webhook>,
    /// The row up to which it is done.
    position: Arc<AtomicI64>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Webhooks {
    /// The webhooks of the configuration. New ones begin at the end of the audit, which is stored before this returns.
    ///
    /// # Errors
    /// When the audit or `state.db` cannot be read or written.
    pub async fn start(relay: Arc<Relay>, store: Arc<Store>) -> Result<Self, StoreError> {
        let config = relay.config.load_full();
        let dir = config.store_dir.clone();
        let conditions = Conditions::load(Arc::clone(&relay), Arc::clone(&store)).await?;
        let (head, _) = watch::channel(0);
        let mut all = Self { relay, store, dir, conditions, running: Vec::new(), applied: Vec::new(), head };
        all.apply(config.webhooks.clone()).await?;
        Ok(all)
    }

    /// Sends messages until `stop` is cancelled, and stores the positions.
    pub async fn run(mut self, stop: CancellationToken) {
        while tokio::time::timeout(INTERVAL, stop.cancelled()).await.is_err() {
            let webhooks = self.relay.config.load().webhooks.clone();
            if webhooks != self.applied
                && let Err(error) = self.apply(webhooks).await
            {
                // Every look tries again.
                tracing::debug!(%error, "webhooks: the changed configuration is not applied yet");
            }
            if self.running.is_empty() {
                continue;
            }
            let looking = async {
                self.conditions.note_changes().await;
                self.look_at_audit().await;
            };
            if stop.run_until_cancelled(looking).await.is_none() {
                break;
            }
        }
        for one in self.running {
            one.end().await;
        }
    }

    /// Publishes the last row of the audit to the webhooks.
    async fn look_at_audit(&self) {
        let dir = self.dir.clone();
        match blocking(move || query::head(&dir)).await {
            Ok(head) => {
                let _: i64 = self.head.send_replace(head);
                self.relay.metrics.webhooks_behind(self.running.iter().map(|one| {
                    let behind = head.saturating_sub(one.position.load(Ordering::Relaxed)).max(0);
                    (&*one.webhook.name, behind.unsigned_abs())
                }));
            }
            // The tasks report an audit that cannot be read.
            Err(error) => tracing::debug!(%error, "webhooks: cannot read the end of the audit"),
        }
    }

    /// Ends the tasks of webhooks that were changed or removed, and starts those of new ones.
    async fn apply(&mut self, webhooks: Vec<Arc<Webhook>>) -> Result<(), StoreError> {
        let is_kept = |one: &Running| webhooks.contains(&one.webhook);
        let (kept, ended): (Vec<_>, _) = std::mem::take(&mut self.running).into_iter().partition(is_kept);
        self.running = kept;
        for one in ended {
            one.end().await;
        }
        let (store, dir, all) = (Arc::clone(&self.store), self.dir.clone(), webhooks.clone());
        blocking(move || {
            let names: Vec<&str> = all.iter().map(|webhook| &*webhook.name).collect();
            store.state.keep_webhooks(&names)?;
            for webhook in &all {
                outbox::begin(&store.state, &dir, &webhook.name)?;
            }
            Ok(())
        })
        .await?;
        for webhook in &webhooks {
            if self.running.iter().any(|one| one.webhook == *webhook) {
                continue;
            }
            let stop = CancellationToken::new();
            self.relay.metrics.webhook_configured(&webhook.name);
            let outbox = Outbox::new(webhook, &self.relay, &self.store, &self.dir);
            let position = outbox.position();
            let running = outbox.run(self.head.subscribe(), stop.clone());
            let task = AbortOnDropHandle::new(tokio::spawn(running));
            self.running.push(Running { webhook: Arc::clone(webhook), position, stop, task });
        }
        if webhooks.is_empty() {
            // Without webhooks nothing else publishes it.
            self.relay.metrics.webhooks_behind([]);
        }
        self.applied = webhooks;
        Ok(())
    }
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        // An error is a panic, which is in the log.
        let _: Result<(), _> = self.task.await;
    }
}

/// Posts one signed test message. Returns the HTTP status of the response.
///
/// # Errors
/// When it was not accepted, and why.
pub async fn send_test(webhook: &Webhook, clock: &Clock) -> Result<u16, Failure> {
    let now = clock.now();
    Client::new(webhook)?.post(&Message::test(&webhook.name, now), now).await
}
