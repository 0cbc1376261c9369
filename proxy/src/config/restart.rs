//! The keys that take effect at a start only, and those of them that differ from the values at the start.
//!
//! Each part of the configuration is destructured as a whole, so that a new key is either compared here or named among
//! those that a reload applies. No value here is a secret: a value that a reload replaces must not stay in memory.

use std::time::Duration;

use hyper::Uri;

use super::fleet::{Fingerprints, Fleet, FleetAudit, FleetReplay, Host, WhenAlone};
use super::listen::Listen;
use super::{Admin, AuditConfig, Cache, Carrier, Config, Gateway, LogFormat, TransidLimits, file};

/// A key that takes effect at a start only, and whether its values differ.
type Key = (&'static str, fn(&Fixed, &Fixed) -> bool);

/// The keys that take effect at a start only, as the documentation writes them; a reload applies all others.
const KEYS: &[Key] = &[
    ("[gateway] listen", |old, new| old.gateway_listen != new.gateway_listen),
    ("[gateway] names", |old, new| old.names != new.names),
    ("[gateway] max_transids", |old, new| old.max_transids != new.max_transids),
    ("[admin] listen", |old, new| old.admin_listen != new.admin_listen),
    ("[store] dir", |old, new| old.store_dir != new.store_dir),
    ("[carrier] base_url", |old, new| old.base_url != new.base_url),
    ("[carrier] proxy", |old, new| old.proxy != new.proxy),
    ("[carrier] node", |old, new| old.node != new.node),
    ("[cache] memory_entries", |old, new| old.memory_entries != new.memory_entries),
    ("[cache] file_entries", |old, new| old.file_entries != new.file_entries),
    ("[cache] file_age", |old, new| old.file_age != new.file_age),
    ("[log] format", |old, new| old.log_format != new.log_format),
    ("[process] allow_core_dumps", |old, new| old.core_dumps != new.core_dumps),
    ("[audit] durability", |old, new| old.audit.durability != new.audit.durability),
    ("[audit] on_failure", |old, new| old.audit.on_failure != new.audit.on_failure),
    ("[audit] min_free", |old, new| old.audit.min_free != new.audit.min_free),
    ("[audit] anchor_every", |old, new| old.audit.anchor_every != new.audit.anchor_every),
    ("[audit] identifiers", |old, new| old.audit.identifiers != new.audit.identifiers),
    ("[audit] bodies", |old, new| old.audit.bodies != new.audit.bodies),
    ("[audit] audit_group", |old, new| old.audit.group != new.audit.group),
    ("[audit] refusals", |old, new| old.audit.refusals != new.audit.refusals),
    ("[audit] refusal_period", |old, new| old.audit.refusal_period != new.audit.refusal_period),
    ("[fleet] hosts", |old, new| differ(old, new, |fleet| &fleet.hosts)),
    ("[fleet] database", |old, new| differ(old, new, |fleet| &fleet.database)),
    ("[fleet] user", |old, new| differ(old, new, |fleet| &fleet.user)),
    ("[fleet] password_file", |old, new| differ(old, new, |fleet| &fleet.files.password)),
    ("[fleet] key_file", |old, new| differ(old, new, |fleet| &fleet.files.key)),
    ("[fleet] nodes", |old, new| differ(old, new, |fleet| &fleet.nodes)),
    ("[fleet] replay", |old, new| differ(old, new, |fleet| &fleet.replay)),
    ("[fleet] when_alone", |old, new| differ(old, new, |fleet| &fleet.when_alone)),
    ("[fleet] timeout", |old, new| differ(old, new, |fleet| &fleet.timeout)),
    ("[fleet] pool", |old, new| differ(old, new, |fleet| &fleet.pool)),
    ("[fleet] reserve_percent", |old, new| differ(old, new, |fleet| &fleet.reserve_percent)),
    ("[fleet] audit", |old, new| differ(old, new, |fleet| &fleet.audit)),
    ("[fleet.tls] ca_file", |old, new| differ(old, new, |fleet| &fleet.files.roots)),
    ("[fleet.tls] cert_file", |old, new| differ(old, new, |fleet| &fleet.files.chain)),
    ("[fleet.tls] key_file", |old, new| differ(old, new, |fleet| &fleet.files.tls_key)),
];

/// Whether a value of `[fleet]` differs, or the whole table was added or removed.
fn differ<T: PartialEq>(old: &Fixed, new: &Fixed, value: impl Fn(&FixedFleet) -> &T) -> bool {
    old.fleet.as_ref().map(&value) != new.fleet.as_ref().map(&value)
}

/// The keys that take effect at a start only, such as `[gateway] listen`.
pub fn keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(key, _)| *key)
}

