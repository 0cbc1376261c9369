//! The rate of an account over all nodes: in no second, wherever it begins, more than `per_second` calls leave.
//!
//! A node either takes its calls from the slots of the database, or is *alone* and uses its own share of the rate. The
//! proof that the sum is within the limit, for clocks that run equally fast:
//!
//! 1. *A slot is used within 50 ms.* A statement runs at a moment between its begin and its reply, which are at most 50 ms
//!    apart; a slot is valid from the reply's estimate to 50 ms after the begin's estimate ([`slots`]). Slots are a
//!    stretched second of 1.05 s divided by the shared rate apart, so a second has as many calls as the shared rate at most.
//! 2. *The shared rate leaves room for each node that may be alone.* It is the limit less the share of each of `nodes` that
//!    is no pacer ([`Link::book`](crate::store::fleet::Link::book)).
//! 3. *No node is a pacer and alone in one second.* A beat makes a node a pacer until [`LEASE`] after the database's clock in
//!    the reply before it, whenever the beat arrives. So a node knows the latest end, though a reply is lost or a beat
//!    delayed: [`LEASE`] after the last reply. It is alone no earlier than that, and the slots that were booked before
//!    ([`AHEAD`] and [`SPAN`]), and a second, and a margin have passed ([`Heard::alone_from`]). It becomes a pacer again by a
//!    beat that it sends a second after its last call alone ([`Heard::seen`]).
//! 4. *A row that was lost begins again after all slots that it gave out.*
//!
//! A node keeps to its share alone by a [GCRA](crate::gcra). With `per_second` below `nodes` the share is zero: a node alone
//! makes no call then. More nodes than `nodes` void rule 2, so `nodes` is raised on every node before one is added.

use std::time::Duration;

use crate::store::fleet::pace::{AHEAD, Booking, LEASE, SPAN, STRETCHED_SECOND};

const SECOND: Duration = Duration::from_secs(1);

/// The longest time from a slot to its call.
const TOLERANCE: Duration = STRETCHED_SECOND.saturating_sub(SECOND);

/// For a clock of the database that is set back, and clocks that do not run equally fast.
const MARGIN: Duration = Duration::from_millis(750);

/// The time after the last reply from which a node may be alone.
const ALONE_AFTER: Duration = LEASE
    .saturating_add(AHEAD)
    .saturating_add(SPAN)
    .saturating_add(SECOND)
    .saturating_add(TOLERANCE)
    .saturating_add(MARGIN);

/// A slot, by the monotonic clock of this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// The earliest moment of its call.
    pub from: Duration,
    /// The latest moment of its call.
    pub until: Duration,
}

/// The slots of a booking that was sent and answered at these moments; none if the round trip took too long.
pub fn slots(sent: Duration, received: Duration, booking: Booking) -> impl Iterator<Item = Slot> {
    let first = |from: Duration| {
        let offset = Duration::from_micros(booking.first.unsigned_abs());
        if booking.first < 0 { from.saturating_sub(offset) } else { from.saturating_add(offset) }
    };
    let (from, until) = (first(received), first(sent).saturating_add(TOLERANCE));
    let slots = if from > until { 0 } else { booking.slots };
    (0..slots).map(move |n| {
        let after = booking.step.saturating_mul(n);
        Slot { from: from.saturating_add(after), until: until.saturating_add(after) }
    })
}

/// The least time between two slots of an account, before any node is missing.
pub fn least_step(per_second: u32) -> Duration {
    STRETCHED_SECOND / per_second.max(1)
}

/// The number of slots to book for this many calls that wait: few enough that others can book meanwhile.
pub fn batch(per_second: u32, waiting: usize) -> u32 {
    let most = SPAN.as_micros() / least_step(per_second).as_micros().max(1) + 1;
    u32::try_from(waiting).unwrap_or(u32::MAX).clamp(1, u32::try_from(most).unwrap_or(u32::MAX))
}

/// The last reply to a beat.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// When it was received, or the process began.
    at: Duration,
    /// The clock of the database in it, in microseconds since 1970.
    clock: Option<i64>,
    /// The earliest moment of a beat that makes this node a pacer.
    pacer_from: Duration,
}

impl Heard {
    /// A process that begins now: the one before it may have been a pacer, or alone.
    pub fn new(now: Duration) -> Self {
        Self { at: now, clock: None, pacer_from: after_a_call_alone(now) }
    }

    /// The moment from which this node is alone, if it receives no reply until then.
    pub fn alone_from(&self) -> Duration {
        self.at.saturating_add(ALONE_AFTER)
    }

    /// Whether this node is alone.
    pub fn is_alone(&self, now: Duration) -> bool {
        now >= self.alone_from()
    }

    /// The clock to send with a beat; none if the beat must not make this node a pacer.
    pub fn seen(&self, now: Duration) -> Option<i64> {
        self.clock.filter(|_| self.is_pacer(now))
    }

    /// Records a reply with the clock of the database, received now: a node that was alone makes no further call alone.
    pub fn record(&mut self, now: Duration, clock: i64) {
        if self.is_alone(now) {
            self.pacer_from = after_a_call_alone(now);
        }
        (self.at, self.clock) = (now, Some(clock));
    }

    /// Whether the beats make this node a pacer, so that a beat each second is enough.
    pub fn is_pacer(&self, now: Duration) -> bool {
        self.clock.is_some() && now >= self.pacer_from && !self.is_alone(now)
    }
}

/// The earliest moment of a beat that may make a node a pacer, after a call alone at this moment.
fn after_a_call_alone(at: Duration) -> Duration {
    at.saturating_add(SECOND).saturating_add(TOLERANCE)
}

#[cfg(test)]
mod tests;
