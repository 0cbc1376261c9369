//! Links to the database inside the process of the test, and the tables of a fleet without a proxy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cmiot_proxy::config::{Config, ConfigFile};
use cmiot_proxy::metrics::Metrics;
use cmiot_proxy::store::fleet::{Link, migrate};
use tokio::task::JoinSet;
use toml::Value;

use super::postgres::{DATABASE, Postgres};
use crate::support::{Setup, write_secret};

/// Creates the tables of a fleet, as their owner, with the rights of the role of the nodes.
pub(crate) async fn create_tables(server: &Postgres) {
    let mut owner = server.try_client("cmiot_owner").await.expect("a role of the template");
    migrate::migrate(&mut owner, "cmiot_node").await.expect("an empty database");
}

/// The checked configuration of a node in a fleet of three, with a key of the fleet in `folder`, after a change by
/// `configure`.
pub(crate) fn configuration(
    folder: &Path,
    hosts: Vec<String>,
    configure: impl FnOnce(Setup) -> Setup,
) -> Config {
    write_secret(&folder.join("fleet.key"), &"5e".repeat(32));
    let setup = Setup::calling("http://127.0.0.1:9/v2")
        .set("fleet.hosts", hosts)
        .set("fleet.database", DATABASE)
        .set("fleet.user", "cmiot_node")
        .set("fleet.key_file", "fleet.key")
        .set("fleet.nodes", 3)
        // A machine that runs many tests at once may take longer than the default.
        .set("fleet.timeout", "10s");
    let file = ConfigFile::parse(Path::new("proxy.toml"), &configure(setup).text()).expect("TOML");
    Config::check(&file, folder).expect("a configuration without problems")
}

/// The link of a node that reaches the database through these hosts.
pub(crate) fn link_of(node: u8, hosts: Vec<String>, timeout: &str, pool: usize) -> Arc<Link> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pool = Value::from(i64::try_from(pool).expect("a small number"));
    let config = configuration(folder.path(), hosts, |setup| {
        setup.set("fleet.timeout", timeout).set("fleet.pool", pool)
    });
    let fleet = config.fleet.expect("[fleet]");
    Arc::new(Link::new(&Arc::new(fleet), node, Metrics::new()))
}

/// Opens so many connections of the link, and removes the server's time limits from them: a test that makes statements wait
/// for a lock has as long as it needs.
pub(crate) async fn lift_time_limits(link: &Arc<Link>, connections: usize) {
    const LIFT: &str = "SELECT set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false), \
                        pg_sleep(0.2)"; // so that each statement has a connection of its own
    let mut all = JoinSet::new();
    for _ in 0..connections {
        let link = Arc::clone(link);
        all.spawn(async move { link.probe(LIFT, &[], Duration::from_secs(20)).await.map(drop) });
    }
    all.join_all().await.into_iter().collect::<Result<(), _>>().expect("a server without faults");
}
