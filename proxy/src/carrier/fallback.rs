//! Calls for groups with accounts of several APIs: cards of one are not visible to the others.
//!
//! The call that costs least is made first: with the API that answered for the card last, or else with the one whose
//! accounts have no `fallback`. Only a reply that the account has no such card leads to a call with the next one. An action is
//! not sent twice.

use super::dialect::Dialect;
use super::{Attempt, Call, Carrier, NotSent};
use crate::operation::Operation;
use crate::urgency::SharedUrgency;

impl Carrier {
    /// Makes a call for a group. If its accounts are of several APIs, a lookup is made with the one that is called first, or
    /// with the one that answered last (`known`: whether its reply was translated), and with the next one while the account
    /// has no such card. If none has it, the first reply is returned.
    ///
    /// # Errors
    /// [`NotSent`]: no call was made, or the next API was due and could not be called.
    pub async fn call(
        &self,
        group: &str,
        call: Call<'_>,
        urgency: &SharedUrgency,
        known: Option<bool>,
    ) -> Result<Attempt, NotSent> {
        let dialects = self.dialects(group, call.operation, known);
        let [first, others @ ..] = dialects.as_slice() else {
            return self.call_accounts(group, call, urgency, None, None).await;
        };
        let attempt = self.call_accounts(group, call, urgency, Some(*first), None).await?;
        if !call.operation.is_lookup() || !attempt.lacks_card(*first) {
            return Ok(attempt);
        }
        let mut previous = attempt.transid;
        for dialect in others {
            let other = self.call_accounts(group, call, urgency, Some(*dialect), previous).await?;
            if !other.lacks_card(*dialect) {
                return Ok(other);
            }
            previous = other.transid.or(previous);
        }
        Ok(attempt)
    }

    /// Whether the accounts of a group are of several APIs.
    pub fn has_fallback(&self, group: &str) -> bool {
        self.groups.load().get(group).is_some_and(|of| of.iter().any(|one| one.account.is_fallback))
    }

    /// The APIs of a group's accounts that serve the operation, in the order of the calls.
    fn dialects(&self, group: &str, operation: &Operation, known: Option<bool>) -> Vec<Dialect> {
        let groups = self.groups.load();
        let serving = groups.get(group).into_iter().flat_map(|of| of.iter().map(|one| &one.account));
        let mut accounts: Vec<_> = serving.filter(|account| account.serves(operation)).collect();
        accounts.sort_by_key(|account| account.is_fallback);
        let mut dialects = Vec::new();
        for account in accounts {
            if !dialects.contains(&account.dialect()) {
                dialects.push(account.dialect());
            }
        }
        dialects.sort_by_key(|dialect| known.is_some_and(|known| dialect.is_translated() != known));
        dialects
    }
}

impl Attempt {
    /// Whether the carrier said, in this dialect, that the account has no such card.
    fn lacks_card(&self, dialect: Dialect) -> bool {
        self.result.as_ref().is_ok_and(|response| dialect.lacks_card(&response.carrier_code()))
    }
}