/// The values that are in effect until the process ends.
#[derive(Clone, Debug)]
pub struct Fixed {
    gateway_listen: Listen,
    names: Vec<String>,
    max_transids: usize,
    admin_listen: Listen,
    store_dir: std::path::PathBuf,
    base_url: Uri,
    proxy: Option<Uri>,
    node: u8,
    memory_entries: u64,
    file_entries: u64,
    file_age: Duration,
    audit: AuditConfig,
    log_format: LogFormat,
    core_dumps: bool,
    fleet: Option<FixedFleet>,
}

/// `[fleet]` with fingerprints in the place of its secrets.
#[derive(Clone, Debug)]
struct FixedFleet {
    hosts: Vec<Host>,
    database: String,
    user: String,
    nodes: u32,
    replay: FleetReplay,
    when_alone: WhenAlone,
    timeout: Duration,
    pool: usize,
    reserve_percent: u32,
    audit: FleetAudit,
    files: Fingerprints,
}

impl FixedFleet {
    fn of(fleet: &Fleet) -> Self {
        let Fleet {
            hosts,
            database,
            user,
            // The fingerprints differ if these do.
            password: _,
            key: _,
            tls: _,
            nodes,
            replay,
            when_alone,
            timeout,
            pool,
            reserve_percent,
            audit,
            fingerprints,
        } = fleet;
        Self {
            hosts: hosts.clone(),
            database: database.clone(),
            user: user.clone(),
            nodes: *nodes,
            replay: *replay,
            when_alone: *when_alone,
            timeout: *timeout,
            pool: *pool,
            reserve_percent: *reserve_percent,
            audit: *audit,
            files: fingerprints.clone(),
        }
    }
}

impl Fixed {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Self {
        let Gateway {
            listen: gateway_listen,
            names,
            transids: TransidLimits { total: max_transids, per_client: _, per_group: _ },
            // A reload applies these, to new connections and requests.
            deadline: _,
            clock_skew: _,
            peers: _,
            limits: _,
            drain_timeout: _,
        } = &config.gateway;
        let Admin { listen: admin_listen, token: _, names: _, access: _, limits: _ } = &config.admin;
        let Carrier {
            base_url,
            proxy,
            node,
            // A reload applies these, to new calls and flights.
            connect_timeout: _,
            timeout: _,
            bind: _,
            max_body: _,
            stale_timeout: _,
            flights: _,
            max_queued_calls: _,
            queue_timeout: _,
            drift_alarm: _,
            tls: _,
        } = &config.carrier;
        let Cache {
            memory_entries,
            file_entries,
            file_age,
            ttl_jitter_percent: _,
            refresh_ahead_percent: _,
            refresh_ahead_hits: _,
        } = &config.cache;
        // All of them are in effect until the process ends.
        let AuditConfig {
            durability: _,
            on_failure: _,
            min_free: _,
            anchor_every: _,
            identifiers: _,
            bodies: _,
            group: _,
            refusals: _,
            refusal_period: _,
        } = config.audit;
        // A reload applies the settings of lookups.
        let file::Log { format: log_format, lookups: _, lookups_per_second: _ } = &config.log;
        let file::Process { allow_core_dumps, allow_world_readable_secrets: _ } = &config.process;
        Self {
            gateway_listen: gateway_listen.clone(),
            names: names.clone(),
            max_transids: *max_transids,
            admin_listen: admin_listen.clone(),
            store_dir: config.store_dir.clone(),
            base_url: base_url.clone(),
            proxy: proxy.clone(),
            node: *node,
            memory_entries: *memory_entries,
            file_entries: *file_entries,
            file_age: *file_age,
            audit: config.audit,
            log_format: *log_format,
            core_dumps: *allow_core_dumps,
            fleet: config.fleet.as_ref().map(FixedFleet::of),
        }
    }

