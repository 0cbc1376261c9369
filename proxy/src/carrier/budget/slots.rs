//! The rate of an account over the nodes of a fleet: slots that this node has booked.
//!
//! Slots are booked by the first call that waits, for as many calls as wait then: a node without calls books none.
//! [`crate::fleet::rate`] has the rules.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use cmiot_signer::AppId;

use crate::fleet::budget::{Booked, SharedBudget};
use crate::fleet::rate::{Slot, least_step};
use crate::fleet::shares;
use crate::store::fleet::LinkError;
use crate::store::fleet::pace::Pace;

/// The time after which a booking that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The rate of an account over the nodes of a fleet.
#[derive(Debug)]
pub(super) struct SharedRate {
    pace: Pace,
    appid: AppId,
    fleet: Arc<SharedBudget>,
}

/// The slots of one account.
#[derive(Debug, Default)]
pub(super) struct BookedSlots {
    slots: VecDeque<Slot>,
    /// Whether a booking is in progress.
    booking: bool,
    /// The earliest moment of the next booking.
    again: Duration,
}

/// The reason for which a call waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// A slot that is booked, for this long.
    Slot(Duration),
    /// This node's own share of the rate.
    Own,
    /// A booking, which this time after may be tried again.
    Booking(Option<Duration>),
}

impl SharedRate {
    pub(super) fn new(per_second: NonZeroU32, appid: AppId, fleet: &Arc<SharedBudget>) -> Self {
        Self { pace: shares::pace(per_second, fleet.nodes()), appid, fleet: Arc::clone(fleet) }
    }

    /// Calls per second of this node while it is alone.
    pub(super) fn own(&self) -> u32 {
        self.pace.alone
    }

    /// The least time between two calls of all nodes.
    pub(super) fn interval(&self) -> Duration {
        least_step(self.pace.per_second)
    }

    /// The reason for which the next call waits.
    pub(super) fn wait(&self, booked: &BookedSlots, now: Duration) -> Wait {
        if let Some(slot) = booked.next(now) {
            return Wait::Slot(slot.from.saturating_sub(now));
        }
        match self.fleet.is_alone() {
            true if self.pace.alone > 0 => return Wait::Own,
            // Until the database answers.
            true => return Wait::Booking(Some(RETRY)),
            false => {}
        }
        let again = booked.again.saturating_sub(now);
        Wait::Booking((!booked.booking).then_some(again))
    }

    /// Whether slots could be booked now: none is booked, and no booking is in progress.
    pub(super) fn could_book(&self, booked: &BookedSlots, now: Duration) -> bool {
        !booked.booking && now >= booked.again && booked.next(now).is_none() && !self.fleet.is_alone()
    }

    /// Whether to book now; [`BookedSlots::end_booking`] must follow.
    pub(super) fn start_booking(&self, booked: &mut BookedSlots, now: Duration) -> bool {
        let start = self.could_book(booked, now);
        booked.booking |= start;
        start
    }

    pub(super) async fn book(&self, calls: usize) -> Result<Booked, LinkError> {
        self.fleet.book(self.appid.as_str(), self.pace, calls).await
    }
}

impl BookedSlots {
    /// The first slot that may be used now or later.
    fn next(&self, now: Duration) -> Option<Slot> {
        self.slots.iter().copied().find(|slot| slot.until >= now)
    }

    /// Takes a slot for a call that leaves now. Returns whether there was one.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        while self.slots.front().is_some_and(|slot| slot.until < now) {
            self.slots.pop_front();
        }
        self.slots.pop_front_if(|slot| slot.from <= now).is_some()
    }

    pub(super) fn end_booking(&mut self, booked: Result<Booked, LinkError>, now: Duration) {
        self.booking = false;
        match booked {
            Ok(Booked::Slots(slots)) => self.slots = slots.into(),
            Ok(Booked::Later(wait)) => self.again = now.saturating_add(wait),
            Err(_) => self.again = now.saturating_add(RETRY),
        }
    }
}
