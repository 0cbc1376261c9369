//! The calls of a day, counted across restarts.
//!
//! Days begin at midnight at UTC+8. Calls are leased from `state.db` in blocks and spent from memory, so a restart
//! forgets at most a block of them, and never spends one twice. A clock that is set back does not begin a day again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;

use crate::carrier::NotSent;
use crate::clock::Time;
use crate::store::state::{Lease, StateStore};

/// How far the carrier's days are ahead of UTC, in seconds.
const ZONE: u64 = 8 * 3_600;
/// Seconds of a day; the carrier's zone has no daylight saving.
const DAY: u64 = 86_400;
/// Blocks that a day's calls are leased in, about.
const BLOCKS: u64 = 200;

/// One account's calls of today.
#[derive(Debug)]
pub(super) struct DailyQuota {
    limit: u64,
    appid: AppId,
    state: Arc<StateStore>,
    held: Mutex<DayLease>,
    /// One leases, the others wait for it.
    leasing: tokio::sync::Mutex<()>,
}

/// What is leased and not spent.
#[derive(Clone, Copy, Debug, Default)]
struct DayLease {
    day: u64,
    calls: u64,
    /// Of the whole day, by whatever process.
    leased: u64,
}

impl DailyQuota {
    pub(super) fn new(limit: u64, appid: AppId, state: Arc<StateStore>) -> Self {
        Self { limit, appid, state, held: Mutex::default(), leasing: tokio::sync::Mutex::default() }
    }

    /// Whether the day's calls are known to be spent.
    pub(super) fn check(&self, now: Time) -> Result<(), NotSent> {
        let held = self.held();
        if held.day >= day_of(now) && held.calls == 0 && held.leased >= self.limit {
            return Err(until_midnight(held.day, now));
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
        let lease = self.lease(now).await?;
        let mut held = self.held();
        *held = DayLease { day: lease.day, calls: lease.granted, leased: lease.leased };
        match held.calls.checked_sub(1) {
            Some(left) => {
                held.calls = left;
                Ok(())
            }
            None => Err(until_midnight(held.day, now)),
        }
    }

    /// Calls left today.
    pub(super) fn left(&self, now: Time) -> u64 {
        let held = self.held();
        if held.day < day_of(now) { self.limit } else { self.limit.saturating_sub(held.leased) + held.calls }
    }

    pub(super) fn thousandths_left(&self, now: Time) -> u64 {
        self.left(now).saturating_mul(1_000) / self.limit.max(1)
    }

    fn spend(&self, now: Time) -> bool {
        let mut held = self.held();
        if held.day < day_of(now) || held.calls == 0 {
            return false;
        }
        held.calls -= 1;
        true
    }

    async fn lease(&self, now: Time) -> Result<Lease, NotSent> {
        let (state, appid, limit) = (Arc::clone(&self.state), self.appid, self.limit);
        let block = (limit / BLOCKS).clamp(1, 1_000);
        let leased =
            tokio::task::spawn_blocking(move || state.lease_calls(&appid, day_of(now), block, limit)).await;
        match leased {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => {
                tracing::error!(%error, "the day's calls cannot be counted: none is made");
                Err(NotSent::Uncounted(Duration::from_secs(5)))
            }
            Err(_) => Err(NotSent::Uncounted(Duration::from_secs(5))),
        }
    }

    fn held(&self) -> MutexGuard<'_, DayLease> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn the_days_calls_end_and_come_back_at_midnight_of_the_carrier() {
        let dir = tempfile::tempdir().unwrap();
        let day = day(dir.path(), 3);
        for _ in 0..3 {
            assert_eq!(day.take(LATE).await, Ok(()));
        }
        assert_eq!(day.take(LATE).await, Err(NotSent::Budget(Duration::from_secs(60))));
        assert_eq!(day.check(LATE), Err(NotSent::Budget(Duration::from_secs(60))));
        let midnight = LATE.plus(Duration::from_secs(60));
        assert_eq!(day.left(midnight), 3);
        assert_eq!(day.take(midnight).await, Ok(()));
        assert_eq!(day.left(midnight), 2);
        // Set back, the clock does not give the old day back.
        assert_eq!(day.take(LATE).await, Ok(()));
        assert_eq!(day.left(midnight), 1);
    }

    #[tokio::test]
    async fn a_restart_never_gives_calls_back() {
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
        assert!((400..=1_000).contains(&made), "{made} calls: at most a block of 5 is forgotten each time");
    }
}
