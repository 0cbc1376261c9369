//! Reload, periodic maintenance and the end of the relay.

use std::sync::Arc;

use super::Relay;
use crate::clock::belief;
use crate::config::Config;
use crate::config::restart::Fixed;

impl Relay {
    /// Applies a changed configuration. Entries, used transids and flights stay, and so does what is `fixed` until the
    /// next start.
    ///
    /// # Errors
    /// TLS towards the carrier cannot be set up; nothing has changed then.
    pub fn reload(&self, config: &Arc<Config>, fixed: &Fixed) -> Result<(), rustls::Error> {
        self.carrier.reload(config, fixed.carrier(&config.carrier))?;
        self.flights.set_limits(config.carrier.flights);
        self.audit.set_timeout(config.gateway.deadline);
        self.admit.reload(config);
        self.cache.reload(config);
        if let Some(fleet) = &self.fleet {
            fleet.set_agreement(config);
        }
        self.lookup_log.set(config.log.lookups, config.log.lookups_per_second);
        self.config.store(Arc::clone(config));
        Ok(())
    }

    /// Ends what is in flight: calls with a fault, requests with a refusal, each with its row.
    pub fn stop(&self) {
        self.shutdown.cancel();
        self.carrier.stop();
    }

    /// Frees what has expired, and reads the past again if the clock was set back or a loss was acknowledged; called on a
    /// ticker.
    pub fn run_maintenance(self: &Arc<Self>) {
        let tick = self.carrier.watch_clock();
        if tick.set_back {
            self.cache.remove_future();
        }
        if tick.step == Some(belief::Step::Backwards) || self.has_new_acknowledgement() {
            self.restore_in_background();
        }
        self.refuse_lost_stamps();
        self.carrier.report_accounts();
        for account in self.carrier.tokens_to_renew() {
            let relay = Arc::clone(self);
            self.tasks.spawn(async move { relay.carrier.renew_token(account).await });
        }
        self.stale_watch.report(self.clock.monotonic(), self.audit.alarms());
        self.lookup_log.report();
        self.admit.run_maintenance();
        self.actions.sweep(self.clock.believed().minus(self.admit.replay_horizon()).as_secs());
    }
}
