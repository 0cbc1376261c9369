//! An operator's check of the accounts: one call with each password of each account, and what the reply means.
//!
//! The calls count in the budgets and have their rows in the audit. The breakers do not prevent them, and do not count
//! them: a breaker that a refusal opened closes with the next call that the carrier accepts.

use std::sync::Arc;

use super::{Attempt, Call, Carrier, NotSent};
use crate::operation::USER_STATUS;
use crate::urgency::{SharedUrgency, Urgency};

/// The result of a check with one password.
#[derive(Clone, Debug)]
pub struct Check {
    /// The account's name.
    pub account: Arc<str>,
    /// The index of the password: 0 is the first, 1 the next one during a change.
    pub password: usize,
    /// The call, or the reason for not sending it.
    pub result: Result<Attempt, NotSent>,
}

impl Carrier {
    /// Makes one call with each password of each account, one after another.
    pub async fn check_accounts(&self, call: Call<'_>) -> Vec<Check> {
        let groups = self.groups.load_full();
        let mut states: Vec<_> = groups.values().flat_map(|of| of.iter()).collect();
        states.sort_by(|one, other| one.account.name.cmp(&other.account.name));
        // Misses of gateways come first.
        let urgency = SharedUrgency::new(Urgency::Refresh);
        let mut checks = Vec::new();
        for state in states {
            let account = &state.account;
            for (index, password) in account.passwords.iter().enumerate() {
                let result = match self.may_send(call.operation) {
                    Ok(()) => state.take_budget(&urgency).await,
                    Err(not_sent) => Err(not_sent),
                };
                let result = match result {
                    // Until the call has ended, it counts among those in flight.
                    Ok(_permit) => Ok(self.attempt(account, password, call, None).await),
                    Err(not_sent) => Err(not_sent),
                };
                checks.push(Check { account: Arc::clone(&account.name), password: index, result });
            }
        }
        checks
    }
}

/// Whether the carrier accepts the account, and what its reply means for the operator.
pub fn judge(attempt: &Attempt) -> (bool, String) {
    match &attempt.result {
        Ok(response) => {
            let code = response.verdict.code;
            let refused = response.verdict.class.refuses_account();
            let hint = if refused {
                USER_STATUS.dialect.refusal_hint(&code)
            } else {
                "the carrier accepts the account"
            };
            (!refused, format!("code {code}: {hint}"))
        }
        Err(fault) => (false, fault.to_string()),
    }
}
