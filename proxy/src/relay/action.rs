//! An action on its way: its intent is committed, then it is sent. The rules stand in [`crate::admit::actions`].

use std::sync::Arc;
use std::time::Duration;

use super::fetch::FetchResult;
use super::{Relay, Selected, flight_owner, wait_for_fetch};
use crate::admit::actions::Action;
use crate::admit::replay::TransidKey;
use crate::audit::Record;
use crate::cache::Key;
use crate::config::Client;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::store::audit::BegunRow;
use crate::wire::response::CacheStatus;

impl Relay {
    /// An action is sent once, shared with nobody and kept nowhere. Who asked may leave: it is sent all the same.
    pub(super) async fn forward_action(
        self: &Arc<Self>,
        client: &Client,
        key: &Key,
        number: TransidKey,
        started: Duration,
        record: &mut Record,
    ) -> Result<Selected, Refusal> {
        let action = Action { client: client.appid, number };
        let Some(intent) = record.intent() else { return Err(Refusal::TaskFailed) };
        self.actions.register(action);
        let (relay, flying) = (Arc::clone(self), key.clone());
        let seat = self.flights.start_unshared(Some(flight_owner(client)), |pressure| async move {
            match relay.commit_intent(action, intent).await {
                Ok(()) => relay.send(&flying, &pressure).await,
                Err(refusal) => FetchResult { call: None, result: Err(refusal) },
            }
        });
        let Ok(seat) = seat else {
            self.actions.end(action);
            return Err(Refusal::Overloaded);
        };
        record.set_action(Some(action));
        let landing = match wait_for_fetch(Ok(seat), self.time_left(started, false)).await {
            Ok((_, landing)) => landing,
            Err(_) => {
                let refusal = self.actions.abandon(action);
                if refusal == Refusal::Audit {
                    record.set_action(None);
                }
                return Err(refusal);
            }
        };
        if landing.result.as_ref().is_err_and(|refusal| *refusal == Refusal::Audit) {
            record.set_action(None);
        }
        if let Some(call) = &landing.call {
            record.called(&call.account, call.transid.as_ref());
        }
        let entry = match landing.result {
            Ok(brought) => brought.entry,
            Err(Refusal::Carrier(fault)) if fault.may_be_done() => return Err(self.actions.abandon(action)),
            Err(refusal) => return Err(refusal),
        };
        Ok(Selected { outcome: Outcome::Miss, entry, cache_status: CacheStatus::Bypass })
    }

    /// Commits the intent. Unless that is done, and somebody still waits, nothing may be sent.
    async fn commit_intent(&self, action: Action, intent: BegunRow) -> Result<(), Refusal> {
        match self.audit.begin_action(intent).await {
            Ok(row) if self.actions.begin(action, row) => Ok(()),
            _ => Err(self.actions.abandon(action)),
        }
    }
}
