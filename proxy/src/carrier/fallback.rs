//! Calls for groups with accounts of two APIs: cards of one are not visible to the other.
//!
//! The call that costs least is made first: with the API that answered for the card last, or else with the one whose
//! accounts have no `fallback`. Only a reply that the account has no such card leads to a second call. An action is not
//! sent twice.

use super::dialect::Dialect;
use super::{Attempt, Call, Carrier, NotSent};
use crate::operation::Operation;
use crate::urgency::SharedUrgency;

impl Carrier {
    /// Makes a call for a group. If its accounts are of two APIs, a lookup is made with the one that is called first, or with
    /// the one that answered last (`known`: whether its reply was translated), and then with the other one if the first has
    /// no such card. If neither has it, the first reply is returned.
    ///
    /// # Errors
    /// [`NotSent`]: no call was made.
    pub async fn call(
        &self,
        group: &str,
        call: Call<'_>,
        urgency: &SharedUrgency,
        known: Option<bool>,
    ) -> Result<Attempt, NotSent> {
        let Some(first) = self.first_of_two(group, call.operation, known) else {
            return self.call_accounts(group, call, urgency, None, None).await;
        };
        let attempt = self.call_accounts(group, call, urgency, Some(first), None).await?;
        if !call.operation.is_lookup() || !attempt.lacks_card(first) {
            return Ok(attempt);
        }
        let second = if first == Dialect::V2 { Dialect::V5 } else { Dialect::V2 };
        let other = self.call_accounts(group, call, urgency, Some(second), attempt.transid).await?;
        Ok(if other.lacks_card(second) { attempt } else { other })
    }

    /// Whether the accounts of a group are of two APIs.
    pub fn has_fallback(&self, group: &str) -> bool {
        self.groups.load().get(group).is_some_and(|of| of.iter().any(|one| one.account.is_fallback))
    }

    /// The API that is called first, if a group has accounts of two that serve the operation.
    fn first_of_two(&self, group: &str, operation: &Operation, known: Option<bool>) -> Option<Dialect> {
        let groups = self.groups.load();
        let serving = || {
            groups.get(group).into_iter().flat_map(|of| of.iter()).filter(|one| one.account.serves(operation))
        };
        let of = |is_fallback: bool| {
            let found = serving().find(|one| one.account.is_fallback == is_fallback);
            found.map(|one| one.account.dialect())
        };
        let (first, second) = (of(false)?, of(true)?);
        (first != second).then_some(match known {
            Some(is_translated) if second.is_translated() == is_translated => second,
            _ => first,
        })
    }
}

impl Attempt {
    /// Whether the carrier said, in this dialect, that the account has no such card.
    fn lacks_card(&self, dialect: Dialect) -> bool {
        self.result.as_ref().is_ok_and(|response| dialect.lacks_card(&response.carrier_code()))
    }
}
