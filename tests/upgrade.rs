//! The configuration and the databases of an earlier version: see `data/store-1/README.md`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cmiot_proxy::app::open_store;
use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::config::Config;
use cmiot_proxy::sequence::TransidSource;
use cmiot_proxy::store::audit::AuditReader;
use cmiot_signer::{AppId, Card, CardKind};
use tempfile::TempDir;

use crate::support::run;

/// Seconds since 1970: a minute after the fixture was written.
const LATER: i64 = 1_795_996_429;

/// A folder with the configuration, and the databases in its store.
fn version_1() -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let copy = |source: &Path, target: &Path| {
        std::fs::copy(source, target).unwrap();
        std::fs::set_permissions(target, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    copy(&from.join("store-1/proxy.toml"), &dir.path().join("proxy.toml"));
    for name in ["cache.db", "state.db"] {
        copy(&from.join("store-1").join(name), &data.join(name));
    }
    for entry in std::fs::read_dir(from.join("audit-1")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "README.md" {
            copy(&entry.path(), &data.join(entry.file_name()));
        }
    }
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    dir
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
