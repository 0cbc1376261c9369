//! `packaging/`: the default configuration, and the topology of the Compose file as processes.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cmiot_proxy::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use toml::{Table, Value};
use yaml_rust2::YamlLoader;

use crate::support::{
    Gateway, GatewayClient, MSISDN, Pki, Started, command, eventually, run, strings, within, write_config,
    write_secret,
};

const CONFIGURATION: &str = include_str!("../packaging/proxy.toml");
const COMPOSE: &str = include_str!("../packaging/compose.yaml");
const KEYS: &str = include_str!("../docs/configuration.md");

/// An account, which the default configuration leaves to the operator.
const ACCOUNT: &str = "[[account]]\nname = \"fleet\"\nappid = \"100001\"\nebid = \"0001000000009\"\npassword_env = \"ACCOUNT\"\n";

/// The lines of the configuration with those that begin with one of these marks uncommented.
fn uncommented(marks: &[&str]) -> String {
    let line = |line: &str| {
        let found = marks.iter().find_map(|mark| line.strip_prefix(mark));
        let is_key = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
        found.filter(is_key).map_or_else(|| line.to_owned(), str::to_owned)
    };
    CONFIGURATION.lines().map(|text| line(text) + "\n").collect()
}

/// Every key with its value, by its path.
fn keys(table: &Table, path: &str, found: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let path = format!("{path}{name}");
        match value {
            Value::Table(table) => keys(table, &format!("{path}."), found),
            other => _ = found.insert(path, other.clone()),
        }
    }
}

/// The output of `check` for this text, as its keys.
async fn checked(folder: &Path, text: &str) -> BTreeMap<String, Value> {
    write_config(&folder.join("proxy.toml"), text);
    let environment = [("ACCOUNT", "a-password-of-the-account")];
    let output = run(folder, &["check", "--config", "proxy.toml"], &environment).await.success();
    let mut found = BTreeMap::new();
    keys(&output.out.parse().unwrap(), "", &mut found);
    found
}

#[tokio::test]
async fn the_default_configuration_shows_every_key_with_its_default() {
    let folder = tempfile::tempdir().unwrap();
    let defaults =
        checked(folder.path(), &format!("{ACCOUNT}[store]\ndir = \"/var/lib/cmiot-proxy\"\n")).await;
    let shown = uncommented(&["#"]);
    assert_eq!(checked(folder.path(), &format!("{shown}{ACCOUNT}")).await, defaults);
    let mut written = BTreeMap::new();
    keys(&shown.parse().unwrap(), "", &mut written);
    let missing: Vec<_> =
        defaults.keys().filter(|key| *key != "account" && !written.contains_key(*key)).collect();
    assert!(missing.is_empty(), "packaging/proxy.toml does not show {missing:?}");
    // As installed, it lacks nothing but an account.
    write_config(&folder.path().join("proxy.toml"), CONFIGURATION);
    run(folder.path(), &["check", "--config", "proxy.toml"], &[]).await.failed(1, ["has no account"]);
}

#[tokio::test]
async fn the_examples_of_the_default_configuration_are_known_keys_of_the_right_type() {
    let folder = tempfile::tempdir().unwrap();
    write_config(&folder.path().join("proxy.toml"), &uncommented(&["#: ", "#"]));
    let output = run(folder.path(), &["check", "--config", "proxy.toml"], &[]).await;
    // The files that they name are not there, and nothing else is wrong.
    let wrong: Vec<_> = output.err.lines().filter(|line| !line.contains("No such file")).collect();
    let expected =
        |line: &str| ["audit_group", "warning:", " problems"].iter().any(|part| line.contains(part));
    assert!(wrong.iter().all(|line| expected(line)), "{wrong:#?}");
    for file in ["fleet.password", "database.password", "fleet.key", "fleet-ca.pem"] {
        assert!(output.err.contains(file), "{file}: {}", output.err);
    }
}

/// The section of the default configuration that begins with this example of a table.
fn section(table: &str) -> &'static str {
    let found = CONFIGURATION.split("\n# --- ").find(|text| text.contains(&format!("\n#: [[{table}]]\n")));
    found.unwrap_or_else(|| panic!("packaging/proxy.toml has no example of [[{table}]]"))
}

/// The keys of a table, as docs/configuration.md lists them.
fn documented(table: &str) -> Vec<&'static str> {
    let heading = format!("\n## `[[{table}]]`\n");
    let text = KEYS.split(&heading).nth(1).unwrap_or_else(|| panic!("no heading {heading}"));
    let text = text.split("\n## ").next().unwrap_or_default();
    text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

