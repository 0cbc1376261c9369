//! Values of the accounts when `/metrics` is requested: `carrier` fills them.

use std::sync::Arc;

/// The values of one account.
#[derive(Clone, Debug)]
pub struct AccountGauges {
    /// The account's name.
    pub account: Arc<str>,
    /// Its budget.
    pub budget: BudgetGauges,
    /// Its breakers.
    pub breakers: BreakerGauges,
}

/// The values of an account's budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BudgetGauges {
    /// Calls that wait for the budget.
    pub waiting: usize,
    /// Calls that may leave in any second, where there is a limit.
    pub per_second: Option<u32>,
    /// Calls from midnight to midnight at UTC+8, where there is a limit.
    pub per_day: Option<u64>,
    /// Calls left until midnight at UTC+8, where there is a limit.
    pub remaining_today: Option<u64>,
    /// The most that may remain, at the begin of a day: in a fleet without the reserves of the other nodes.
    pub attainable_today: Option<u64>,
    /// Calls left of this node's reserve of today, in a fleet with a limit.
    pub reserve_today: Option<u64>,
}

/// The state of each breaker of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BreakerGauges {
    /// Opened by failures and busy codes.
    pub transport: BreakerState,
    /// Opened by throttled codes.
    pub cool_down: BreakerState,
    /// Opened by refused credentials.
    pub credentials: BreakerState,
    /// Opened by a refused subscription: the worst state among the operations.
    pub subscription: BreakerState,
}

/// A breaker's state, the better before the worse; its number is the metric's value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum BreakerState {
    /// Calls pass.
    #[default]
    Closed = 0,
    /// One call passes, as a probe.
    HalfOpen = 1,
    /// No call passes.
    Open = 2,
}

impl BreakerGauges {
    /// Each state with the value of the label `breaker`.
    pub(super) fn by_name(self) -> [(&'static str, BreakerState); 4] {
        let Self { transport, cool_down, credentials, subscription } = self;
        [
            ("transport", transport),
            ("cool-down", cool_down),
            ("credentials", credentials),
            ("subscription", subscription),
        ]
    }
}
