//! The check of a transid against those that the other nodes of a fleet have accepted.
//!
//! The node's own replay cache has accepted the transid before. An action is always checked: it is executed once in the
//! fleet, and refused with 73 while the database is away, whatever `when_alone` says. A lookup is checked under
//! `[fleet] replay = "shared"`. A transid that another node has accepted is refused with 7, as one of this node's: a retry
//! under `replay = "same-answer"` gets the response again at the same node only, since no other node knows the request that
//! the transid was used for. Lookups under `replay = "observe"` are never refused, and therefore not checked.
//!
//! A request that is refused because the node is alone leaves its transid unused: the same request is accepted later, once,
//! also if the statement has inserted its transid.

use std::sync::Arc;

use cmiot_signer::AppId;
use tokio_util::sync::CancellationToken;

use super::select::Selected;
use super::{Awaited, Exchange, Pending, Query, Relay};
use crate::config::fleet::{FleetReplay, WhenAlone};
use crate::fleet::replay::{Check, SharedReplay, Upkeep, UsedTransid, Verdict};
use crate::refusal::Refusal;
use crate::store::audit::AuditStore;
use crate::wire::transid::TransidKey;

/// A check in progress.
pub(super) struct FleetCheck {
    shared: Arc<SharedReplay>,
    transid: TransidKey,
    check: Check,
}

impl Relay {
    /// Keeps the transids of the fleet, until `stop`; ends at once without a fleet.
    pub async fn keep_shared_replay(self: Arc<Self>, audit: Arc<AuditStore>, stop: CancellationToken) {
        let Some(shared) = self.shared_replay.clone() else { return };
        let upkeep = Upkeep {
            window: || self.admit.replay_horizon(),
            first_number: |unix| TransidKey::first_of(unix).number(),
            audit,
        };
        // What is dropped here is found in the audit at the next start.
        stop.run_until_cancelled(shared.run(upkeep)).await;
    }

    /// Starts the check of a transid that this request alone may be executed with. None if the request need not wait for
    /// it.
    ///
    /// # Errors
    /// [`Refusal::Alone`].
    pub(super) fn check_in_fleet(
        &self,
        query: &Query,
        exclusive: Option<TransidKey>,
        exchange: &mut Exchange,
    ) -> Result<Option<FleetCheck>, Refusal> {
        let (Some(shared), Some(transid)) = (&self.shared_replay, exclusive) else { return Ok(None) };
        let fleet = shared.fleet();
        if query.key.operation.is_lookup() && fleet.settings.replay == FleetReplay::Local {
            return Ok(None);
        }
        if fleet.life().is_none() {
            return self.decide_alone(shared, query, transid, exchange).map(|()| None);
        }
        let check = shared.check(used(query, transid));
        Ok(Some(FleetCheck { shared: Arc::clone(shared), transid, check }))
    }

    /// Responds to a request if no other node has accepted its transid.
    pub(super) async fn respond_if_new(
        self: &Arc<Self>,
        check: FleetCheck,
        query: Query,
        client_gone: &CancellationToken,
        exchange: &mut Exchange,
    ) -> Result<Selected, Refusal> {
        let FleetCheck { shared, transid, check } = check;
        match check.verdict().await {
            Verdict::New => {}
            Verdict::Alone => self.decide_alone(&shared, &query, transid, exchange)?,
            Verdict::Used => {
                return Err(self.used_elsewhere(&query, transid, Refusal::ReusedTransid, exchange));
            }
            Verdict::Expired => {
                let refusal = Refusal::StaleTransid(exchange.arrived.wall);
                return Err(self.used_elsewhere(&query, transid, refusal, exchange));
            }
        }
        let awaited = if query.key.operation.is_lookup() {
            match self.look_up(&self.config.load(), &query, exchange) {
                Ok(selected) => return Ok(selected),
                Err(candidate) => Awaited::Fetch(candidate),
            }
        } else {
            Awaited::Action(transid)
        };
        // Boxed: a hit does not pay for its space.
        Box::pin(self.respond_later(Pending { query, awaited }, client_gone, exchange)).await
    }

    /// Refuses a transid for good: it stays marked used, and no response is stored for its retries.
    fn used_elsewhere(
        &self,
        query: &Query,
        transid: TransidKey,
        refusal: Refusal,
        exchange: &mut Exchange,
    ) -> Refusal {
        self.admit.idempotency.refused(query.client.appid, transid);
        exchange.record.not_admitted();
        refusal
    }

    /// Lists a transid that the node accepted alone before a restart, for a later insertion.
    pub(super) fn list_alone(&self, client: AppId, transid: TransidKey) {
        if let Some(shared) = &self.shared_replay {
            shared.accept_alone(UsedTransid { number: transid.number(), client });
        }
    }

    /// Accepts a transid that the database could not be asked about, or refuses it.
    fn decide_alone(
        &self,
        shared: &SharedReplay,
        query: &Query,
        transid: TransidKey,
        exchange: &mut Exchange,
    ) -> Result<(), Refusal> {
        let is_lookup = query.key.operation.is_lookup();
        if is_lookup && shared.fleet().settings.when_alone == WhenAlone::Serve {
            shared.accept_alone(used(query, transid));
            exchange.record.accepted_alone();
            return Ok(());
        }
        self.admit.replay().unmark(&query.client.appid, transid);
        exchange.record.not_admitted();
        Err(Refusal::Alone)
    }
}

fn used(query: &Query, transid: TransidKey) -> UsedTransid {
    UsedTransid { number: transid.number(), client: query.client.appid }
}
