//! The budgets of the accounts as this node shares them with the others: the day by the database, and the beats that
//! make it a pacer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Fleet;
use super::rate::{self, Heard, Slot};
use super::shares::DayShares;
use crate::clock::{Clock, Moment, timeout};
use crate::store::fleet::pace::Pace;
use crate::store::fleet::quota::{BlockGrant, FleetDay, ReserveGrant};
use crate::store::fleet::rest::Rest;
use crate::store::fleet::{Link, LinkError};

/// Length of a day; the carrier's zone has no daylight saving.
const DAY: Duration = Duration::from_secs(86_400);

/// The days after today whose reserve a node has: it survives an outage of the database over as many midnights.
pub const RESERVED_DAYS: u64 = 7;

/// The shared budgets of this node.
pub struct SharedBudget {
    fleet: Arc<Fleet>,
    clock: Clock,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    heard: Heard,
    today: Option<Today>,
}

/// The day by the clock of the database, at a moment of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Today {
    day: FleetDay,
    at: Moment,
}

impl Today {
    /// The day at a later moment. It ends when either clock of this node says so.
    fn at(&self, now: Moment) -> u64 {
        let elapsed =
            now.monotonic.saturating_sub(self.at.monotonic).max(now.believed.since(self.at.believed));
        let since = self.day.since_midnight.saturating_add(elapsed);
        self.day.day.saturating_add(since.as_secs() / DAY.as_secs())
    }
}

/// Result of a booking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Booked {
    /// Slots, at least one.
    Slots(Vec<Slot>),
    /// None, and the time after which to try again.
    Later(Duration),
}

impl SharedBudget {
    /// The shared budgets of this node of a fleet.
    pub fn new(fleet: Arc<Fleet>, clock: &Clock) -> Self {
        let state = State { heard: Heard::new(clock.monotonic()), today: None };
        Self { fleet, clock: clock.clone(), state: Mutex::new(state), wake: Notify::new() }
    }

    /// The greatest number of nodes.
    pub fn nodes(&self) -> u32 {
        self.fleet.settings.nodes
    }

    /// The number of this node.
    pub fn node(&self) -> u8 {
        self.fleet.node
    }

    /// The database, for the statements about rests.
    pub fn link(&self) -> &Link {
        &self.fleet.link
    }

    /// A name for these credentials in shared tables, which reveals nothing about them.
    pub fn name_of(&self, credentials: &[Vec<u8>]) -> Vec<u8> {
        let parts: Vec<_> =
            [b"credentials".as_slice()].into_iter().chain(credentials.iter().map(Vec::as_slice)).collect();
        self.fleet.shared_key(&parts).to_vec()
    }

    /// Requests a beat before its time: a rest has started or ended.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until the next beat is due, but at least for a moment.
    pub async fn next_beat(&self) {
        const LEAST: Duration = Duration::from_millis(50);
        const USUAL: Duration = Duration::from_secs(1);
        /// While this node is no pacer and its calls wait for that.
        const SOON: Duration = Duration::from_millis(250);
        let is_pacer = self.lock().heard.is_pacer(self.clock.monotonic());
        tokio::time::sleep(LEAST).await;
        let wait = if is_pacer { USUAL } else { SOON };
        // An elapsed wait is as good as a request.
        let _ = timeout(wait, self.wake.notified()).await;
    }

    /// The shares of a limit of calls per day.
    pub fn day_shares(&self, limit: u64) -> DayShares {
        DayShares::new(limit, self.nodes(), self.fleet.settings.reserve_percent)
    }

    /// Whether this node may use its own share of a rate, and must not book slots.
    pub fn is_alone(&self) -> bool {
        let now = self.clock.monotonic();
        self.lock().heard.is_alone(now)
    }

    /// Makes this node a pacer, and reads the rests. Called once per second.
    ///
    /// # Errors
    /// [`LinkError`]; after some time without a reply this node is alone.
    pub async fn beat(&self) -> Result<Vec<Rest>, LinkError> {
        // Without a life it books no slot, so it must not be taken for a pacer, and becomes alone for its rate.
        let has_life = self.fleet.life().is_some();
        let sent = self.clock.moment();
        let seen = self.lock().heard.seen(sent.monotonic).filter(|_| has_life);
        let beat = self.link().beat(self.node(), seen).await?;
        let received = self.clock.monotonic();
        let mut state = self.lock();
        if has_life {
            state.heard.record(received, beat.at);
        }
        state.today = Some(Today { day: beat.today, at: sent });
        Ok(beat.rests)
    }

