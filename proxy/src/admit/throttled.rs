//! The log of clients that exceed their rate: a WARN with the first refusal, an INFO once none has followed for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cmiot_signer::AppId;

use crate::clock::Moment;
use crate::episode::Episode;

/// The time without a refusal after which a client keeps to its rate again.
const QUIET: Duration = Duration::from_secs(60);

/// Clients with lines of their own; further ones share one.
const CLIENTS: usize = 256;

/// The clients that exceed their rate now. Only authenticated requests are counted.
#[derive(Debug, Default)]
pub(super) struct Throttled(Mutex<HashMap<Option<AppId>, Episode>>);

impl Throttled {
    /// Counts a request that was refused since its client exceeds its rate.
    pub(super) fn record(&self, client: AppId, now: Moment) {
        let mut all = self.lock();
        let key = (all.len() < CLIENTS || all.contains_key(&Some(client))).then_some(client);
        match all.get_mut(&key) {
            Some(episode) => episode.repeat(now.monotonic),
            None => {
                all.insert(key, Episode::begin(now));
                let client = key.as_ref().map(AppId::as_str);
                tracing::warn!(client, "throttling: requests above the client's `rate` are refused with 72");
            }
        }
    }

    /// Logs the clients that keep to their rate again; called on a ticker. `now` is the monotonic time.
    pub(super) fn report(&self, now: Duration) {
        self.lock().retain(|client, episode| {
            let ended = episode.has_ended(now, QUIET);
            if ended {
                let client = client.as_ref().map(AppId::as_str);
                let (since, lasted, refused) = (episode.since(), episode.length(), episode.events());
                tracing::info!(client, %since, ?lasted, refused, "throttling ended: no request is above `rate`");
            }
            !ended
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<AppId>, Episode>> {
        // Nothing under this lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Time};

    #[test]
    fn each_client_is_one_condition_up_to_a_number_of_them() {
        let (clock, hand) = Clock::manual(Time::from_secs(1_768_449_600));
        let throttled = Throttled::default();
        for n in 0..CLIENTS + 10 {
            let client = AppId::parse(&format!("C{n}")).unwrap();
            throttled.record(client, clock.moment());
            throttled.record(client, clock.moment());
        }
        assert_eq!(throttled.lock().len(), CLIENTS + 1);
        assert_eq!(throttled.lock()[&None].events(), 20);
        hand.advance(QUIET);
        throttled.report(clock.monotonic());
        assert!(throttled.lock().is_empty());
    }
}
