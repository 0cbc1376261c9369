//! The calls of a day that the nodes of a fleet share.
//!
//! | calls | leased from | used |
//! | --- | --- | --- |
//! | blocks | the database of the fleet | while it answers |
//! | the reserve of this node | `state.db`, granted by that database days ahead | while it does not |
//!
//! Both are committed to `state.db` before use, and counted by the database before that: the sum over the nodes is within
//! the limit whatever is lost. The day is that of the database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;

use crate::carrier::NotSent;
use crate::fleet::budget::{RESERVED_DAYS, SharedBudget};
use crate::fleet::shares::DayShares;
use crate::store::StoreError;
use crate::store::state::{Reserve, StateStore};

/// The wait of a call that the reserve has not, until the database may answer again.
const AWAY: Duration = Duration::from_secs(10);

/// Daily quota of one account in a fleet.
#[derive(Debug)]
pub(super) struct FleetQuota {
    shares: DayShares,
    appid: AppId,
    state: Arc<StateStore>,
    fleet: Arc<SharedBudget>,
    hand: Mutex<Hand>,
    /// Held while one caller leases; the others wait for it.
    leasing: tokio::sync::Mutex<()>,
}

/// Calls in hand.
#[derive(Debug, Default)]
struct Hand {
    day: u64,
    /// Calls that are leased and not spent.
    unspent: u64,
    /// Calls of the day that the fleet had leased after the last grant.
    leased: u64,
    /// Whether the database had no call left.
    spent: bool,
    /// The reserve of today and the days after, in order.
    reserves: Vec<Reserve>,
}

impl FleetQuota {
    pub(super) fn new(limit: u64, appid: AppId, state: Arc<StateStore>, fleet: Arc<SharedBudget>) -> Self {
        let reserves = state.reserves(&appid).unwrap_or_else(|error| {
            tracing::warn!(%error, "the reserve of calls for the time without the fleet's database is not known");
            Vec::new()
        });
        let hand = Mutex::new(Hand { reserves, ..Hand::default() });
        Self {
            shares: fleet.day_shares(limit),
            appid,
            state,
            fleet,
            hand,
            leasing: tokio::sync::Mutex::default(),
        }
    }

    /// Whether the day's calls are known to be spent.
    pub(super) fn check(&self) -> Result<(), NotSent> {
        let (today, may_use_reserve) = (self.fleet.today(), !self.fleet.may_lease());
        let hand = self.lock();
        let has_reserve = may_use_reserve && hand.reserve(today) > 0;
        if hand.spent && hand.unspent == 0 && hand.day == today && !has_reserve {
            return Err(NotSent::Budget(self.fleet.until_midnight()));
        }
        Ok(())
    }

    /// Leases calls if none is in hand.
    pub(super) async fn prepare(&self) -> Result<(), NotSent> {
        if self.lock().has_call(self.fleet.today()) { Ok(()) } else { self.lease().await }
    }

    /// Spends a call.
    pub(super) async fn take(&self) -> Result<(), NotSent> {
        loop {
            if self.lock().spend(self.fleet.today()) {
                return Ok(());
            }
            self.lease().await?;
        }
    }

    /// Calls that the fleet has left today as of the last grant, and those in hand.
    pub(super) fn remaining(&self) -> u64 {
        let (today, hand) = (self.fleet.today(), self.lock());
        let reserve = hand.reserve(today).min(self.shares.reserve);
        if hand.day != today {
            return self.shares.limits.ceiling.saturating_add(reserve);
        }
        let central = if hand.spent { 0 } else { self.shares.limits.ceiling.saturating_sub(hand.leased) };
        central.saturating_add(hand.unspent).saturating_add(reserve)
    }

    /// Calls that the fleet and the reserve of this node have at the begin of a day.
    pub(super) fn attainable(&self) -> u64 {
        self.shares.limits.ceiling.saturating_add(self.shares.reserve)
    }

    /// Calls that today's reserve has left.
    pub(super) fn reserve(&self) -> u64 {
        let today = self.fleet.today();
        self.lock().reserve(today)
    }

    pub(super) fn remaining_permille(&self) -> u64 {
        self.remaining().saturating_mul(1_000) / self.shares.limits.limit.max(1)
    }