    /// Books slots for this many calls that wait.
    ///
    /// # Errors
    /// [`LinkError`]; slots that were booked are lost then.
    pub async fn book(&self, appid: &str, pace: Pace, waiting: usize) -> Result<Booked, LinkError> {
        const LEAST: Duration = Duration::from_millis(10);
        /// Until the next beat at most.
        const MOST: Duration = Duration::from_secs(1);
        self.require_lease()?;
        let sent = self.clock.monotonic();
        let booking =
            self.link().book(appid, self.node(), pace, rate::batch(pace.per_second, waiting)).await?;
        let slots: Vec<_> = rate::slots(sent, self.clock.monotonic(), booking).collect();
        let kind = if slots.is_empty() { "late" } else { "slot" };
        self.fleet.local.metrics.fleet_granted(kind, booking.slots.into());
        if slots.is_empty() {
            let again = Duration::from_micros(u64::try_from(booking.first).unwrap_or_default());
            return Ok(Booked::Later(again.clamp(LEAST, MOST)));
        }
        Ok(Booked::Slots(slots))
    }

    /// Leases a block of today's calls. [`Link::lease_calls`] has the arguments.
    ///
    /// # Errors
    /// [`LinkError`]; the block may be lost then.
    pub async fn lease_calls(
        &self,
        appid: &str,
        shares: DayShares,
        lone: Option<(u64, u64)>,
    ) -> Result<BlockGrant, LinkError> {
        self.require_lease()?;
        let sent = self.clock.moment();
        let grant = self.link().lease_calls(appid, shares.block, shares.limits, lone).await?;
        self.lock().today = Some(Today { day: grant.today, at: sent });
        self.fleet.local.metrics.fleet_granted("block", grant.granted);
        Ok(grant)
    }

    /// The reserves that are missing after the day `known`, from today on.
    ///
    /// # Errors
    /// [`LinkError`]; the reserves may be lost then.
    pub async fn reserve_calls(
        &self,
        appid: &str,
        shares: DayShares,
        known: Option<u64>,
    ) -> Result<Vec<ReserveGrant>, LinkError> {
        self.require_lease()?;
        let link = self.link();
        let grants = link.reserve_calls(appid, shares.reserve, shares.limits, known, RESERVED_DAYS).await?;
        self.fleet.local.metrics.fleet_granted("reserve", grants.iter().map(|grant| grant.granted).sum());
        Ok(grants)
    }

    /// Whether blocks and slots may be leased: this node is not alone, and no failover may have lost grants.
    pub fn may_lease(&self) -> bool {
        self.fleet.may_lease()
    }

    /// # Errors
    /// [`LinkError::Away`] unless [`Self::may_lease`].
    fn require_lease(&self) -> Result<(), LinkError> {
        if self.may_lease() { Ok(()) } else { Err(LinkError::Away) }
    }

    /// Days since 1970 at UTC+8: by the database as far as it was reached, else by the clock of this node.
    pub fn today(&self) -> u64 {
        const ZONE: Duration = Duration::from_secs(8 * 3_600);
        let now = self.clock.moment();
        let today = self.lock().today;
        today.map_or_else(|| now.believed.plus(ZONE).as_secs() / DAY.as_secs(), |today| today.at(now))
    }

    /// The time until the next midnight at UTC+8.
    pub fn until_midnight(&self) -> Duration {
        const ZONE: Duration = Duration::from_secs(8 * 3_600);
        let now = self.clock.moment();
        let since = match self.lock().today {
            Some(today) => {
                today.day.since_midnight.saturating_add(now.monotonic.saturating_sub(today.at.monotonic))
            }
            None => Duration::from_secs(now.believed.plus(ZONE).as_secs() % DAY.as_secs()),
        };
        Duration::from_secs(DAY.as_secs() - since.as_secs() % DAY.as_secs())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can panic in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SharedBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedBudget").field("node", &self.node()).finish_non_exhaustive()
    }
}
