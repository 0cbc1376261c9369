//! Retries of a lookup: at most one for each reason. An action is sent once.

use std::sync::Arc;
use std::time::Duration;

use super::Attempt;
use super::account::Next;
use super::verdict::Class;
use crate::operation::Operation;

/// Retries that are left to a call.
#[derive(Debug)]
pub(super) struct Retries {
    /// With the account's other password.
    password: bool,
    /// With another account of the group.
    account: bool,
    /// The same call again.
    same: bool,
    /// With another token.
    token: bool,
    /// The account that was refused or throttled.
    refused: Option<Arc<str>>,
}

impl Retries {
    pub(super) fn of(operation: &Operation) -> Self {
        let allowed = operation.is_lookup();
        Self { password: allowed, account: allowed, same: allowed, token: allowed, refused: None }
    }

    /// The account that is not to be used again.
    pub(super) fn refused_account(&self) -> Option<&Arc<str>> {
        self.refused.as_ref()
    }

    /// Takes the retry of the same call with the same account, by another token if the last one was refused, and returns how long to wait before it. The breakers count
    /// the result of the retry alone.
    pub(super) fn take_same(&mut self, attempt: &Attempt) -> Option<Duration> {
        if attempt.is_token_refused() {
            return std::mem::take(&mut self.token).then_some(Duration::ZERO);
        }
        let pause = pause(attempt)?;
        std::mem::take(&mut self.same).then_some(pause)
    }

    /// Takes the retry with another password or another account, if that helps after this attempt.
    pub(super) fn take_other(&mut self, attempt: &Attempt, next: &Next) -> bool {
        if *next == Next::OtherPassword && std::mem::take(&mut self.password) {
            return true;
        }
        attempt.is_account_refused() && self.take_account(&attempt.account)
    }

    /// Takes the retry with another account than this one.
    pub(super) fn take_account(&mut self, account: &Arc<str>) -> bool {
        let is_taken = std::mem::take(&mut self.account);
        if is_taken {
            self.refused = Some(Arc::clone(account));
        }
        is_taken
    }
}

/// The pause before the same call is sent again; `None` if that does not help or may be counted twice.
fn pause(attempt: &Attempt) -> Option<Duration> {
    let number = attempt.transid.map_or(0, |transid| transid.sequence().get());
    match &attempt.result {
        Ok(response) if response.verdict.class == Class::Busy => Some(jitter(number)),
        Err(fault) if fault.may_retry() => Some(Duration::ZERO),
        _ => None,
    }
}

/// 100 to 500 ms, spread by the sequence number of the call.
fn jitter(number: u32) -> Duration {
    // Knuth's multiplicative hash: neighbours in the sequence land far apart.
    let spread = number.wrapping_mul(2_654_435_761) >> 22;
    Duration::from_millis(100 + u64::from(spread) % 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_of_neighbours_differ() {
        let pauses: std::collections::HashSet<_> = (1..=50).map(jitter).collect();
        assert!(pauses.len() > 25, "{}", pauses.len());
        assert!(pauses.iter().all(|pause| (100..500).contains(&pause.as_millis())));
    }
}
