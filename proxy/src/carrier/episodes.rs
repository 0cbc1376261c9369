//! The log of an account's conditions: a WARN when one begins, an INFO with its start when it ends.
//!
//! | condition | begins | ends |
//! | --- | --- | --- |
//! | a breaker, a cool-down | it opens | a call closes it |
//! | the calls of the day are spent | a call is refused for it | midnight at UTC+8, or a higher limit |
//! | the budget's queue is full, or too slow | a call is refused for it | no call was refused for [`QUIET`] |

use std::collections::HashMap;
use std::time::Duration;

use super::health::{Health, OpenBreaker};
use super::verdict::Code;
use crate::clock::Moment;
use crate::episode::{Episode, whole_millis};

/// The time without a refused call after which the budget suffices again.
const QUIET: Duration = Duration::from_secs(60);

/// The conditions of one account that hold.
#[derive(Debug, Default)]
pub(super) struct Episodes {
    /// Name and operation of each breaker that is not closed, with the time when it opened.
    breakers: HashMap<(&'static str, Option<&'static str>), Moment>,
    day: Option<Episode>,
    queue: Option<Episode>,
}

impl Episodes {
    /// Logs the breakers that have opened, and those that have closed.
    pub(super) fn breakers(&mut self, account: &str, health: &Health, now: Moment) {
        let mut open = health.open_breakers().peekable();
        if open.peek().is_none() && self.breakers.is_empty() {
            return;
        }
        let open: Vec<_> = open.collect();
        for OpenBreaker { breaker, operation, failure } in &open {
            self.breakers.entry((*breaker, *operation)).or_insert_with(|| {
                let code = failure.as_ref().and_then(|failure| failure.code.as_ref()).map(Code::as_str);
                tracing::warn!(account, breaker, operation, code, "{}", opened(breaker));
                now
            });
        }
        self.breakers.retain(|(breaker, operation), at| {
            let is_open = open.iter().any(|one| one.breaker == *breaker && one.operation == *operation);
            if !is_open {
                let lasted = whole_millis(now.monotonic.saturating_sub(at.monotonic));
                let since = at.wall;
                tracing::info!(account, breaker, operation, %since, ?lasted, "{}", closed(breaker));
            }
            is_open
        });
    }

    /// A call was refused by the budget; `day_spent` tells whether since the calls of the day are spent.
    pub(super) fn budget_refused(&mut self, account: &str, day_spent: bool, now: Moment) {
        let episode = if day_spent { &mut self.day } else { &mut self.queue };
        if !Episode::record(episode, now) {
            return;
        }
        if day_spent {
            tracing::warn!(
                account,
                "budget: the calls of this day are spent (calls_per_day), and none is sent before midnight at UTC+8"
            );
        } else {
            tracing::warn!(
                account,
                "budget: a call is not sent, since those before it in the queue take too long (calls_per_second, \
                 max_concurrent_calls)"
            );
        }
    }

    /// Logs the ends of the budget's conditions; called on a ticker.
    pub(super) fn report(&mut self, account: &str, day_spent: bool, now: Duration) {
        if let Some(day) = self.day.take_if(|_| !day_spent) {
            let (since, lasted, refused) = (day.since(), day.lasted(now), day.events());
            tracing::info!(account, %since, ?lasted, refused, "budget: the account has calls left again");
        }
        if let Some(queue) = self.queue.take_if(|queue| queue.has_ended(now, QUIET)) {
            let (since, lasted, refused) = (queue.since(), queue.length(), queue.events());
            tracing::info!(account, %since, ?lasted, refused, "budget: the queue suffices again");
        }
    }
}

fn opened(breaker: &str) -> &'static str {
    match breaker {
        "cool-down" => "cool-down: the carrier throttles the account, and no call is sent for a while",
        "credentials" => "breaker opened: the carrier refuses the account",
        "subscription" => "breaker opened: the carrier refuses the account for this operation",
        _ => "breaker opened: calls failed in a row",
    }
}

fn closed(breaker: &str) -> &'static str {
    if breaker == "cool-down" {
        "cool-down ended: calls are sent again"
    } else {
        "breaker closed: calls are sent again"
    }
}
