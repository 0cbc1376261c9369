//! The task that keeps the accounts in step with the other nodes of a fleet: beats, rests and reserves.
//!
//! Rests are compared as states, so that a statement that was lost is sent again with the next beat: what the database has
//! of this node, and what the breakers say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::account::AccountState;
use super::health::{Kind, SharedRest};
use super::verdict::{Class, Code};
use super::{Attempt, Carrier};
use crate::fleet::budget::SharedBudget;
use crate::store::fleet::LinkError;
use crate::store::fleet::rest::{Rest, RestKey};

/// The time for which the other nodes wait for the result of the probe after a rest: less than [`Rest::LISTED`].
const PROBE_TIME: Duration = Duration::from_secs(2);

/// The rests of this node that the database has, with their ends.
type Published = HashMap<RestKey, Duration>;

impl Carrier {
    /// Shares the budgets and rests of the accounts with the other nodes of the fleet; returns at once without a fleet, and
    /// else never.
    pub async fn share_accounts(&self) {
        let Some(fleet) = &self.fleet else { return };
        let mut published = Published::new();
        loop {
            if let Err(error) = self.share_once(fleet, &mut published).await {
                tracing::debug!(%error, "budgets and rests are not shared");
            }
            fleet.next_beat().await;
        }
    }

    async fn share_once(&self, fleet: &SharedBudget, published: &mut Published) -> Result<(), LinkError> {
        let groups = self.groups.load_full();
        let accounts: Vec<_> = groups.values().flat_map(|of| of.iter()).collect();
        self.end_rests(fleet).await?;
        self.publish(fleet, &accounts, published).await?;
        let rests = fleet.beat().await?;
        self.apply(fleet, &accounts, &rests, published);
        for account in accounts {
            account.keep_reserve().await;
        }
        Ok(())
    }

    /// Stores the rests of this node that are new or longer, and ends those that have ended.
    async fn publish(
        &self,
        fleet: &SharedBudget,
        accounts: &[&Arc<AccountState>],
        published: &mut Published,
    ) -> Result<(), LinkError> {
        let mut open = Vec::new();
        for account in accounts {
            for own in account.own_rests() {
                let Some(key) = account.rest_key(&own.kind) else { continue };
                open.push(key.clone());
                let Some(until) = own.until.filter(|until| published.get(&key) != Some(until)) else {
                    continue;
                };
                let wait = until.saturating_sub(self.clock.monotonic());
                let code = own.code.as_ref().map(Code::as_str);
                fleet.link().put_rest(fleet.node(), &key, wait, code).await?;
                published.insert(key, until);
            }
        }
        let ended: Vec<_> = published.keys().filter(|key| !open.contains(key)).cloned().collect();
        for key in ended {
            fleet.link().end_rest(&key).await?;
            published.remove(&key);
        }
        Ok(())
    }

    /// Ends the rests that an operator's check has found to be over.
    async fn end_rests(&self, fleet: &SharedBudget) -> Result<(), LinkError> {
        let ended = self.rests_to_end().clone();
        for key in ended {
            fleet.link().end_rest(&key).await?;
            self.rests_to_end().retain(|one| *one != key);
        }
        Ok(())
    }

    /// Applies the rests that other nodes have met, and ends those of this node that were ended elsewhere.
    fn apply(
        &self,
        fleet: &SharedBudget,
        accounts: &[&Arc<AccountState>],
        rests: &[Rest],
        published: &mut Published,
    ) {
        let now = self.clock.monotonic();
        for account in accounts {
            let own: Vec<_> =
                account.own_rests().into_iter().filter_map(|own| account.rest_key(&own.kind)).collect();
            let shared = rests.iter().filter_map(|rest| {
                let kind = Kind::parse(&rest.key.what)?;
                (account.rest_key(&kind)? == rest.key).then_some(())?;
                // The breaker of this node decides about what it has met itself.
                (!own.contains(&rest.key)).then_some(())?;
                shared_rest(kind, rest, rest.node != fleet.node(), now)
            });
            account.set_shared_rests(shared.collect());
            for key in own {
                let is_published = published.get(&key).is_some_and(|until| *until > now);
                let is_listed = rests.iter().any(|rest| rest.key == key);
                if let (true, false, Some(kind)) = (is_published, is_listed, Kind::parse(&key.what)) {
                    account.end_open_time(&kind);
                    published.remove(&key);
                }
            }
        }
    }

    /// After an operator's check of an account: what the carrier accepted does not rest any more, at any node.
    pub(super) fn end_shared_rests(&self, account: &AccountState, operation: &str, attempt: &Attempt) {
        let (Some(fleet), Ok(response)) = (&self.fleet, &attempt.result) else { return };
        let class = response.verdict.class;
        if class.refuses_account() || matches!(class, Class::Throttled | Class::Busy) {
            return;
        }
        let kinds = [Kind::CoolDown, Kind::Credentials, Kind::Subscription(operation.to_owned())];
        self.rests_to_end().extend(kinds.iter().filter_map(|kind| account.rest_key(kind)));
        fleet.wake();
    }
}

/// A rest as this node applies it; none if it has ended.
fn shared_rest(kind: Kind, rest: &Rest, of_another: bool, now: Duration) -> Option<SharedRest> {
    let offset = Duration::from_micros(rest.left.unsigned_abs());
    let end = if rest.left < 0 { now.saturating_sub(offset) } else { now.saturating_add(offset) };
    let until = if of_another { end.saturating_add(PROBE_TIME) } else { end };
    let code = match (&kind, &rest.code) {
        (Kind::CoolDown, _) => None,
        // A refusal without a code that this version can read is as long as a cool-down.
        (_, code) => code.as_deref().and_then(Code::parse),
    };
    (until > now).then_some(SharedRest { kind, until, code })
}
