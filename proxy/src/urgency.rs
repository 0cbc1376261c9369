//! The urgency of a carrier call: misses precede refreshes, and refreshes precede refreshes ahead of expiry.
//!
//! A flight's urgency may rise while it waits for its budget, when a request without a stale entry joins it. The flight
//! table, which raises it, and the budget, which reads it, share a [`SharedUrgency`].

use tokio::sync::watch;

/// The urgency of a call, most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// A gateway waits, and no entry can be served instead.
    Miss,
    /// A stale entry can be served instead, or no request waits.
    Refresh,
    /// The entry is still fresh.
    Ahead,
}

/// The urgency of one call, which never falls.
#[derive(Clone, Debug)]
pub struct SharedUrgency(watch::Sender<Urgency>);

impl SharedUrgency {
    pub fn new(urgency: Urgency) -> Self {
        Self(watch::Sender::new(urgency))
    }

    pub fn get(&self) -> Urgency {
        *self.0.borrow()
    }

    /// Raises it to at least this urgency.
    pub fn raise(&self, to: Urgency) {
        self.0.send_if_modified(|now| {
            let rises = to < *now;
            *now = to.min(*now);
            rises
        });
    }

    /// Waits until it is more urgent than this.
    pub async fn raised_above(&self, urgency: Urgency) {
        // `self` holds the sender, so the wait cannot fail.
        let _ = self.0.subscribe().wait_for(|now| *now < urgency).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urgency_rises_and_never_falls() {
        let urgency = SharedUrgency::new(Urgency::Refresh);
        urgency.raise(Urgency::Ahead);
        assert_eq!(urgency.get(), Urgency::Refresh);
        let watched = urgency.clone();
        let above = tokio::spawn(async move { watched.raised_above(Urgency::Refresh).await });
        urgency.raise(Urgency::Miss);
        above.await.unwrap();
        urgency.raise(Urgency::Ahead);
        assert_eq!(urgency.get(), Urgency::Miss);
    }
}
