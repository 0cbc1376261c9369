//! An action on its way: its intent is committed, then it is sent. The rules stand in [`crate::admit::actions`].

use std::sync::Arc;
use std::time::Duration;

use super::fly::Landing;
use super::{Found, Relay, land, who};
use crate::admit::actions::Action;
use crate::admit::replay::Number;
use crate::audit::Record;
use crate::cache::Key;
use crate::config::Client;
use crate::gateway::answer::{CacheStatus, Forwarded};
use crate::outcome::{Outcome, Refusal};
use crate::store::audit::BegunRow;

impl Relay {
    /// An action is sent once, shared with nobody and kept nowhere. Who asked may leave: it is sent all the same.
    pub(super) async fn act(
        self: &Arc<Self>,
        client: &Client,
        key: &Key,
        number: Number,
        started: Duration,
        record: &mut Record,
    ) -> Result<Found, Refusal> {
        let action = Action { client: client.appid, number };
        let Some(intent) = record.intent() else { return Err(Refusal::Lost) };
        self.actions.ask(action);
        let (relay, flying) = (Arc::clone(self), key.clone());
        let seat = self.flights.alone(Some(who(client)), |pressure| async move {
            match relay.begin(action, intent).await {
                Ok(()) => relay.send(&flying, &pressure).await,
                Err(refusal) => Landing { call: None, end: Err(refusal) },
            }
        });
        let Ok(seat) = seat else {
            self.actions.end(action);
            return Err(Refusal::Crowded);
        };
        record.acts(Some(action));
        let landing = match land(Ok(seat), self.patience(started, false)).await {
            Ok((_, landing)) => landing,
            Err(_) => {
                let refusal = self.actions.give_up(action);
                if refusal == Refusal::Audit {
                    record.acts(None);
                }
                return Err(refusal);
            }
        };
        if landing.end.as_ref().is_err_and(|refusal| *refusal == Refusal::Audit) {
            record.acts(None);
        }
        if let Some(call) = &landing.call {
            record.called(&call.account, call.transid.as_ref());
        }
        let entry = match landing.end {
            Ok(brought) => brought.entry,
            Err(Refusal::Carrier(fault)) if fault.may_be_done() => return Err(self.actions.give_up(action)),
            Err(refusal) => return Err(refusal),
        };
        let cache_status = CacheStatus { forwarded: Some(Forwarded::Bypass), ..CacheStatus::default() };
        Ok(Found { outcome: Outcome::Miss, entry, cache_status })
    }

    /// Commits the intent. Unless that is done, and somebody still waits, nothing may be sent.
    async fn begin(&self, action: Action, intent: BegunRow) -> Result<(), Refusal> {
        match self.audit.begin_action(intent).await {
            Ok(row) if self.actions.begin(action, row) => Ok(()),
            _ => Err(self.actions.give_up(action)),
        }
    }
}
