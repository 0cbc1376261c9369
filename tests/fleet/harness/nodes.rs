//! The proxies of a fleet: processes of the executable over one server and one simulated carrier, each with a store, a
//! number and a partition of its own.

use std::ops::{Deref, DerefMut, Index, IndexMut};
use std::path::{Path, PathBuf};

use cmiot_simulator::Simulator;
use rustix::process::Signal;
use tempfile::TempDir;
use toml::Value;

use super::partition::Partition;
use super::postgres::{DATABASE, Postgres};
use super::process::Process;
use crate::support::{Machine, Output, Proxy, Setup, carrier, eventually, run, write_config, write_secret};

/// The key of the fleet, in hexadecimal.
const KEY: &str = "5e1f0c2b9d8a47e6b3c4d5f60718293a4b5c6d7e8f90a1b2c3d4e5f607182930";

/// A fleet. Its nodes have the numbers 1, 2 and so on; `nodes[0]` is number 1.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    pub(crate) carrier: Simulator,
    pub(crate) server: Postgres,
}

/// A proxy of a fleet, and the socket by which it reaches the server.
pub(crate) struct Node {
    proxy: Proxy,
    pub(crate) partition: Partition,
}

impl Nodes {
    /// Starts a server, a carrier without faults and this many proxies.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, |setup, _| setup).await
    }

    /// Starts a fleet with a change of each node's configuration; `configure` receives the configuration and the number.
    pub(crate) async fn start_with(count: usize, configure: impl Fn(Setup, usize) -> Setup) -> Self {
        Self::start_over(Postgres::start().await, carrier().await, count, configure).await
    }

    /// Starts a fleet over a server without tables and a carrier.
    pub(crate) async fn start_over(
        server: Postgres,
        carrier: Simulator,
        count: usize,
        configure: impl Fn(Setup, usize) -> Setup,
    ) -> Self {
        migrate(&server).await;
        let mut fleet = Self { nodes: Vec::new(), carrier, server };
        for number in 1..=count {
            fleet.add(number, count, &configure).await;
        }
        fleet
    }

    /// Starts one more proxy, with this number, in a fleet of `count`.
    pub(crate) async fn add(
        &mut self,
        number: usize,
        count: usize,
        configure: impl Fn(Setup, usize) -> Setup,
    ) {
        self.add_on(|_| Machine::default(), number, count, configure).await;
    }

    /// Starts a fleet whose nodes have wall clocks that [`Proxy::set_clock_offset`] steps.
    pub(crate) async fn start_with_clocks(count: usize, configure: impl Fn(Setup, usize) -> Setup) -> Self {
        let server = Postgres::start().await;
        migrate(&server).await;
        let mut fleet = Self { nodes: Vec::new(), carrier: carrier().await, server };
        for number in 1..=count {
            fleet.add_on(Machine::stepped_clock, number, count, &configure).await;
        }
        fleet
    }

    async fn add_on(
        &mut self,
        machine: impl Fn(&Path) -> Machine,
        number: usize,
        count: usize,
        configure: impl Fn(Setup, usize) -> Setup,
    ) {
        let partition = Partition::to(&self.server);
        let setup = configure(fleet_setup(&self.carrier, &partition, number, count), number);
        let folder = folder_of(&setup);
        let machine = machine(folder.path());
        let proxy = Proxy::start_on_machine(folder, setup, machine).await;
        self.nodes.push(Node { proxy, partition });
    }

    /// Waits until so many nodes have a life that is not over.
    pub(crate) async fn wait_for_members(&self, count: usize) {
        let lives = "SELECT count(*) FROM fleet.life WHERE NOT gone AND until > fleet.now()";
        let count = count.to_string();
        eventually("members", async || (self.server.value(lives).await == count).then_some(())).await;
    }

    /// All nodes.
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Node> {
        self.nodes.iter()
    }
}

impl Node {
    /// Runs a command of the executable with the node's configuration, such as `["fleet", "status"]`.
    pub(crate) async fn command(&self, words: &[&str]) -> Output {
        command_with(&self.proxy.config(), words).await
    }

    /// Stops the process by SIGSTOP: its sockets stay open, and it answers nothing. The next signal or kill of the
    /// [`Proxy`] must come after [`Node::resume`], since it reads the metrics first.
    pub(crate) fn pause(&self) {
        self.process().stop();
    }

    /// Continues the process after [`Node::pause`].
    pub(crate) fn resume(&self) {
        self.process().signal(Signal::CONT);
    }

    /// Waits until the node is not alone.
    pub(crate) async fn wait_until_shared(&self) {
        eventually("the end of being alone", async || {
            (self.metrics().await.value("cmiot_fleet_alone", []) == Some(0.0)).then_some(())
        })
        .await;
    }

    fn process(&self) -> Process {
        Process::with_id(self.proxy.pid()).expect("a process of ours")
    }
}

/// The configuration of a node of a fleet of `count` nodes. Its folder needs the key: see [`folder_of`].
pub(crate) fn fleet_setup(carrier: &Simulator, partition: &Partition, number: usize, count: usize) -> Setup {
    let integer = |number: usize| Value::from(i64::try_from(number).expect("a small number"));
    Setup::with_carrier(carrier)
        .set("carrier.node", integer(number))
        .set("fleet.hosts", vec![partition.host()])
        .set("fleet.database", DATABASE)
        .set("fleet.user", "cmiot_node")
        .set("fleet.key_file", "fleet.key")
        .set("fleet.nodes", integer(count))
        // A machine that runs many tests at once may take longer than the default.
        .set("fleet.timeout", "2s")
}

/// A new folder with the configuration and the key of the fleet.
pub(crate) fn folder_of(setup: &Setup) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_secret(&folder.path().join("fleet.key"), KEY);
    write_config(&config_in(&folder), &setup.text());
    folder
}

/// The path of the configuration.
pub(crate) fn config_in(folder: &TempDir) -> PathBuf {
    folder.path().join("cmiot-proxy.toml")
}

/// Creates the tables of a fleet, as their owner.
async fn migrate(server: &Postgres) {
    let partition = Partition::to(server);
    let folder = folder_of(&fleet_setup(&carrier().await, &partition, 1, 1));
    command_with(&config_in(&folder), &["fleet", "migrate", "--user", "cmiot_owner"]).await.success();
}

async fn command_with(config: &Path, words: &[&str]) -> Output {
    let arguments = [words, &["--config", config.to_str().expect("ASCII")]].concat();
    run(config.parent().expect("a folder"), &arguments, &[]).await
}

impl Index<usize> for Nodes {
    type Output = Node;

    fn index(&self, index: usize) -> &Node {
        &self.nodes[index]
    }
}

impl IndexMut<usize> for Nodes {
    fn index_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }
}

impl Deref for Node {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.proxy
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Proxy {
        &mut self.proxy
    }
}
