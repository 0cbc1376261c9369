//! `packaging/compose.fleet.yaml`: its programs with its configurations, as processes: a carrier, PostgreSQL, three proxies
//! and HAProxy.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cmiot_proxy::clock::Clock;
use tokio::net::TcpStream;
use tokio::process::Command;
use yaml_rust2::{Yaml, YamlLoader};

use crate::harness::Postgres;
use crate::support::{
    Gateway, GatewayClient, MSISDN, Started, card_number, command, eventually, rows, strings, write_config,
    write_secret,
};

const COMPOSE: &str = include_str!("../../packaging/compose.fleet.yaml");

const NODES: [&str; 3] = ["1", "2", "3"];

/// Replaces the names and addresses of the containers by those of the processes; each must be there.
fn here(text: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(text.to_owned(), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "{theirs} is not in {text}");
        text.replace(theirs, ours)
    })
}

/// The command of a service, with these words replaced.
fn command_of(service: &Yaml, folder: &Path, pairs: &[(&str, &str)]) -> Command {
    let mut command = command(folder);
    let words = if service["command"].is_badvalue() { Vec::new() } else { strings(&service["command"]) };
    for word in words {
        command.arg(pairs.iter().find(|(theirs, _)| *theirs == word).map_or(word, |(_, ours)| ours));
    }
    for (name, value) in service["environment"].as_hash().into_iter().flatten() {
        command.env(name.as_str().unwrap(), value.as_str().unwrap());
    }
    command
}

/// Creates the role of the nodes by the script of the file.
async fn create_role(script: &str, server: &Postgres) {
    // The database of the image has the owner alone, who may do everything.
    server.sql("ALTER ROLE cmiot_owner CREATEROLE").await;
    server.sql("DROP ROLE cmiot_node").await;
    let status = Command::new("sh")
        .args(["-euc", &script.replace("$$", "$")])
        .env("PGHOST", server.socket_folder())
        .env("NODE_PASSWORD", "a password of the role's own")
        .stdout(Stdio::null())
        .status();
    assert!(status.await.unwrap().success());
    assert_eq!(server.value("SELECT count(*) FROM pg_roles WHERE rolname = 'cmiot_node'").await, "1");
}

/// A port of the loopback that is free now.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn the_topology_of_the_compose_file_serves_as_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let documents = YamlLoader::load_from_str(COMPOSE).unwrap();
    let [compose] = &documents[..] else { panic!("{} documents", documents.len()) };
    let (services, configs) = (&compose["services"], &compose["configs"]);
    let content = |name: &str| configs[name]["content"].as_str().unwrap_or_else(|| panic!("{name}"));

    let server = Postgres::start().await;
    create_role(content("roles"), &server).await;
    let listen = ("0.0.0.0:9000", "127.0.0.1:0");
    let mut carrier = Started::new(command_of(&services["carrier"], folder.path(), &[listen]));
    let base_url = carrier.line("simulated carrier ").await;

    for secret in ["owner-password", "database-password"] {
        write_secret(&folder.path().join(secret), "a password that this server does not ask for");
    }
    write_secret(&folder.path().join("fleet-key"), &"5e".repeat(32));
    let host = format!("unix:{}", server.socket_folder().display());
    let subnet = compose["networks"]["default"]["ipam"]["config"][0]["subnet"].as_str().unwrap();
    for node in NODES {
        let configuration = here(
            content(&format!("proxy-{node}")),
            &[
                ("http://carrier:9000", &base_url),
                ("0.0.0.0:8080", "127.0.0.1:0"),
                ("127.0.0.1:8081", "127.0.0.1:0"),
                ("/var/lib/cmiot-proxy", &path(&format!("data-{node}"))),
                ("database:5432", &host),
                ("/run/secrets/database-password", &path("database-password")),
                ("/run/secrets/fleet-key", &path("fleet-key")),
                (subnet, "127.0.0.1/32"),
                (&format!("node = {node}\n"), &format!("node = {node}\n")),
            ],
        );
        write_config(&folder.path().join(format!("proxy-{node}.toml")), &configuration);
    }
    let config = path("proxy-1.toml");
    let words = [
        ("/etc/cmiot-proxy/cmiot-proxy.toml", config.as_str()),
        ("/run/secrets/owner-password", &path("owner-password")),
    ];
    let migrated = command_of(&services["tables"], folder.path(), &words).status().await.unwrap();
    assert!(migrated.success());

    let mut proxies = Vec::new();
    let mut balancer = content("balancer").to_owned();
    for node in NODES {
        let service = &services[format!("proxy-{node}").as_str()];
        assert_eq!(service["configs"][0]["source"].as_str(), Some(format!("proxy-{node}").as_str()));
        let mut serve = command_of(&compose["x-proxy"], folder.path(), &[]);
        serve.args(["serve", "--config", &path(&format!("proxy-{node}.toml"))]);
        let mut proxy = Started::new(serve);
        let gateway = proxy.line("gateway http://").await;
        balancer = here(&balancer, &[(&format!("proxy-{node}:8080"), &gateway)]);
        proxies.push(proxy);
    }
    let address = free_port();
    let _balancer = balance(folder.path(), &here(&balancer, &[(":8080", &address.to_string())])).await;

    let password = compose["x-proxy"]["environment"]["GATEWAY_PASSWORD"].as_str().unwrap();
    let gateway = Gateway::new(Clock::system()).named("GW0001", password);
    let client = GatewayClient { address, gateway };
    eventually("three live nodes", async || {
        let live = "SELECT count(*) FROM fleet.life WHERE NOT gone AND until > fleet.now()";
        (server.value(live).await == "3").then_some(())
    })
    .await;
    // Round robin: each node gets some of these lookups of one card, which cost one call.
    for _ in 0..9 {
        client.look_up(&MSISDN).await.assert_normal();
    }
    let stores: Vec<PathBuf> = NODES.iter().map(|node| path(&format!("data-{node}")).into()).collect();
    let records: Vec<_> = stores.iter().map(|store| rows(store)).collect();
    assert!(records.iter().all(|rows| !rows.is_empty()), "{records:?}");
    let calls: BTreeSet<_> = records.iter().flatten().filter_map(|row| row.carrier_transid.clone()).collect();
    assert_eq!(calls.len(), 1, "{records:?}");

    // A node that ends takes no lookup with it.
    proxies[0].kill().await;
    for card in 0..9 {
        client.look_up(&card_number(card)).await.assert_normal();
    }
}

/// Starts HAProxy with this configuration, and waits until it accepts connections.
async fn balance(folder: &Path, configuration: &str) -> tokio::process::Child {
    std::fs::write(folder.join("haproxy.cfg"), configuration).unwrap();
    let bind = configuration.lines().find_map(|line| line.trim().strip_prefix("bind ")).unwrap();
    let child = Command::new("haproxy")
        .args(["-db", "-f", "haproxy.cfg"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("`cargo xtask ci fleet` installs haproxy");
    eventually("the balancer", async || TcpStream::connect(bind).await.ok()).await;
    child
}
