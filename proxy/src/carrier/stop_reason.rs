//! The stop reason of a card, which only API v5 has: a call for an operator.

use cmiot_signer::Card;

use super::dialect::Dialect;
use super::{Attempt, Call, Carrier, NotSent};
use crate::operation::{Parameters, STOP_REASON};
use crate::urgency::{SharedUrgency, Urgency};

impl Carrier {
    /// Whether a group has an account that can be asked for stop reasons.
    pub fn knows_stop_reasons(&self, group: &str) -> bool {
        let groups = self.groups.load();
        let mut accounts = groups.get(group).into_iter().flat_map(|of| of.iter());
        accounts.any(|one| one.account.dialect() == Dialect::V5)
    }

    /// Makes a call for the stop reason of a card, with an account of API v5 of the group: within its budget and breakers,
    /// retried and recorded as a lookup. Misses of gateways come first.
    ///
    /// # Errors
    /// [`NotSent`] when no such account may send a call.
    pub async fn stop_reason(&self, group: &str, card: &Card) -> Result<Attempt, NotSent> {
        let parameters = Parameters::default();
        let call = Call { operation: STOP_REASON, card, parameters: &parameters };
        let urgency = SharedUrgency::new(Urgency::Refresh);
        self.call_accounts(group, call, &urgency, Some(Dialect::V5), None).await
    }
}
