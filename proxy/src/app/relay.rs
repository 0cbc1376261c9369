//! The relay of a process, built from its configuration and its store.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use crate::admit::Admit;
use crate::admit::actions::Actions;
use crate::audit::{Audit, Refusals};
use crate::cache::Cache;
use crate::carrier::Carrier;
use crate::clock::Clock;
use crate::config::Config;
use crate::fleet::Fleet;
use crate::fleet::replay::SharedReplay;
use crate::flight::Flights;
use crate::metrics::Metrics;
use crate::relay::{LookupLog, Relay, ReplayRestore, StaleWatch};
use crate::store::Store;
use crate::wire::request::Hosts;

/// Builds the relay and the parts that it owns.
///
/// # Errors
/// TLS towards the carrier cannot be set up.
pub(super) fn build(
    config: &Arc<Config>,
    store: &Store,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    flights: &TaskTracker,
    fleet: Option<Arc<Fleet>>,
) -> Result<Relay, StartError> {
    let carrier = &config.carrier;
    let address = config.gateway.listen.ip().map(|address| address.to_string());
    let ours = std::iter::once(carrier.host().to_owned()).chain(address);
    let hosts = Hosts::new(config.gateway.names.iter().cloned().chain(ours));
    // A wildcard, or a socket that systemd bound, is reached by any address of this machine.
    let anywhere = config.gateway.listen.ip().is_none_or(|address| address.is_unspecified());
    Ok(Relay {
        hosts: if anywhere { hosts.with_addresses() } else { hosts },
        admit: Admit::new(config, clock.clone()),
        actions: Actions::default(),
        tasks: flights.clone(),
        shutdown: CancellationToken::new(),
        cache: Cache::new(config, Arc::clone(&store.cache), clock.clone()),
        flights: Arc::new(Flights::new(carrier.flights, flights.clone())),
        carrier: Carrier::new(config, &store.state, &store.audit, clock, Arc::clone(metrics), fleet.clone())?,
        audit: Audit::new(
            Arc::clone(&store.audit),
            config.gateway.deadline,
            Refusals::new(&config.audit),
            clock.clone(),
        ),
        config: ArcSwap::from(Arc::clone(config)),
        audit_reader: store.audit_reader.clone(),
        replay_restore: ReplayRestore::default(),
        shared_replay: fleet
            .as_ref()
            .map(|fleet| Arc::new(SharedReplay::new(Arc::clone(fleet), Arc::clone(metrics), clock.clone()))),
        lookup_log: LookupLog::new(config.log.lookups, config.log.lookups_per_second),
        stale_watch: StaleWatch::default(),
        clock: clock.clone(),
        metrics: Arc::clone(metrics),
        fleet,
        applied_purges: tokio::sync::Mutex::default(),
    })
}
