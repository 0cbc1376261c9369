//! The forwarding of an action: its intent is committed, then it is sent. [`crate::admit::actions`] states the rules.

use std::sync::Arc;

use super::fetch::FetchResult;
use super::select::Selected;
use super::{Exchange, Query, Relay, wait_for_fetch};
use crate::admit::actions::Action;
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::store::audit::BegunRow;
use crate::wire::request::Request;
use crate::wire::response::CacheStatus;
use crate::wire::transid::TransidKey;

impl Relay {
    /// Sends an action once. It is neither shared nor cached, and is sent even if its client disconnects.
    pub(super) async fn forward_action(
        self: &Arc<Self>,
        query: &Query,
        transid: TransidKey,
        exchange: &mut Exchange,
    ) -> Result<Selected, Refusal> {
        let action = Action { client: query.client.appid, transid };
        let Some(intent) = exchange.record.intent() else { return Err(Refusal::TaskFailed) };
        self.actions.register(action);
        let (relay, key) = (Arc::clone(self), query.key.clone());
        let waiter = self.flights.start_unshared(Some(query.owner()), |urgency| async move {
            match relay.commit_intent(action, intent).await {
                Ok(()) => relay.call_carrier(&key, &urgency).await,
                Err(refusal) => FetchResult::Failed { call: None, refusal },
            }
        });
        let Ok(waiter) = waiter else {
            self.actions.end(action);
            return Err(Refusal::Overloaded);
        };
        exchange.record.set_action(Some(action));
        let fetched = match wait_for_fetch(waiter, self.time_left(exchange, false)).await {
            Ok((_, fetched)) => fetched,
            Err(_) => FetchResult::Failed { call: None, refusal: self.actions.abandon(action) },
        };
        if let Some(call) = fetched.call() {
            exchange.record.called(&call.account, call.transid.as_ref());
        }
        match fetched {
            FetchResult::AlreadyCached(entry)
            | FetchResult::FromFleet(entry)
            | FetchResult::Response { entry, .. } => {
                Ok(Selected { outcome: Outcome::Miss, entry, cache_status: CacheStatus::Bypass })
            }
            FetchResult::Failed { refusal: Refusal::Audit, .. } => {
                exchange.record.set_action(None);
                Err(Refusal::Audit)
            }
            FetchResult::Failed { refusal: Refusal::Carrier(fault), .. } if fault.may_be_done() => {
                Err(self.actions.abandon(action))
            }
            FetchResult::Failed { refusal, .. } => Err(refusal),
        }
    }

    /// Commits the intent. Unless it is committed and a request still waits, nothing may be sent.
    async fn commit_intent(&self, action: Action, intent: BegunRow) -> Result<(), Refusal> {
        match self.audit.begin_action(intent).await {
            Ok(row) if self.actions.begin(action, row) => Ok(()),
            _ => Err(self.actions.abandon(action)),
        }
    }

    /// The refusal of a used transid, with the row of the action that it may have been used for.
    pub(super) fn refuse_action(&self, request: &Request<'_>, refusal: Refusal) -> Refusal {
        match request.transid.key() {
            Some(transid) if refusal == Refusal::ReusedTransid && !request.operation.is_lookup() => {
                self.actions.refusal(Action { client: request.appid, transid }).unwrap_or(refusal)
            }
            _ => refusal,
        }
    }
}