    /// Asks for the reserves of the days from today on that are missing.
    pub(super) async fn keep_reserve(&self) {
        let known = self.lock().reserves.last().map(|last| last.day);
        if self.shares.reserve == 0 || known.is_some_and(|known| known >= self.fleet.today() + RESERVED_DAYS)
        {
            return;
        }
        let Ok(grants) = self.fleet.reserve_calls(self.appid.as_str(), self.shares, known).await else {
            return;
        };
        let granted: Vec<_> = grants.iter().map(|grant| (grant.day, grant.granted)).collect();
        let appid = self.appid;
        let stored = self.on_disk(move |state| {
            state.add_reserves(&appid, &granted)?;
            state.reserves(&appid)
        });
        match stored.await {
            Ok(reserves) => self.lock().reserves = reserves,
            Err(error) => {
                tracing::error!(%error, "granted calls for the time without the fleet's database are lost");
            }
        }
    }

    /// Leases a block, or calls of the reserve if the database does not answer.
    async fn lease(&self) -> Result<(), NotSent> {
        let _one = self.leasing.lock().await;
        let today = self.fleet.today();
        if self.lock().has_call(today) {
            return Ok(());
        }
        self.check()?;
        let appid = self.appid;
        let lone =
            self.on_disk(move |state| state.unreported(&appid)).await.map_err(|error| uncounted(&error))?;
        match self.fleet.lease_calls(self.appid.as_str(), self.shares, lone).await {
            Ok(grant) => {
                let day = grant.today.day;
                let reported = lone.filter(|(lone, _)| *lone >= day).map_or(0, |(_, calls)| calls);
                self.on_disk(move |state| state.record_grant(&appid, day, grant.granted, reported))
                    .await
                    .map_err(|error| uncounted(&error))?;
                self.lock().receive(day, grant.granted, grant.leased);
                self.check()
            }
            Err(error) => {
                tracing::debug!(%error, "calls of the reserve are used");
                self.lease_reserve(today).await
            }
        }
    }

    async fn lease_reserve(&self, today: u64) -> Result<(), NotSent> {
        let (appid, shares) = (self.appid, self.shares);
        let leased =
            self.on_disk(move |state| state.lease_reserve(&appid, today, shares.block, shares.reserve)).await;
        let (taken, left) = leased.map_err(|error| uncounted(&error))?;
        if taken == 0 {
            return Err(NotSent::Budget(AWAY.min(self.fleet.until_midnight())));
        }
        let mut hand = self.lock();
        hand.receive_reserve(today, taken, left);
        Ok(())
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&StateStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Lost> {
        let state = Arc::clone(&self.state);
        match tokio::task::spawn_blocking(move || work(&state)).await {
            Ok(done) => done.map_err(|error| Lost(error.to_string())),
            Err(_) => Err(Lost("its task ended".to_owned())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Hand> {
        // No code under this lock can panic in the middle of a change.
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit of `state.db` that failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lost(String);

fn uncounted(error: &Lost) -> NotSent {
    tracing::error!(%error, "the calls of the day cannot be counted: no call is made");
    NotSent::Uncounted(Duration::from_secs(5))
}

impl Hand {
    fn has_call(&self, today: u64) -> bool {
        self.day == today && self.unspent > 0
    }

    fn spend(&mut self, today: u64) -> bool {
        let has = self.has_call(today);
        self.unspent -= u64::from(has);
        has
    }

    /// Adds a block. Calls of another day are dropped.
    fn receive(&mut self, day: u64, granted: u64, leased: u64) {
        let kept = if self.day == day { self.unspent } else { 0 };
        (self.day, self.unspent, self.leased) = (day, kept.saturating_add(granted), leased);
        self.spent = granted == 0;
    }

    fn receive_reserve(&mut self, day: u64, taken: u64, left: u64) {
        if self.day != day {
            (self.day, self.unspent, self.leased, self.spent) = (day, 0, 0, false);
        }
        self.unspent = self.unspent.saturating_add(taken);
        if let Some(reserve) = self.reserves.iter_mut().find(|reserve| reserve.day == day) {
            reserve.left = left;
        }
    }

    fn reserve(&self, today: u64) -> u64 {
        self.reserves.iter().find(|reserve| reserve.day == today).map_or(0, |reserve| reserve.left)
    }
}