#[tokio::test]
async fn the_examples_of_webhooks_derived_clients_and_operations_are_accepted_and_complete() {
    let folder = tempfile::tempdir().unwrap();
    write_config(&folder.path().join("hooks-ca.pem"), &Pki::new().root_pem());
    let secrets = [
        ("derive.key", "a-key-of-thirty-two-bytes-or-more".to_owned()),
        ("desk.secret", format!("whsec_{}", "QUFB".repeat(8))),
    ];
    for (name, text) in secrets {
        write_secret(&folder.path().join(name), &text);
    }
    let mut text = format!(
        "{ACCOUNT}ebids = {{ smsusedbydate = \"0001000000901\", gprsusedyesterday = \"0001000000902\" }}\n"
    );
    for table in ["derive", "operation", "webhook"] {
        let keys = documented(table);
        assert!(keys.len() > 4, "{table}: {keys:?}");
        for key in keys {
            assert!(section(table).contains(&format!("\n#: {key} = ")), "[[{table}]] does not show {key}");
        }
        let example = section(table).lines().filter_map(|line| line.strip_prefix("#: "));
        text.extend(example.flat_map(|line| [line, "\n"]));
    }
    let found = checked(folder.path(), &format!("{text}[store]\ndir = \"data\"\n")).await;
    for (table, count, name) in
        [("derive", 1, "GW7"), ("operation", 2, "smsusedbydate"), ("webhook", 1, "desk")]
    {
        let tables = found[table].as_array().unwrap();
        assert_eq!(tables.len(), count, "{tables:?}");
        assert!(tables[0].to_string().contains(name), "{tables:?}");
    }
}

#[test]
fn each_key_of_the_default_configuration_follows_an_explanation() {
    let mut explained = false;
    for line in CONFIGURATION.lines() {
        if line.is_empty() {
            explained = false;
        } else if line.starts_with("# ") {
            explained = true;
        } else if !line.starts_with('[') && !line.starts_with("#[") && line != "#" {
            assert!(explained, "{line:?} has no explanation above it");
        }
    }
}

/// A duration in whole seconds, such as `30s`.
fn seconds(duration: &str) -> u64 {
    duration.strip_suffix('s').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{duration}"))
}

#[tokio::test]
async fn the_topology_of_the_compose_file_serves_as_processes() {
    let folder = tempfile::tempdir().unwrap();
    let documents = YamlLoader::load_from_str(COMPOSE).unwrap();
    let [compose] = &documents[..] else { panic!("{} documents", documents.len()) };
    let services = &compose["services"];
    assert_eq!(services["prometheus"]["network_mode"].as_str(), Some("service:proxy"));
    let published = strings(&services["proxy"]["ports"]);
    assert!(published.iter().all(|port| port.starts_with("127.0.0.1:")), "{published:?}");

    let mut simulate = command(folder.path());
    for word in strings(&services["carrier"]["command"]) {
        simulate.arg(if word == "0.0.0.0:9000" { "127.0.0.1:0" } else { word });
    }
    let mut carrier = Started::new(simulate);
    let base_url = carrier.line("simulated carrier ").await;

    let configuration = compose["configs"]["proxy"]["content"].as_str().unwrap();
    // Docker kills a container after this time; the drain of this configuration has to fit.
    write_config(&folder.path().join("drained.toml"), configuration);
    let environment = [("ACCOUNT_PASSWORD", "carrier"), ("GATEWAY_PASSWORD", "gateway")];
    let output = run(folder.path(), &["check", "--config", "drained.toml"], &environment).await.success();
    let drain = output.out.parse::<Table>().unwrap()["gateway"]["drain_timeout"].as_str().unwrap().to_owned();
    assert!(seconds(services["proxy"]["stop_grace_period"].as_str().unwrap()) > seconds(&drain), "{drain}");
    let data = folder.path().join("data");
    let here = [
        ("http://carrier:9000", base_url.as_str()),
        ("0.0.0.0:8080", "127.0.0.1:0"),
        ("127.0.0.1:8081", "127.0.0.1:0"),
        ("/var/lib/cmiot-proxy", data.to_str().unwrap()),
    ];
    let configuration = here.iter().fold(configuration.to_owned(), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "{theirs} is not in {text}");
        text.replace(theirs, ours)
    });
    write_config(&folder.path().join("proxy.toml"), &configuration);
    let mut serve = command(folder.path());
    serve.args(["serve", "--config", "proxy.toml"]);
    for (name, value) in services["proxy"]["environment"].as_hash().unwrap() {
        serve.env(name.as_str().unwrap(), value.as_str().unwrap());
    }
    let mut proxy = Started::new(serve);
    let gateway: SocketAddr = proxy.line("gateway http://").await.parse().unwrap();
    let admin = proxy.line("admin http://").await;

    let password = services["proxy"]["environment"]["GATEWAY_PASSWORD"].as_str().unwrap();
    let signer = Gateway::new(Clock::system()).named("GW0001", password);
    GatewayClient { address: gateway, gateway: signer }.look_up(&MSISDN).await.assert_normal();

    let prometheus = compose["configs"]["prometheus"]["content"].as_str().unwrap();
    assert!(prometheus.contains("[\"127.0.0.1:8081\"]"), "{prometheus}");
    let lookups = "cmiot_lookups_total";
    let Some(program) = on_path("prometheus") else {
        // Without Debian's package, the test scrapes the target itself.
        let metrics = within("a scrape", get(admin.parse().unwrap(), "/metrics")).await.unwrap();
        assert!(metrics.contains(lookups), "{metrics}");
        return;
    };
    write_config(&folder.path().join("prometheus.yml"), &prometheus.replace("127.0.0.1:8081", &admin));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _scraper = Command::new(program)
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"])
        .arg(format!("--web.listen-address={port}"))
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("a scrape", async || {
        let found = get(port, &format!("/api/v1/query?query={lookups}")).await?;
        found.contains("cmiot-proxy").then_some(())
    })
    .await;
}

/// The whole response; none while nothing listens.
async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    // HTTP/1.0: Prometheus sends no chunks then.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    Some(response)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}
