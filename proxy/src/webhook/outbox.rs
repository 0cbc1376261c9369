//! One webhook: reads the events behind its position, and delivers them one after another.
//!
//! After a failed attempt the next one waits for 1 s, then twice as long each time up to 5 min, shortened by up to half at
//! random, or as long as the receiver asks by `Retry-After`. A message is dead when its event is older than `give_up_after`
//! and the last attempt failed, or when the receiver has refused this very message (413, 415, 422) several times.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::blocking;
use super::changes;
use super::client::{Client, Failure};
use super::message::Message;
use crate::config::Webhook;
use crate::config::webhook::EventClass;
use crate::relay::Relay;
use crate::store::audit::query::{self, AccountGroups, Answers, Calls, LastStatuses, Page};
use crate::store::state::{DeadLetter, KEPT_DEAD_LETTERS, Progress, StateStore};
use crate::store::{Store, StoreError};

/// Rows of the audit that are read at once.
const PAGE: i64 = 2_000;

/// The wait after the first failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The longest wait that a receiver can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// Attempts for a message that the receiver refuses.
const REFUSED_ATTEMPTS: u32 = 5;

/// The interval in which positions are stored after deliveries. A crash repeats the deliveries of this time.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// The interval in which they are stored where there was nothing to deliver. A crash reads the rows of this time again.
const IDLE_STORE_INTERVAL: Duration = Duration::from_secs(30);

/// Stores the end of the audit as the position of a webhook that has none, or one beyond that end.
pub(super) fn begin(state: &StateStore, dir: &Path, name: &str) -> Result<(), StoreError> {
    let (known, head) = (state.webhook(name)?, query::head(dir)?);
    let progress = match known {
        Some(progress) if progress.position <= head => return Ok(()),
        Some(progress) => {
            tracing::warn!(
                webhook = name,
                position = progress.position,
                head,
                "the audit ends before the position of this webhook, which continues at its end"
            );
            Progress { position: head, ..progress }
        }
        None => Progress { position: head, ..Progress::default() },
    };
    state.save_webhook(name, progress, &[])
}

/// One webhook and its state.
pub(super) struct Outbox {
    webhook: Arc<Webhook>,
    relay: Arc<Relay>,
    store: Arc<Store>,
    dir: PathBuf,
    progress: Progress,
    /// Its position, for the metrics.
    position: Arc<AtomicI64>,
    /// Dead letters that are not stored yet, at most as many as are kept.
    dead: VecDeque<DeadLetter>,
    /// Whether messages were delivered or given up since the progress was stored.
    is_changed: bool,
    /// When the progress was stored, by the monotonic clock.
    stored: Duration,
    known: Option<LastStatuses>,
    /// Failed attempts in a row, and the reason of the last one.
    failures: u32,
    last_failure: Option<Failure>,
}

impl Outbox {
    pub(super) fn new(webhook: &Arc<Webhook>, relay: &Arc<Relay>, store: &Arc<Store>, dir: &Path) -> Self {
        Self {
            webhook: Arc::clone(webhook),
            relay: Arc::clone(relay),
            store: Arc::clone(store),
            dir: dir.to_owned(),
            progress: Progress::default(),
            position: Arc::default(),
            dead: VecDeque::new(),
            is_changed: false,
            stored: relay.clock.monotonic(),
            known: Some(LastStatuses::default()),
            failures: 0,
            last_failure: None,
        }
    }

