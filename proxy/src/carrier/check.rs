//! An operator's check of the accounts: one call with each password of each account, and what the reply means.
//!
//! The calls count in the budgets and have their rows in the audit. The breakers do not prevent them, and do not count
//! them: a breaker that a refusal opened closes with the next call that the carrier accepts. In a fleet, a check that the
//! carrier accepts ends the open time of these breakers at each node, so that the next call is sent at once.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::account::AccountState;
use super::budget::Permit;
use super::dialect::Authorization;
use super::verdict::{Class, Code};
use super::{Attempt, Call, Carrier, NotSent, dialect};
use crate::language::{Text, text};
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
    /// Makes one call with each password of each account, one after another, until `stop` is cancelled.
    pub async fn check_accounts(&self, call: Call<'_>, stop: &CancellationToken) -> Vec<Check> {
        let groups = self.groups.load_full();
        let mut states: Vec<_> = groups.values().flat_map(|of| of.iter()).collect();
        states.sort_by(|one, other| one.account.name.cmp(&other.account.name));
        // Misses of gateways come first.
        let urgency = SharedUrgency::new(Urgency::Refresh);
        let mut checks = Vec::new();
        for state in states {
            let account = &state.account;
            for index in 0..account.passwords.len() {
                let result = match self.may_send(call.operation) {
                    Ok(()) => {
                        let taking = state.take_budget(&urgency);
                        stop.run_until_cancelled(taking).await.unwrap_or(Err(NotSent::Shutdown))
                    }
                    Err(not_sent) => Err(not_sent),
                };
                let result = match result {
                    // Until the call has ended, it counts among those in flight.
                    Ok(permit) => {
                        let checked = self.check_password(state, index, call, permit, &urgency).await;
                        if let Ok(attempt) = &checked {
                            self.end_shared_rests(state, call.operation.name, attempt);
                        }
                        checked
                    }
                    Err(not_sent) => Err(not_sent),
                };
                checks.push(Check { account: Arc::clone(&account.name), password: index, result });
            }
        }
        checks
    }

    /// One call with one password: signed with it, or with a token that is requested with it. `budget` is one call.
    ///
    /// # Errors
    /// [`NotSent`]: the budget has no call after the request for a token.
    async fn check_password(
        &self,
        state: &AccountState,
        index: usize,
        call: Call<'_>,
        mut budget: Permit,
        urgency: &SharedUrgency,
    ) -> Result<Attempt, NotSent> {
        let account = &state.account;
        if !account.dialect().needs_token() {
            let authorization = Authorization::Password(&account.passwords[index]);
            return Ok(self.attempt_with(account, authorization, call, None).await);
        }
        let mut force = false;
        let token = loop {
            let requested = match self.token_of_password(state, index, force).await {
                Ok(requested) => requested,
                Err(attempt) => return Ok(attempt),
            };
            // The request for the token has used the call of the budget, which may be the only one at once.
            drop(budget);
            budget = state.take_budget(urgency).await?;
            match requested {
                Some(token) => break token,
                None => force = true,
            }
        };
        Ok(self.attempt_with(account, Authorization::Token(token.text()), call, None).await)
    }
}

/// Whether the carrier accepts the account, and what its reply means for the operator.
pub fn judge(attempt: &Attempt) -> (bool, Text) {
    match &attempt.result {
        Ok(response) => {
            let class = response.verdict.class;
            let accepted = !class.refuses_account() && class != Class::TokenRefused;
            (accepted, meaning(accepted, &response.carrier_code()))
        }
        Err(fault) => (false, text!("{fault}", "调用失败：{fault}")),
    }
}

/// The meaning of a code for the operator, where the carrier accepts the account or refuses it.
pub fn meaning(accepted: bool, code: &Code) -> Text {
    let hint = match accepted {
        true => text!("the carrier accepts the account", "运营商接受该账号"),
        false => dialect::refusal_hint(code),
    };
    Text {
        english: format!("code {code}: {}", hint.english),
        chinese: format!("返回码 {code}：{}", hint.chinese),
    }
}
