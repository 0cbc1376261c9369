//! The configuration and the databases of earlier versions: see the README.md of `data/store-1` and `data/store-2`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmiot_proxy::app::open_store;
use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::config::Config;
use cmiot_proxy::sequence::TransidSource;
use cmiot_proxy::store::audit::AuditReader;
use cmiot_signer::{AppId, Card, CardKind};
use tempfile::TempDir;

use crate::support::{Pki, run, write_secret};

/// Seconds since 1970: a minute after the fixture was written.
const LATER: i64 = 1_795_996_429;

/// A folder with the configuration, and the databases in its store.
fn version_1() -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    let (dir, data) = folder(&from.join("store-1"), &["cache.db", "state.db"]);
    for entry in std::fs::read_dir(from.join("audit-1")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "README.md" {
            copy(&entry.path(), &data.join(entry.file_name()));
        }
    }
    dir
}

/// A folder with the configuration of this fixture, and a store, in it, with these of its files.
fn folder(from: &Path, names: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    copy(&from.join("proxy.toml"), &dir.path().join("proxy.toml"));
    for name in names {
        copy(&from.join(name), &data.join(name));
    }
    (dir, data)
}

fn copy(source: &Path, target: &Path) {
    std::fs::copy(source, target).unwrap();
    std::fs::set_permissions(target, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_configuration_of_version_1_is_valid() {
    let dir = version_1();
    let checked = run(dir.path(), &["check", "--config", "proxy.toml"], &[]).await.success();
    for kept in ["node = 7", "calls_per_day = 1000", "max_transids_per_client = 1000", "fresh = \"1h\""] {
        assert!(checked.out.contains(kept), "{kept}: {}", checked.out);
    }
    // Every key of the file is a key of this version.
    assert!(!checked.err.contains("unknown") && !checked.err.contains("renamed"), "{}", checked.err);
}

#[test]
fn databases_of_version_1_continue() {
    let dir = version_1();
    let (config, _) = Config::load(&dir.path().join("proxy.toml")).unwrap();
    let config = Config { store_dir: dir.path().join("data"), ..config };
    let (clock, _hand) = Clock::manual(Time::from_secs(LATER));
    for start in 0..2 {
        let store = open_store(&config, false, &clock).unwrap();
        let card = Card::parse(CardKind::Msisdn, "14765004177").unwrap();
        let known = store.cache.load("fleet", "userstatusrealsingle", &card, "").unwrap().unwrap();
        assert_eq!((known.status.as_deref(), known.stale), (Some("00"), false));
        let appid = AppId::parse("100001").unwrap();
        let next = TransidSource::new(Arc::clone(&store.state), config.carrier.node, clock.clone());
        let number = next.next(&appid).unwrap().sequence().get();
        assert_eq!(number, 7_001_001 + 1_000 * start, "after all that were leased");
        let lease = store.state.lease_calls(&appid, 20_787, 10, 12 + u64::from(start)).unwrap();
        assert_eq!((lease.granted, lease.leased), if start == 0 { (7, 12) } else { (1, 13) });
        store.close();
    }
    assert!(AuditReader::new(&config.store_dir).newest_record().unwrap().is_some());
}

/// Seconds since 1970: a minute after the second fixture was written.
const LATER_2: i64 = 1_796_089_100;

/// The same of `data/store-2`.
fn version_2() -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/store-2");
    let names = ["cache.db", "state.db", "audit-2026-12.db", "anchors.log", "audit-anchor.pub"];
    let (dir, _) = folder(&from, &names);
    for entry in std::fs::read_dir(from.join("files")).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &dir.path().join(entry.file_name()));
    }
    let pki = Pki::new();
    let (.., certificate, key) = pki.issue("localhost");
    for (name, text) in [("ca.pem", pki.root_pem()), ("server.pem", certificate), ("server.key", key)] {
        write_secret(&dir.path().join(name), &text);
    }
    dir
}

#[tokio::test]
async fn a_configuration_of_version_2_is_valid() {
    let dir = version_2();
    let checked = run(dir.path(), &["check", "--config", "proxy.toml"], &[]).await.success();
    for kept in [
        "nodes = 3",
        "reserve_percent = 2",
        "api = \"v5\"",
        "[account.untranslatable]",
        "events = [\"status\", \"breaker\", \"alarm\"]",
        "give_up_after = \"3s\"",
        "bodies = \"full\"",
        "role = \"operate\"",
        "appid_prefix = \"GW7\"",
        "parameters = [\"query_date\"]",
    ] {
        assert!(checked.out.contains(kept), "{kept}: {}", checked.out);
    }
    assert!(!checked.err.contains("unknown") && !checked.err.contains("renamed"), "{}", checked.err);
}

#[tokio::test]
async fn databases_of_version_2_continue() {
    let dir = version_2();
    let (config, _) = Config::load(&dir.path().join("proxy.toml")).unwrap();
    let config = Config { store_dir: dir.path().join("data"), ..config };
    let (clock, _hand) = Clock::manual(Time::from_secs(LATER_2));
    for start in 0..2 {
        let store = open_store(&config, false, &clock).unwrap();
        let load = |group, number| {
            let card = Card::parse(CardKind::Msisdn, number).unwrap();
            store.cache.load(group, "userstatusrealsingle", &card, "").unwrap().unwrap()
        };
        let known = load("group-1", "14765004177");
        assert_eq!((known.status.as_deref(), known.stale), (Some("00"), false));
        assert_eq!(load("group-1", "14765004179").code, "9");
        let translated = load("group-2", "14765004182");
        assert!(translated.carrier.is_some() && translated.status.as_deref() == Some("00"));
        let appid = AppId::parse("100001").unwrap();
        let next = TransidSource::new(Arc::clone(&store.state), config.carrier.node, clock.clone());
        let number = next.next(&appid).unwrap().sequence().get();
        assert_eq!(number, 7_001_001 + 1_000 * start, "after all that were leased");
        store.close();
    }
    let data = config.store_dir.to_str().unwrap().to_owned();
    let verified = run(dir.path(), &["audit", "verify", "--dir", &data], &[]).await.success();
    assert!(verified.out.contains("chain ok"), "{}", verified.out);
    let query = ["audit", "query", "--dir", &data, "--format", "csv", "--card", "14765004180"];
    let found = run(dir.path(), &query, &[]).await.success();
    assert!(found.out.contains("failed"), "{}", found.out);
}