    /// Its position, which changes while it runs.
    pub(super) fn position(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.position)
    }

    /// Delivers until `stop` is cancelled, at once then, and stores the position. `head` is the last row of the audit.
    pub(super) async fn run(mut self, head: watch::Receiver<i64>, stop: CancellationToken) {
        let began = stop.run_until_cancelled(self.deliver_all(head)).await;
        if began.is_none() && self.progress != Progress::default() {
            self.save().await;
        }
    }

    async fn deliver_all(&mut self, mut head: watch::Receiver<i64>) {
        while let Err(error) = self.load().await {
            self.report("cannot read its position", &error);
            tokio::time::sleep(LONGEST_WAIT / 10).await;
        }
        let client = loop {
            match Client::new(&self.webhook) {
                Ok(client) => break client,
                Err(error) => {
                    tracing::error!(webhook = %self.webhook.name, %error, "webhook: cannot send");
                    tokio::time::sleep(LONGEST_WAIT).await;
                }
            }
        };
        loop {
            let _: i64 = *head.borrow_and_update();
            match self.next_page().await {
                Ok(page) => {
                    self.deliver_page(&client, &page).await;
                    self.save_if_due(page.is_last).await;
                    // The sender lives as long as this task.
                    if page.is_last && head.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    self.report("cannot read the audit", &error);
                    tokio::time::sleep(LONGEST_WAIT / 10).await;
                }
            }
        }
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        let (store, name) = (Arc::clone(&self.store), Arc::clone(&self.webhook.name));
        self.progress = blocking(move || store.state.webhook(&name)).await?.unwrap_or_default();
        self.move_to(self.progress.position);
        Ok(())
    }

    async fn next_page(&mut self) -> Result<Page, StoreError> {
        let (dir, position) = (self.dir.clone(), self.progress.position);
        let groups = self.webhook.wants(EventClass::Status).then(|| self.account_groups());
        // Lost if this future is dropped in between: then the task ends.
        let mut known = self.known.take().unwrap_or_default();
        let is_fleet = self.relay.fleet.is_some();
        let calls = if is_fleet { Calls::Answers } else { Calls::Changes };
        let now = self.relay.clock.now();
        let (page, known, groups) = blocking(move || {
            let is_held = move |at| is_fleet && changes::is_young(at, now);
            let answers = groups.as_ref().map(|groups| Answers { calls, groups, is_held: &is_held });
            let page = query::events_after(&dir, position, PAGE, answers, &mut known);
            Ok((page, known, groups))
        })
        .await?;
        // After an error it has rows that no page returned: the same page would miss their changes.
        self.known = page.is_ok().then_some(known);
        let mut page = page?;
        if let (Some(fleet), Some(groups)) = (&self.relay.fleet, groups) {
            changes::compare_in_fleet(fleet, &groups, &mut page.events).await;
        }
        Ok(page)
    }

    fn account_groups(&self) -> AccountGroups {
        let config = self.relay.config.load();
        config.accounts().map(|one| (Arc::clone(&one.name), Arc::clone(&one.group))).collect()
    }

    async fn deliver_page(&mut self, client: &Client, page: &Page) {
        for event in &page.events {
            // The configuration is not held during a delivery: its passwords may be retired meanwhile.
            let message = Message::of(event, &self.webhook, &self.relay.config.load());
            if let Some(message) = message {
                self.deliver(client, &message).await;
                self.is_changed = true;
            }
            self.move_to(event.row);
            self.save_if_due(false).await;
        }
        self.move_to(page.through);
    }

    fn move_to(&mut self, row: i64) {
        self.progress.position = row;
        self.position.store(row, Ordering::Relaxed);
    }

    /// Returns when the message is delivered or dead.
    async fn deliver(&mut self, client: &Client, message: &Message) {
        let mut refusals = 0;
        loop {
            if let Some(failure) = self.last_failure.clone() {
                let age = self.relay.clock.now().since(message.at);
                if age > self.webhook.give_up_after {
                    return self.give_up(message, &failure);
                }
                // A receiver that fails may fail for long: what was delivered before is stored.
                self.save_if_due(true).await;
                tokio::time::sleep(next_wait(self.failures, failure.retry_after)).await;
            }
            let now = self.relay.clock.now();
            let Err(failure) = client.post(message, now).await else {
                return self.delivered(message);
            };
            self.failed(message, &failure);
            if failure.is_final {
                refusals += 1;
                if refusals >= REFUSED_ATTEMPTS {
                    self.give_up(message, &failure);
                    // The receiver responds: the next message is sent at once.
                    (self.failures, self.last_failure) = (0, None);
                    return;
                }
            }
        }
    }

    fn delivered(&mut self, message: &Message) {
        let name = &*self.webhook.name;
        if self.failures > 0 {
            tracing::info!(
                webhook = name,
                failures = self.failures,
                "webhook: the receiver accepts messages again"
            );
        }
        (self.failures, self.last_failure) = (0, None);
        self.progress.delivered += 1;
        self.relay.metrics.webhook_message(name, "delivered");
        tracing::debug!(
            webhook = name,
            id = message.id,
            kind = message.kind,
            row = message.row,
            "webhook: delivered"
        );
    }

    fn failed(&mut self, message: &Message, failure: &Failure) {
        let (name, id) = (&*self.webhook.name, &*message.id);
        self.relay.metrics.webhook_message(name, "failed");
        if self.failures == 0 {
            tracing::warn!(webhook = name, id, error = %failure, "webhook: not delivered, and tried again");
        } else {
            tracing::debug!(webhook = name, id, error = %failure, "webhook: not delivered, and tried again");
        }
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(failure.clone());
    }

    fn give_up(&mut self, message: &Message, failure: &Failure) {
        let Message { id, row, kind, .. } = message;
        let name = &*self.webhook.name;
        tracing::error!(webhook = name, id, kind, row, error = %failure, "webhook: the message is given up (dead letter)");
        self.relay.metrics.webhook_message(name, "dead");
        self.progress.dead += 1;
        // While nothing can be stored, a receiver may refuse for long.
        if self.dead.len() >= KEPT_DEAD_LETTERS {
            self.dead.pop_front();
        }
        self.dead.push_back(DeadLetter {
            audit_row: *row,
            message: id.clone(),
            kind: kind.clone(),
            at: self.relay.clock.now(),
            error: failure.to_string(),
        });
    }

    /// Stores the progress if enough time has passed, or if deliveries are not stored and `pauses` says that the next one
    /// may be far away.
    async fn save_if_due(&mut self, pauses: bool) {
        let since = self.relay.clock.monotonic().saturating_sub(self.stored);
        let interval = if self.is_changed { STORE_INTERVAL } else { IDLE_STORE_INTERVAL };
        if since >= interval || (self.is_changed && pauses) {
            self.save().await;
        }
    }

    async fn save(&mut self) {
        let (store, name) = (Arc::clone(&self.store), Arc::clone(&self.webhook.name));
        let (progress, dead) = (self.progress, Vec::from(self.dead.clone()));
        self.stored = self.relay.clock.monotonic();
        match blocking(move || store.state.save_webhook(&name, progress, &dead)).await {
            Ok(()) => {
                self.dead.clear();
                self.is_changed = false;
            }
            Err(error) => self.report("cannot store its position, and a restart repeats messages", &error),
        }
    }

    fn report(&self, what: &str, error: &StoreError) {
        tracing::warn!(webhook = %self.webhook.name, %error, "webhook: {what}");
    }
}

/// The wait before the next attempt: at least as long as the receiver asks, up to the limit.
fn next_wait(failures: u32, asked: Option<Duration>) -> Duration {
    wait_after(failures).max(asked.unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

/// The wait after so many failures in a row, shortened by up to half at random.
fn wait_after(failures: u32) -> Duration {
    let whole = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LONGEST_WAIT);
    let mut random = [0; 4];
    // Without randomness the wait has its full length.
    let part = match SystemRandom::new().fill(&mut random) {
        Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
        Err(_) => 0.0,
    };
    whole.mul_f64(1.0 - part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_makes_the_wait_longer_up_to_an_hour_and_never_shorter() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        assert_eq!(next_wait(1, Some(second * 90)), second * 90);
        assert_eq!(next_wait(1, Some(Duration::MAX)), hour);
        assert!(next_wait(10, Some(second)) >= second * 150);
        assert!(next_wait(1, None) <= second);
    }

    #[test]
    fn the_wait_doubles_up_to_five_minutes_and_is_at_least_half_of_that() {
        for (failures, whole) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (u32::MAX, 300)] {
            let whole = Duration::from_secs(whole);
            let wait = wait_after(failures);
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?}");
        }
    }
}
