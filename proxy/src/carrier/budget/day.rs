//! The calls of a day, counted across restarts.
//!
//! Days start at midnight at UTC+8. Calls are leased from `state.db` in blocks and spent from memory, so a restart
//! loses at most one block of them, and spends none twice. A clock that is set back does not start a day again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;

use crate::carrier::NotSent;
use crate::clock::Time;
use crate::store::state::{Lease, StateStore};

/// Offset of the carrier's days from UTC, in seconds.
const ZONE: u64 = 8 * 3_600;
/// Seconds per day; the carrier's zone has no daylight saving.
const DAY: u64 = 86_400;
/// About how many leases the calls of a day take.
const LEASES_PER_DAY: u64 = 200;

/// Daily quota of one account.
#[derive(Debug)]
pub(super) struct DailyQuota {
    limit: u64,
    appid: AppId,
    state: Arc<StateStore>,
    lease: Mutex<DayLease>,
    /// Held while one caller leases; the others wait for it.
    leasing: tokio::sync::Mutex<()>,
}

/// Calls that are leased.
#[derive(Clone, Copy, Debug, Default)]
struct DayLease {
    day: u64,
    /// Calls of this lease that are not spent.
    unspent: u64,
    /// Calls that all leases of the day have, in this process or an earlier one.
    leased: u64,
}

impl From<Lease> for DayLease {
    fn from(Lease { day, granted, leased }: Lease) -> Self {
        Self { day, unspent: granted, leased }
    }
}

impl DailyQuota {
    /// The quota with the calls of today that `state` has leased, which are spent.
    pub(super) fn new(limit: u64, appid: AppId, state: Arc<StateStore>) -> Self {
        let leased = state.last_lease(&appid).unwrap_or_else(|error| {
            tracing::warn!(%error, "the calls of the day so far are not known until the next call");
            None
        });
        let lease = leased.map_or_else(DayLease::default, DayLease::from);
        Self { limit, appid, state, lease: Mutex::new(lease), leasing: tokio::sync::Mutex::default() }
    }

    /// Whether the day's calls are known to be spent.
    pub(super) fn check(&self, now: Time) -> Result<(), NotSent> {
        let lease = self.lock();
        if lease.day >= day_of(now) && lease.unspent == 0 && lease.leased >= self.limit {
            return Err(until_midnight(lease.day, now));
        }
        Ok(())
    }

    /// Spends a call.
    pub(super) async fn take(&self, now: Time) -> Result<(), NotSent> {
        if self.spend(now) {
            return Ok(());
        }
        let _one = self.leasing.lock().await;
        if self.spend(now) {
            return Ok(());
        }
        self.check(now)?;
        let granted = self.lease(now).await?;
        let mut lease = self.lock();
        *lease = granted.into();
        match lease.unspent.checked_sub(1) {
            Some(unspent) => {
                lease.unspent = unspent;
                Ok(())
            }
            None => Err(until_midnight(lease.day, now)),
        }
    }

    /// Calls that remain today.
    pub(super) fn remaining(&self, now: Time) -> u64 {
        let lease = self.lock();
        if lease.day < day_of(now) {
            self.limit
        } else {
            self.limit.saturating_sub(lease.leased) + lease.unspent
        }
    }

    pub(super) fn remaining_permille(&self, now: Time) -> u64 {
        self.remaining(now).saturating_mul(1_000) / self.limit.max(1)
    }

    fn spend(&self, now: Time) -> bool {
        let mut lease = self.lock();
        if lease.day < day_of(now) || lease.unspent == 0 {
            return false;
        }
        lease.unspent -= 1;
        true
    }

    async fn lease(&self, now: Time) -> Result<Lease, NotSent> {
        let (state, appid, limit) = (Arc::clone(&self.state), self.appid, self.limit);
        let block = (limit / LEASES_PER_DAY).clamp(1, 1_000);
        let leased =
            tokio::task::spawn_blocking(move || state.lease_calls(&appid, day_of(now), block, limit)).await;
        match leased {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => {
                tracing::error!(%error, "the calls of the day cannot be counted: no call is made");
                Err(NotSent::Uncounted(Duration::from_secs(5)))
            }
            Err(_) => Err(NotSent::Uncounted(Duration::from_secs(5))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, DayLease> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Days since 1970 at UTC+8.
fn day_of(now: Time) -> u64 {
    (now.as_secs() + ZONE) / DAY
}

fn until_midnight(day: u64, now: Time) -> NotSent {
    let midnight = (day + 1) * DAY - ZONE;
    NotSent::Budget(Duration::from_secs(midnight.saturating_sub(now.as_secs()).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::state::OnStateLoss;

    /// 2026-01-15T23:59:00+08:00
    const LATE: Time = Time::from_secs(1_768_492_740);

    fn day(dir: &std::path::Path, limit: u64) -> DailyQuota {
        let state = Arc::new(StateStore::open(dir, OnStateLoss::Refuse).unwrap());
        DailyQuota::new(limit, AppId::parse("100001").unwrap(), state)
    }

    #[tokio::test]
    async fn the_calls_of_a_day_are_spent_until_midnight_at_the_carrier() {
        let dir = tempfile::tempdir().unwrap();
        let day = day(dir.path(), 3);
        for _ in 0..3 {
            assert_eq!(day.take(LATE).await, Ok(()));
        }
        assert_eq!(day.take(LATE).await, Err(NotSent::Budget(Duration::from_secs(60))));
        assert_eq!(day.check(LATE), Err(NotSent::Budget(Duration::from_secs(60))));
        let midnight = LATE.plus(Duration::from_secs(60));
        assert_eq!(day.remaining(midnight), 3);
        assert_eq!(day.take(midnight).await, Ok(()));
        assert_eq!(day.remaining(midnight), 2);
        // A clock that is set back does not return to the old day.
        assert_eq!(day.take(LATE).await, Ok(()));
        assert_eq!(day.remaining(midnight), 1);
    }

    #[tokio::test]
    async fn a_restart_knows_what_is_spent_before_the_first_call() {
        let dir = tempfile::tempdir().unwrap();
        for left in [3, 2, 1] {
            let day = day(dir.path(), 3);
            assert_eq!((day.remaining(LATE), day.check(LATE)), (left, Ok(())));
            assert_eq!(day.take(LATE).await, Ok(()));
        }
        let day = day(dir.path(), 3);
        assert_eq!((day.remaining(LATE), day.check(LATE).is_err()), (0, true));
        assert_eq!(day.remaining(LATE.plus(Duration::from_secs(60))), 3, "the next day");
    }

    #[tokio::test]
    async fn a_restart_returns_no_calls() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = 0;
        loop {
            // A process that dies after two calls, each time.
            let day = day(dir.path(), 1_000);
            if day.take(LATE).await.is_err() {
                break;
            }
            made += 1;
            if day.take(LATE).await.is_ok() {
                made += 1;
            }
        }
        assert!((400..=1_000).contains(&made), "{made} calls: at most a block of 5 is lost each time");
    }
}
