//! Reads the used transids back from the audit: at the start, and after the clock was set back.
//!
//! What is read begins a window before the newest record, or before now if that is earlier: a clock that is ahead reads
//! all that a right one would. A request's record is never older than its transid's stamp less the window (`clock`), so
//! the records are found by their horizon. The window may have been a wider one then: `state.db` keeps the widest that
//! may still matter.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cmiot_signer::Transid;

use super::Relay;
use crate::admit::actions::Action;
use crate::clock::Time;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::store::StoreError;
use crate::store::state::StateStore;
use crate::wire::transid::TransidKey;

/// What was found when the audit was last read.
#[derive(Debug, Default)]
pub struct ReplayRestore {
    /// Records of stamps before this second cannot be read, 0 when all can or when the audit itself says so.
    unreadable_before: AtomicU64,
    /// The widest window in which transids were accepted that may still matter, in seconds.
    widest_window: AtomicU64,
    /// How many acknowledgements of losses there had been when that was last asked.
    acknowledgements: AtomicU64,
}

impl Relay {
    /// No transid that was used before is answered again: the audit is the proof. Stamps whose records cannot be read are
    /// refused. At the start, actions that were begun and have no record are open again. Blocks.
    ///
    /// # Errors
    /// When the newest segment cannot be read.
    pub fn restore_used_transids(&self, start: bool) -> Result<(), StoreError> {
        let replay = self.admit.replay();
        replay.begin_restore();
        let read = self.read_used(start);
        match &read {
            // What was used in rows that were lost since the start is not read back, so that what has left the memory
            // stays refused.
            Ok((_, unreadable)) if !start && self.audit.lost_while_running() => {
                replay.abandon_restore();
                self.replay_restore.unreadable_before.store(*unreadable, Ordering::Relaxed);
            }
            Ok((from, unreadable)) => {
                replay.finish_restore(*from);
                self.replay_restore.unreadable_before.store(*unreadable, Ordering::Relaxed);
            }
            Err(_) => replay.abandon_restore(),
        }
        self.refuse_lost_stamps();
        read.map(|_| ())
    }

    /// Keeps the window that is used from now on where the next start finds it. Blocks.
    ///
    /// # Errors
    /// When the newest segment cannot be read, or the window not be written.
    pub fn store_window(&self, state: &StateStore) -> Result<(), StoreError> {
        let now = self.clock.now();
        let newest = self.audit_reader.newest_record()?.unwrap_or(now);
        let window = self.admit.replay_horizon();
        let widest = state.keep_window(window, newest.max(now), newest.min(now).minus(window))?;
        self.replay_restore.widest_window.store(widest.as_secs(), Ordering::Relaxed);
        Ok(())
    }

    /// By how much a record may be older than the stamp of its transid.
    fn max_record_lag(&self) -> Duration {
        self.admit
            .replay_horizon()
            .max(Duration::from_secs(self.replay_restore.widest_window.load(Ordering::Relaxed)))
    }

    /// Whether a loss was acknowledged since this was last asked: the past is to be read again, since what was refused for
    /// that loss may be answered.
    pub(super) fn has_new_acknowledgement(&self) -> bool {
        let written = self.audit.acknowledgements();
        self.replay_restore.acknowledgements.swap(written, Ordering::Relaxed) != written
    }

    /// The second from which on all is read, and that up to which it is not.
    fn read_used(&self, start: bool) -> Result<(u64, u64), StoreError> {
        let now = self.clock.now();
        let newest = self.audit_reader.newest_record()?;
        let window = self.admit.replay_horizon();
        // Without a record there is nothing that was not read.
        let from = newest.map_or(Time::EPOCH, |newest| newest.min(now).minus(window));
        let key = |transid: &str| {
            let key = Transid::parse(transid).ok().as_ref().map(TransidKey::of);
            key.filter(|key| key.unix() >= from.as_secs())
        };
        let mut open = HashMap::new();
        let actions = self.audit_reader.begun_since(from.minus(self.max_record_lag()), |past| {
            if let Some(transid) = key(past.transid) {
                open.insert(Action { client: past.client, transid }, past.row);
            }
        })?;
        let only_if_cached = Refusal::OnlyIfCached.describe().reason;
        let begun = Refusal::Begun(None).describe().reason;
        let records = self.audit_reader.authenticated_since(from.minus(self.max_record_lag()), |past| {
            let used = past.outcome != Outcome::Refused.name() || past.reason == Some(only_if_cached);
            if let Some(transid) = key(past.transid).filter(|_| used) {
                if past.reason != Some(begun) {
                    // The record says how it ended.
                    open.remove(&Action { client: past.client, transid });
                }
                self.admit.restore_used(&past.client, transid);
            }
            ControlFlow::Continue(())
        })?;
        for (action, row) in open {
            self.admit.restore_used(&action.client, action.transid);
            // This process knows its own actions.
            if start {
                self.actions.restore(action, row);
            }
        }
        let mut losses = actions;
        losses.extend(records.into_iter().filter(|loss| !losses.contains(loss)).collect::<Vec<_>>());
        let through = self.audit_reader.note_unreadable(&losses, now)?;
        let unreadable = through.map_or(0, |through| through.plus(self.max_record_lag()).as_secs() + 1);
        Ok((from.as_secs(), unreadable))
    }

    /// Refuses stamps whose records cannot be read; those of rows that an anchor knows, until that is acknowledged.
    pub(super) fn refuse_lost_stamps(&self) {
        let window = self.max_record_lag();
        let through = |through: Time| through.plus(window).as_secs() + 1;
        let lost = self.audit.lost().map_or(0, |lost| through(lost.through));
        self.admit
            .replay()
            .set_lost_before(lost.max(self.replay_restore.unreadable_before.load(Ordering::Relaxed)));
    }

    /// Reads the past again, elsewhere.
    pub(super) fn restore_in_background(self: &Arc<Self>) {
        let relay = Arc::clone(self);
        tokio::task::spawn_blocking(move || match relay.restore_used_transids(false) {
            Ok(()) => {
                tracing::info!(
                    transids = relay.admit.used_transids(),
                    "the used transids were read back from the audit"
                );
            }
            Err(error) => {
                tracing::error!(%error, "the used transids cannot be read back: older stamps stay refused");
            }
        });
    }
}