    /// The keys whose values in `new` differ: they take effect at the next start.
    pub fn changed(&self, new: &Config) -> Vec<&'static str> {
        let new = Self::of(new);
        KEYS.iter().filter(|(_, differs)| differs(self, &new)).map(|(key, _)| *key).collect()
    }

    /// The settings for calls after a reload: the new ones, with the address that is in effect until the next start.
    pub fn carrier(&self, new: &Carrier) -> Carrier {
        Carrier { base_url: self.base_url.clone(), proxy: self.proxy.clone(), node: self.node, ..new.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ConfigFile;
    use super::*;
    use std::path::Path;

    fn config(more: &str) -> Config {
        let account = "[[account]]\nname = 'a'\nappid = 'A1'\nebid = '0001000000009'\npassword = 'pw'\n";
        let file = ConfigFile::parse(Path::new("p.toml"), &format!("{account}{more}")).unwrap();
        Config::check(&file, Path::new(".")).unwrap()
    }

    #[test]
    fn a_key_is_named_until_it_is_changed_back() {
        let started = Fixed::of(&config(""));
        for (more, keys) in [
            (
                "[gateway]\nlisten = '127.0.0.1:1'\nnames = ['x.example']\n",
                ["[gateway] listen", "[gateway] names"].as_slice(),
            ),
            ("[gateway]\nmax_transids = 5000000\n", &["[gateway] max_transids"]),
            ("[admin]\nlisten = '127.0.0.1:1'\n", &["[admin] listen"]),
            ("[store]\ndir = 'x'\n", &["[store] dir"]),
            (
                "[carrier]\nbase_url = 'http://x'\nproxy = 'http://y:1'\nnode = 3\n",
                &["[carrier] base_url", "[carrier] proxy", "[carrier] node"],
            ),
            (
                "[cache]\nmemory_entries = 7\nfile_entries = 8\nfile_age = '1h'\n",
                &["[cache] memory_entries", "[cache] file_entries", "[cache] file_age"],
            ),
            (
                "[log]\nformat = 'json'\n[process]\nallow_core_dumps = true\n",
                &["[log] format", "[process] allow_core_dumps"],
            ),
            (
                "[audit]\nmin_free = '1GiB'\nrefusals = 1\naudit_group = '7'\n",
                &["[audit] min_free", "[audit] audit_group", "[audit] refusals"],
            ),
            (
                "[carrier]\ntimeout = '1s'\nmax_body = '1KiB'\nmax_flights = 5\n[gateway]\nidle_timeout = '1s'\n",
                &[],
            ),
            ("", &[]),
        ] {
            assert_eq!(started.changed(&config(more)), keys, "{more}");
        }
    }

    #[test]
    fn the_address_of_the_carrier_stays_and_the_limits_change() {
        let started = Fixed::of(&config("[carrier]\nbase_url = 'http://first'\n"));
        let new = config("[carrier]\nbase_url = 'http://second'\ntimeout = '1s'\n").carrier;
        let counts = started.carrier(&new);
        assert_eq!((counts.host(), counts.timeout), ("first", Duration::from_secs(1)));
    }
}
