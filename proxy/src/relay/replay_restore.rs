//! Reads the used transids back from the audit: at the start, and after the clock was set back.
//!
//! Reading starts one window before the newest record, or before now if that is earlier: a clock that is ahead reads all
//! that a right one would. A request's record is never older than its transid's stamp minus the window (`clock`), so the
//! records are found by their horizon. The window may have been wider at that time: `state.db` stores the widest that may
//! still matter.

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

/// The results of the last read of the audit.
#[derive(Debug, Default)]
pub struct ReplayRestore {
    /// Records of stamps before this second are unreadable; 0 if all are readable, or if the audit reports the loss itself.
    unreadable_before: AtomicU64,
    /// The widest window, of those in which still relevant transids were accepted, in seconds.
    widest_window: AtomicU64,
    /// The number of acknowledged losses at the last check.
    acknowledgements: AtomicU64,
}

impl Relay {
    /// Restores the used transids from the audit, so that they are refused. Stamps whose records are unreadable are
    /// refused. At the start, actions with an intent and without a record are opened again. Blocks.
    ///
    /// # Errors
    /// The newest segment cannot be read.
    pub fn restore_used_transids(&self, start: bool) -> Result<(), StoreError> {
        let replay = self.admit.replay();
        replay.begin_restore();
        let read = self.read_used(start);
        match &read {
            // Transids of rows that were lost since the start cannot be restored, so those that have left memory stay
            // refused.
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

    /// Stores the window in use from now on for the next start. Blocks.
    ///
    /// # Errors
    /// The newest segment cannot be read, or the window cannot be written.
    pub fn store_window(&self, state: &StateStore) -> Result<(), StoreError> {
        let now = self.clock.now();
        let newest = self.audit_reader.newest_record()?.unwrap_or(now);
        let window = self.admit.replay_horizon();
        let widest = state.keep_window(window, newest.max(now), newest.min(now).minus(window))?;
        self.replay_restore.widest_window.store(widest.as_secs(), Ordering::Relaxed);
        Ok(())
    }

    /// The greatest time by which a record may be older than the stamp of its transid.
    fn max_record_lag(&self) -> Duration {
        self.admit
            .replay_horizon()
            .max(Duration::from_secs(self.replay_restore.widest_window.load(Ordering::Relaxed)))
    }

    /// Whether a loss was acknowledged since the last check. If so, the audit must be read again: requests that were refused
    /// because of that loss may be accepted.
    pub(super) fn has_new_acknowledgement(&self) -> bool {
        let written = self.audit.acknowledgements();
        self.replay_restore.acknowledgements.swap(written, Ordering::Relaxed) != written
    }

    /// Reads the used transids. Returns the first second from which all are read, and the first from which all are readable.
    fn read_used(&self, start: bool) -> Result<(u64, u64), StoreError> {
        let now = self.clock.now();
        let newest = self.audit_reader.newest_record()?;
        let window = self.admit.replay_horizon();
        // Without a record, nothing is left unread.
        let from = newest.map_or(Time::EPOCH, |newest| newest.min(now).minus(window));
        let parse = |transid: &str| Transid::parse(transid).ok().as_ref().map(TransidKey::of);
        let key = |transid: &str| parse(transid).filter(|key| key.unix() >= from.as_secs());
        let mut open = HashMap::new();
        let actions = self.audit_reader.begun_since(from.minus(self.max_record_lag()), |past| {
            if let Some(transid) = key(past.transid) {
                open.insert(Action { client: past.client, transid }, past.row);
            }
        })?;
        let [only_if_cached, reused, begun] =
            [Refusal::OnlyIfCached, Refusal::ReusedTransid, Refusal::Begun(None)]
                .map(|refusal| refusal.describe().reason);
        let records = self.audit_reader.authenticated_since(from.minus(self.max_record_lag()), |past| {
            // The record of a reuse may be the only one of its transid, if the first request could not be recorded.
            let used = past.outcome != Outcome::Refused.name()
                || past.reason == Some(only_if_cached)
                || past.reason == Some(reused);
            // A request that was refused because the node was alone has not used its transid.
            let alone = past.reason == Some(Refusal::ALONE);
            let used = used && !(alone && past.outcome == Outcome::Failed.name());
            // The reason of a failure replaces that of being alone.
            let may_be_alone = alone || past.outcome == Outcome::Failed.name();
            // Also of an older stamp: this node's clock may be ahead, and the others accept the stamp.
            if let Some(transid) = parse(past.transid).filter(|_| used && may_be_alone && start) {
                self.list_alone(past.client, transid);
            }
            if let Some(transid) = key(past.transid).filter(|_| used) {
                if past.reason != Some(begun) && past.reason != Some(reused) {
                    // The record states its result.
                    open.remove(&Action { client: past.client, transid });
                }
                self.admit.restore_used(&past.client, transid);
            }
            ControlFlow::Continue(())
        })?;
        for (action, row) in open {
            self.admit.restore_used(&action.client, action.transid);
            // A running process has its own actions in memory.
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

    /// Refuses stamps whose records are unreadable. Those of rows that an anchor proves lost are refused until the loss is
    /// acknowledged.
    pub(super) fn refuse_lost_stamps(&self) {
        let window = self.max_record_lag();
        let through = |through: Time| through.plus(window).as_secs() + 1;
        let lost = self.audit.lost().map_or(0, |lost| through(lost.through));
        self.admit
            .replay()
            .set_lost_before(lost.max(self.replay_restore.unreadable_before.load(Ordering::Relaxed)));
    }

    /// Restores the used transids on a thread of their own.
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
                tracing::error!(%error, "cannot restore the used transids: older stamps stay refused");
            }
        });
    }
}
