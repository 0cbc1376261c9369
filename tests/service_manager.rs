//! Messages to systemd (sd_notify(3)), and its credentials.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixDatagram};

use crate::support::{
    GATEWAY_PASSWORD, MSISDN, Machine, Pki, Proxy, Setup, carrier, command, run, within, write_config,
    write_secret,
};

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn listen(folder: &Path) -> (Self, OsString) {
        let path = folder.join("notify");
        (Self(UnixDatagram::bind(&path).unwrap()), path.into())
    }

    /// The next message with this line, as its assignments; earlier ones are skipped.
    async fn message(&self, line: &str) -> Vec<String> {
        within(line, async {
            loop {
                let mut message = vec![0; 8 << 10];
                let length = self.0.recv(&mut message).await.unwrap();
                let text = std::str::from_utf8(&message[..length]).unwrap();
                let lines: Vec<_> = text.lines().map(str::to_owned).collect();
                if lines.iter().any(|one| one == line) {
                    return lines;
                }
            }
        })
        .await
    }

    /// All messages that have arrived.
    fn arrived(&self) -> String {
        let mut all = String::new();
        let mut message = vec![0; 8 << 10];
        while let Ok(length) = self.0.try_recv(&mut message) {
            all.push_str(std::str::from_utf8(&message[..length]).unwrap());
        }
        all
    }
}

/// The value of an assignment in a message.
fn value<'a>(message: &'a [String], name: &str) -> &'a str {
    let found = message.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("{name} is not in {message:?}"))
}

/// The time of CLOCK_MONOTONIC, in microseconds.
fn monotonic() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[tokio::test]
async fn a_service_is_ready_when_it_listens() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let (manager, socket) = Manager::listen(folder.path());
    write_config(&folder.path().join("proxy.toml"), &Setup::with_carrier(&carrier).text());
    let mut proxy = command(folder.path())
        .args(["serve", "--config", "proxy.toml"])
        .env("NOTIFY_SOCKET", socket)
        .spawn()
        .unwrap();
    let ready = manager.message("READY=1").await;
    let status = value(&ready, "STATUS");
    let (_, rest) = status.split_once("gateway http://").unwrap();
    let gateway: SocketAddr = rest.split(',').next().unwrap().parse().unwrap();
    TcpStream::connect(gateway).await.unwrap();
    proxy.kill().await.unwrap();
}

#[tokio::test]
async fn a_reload_by_a_signal_is_announced_and_its_result_is_the_status() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let (manager, socket) = Manager::listen(folder.path());
    let setup = Setup::with_carrier(&carrier);
    let machine = Machine::with_variables([("NOTIFY_SOCKET", socket)]);
    let mut proxy = Proxy::start_on_machine(folder, setup.clone(), machine).await;
    manager.message("READY=1").await;

    let before = monotonic();
    proxy.signal("HUP").await;
    let reloading = manager.message("RELOADING=1").await;
    let time: i64 = value(&reloading, "MONOTONIC_USEC").parse().unwrap();
    assert!((before..=monotonic()).contains(&time), "{before} {reloading:?}");
    let ready = manager.message("READY=1").await;
    assert_eq!(value(&ready, "STATUS"), "serving with the reloaded configuration");

    write_config(&proxy.config(), &setup.clone().set("gateway.max_connections", 0).text());
    proxy.signal("HUP").await;
    manager.message("RELOADING=1").await;
    let ready = manager.message("READY=1").await;
    let status = value(&ready, "STATUS");
    assert!(status.starts_with("serving with the earlier configuration"), "{status}");
    assert!(status.contains("max_connections"), "{status}");
    proxy.look_up(&MSISDN).await.assert_normal();

    // A change that is noticed without a signal sets the status.
    write_config(&proxy.config(), &setup.text());
    manager.message("STATUS=serving with the reloaded configuration").await;

    proxy.signal("TERM").await;
    manager.message("STOPPING=1").await;
    assert_eq!(proxy.ended().await.code(), Some(0), "{}", proxy.log());
}

#[tokio::test]
async fn the_watchdog_is_pinged_for_as_long_as_the_proxy_runs() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let (manager, socket) = Manager::listen(folder.path());
    let machine =
        Machine::with_variables([("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", OsString::from("200000"))]);
    let proxy = Proxy::start_on_machine(folder, Setup::with_carrier(&carrier), machine).await;
    for _ in 0..3 {
        manager.message("WATCHDOG=1").await;
    }
    drop(proxy);
}

