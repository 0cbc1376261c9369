//! The process: the order in which its parts are built and drained, and the owner of each task.
//!
//! The stores are built first, then the parts that use them, then the listeners, so that no request arrives before all of
//! it can respond. The drain has the opposite order: listeners stop, requests finish, flights end, stores flush.

mod fleet;
mod relay;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use self::fleet::FleetTasks;
use crate::admin::{Admin, AdminService, ReloadRequest, Reloads};
use crate::alarms::{Alarms, Condition, Severity};
use crate::clock::{Clock, timeout};
use crate::config::admin::Token;
use crate::config::restart::Fixed;
use crate::config::{Config, ConfigError, ListenConfig};
use crate::gateway;
use crate::language::{Text, text};
use crate::listen::{ADMIN_OVERLOAD_RESPONSE, ActivatedSockets, BoundAddress, Listener};
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::relay::Relay;
use crate::sequence::unaccounted;
use crate::store::audit::ActRow;
use crate::store::cache::Retention;
use crate::store::{Store, StoreError, StoreOptions, audit};
use crate::webhook::Webhooks;
use crate::wire::response::overload_response;

/// The time for calls and requests in flight to end after the drain timeout, when they are cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The interval of the maintenance tasks, such as moka's deferred work.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// Opens the configured store.
///
/// # Errors
/// [`StoreError`], with its remedy.
pub fn open_store(config: &Config, accept_lost_state: bool, clock: &Clock) -> Result<Store, StoreError> {
    let options = StoreOptions {
        audit: audit::Options::from(&config.audit),
        retention: Retention::from(&config.cache),
        accept_lost_state,
        ..StoreOptions::default()
    };
    Store::open(&config.store_dir, options, clock)
}

/// A running proxy.
pub struct App {
    gateway: BoundAddress,
    admin: BoundAddress,
    reloads: Reloads,
    gateway_limits: Arc<ArcSwap<ListenConfig>>,
    admin_limits: Arc<ArcSwap<ListenConfig>>,
    relay: Arc<Relay>,
    store: Arc<Store>,
    /// The settings that are in effect until the process ends.
    fixed: Fixed,
    stop: CancellationToken,
    /// Cancelled at the end of the grace time, which closes the connections without a request in flight.
    cut: CancellationToken,
    connections: TaskTracker,
    /// The admin listener and its connections end after the gateways': until then `/ready` reports the drain.
    admin_stop: CancellationToken,
    admin_connections: TaskTracker,
    flights: TaskTracker,
    /// Delivers commit results, while connections are drained too.
    _watch: AbortOnDropHandle<()>,
    /// Shares budgets with the other nodes of a fleet, while connections are drained too.
    _sharing: AbortOnDropHandle<()>,
    /// Ends when `stop` is cancelled.
    webhooks: AbortOnDropHandle<()>,
    heartbeat: Option<FleetTasks>,
}

