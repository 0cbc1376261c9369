//! The state of each account at a moment, for people.

use std::sync::Arc;
use std::time::Duration;

use super::Carrier;
use super::health::OpenBreaker;
use crate::config::Account;
use crate::metrics::BudgetGauges;

/// The state of one account.
#[derive(Clone, Debug)]
pub struct AccountStatus {
    pub account: Arc<Account>,
    /// The group that it belongs to.
    pub group: Arc<str>,
    pub budget: BudgetGauges,
    /// The breakers that are open or half-open, each with the time until a call may pass; none if one may now.
    pub open: Vec<(OpenBreaker, Option<Duration>)>,
    /// The number of the password in use, from 1.
    pub password: usize,
}

impl AccountStatus {
    /// Whether no call of any operation may leave now.
    pub fn is_blocked(&self) -> bool {
        let blocks =
            |(breaker, wait): &(OpenBreaker, Option<Duration>)| breaker.operation.is_none() && wait.is_some();
        self.open.iter().any(blocks) || self.budget.remaining_today == Some(0)
    }
}

impl Carrier {
    /// The state of each account, group by group.
    pub fn statuses(&self) -> Vec<AccountStatus> {
        let groups = self.groups.load();
        let of_group = groups.iter().flat_map(|(group, of)| of.iter().map(move |one| (group, one)));
        let mut all: Vec<_> = of_group
            .map(|(group, one)| AccountStatus {
                account: Arc::clone(&one.account),
                group: Arc::clone(group),
                budget: one.gauges().budget,
                open: one.waits(),
                password: one.password_in_use(),
            })
            .collect();
        all.sort_by(|one, other| (&one.group, &one.account.name).cmp(&(&other.group, &other.account.name)));
        all
    }
}
