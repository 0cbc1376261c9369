//! The carrier's limits: calls per second of all accounts (71), and per second (72) and per day (75) of one account.
//!
//! A second is a sliding window (a call passes if fewer calls than the limit passed in the second before it), the
//! strictest reading; a day is a calendar day in China (UTC+8). A refused call counts towards no limit.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The limits of the simulated carrier. `Throttle::default()` has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Calls of all accounts in any second; further calls get code 71.
    pub total_per_second: Option<u32>,
    /// Calls of one account in any second; further calls get code 72.
    pub per_second: Option<u32>,
    /// Calls of one account per day (UTC+8); further calls get code 75.
    pub per_day: Option<u64>,
}

impl Throttle {
    /// At most this many calls of one account in any second.
    #[must_use]
    pub fn per_second(calls: u32) -> Self {
        Self { per_second: Some(calls), ..Self::default() }
    }

    /// At most this many calls of one account per day.
    #[must_use]
    pub fn per_day(calls: u64) -> Self {
        Self { per_day: Some(calls), ..Self::default() }
    }
}

/// The calls that passed recently.
#[derive(Default)]
pub(crate) struct Usage {
    total: Second,
    accounts: HashMap<String, AccountUsage>,
}

#[derive(Default)]
struct AccountUsage {
    second: Second,
    day: u64,
    today: u64,
}

/// The times of the calls that passed in the last second, oldest first.
#[derive(Default)]
struct Second(VecDeque<Duration>);

impl Usage {
    /// Admits a call, or returns the code of its refusal. `now` is the time since the Unix epoch.
    pub(crate) fn admit(&mut self, limits: Throttle, appid: &str, now: Duration) -> Result<(), &'static str> {
        if limits == Throttle::default() {
            return Ok(());
        }
        if !self.accounts.contains_key(appid) {
            self.accounts.insert(appid.to_owned(), AccountUsage::default());
        }
        let Some(account) = self.accounts.get_mut(appid) else { return Ok(()) };
        let day = (now.as_secs() + 8 * 3600) / 86_400;
        if account.day != day {
            (account.day, account.today) = (day, 0);
        }
        if self.total.is_full(limits.total_per_second, now) {
            return Err("71");
        }
        if account.second.is_full(limits.per_second, now) {
            return Err("72");
        }
        if limits.per_day.is_some_and(|most| account.today >= most) {
            return Err("75");
        }
        self.total.0.push_back(now);
        account.second.0.push_back(now);
        account.today += 1;
        Ok(())
    }
}

impl Second {
    fn is_full(&mut self, most: Option<u32>, now: Duration) -> bool {
        // After a clock was set back, callers must not be refused until it has caught up.
        if self.0.back().is_some_and(|latest| *latest > now) {
            self.0.clear();
        }
        while self.0.front().is_some_and(|oldest| *oldest + Duration::from_secs(1) <= now) {
            self.0.pop_front();
        }
        most.is_some_and(|most| self.0.len() >= most as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01 00:00 at UTC+8, plus `millis`.
    fn at(millis: u64) -> Duration {
        Duration::from_secs(1_767_196_800) + Duration::from_millis(millis)
    }

    #[test]
    fn without_limits_everything_passes() {
        let mut usage = Usage::default();
        assert!((0..1000).all(|_| usage.admit(Throttle::default(), "a", at(0)).is_ok()));
    }

    #[test]
    fn a_second_is_any_second() {
        let (mut usage, limit) = (Usage::default(), Throttle::per_second(2));
        for (millis, expected) in [
            (600, Ok(())),
            (900, Ok(())),
            (1100, Err("72")),
            (1599, Err("72")),
            (1600, Ok(())),
            (1601, Err("72")),
        ] {
            assert_eq!(usage.admit(limit, "a", at(millis)), expected, "{millis}");
        }
        assert_eq!(usage.admit(limit, "b", at(1601)), Ok(()), "another account has its own second");
    }

    #[test]
    fn all_accounts_share_the_total() {
        let limit = Throttle { total_per_second: Some(1), ..Throttle::default() };
        let mut usage = Usage::default();
        assert_eq!(usage.admit(limit, "a", at(0)), Ok(()));
        assert_eq!(usage.admit(limit, "b", at(0)), Err("71"));
        assert_eq!(usage.admit(limit, "b", at(1000)), Ok(()));
    }

    #[test]
    fn a_day_ends_at_midnight_in_china() {
        let (mut usage, limit) = (Usage::default(), Throttle::per_day(1));
        const DAY: u64 = 86_400_000;
        for (millis, expected) in [(0, Ok(())), (DAY - 1, Err("75")), (DAY, Ok(())), (DAY + 1, Err("75"))] {
            assert_eq!(usage.admit(limit, "a", at(millis)), expected, "{millis}");
        }
    }

    #[test]
    fn a_clock_set_back_refuses_no_caller() {
        let (mut usage, limit) = (Usage::default(), Throttle::per_second(1));
        assert_eq!(usage.admit(limit, "a", at(3_600_000)), Ok(()));
        assert_eq!(usage.admit(limit, "a", at(0)), Ok(()));
    }
}
