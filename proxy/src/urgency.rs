//! How much a call to the carrier matters: misses come before refreshes, and refreshes before refreshing ahead.
//!
//! A flight's urgency may grow while it waits for its turn, when somebody joins it who has nothing else to be
//! answered: its [`SharedUrgency`] is shared by the flight table, which raises it, and the budget, which looks.

use tokio::sync::watch;

/// How much a call matters, most first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// A gateway waits and there is nothing else to answer.
    Miss,
    /// Something stale is answered meanwhile, or nobody waits.
    Refresh,
    /// What is cached is still fresh.
    Ahead,
}

/// The urgency of one call, which grows and never shrinks.
#[derive(Clone, Debug)]
pub struct SharedUrgency(watch::Sender<Urgency>);

impl SharedUrgency {
    /// As urgent as this to begin with.
    pub fn new(urgency: Urgency) -> Self {
        Self(watch::Sender::new(urgency))
    }

    /// As urgent as it is now.
    pub fn get(&self) -> Urgency {
        *self.0.borrow()
    }

    /// At least as urgent as this from now on.
    pub fn raise(&self, to: Urgency) {
        self.0.send_if_modified(|now| {
            let grows = to < *now;
            *now = to.min(*now);
            grows
        });
    }

    /// Waits until it is more urgent than this.
    pub async fn raised_above(&self, urgency: Urgency) {
        // The sender is held here, so the wait cannot end otherwise.
        let _ = self.0.subscribe().wait_for(|now| *now < urgency).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_grows_and_never_shrinks() {
        let pressure = SharedUrgency::new(Urgency::Refresh);
        pressure.raise(Urgency::Ahead);
        assert_eq!(pressure.get(), Urgency::Refresh);
        let watched = pressure.clone();
        let above = tokio::spawn(async move { watched.raised_above(Urgency::Refresh).await });
        pressure.raise(Urgency::Miss);
        above.await.unwrap();
        pressure.raise(Urgency::Ahead);
        assert_eq!(pressure.get(), Urgency::Miss);
    }
}