/// The reason for which the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] io::Error),
    /// The token of the admin listener cannot be read or made.
    #[error(transparent)]
    Token(#[from] ConfigError),
    /// TLS towards the carrier cannot be set up.
    #[error("TLS towards the carrier cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Another proxy of the fleet has the number of this node.
    #[error(transparent)]
    Fleet(#[from] crate::fleet::Refused),
}

impl App {
    /// Builds everything over an opened store and begins to serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing listens then.
    pub async fn start(mut config: Config, store: Store, clock: Clock) -> Result<Self, StartError> {
        if config.admin.token == Token::Made(None) {
            let dir = config.store_dir.clone();
            config.find_token(&dir)?;
        }
        let config = Arc::new(config);
        let store = Arc::new(store);
        let metrics = Metrics::new();
        let flights = TaskTracker::new();
        let fleet = fleet::node(&config, &store, &clock, &metrics)?;
        if let Some(fleet) = &fleet {
            fleet.start(&config.store_dir).await?;
        }
        let relay = Arc::new(relay::build(&config, &store, &clock, &metrics, &flights, fleet.clone())?);
        relay.cache.remove_future();
        if let Some(fleet) = &fleet {
            relay.catch_up_with(fleet).await;
        }
        if let Some(newest) = store.audit_reader.newest_record()? {
            clock.newest_record(newest);
        }
        relay.store_window(&store.state)?;
        relay.restore_used_transids(true)?;
        relay.carrier.watch_clock();
        note_unaccounted(&store, &clock).await?;
        let webhooks = Webhooks::start(Arc::clone(&relay), Arc::clone(&store)).await?;

        let gateway_limits = Arc::new(ArcSwap::from_pointee(config.gateway.limits.clone()));
        let admin_limits = Arc::new(ArcSwap::from_pointee(config.admin.limits.clone()));
        let [gateway, admin] = bind(&config, [&gateway_limits, &admin_limits], &metrics)?;
        let reloads = Reloads::default();
        let stop = CancellationToken::new();
        let app = Self {
            reloads: reloads.clone(),
            gateway: gateway.bound().clone(),
            admin: admin.bound().clone(),
            gateway_limits,
            admin_limits,
            relay: Arc::clone(&relay),
            store: Arc::clone(&store),
            fixed: Fixed::of(&config),
            stop: stop.clone(),
            cut: CancellationToken::new(),
            connections: TaskTracker::new(),
            admin_stop: CancellationToken::new(),
            admin_connections: TaskTracker::new(),
            flights,
            _watch: AbortOnDropHandle::new(tokio::spawn({
                let relay = Arc::clone(&relay);
                async move { relay.audit.watch().await }
            })),
            _sharing: AbortOnDropHandle::new(tokio::spawn({
                let relay = Arc::clone(&relay);
                async move { relay.carrier.share_accounts().await }
            })),
            webhooks: AbortOnDropHandle::new(tokio::spawn(webhooks.run(stop))),
            heartbeat: fleet.map(|fleet| FleetTasks::start(&relay, fleet, &config.store_dir)).transpose()?,
        };
        let unix = app.admin.tcp().is_none();
        let connections = gateway.limiter().clone();
        let api = AdminService::new(Admin {
            relay,
            connections,
            store,
            metrics,
            reloads,
            probe: Arc::default(),
            stop: app.stop.clone(),
            unix,
            checking: Arc::default(),
        });
        app.store.announce(
            &published(&app.admin, &config.admin.limits),
            &published(&app.gateway, &config.gateway.limits),
        );
        report_certificates(&app.relay, &app.store.alarms);
        app.relay.metrics.certificates(&app.relay.config.load().certificates);
        app.relay.metrics.started(app.relay.clock.now());
        app.serve(gateway, admin, Arc::new(api));
        tracing::info!(gateway = %app.gateway, admin = %app.admin, "serving");
        Ok(app)
    }

    fn serve(&self, gateway: Listener, admin: Listener, api: Arc<AdminService>) {
        let relay = Arc::clone(&self.relay);
        let look_up = move |request, origin: Peer| gateway::serve(Arc::clone(&relay), request, origin);
        let inspect = move |request, origin: Peer| {
            let api = Arc::clone(&api);
            async move { api.serve(request, origin).await }
        };
        let tasks = &self.connections;
        tasks.spawn(gateway.serve(look_up, self.stop.clone(), self.cut.clone(), tasks.clone()));
        let inspections = &self.admin_connections;
        // The grace time has passed by then.
        let stop = self.admin_stop.clone();
        inspections.spawn(admin.serve(inspect, stop.clone(), stop, inspections.clone()));
        tasks.spawn(
            Arc::clone(&self.relay).keep_shared_replay(Arc::clone(&self.store.audit), self.stop.clone()),
        );
        let (relay, stop) = (Arc::clone(&self.relay), self.stop.clone());
        let alarms = self.store.alarms.clone();
        tasks.spawn(async move {
            while tokio::time::timeout(MAINTENANCE_INTERVAL, stop.cancelled()).await.is_err() {
                relay.cache.run_maintenance();
                relay.run_maintenance();
                relay.admit.report(&alarms);
                report_certificates(&relay, &alarms);
                relay.audit.run_maintenance();
            }
        });
    }

    /// The address of the gateways' listener.
    pub fn gateway(&self) -> &BoundAddress {
        &self.gateway
    }

    /// The address of the admin listener.
    pub fn admin(&self) -> &BoundAddress {
        &self.admin
    }

    /// Resolves to the reason when the store cannot continue in this process. `/ready` fails from then on; the caller must
    /// drain the proxy and end the process with an error, so that its supervisor restarts it.
    pub async fn failed(&self) -> String {
        self.store.failure.wait().await.to_owned()
    }

    /// The admin listener's requests for a reload.
    pub fn reloads(&self) -> mpsc::Receiver<ReloadRequest> {
        self.reloads.receive()
    }

    /// Applies a changed configuration: credentials, permissions, limits, timeouts, freshness, trust, TLS. No connection is
    /// dropped; open ones keep the limits with which they were accepted. Keys that need a restart are named in the log, in
    /// `/ready` and in the metrics, until they are changed back.
    ///
    /// # Errors
    /// The reason for which the configuration is refused; the old one stays in effect, and an alarm is raised.
    pub fn reload(&self, config: Config) -> Result<(), String> {
        let config = Arc::new(config);
        if let Err(error) = self.relay.reload(&config, &self.fixed) {
            let error =
                text!("TLS towards the carrier cannot be set up: {error}", "无法建立与运营商的 TLS：{error}");
            self.reject_reload(&error);
            return Err(error.english);
        }
        if let Err(error) = self.relay.store_window(&self.store.state) {
            tracing::error!(%error, "the widest clock_skew is not stored: do not narrow it before another reload");
        }
        self.gateway_limits.store(Arc::new(config.gateway.limits.clone()));
        self.admin_limits.store(Arc::new(config.admin.limits.clone()));
        self.name_restart_keys(&self.fixed.changed(&config));
        report_certificates(&self.relay, &self.store.alarms);
        self.relay.metrics.certificates(&config.certificates);
        self.relay.metrics.reload_accepted(self.relay.clock.now());
        self.store.alarms.clear(Condition::Configuration);
        tracing::info!(clients = config.clients.len(), "configuration reloaded");
        Ok(())
    }

    /// Logs and counts the changed keys that take effect at the next start.
    fn name_restart_keys(&self, keys: &[&'static str]) {
        self.relay.metrics.restart_needed(keys);
        if keys.is_empty() {
            self.store.alarms.clear(Condition::Restart);
            return;
        }
        for key in keys {
            tracing::warn!(key, "this changed key takes effect at the next start");
        }
        let text = text!(
            "changed, and not in effect until the next start: {keys}; restart the proxy, or change them back",
            "已修改，但下次启动后才生效：{keys}；请重启代理，或改回原值",
            keys = keys.join(", ")
        );
        self.store.alarms.raise_warning(Condition::Restart, text);
    }

    /// Writes the note about a reload that a signal or a change of a file caused (`by`): neither names a user. Does not wait
    /// for it.
    pub fn note_reload(&self, by: &str, result: &Result<(), String>) {
        let outcome = if result.is_ok() { "accepted" } else { "refused" };
        self.store.audit.append_act_later(ActRow {
            at: self.relay.clock.now(),
            what: "reload",
            detail: format!("by={by} from=local result={outcome}"),
            card: None,
        });
    }

    /// Raises the alarm for a changed configuration that is refused; the old one stays in effect.
    pub fn reject_reload(&self, error: &Text) {
        self.relay.metrics.reload_refused();
        let Text { english, chinese } = error;
        let text = Text {
            english: format!(
                "the changed configuration is refused as a whole, the old one stays: {english}; correct it (`cmiot-proxy \
                 check` names every problem), and do not restart the proxy before: it would not start"
            ),
            chinese: format!(
                "修改后的配置被整体拒绝，旧配置继续使用：{chinese}；请改正（`cmiot-proxy check` 列出每个问题），在此之前不要重启\
                 代理：它将无法启动"
            ),
        };
        let is_logged = !self.store.alarms.holds_as(Condition::Configuration, Severity::Error);
        self.store.alarms.raise(Condition::Configuration, text);
        // An alarm is logged when it begins: the error of a later refusal would be in `/ready` alone.
        if !is_logged {
            tracing::error!(%error, "the changed configuration is refused as a whole, the old one stays");
        }
    }

    /// Raises the alarm that a load of the configuration has taken this long, and the old one stays meanwhile. The alarm
    /// about a refused configuration is worse, and stays.
    pub fn report_slow_load(&self, after: Duration) {
        if self.store.alarms.holds_as(Condition::Configuration, Severity::Error) {
            tracing::debug!(?after, "the refused configuration is loading again, and slowly");
            return;
        }
        let text = text!(
            "the configuration has been loading for {after:?}, and the old one stays: a file that it names is on a file \
             system that does not respond; do not restart the proxy before it does: it would not start",
            "加载配置已用 {after:?}，旧配置继续使用：其中某个文件所在的文件系统没有响应；在它恢复之前不要重启代理：它将无法启动"
        );
        self.store.alarms.raise_warning(Condition::Configuration, text);
    }

    /// Ends the alarm about a slow load, after one that found nothing to apply.
    pub fn load_ended(&self) {
        self.store.alarms.clear_warning(Condition::Configuration);
    }

    /// Stops accepting, finishes requests in flight within the drain timeout, flushes and closes the stores. The admin
    /// listener serves until the gateways' connections have ended.
    pub async fn drain(self) {
        tracing::info!(flights = self.relay.flights.in_flight(), "draining");
        self.stop.cancel();
        self.connections.close();
        self.flights.close();
        let ended = async || {
            self.connections.wait().await;
            self.flights.wait().await;
        };
        let mut calls_ended = true;
        let grace = self.relay.config.load().gateway.drain_timeout;
        if timeout(grace, ended()).await.is_err() {
            tracing::warn!(
                ?grace,
                "not everything finished within the grace time: calls and requests in flight end now, each with its record"
            );
            self.relay.stop();
            self.cut.cancel();
            if timeout(CANCEL_TIMEOUT, ended()).await.is_err() {
                // A connection that does not end has no call in flight.
                calls_ended = self.flights.is_empty();
                tracing::warn!(
                    "a connection or a call did not end; what is not recorded is found at the next start"
                );
            }
        }
        self.admin_stop.cancel();
        self.admin_connections.close();
        if timeout(CANCEL_TIMEOUT, self.admin_connections.wait()).await.is_err() {
            tracing::warn!("a connection of the admin listener did not end");
        }
        if timeout(CANCEL_TIMEOUT, self.webhooks).await.is_err() {
            tracing::warn!("the positions of the webhooks are not stored: messages may be repeated");
        }
        if let Some(heartbeat) = self.heartbeat {
            heartbeat.end().await;
        }
        self.relay.audit.flush();
        let store = self.store;
        if tokio::task::spawn_blocking(move || match calls_ended {
            true => store.close(),
            false => store.close_with_calls_in_flight(),
        })
        .await
        .is_err()
        {
            tracing::error!("the databases were not closed in order; they recover at the next start");
        }
        tracing::info!("drained");
    }
}

/// Binds the gateways' listener and the admin listener, each with its limits.
fn bind(
    config: &Config,
    [gateway_limits, admin_limits]: [&Arc<ArcSwap<ListenConfig>>; 2],
    metrics: &Arc<Metrics>,
) -> io::Result<[Listener; 2]> {
    let mut inherited = ActivatedSockets::from_env();
    let gateway = Listener::bind(
        &config.gateway.listen,
        &mut inherited,
        Arc::clone(gateway_limits),
        overload_response(),
        Arc::clone(metrics),
    )?;
    let admin = Listener::bind(
        &config.admin.listen,
        &mut inherited,
        Arc::clone(admin_limits),
        ADMIN_OVERLOAD_RESPONSE,
        Arc::clone(metrics),
    )?;
    for name in inherited.unused() {
        tracing::warn!(name, "no listener uses this systemd socket: connections to it are never accepted");
    }
    Ok([gateway, admin])
}

/// The URL of a listener, for the commands that connect to it.
fn published(bound: &BoundAddress, limits: &ListenConfig) -> String {
    match bound {
        BoundAddress::Tcp(address) if limits.tls.is_some() => format!("https://{address}"),
        BoundAddress::Tcp(address) => format!("http://{address}"),
        // Absolute, since a command may have another working folder.
        BoundAddress::Unix(Some(path)) => {
            format!("unix:{}", path.canonicalize().unwrap_or_else(|_| path.clone()).display())
        }
        BoundAddress::Unix(None) => "unix:".to_owned(),
    }
}

/// Raises the alarm for certificates that are not valid, or expire soon.
fn report_certificates(relay: &Relay, alarms: &Alarms) {
    let now = relay.clock.now();
    let config = relay.config.load();
    let wrong: Vec<_> = config.certificates.iter().filter_map(|one| one.warning(now)).collect();
    let all_valid = config.certificates.iter().all(|one| one.is_valid(now));
    let severity = if all_valid { Severity::Warning } else { Severity::Error };
    alarms.set_if(Condition::Certificate, severity, Text::join(&wrong));
}

/// Records the calls that were in flight at a crash: their transids were leased and have no row.
async fn note_unaccounted(store: &Store, clock: &Clock) -> Result<(), StoreError> {
    let found = unaccounted::find(&store.state, &store.audit_reader, clock.now())?;
    for note in found.notes {
        tracing::warn!("calls without a row, since the proxy did not end in order: {}", note.detail);
        if store.audit.append_note(note).await.is_err() {
            tracing::warn!("these calls could not be noted in the audit; the next start tries again");
            return Ok(());
        }
    }
    found.last.map_or(Ok(()), |last| store.state.account_for(last))
}
