//! Databases that are newer than the proxy, lost, in use or foreign: the proxy does not start, and its error names a remedy.

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{MSISDN, Output, Proxy, Setup, carrier, run, write_config};

/// A folder with the databases of a drained proxy, and its setup.
async fn worked_in(carrier: &cmiot_simulator::Simulator) -> (TempDir, Setup) {
    let proxy = Proxy::with_carrier(carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let setup = proxy.setup().clone();
    (proxy.stop().await, setup)
}

async fn serve(folder: &TempDir, arguments: &[&str]) -> Output {
    let all = [&["serve", "--config", "cmiot-proxy.toml"], arguments].concat();
    run(folder.path(), &all, &[]).await
}

#[tokio::test]
async fn one_newer_than_the_proxy_is_refused_and_left_as_it_is() {
    let carrier = carrier().await;
    let (folder, setup) = worked_in(&carrier).await;
    let names: Vec<String> = std::fs::read_dir(folder.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".db"))
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        let path = folder.path().join("data").join(&name);
        let version = |connection: &Connection| -> i64 {
            connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
        };
        let database = Connection::open(&path).unwrap();
        let known = version(&database);
        database.pragma_update(None, "user_version", 1_000).unwrap();
        drop(database);
        serve(&folder, &[]).await.failed(1, [&name, "newer", "start the cmiot-proxy that wrote it"]);
        let database = Connection::open(&path).unwrap();
        assert_eq!(version(&database), 1_000);
        database.pragma_update(None, "user_version", known).unwrap();
    }
    let proxy = Proxy::start_in(folder, setup).await;
    assert!(proxy.look_up(&MSISDN).await.cache().starts_with("hit"));
}

#[tokio::test]
async fn a_lost_state_is_an_error_that_names_the_remedy() {
    let carrier = carrier().await;
    let (folder, setup) = worked_in(&carrier).await;
    let state = folder.path().join("data/state.db");
    std::fs::remove_file(&state).unwrap();
    serve(&folder, &[]).await.failed(1, ["state.db", "lost", "--accept-lost-state"]);
    assert!(!state.exists(), "no new state was created");

    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    let mut proxy = Proxy::start_accepting_lost_state(folder, setup).await;
    assert!(proxy.look_up(&MSISDN).await.cache().starts_with("hit"), "the cache is not lost");
    for n in 0..10 {
        proxy.look_up(&crate::support::card_number(n)).await.assert_normal();
    }
    assert_eq!(carrier.duplicates(), []);
    // The next start needs no option.
    proxy.restart().await;
    proxy.look_up(&crate::support::card_number(10)).await.assert_normal();
    assert_eq!(carrier.duplicates(), []);
}

#[tokio::test]
async fn an_unreadable_state_is_a_lost_one() {
    let carrier = carrier().await;
    let (folder, setup) = worked_in(&carrier).await;
    std::fs::write(folder.path().join("data/state.db"), "not a database, whatever it is: ".repeat(200))
        .unwrap();
    serve(&folder, &[]).await.failed(1, ["state.db", "lost", "--accept-lost-state"]);
    let proxy = Proxy::start_accepting_lost_state(folder, setup).await;
    proxy.look_up(&crate::support::IMSI).await.assert_normal();
    assert_eq!(carrier.duplicates(), []);
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    let config = proxy.config();
    let second = run(&proxy.data(), &["serve", "--config", config.to_str().unwrap()], &[]).await;
    second.failed(1, ["in use", &proxy.pid().to_string(), "stop that process"]);
    proxy.look_up(&MSISDN).await.assert_normal();
}

#[tokio::test]
async fn another_programs_database_is_refused_and_left_as_it_is() {
    let carrier = carrier().await;
    let (folder, _) = worked_in(&carrier).await;
    let path = folder.path().join("data/cache.db");
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (it)").unwrap();
    let before = std::fs::read(&path).unwrap();
    serve(&folder, &[]).await.failed(1, ["cache.db", "[store]"]);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&proxy.data()), 0o700);
    for entry in std::fs::read_dir(proxy.data()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let carrier = carrier().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::with_carrier(&carrier).set("gateway.listen", address.as_str());
    write_config(&folder.path().join("cmiot-proxy.toml"), &setup.text());
    serve(&folder, &[]).await.failed(1, ["cannot listen", &address]);
}