#[tokio::test]
async fn a_start_that_fails_is_never_ready_and_has_its_reason_as_status() {
    let carrier = carrier().await;
    let folder = tempfile::tempdir().unwrap();
    let (manager, socket) = Manager::listen(folder.path());
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap())];
    let wrong = Setup::with_carrier(&carrier).set("gateway.max_connections", 0);
    write_config(&folder.path().join("proxy.toml"), &wrong.text());
    let serve = ["serve", "--config", "proxy.toml"];
    run(folder.path(), &serve, &variables).await.failed(1, ["max_connections"]);
    let messages = manager.arrived();
    assert!(messages.contains("STATUS=failed: ") && messages.contains("max_connections"), "{messages}");

    // An address that another process listens on.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let wrong = Setup::with_carrier(&carrier).set("gateway.listen", address.as_str());
    write_config(&folder.path().join("proxy.toml"), &wrong.text());
    run(folder.path(), &serve, &variables).await.failed(1, [&address]);
    let messages = manager.arrived();
    assert!(messages.contains(&address) && !messages.contains("READY"), "{messages}");
}

/// A folder of credentials as systemd makes it: each file is readable for its owner alone.
fn credentials(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write_secret(&folder.path().join(name), text);
    }
    folder
}

#[tokio::test]
async fn a_password_may_be_a_credential_of_the_service_manager() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier)
        .unset("client.0.password")
        .set("client.0.password_file", "credential:gateway");
    let credentials = credentials(&[("gateway", GATEWAY_PASSWORD)]);
    let machine =
        Machine::with_variables([("CREDENTIALS_DIRECTORY", credentials.path().as_os_str().to_owned())]);
    let proxy = Proxy::start_on_machine(tempfile::tempdir().unwrap(), setup, machine).await;
    proxy.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn every_file_with_a_secret_may_be_a_credential() {
    const TABLES: &str = r#"
        [gateway]
        clients_file = "credential:clients.csv"
        [gateway.tls]
        cert_file = "server.pem"
        key_file = "credential:server.key"
        [admin]
        token_file = "credential:token"
        [[account]]
        name = "fleet"
        appid = "100001"
        ebid = "0001000000009"
        password_file = "credential:account"
        next_password_file = "credential:next"
        [[client]]
        group = "fleet"
        appid = "GW0001"
        password_file = "credential:client"
        previous_password_file = "credential:previous"
        [[derive]]
        group = "fleet"
        appid_prefix = "D"
        key_file = "credential:derive"
        epoch = 1
    "#;
    let folder = tempfile::tempdir().unwrap();
    let (_, _, certificate, key) = Pki::new().issue("localhost");
    std::fs::write(folder.path().join("server.pem"), &certificate).unwrap();
    write_config(&folder.path().join("proxy.toml"), TABLES);
    let check = ["check", "--config", "proxy.toml"];

    let without = run(folder.path(), &check, &[("CREDENTIALS_DIRECTORY", "")]).await.failed(
        1,
        [
            "CREDENTIALS_DIRECTORY is not set",
            "LoadCredential=account:/PATH",
            "[admin] token_file",
            "key_file",
        ],
    );
    assert_eq!(without.err.matches("LoadCredential=").count(), 8, "{}", without.err);

    let passed = credentials(&[
        ("clients.csv", "appid,group,password\nGW0002,fleet,the-second-gateways\n"),
        ("server.key", &key),
        ("token", "a-token-of-operators-0001"),
        ("account", "the-account-itself"),
        ("next", "the-account-to-come"),
        ("client", "the-client-itself"),
        ("previous", "the-client-before"),
        ("derive", "a key of thirty-two bytes at least, and more"),
    ]);
    let variable = [("CREDENTIALS_DIRECTORY", passed.path().to_str().unwrap())];
    let checked = run(folder.path(), &check, &variable).await.success();
    assert!(checked.out.contains("credential:server.key"), "{}", checked.out);
    run(folder.path(), &["client", "rotate", "--config", "proxy.toml", "GW0002"], &variable)
        .await
        .failed(1, ["a credential of the service manager"]);

    write_config(&folder.path().join("proxy.toml"), &TABLES.replace("credential:next", "credential:../next"));
    run(folder.path(), &check, &variable).await.failed(1, ["credential:../next", "no slash"]);
}
