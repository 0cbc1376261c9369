//! Backups that are whole or absent, and restores that check before they write.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use cmiot_signer::{AppId, Card, CardKind};

use super::*;
use crate::clock::{Clock, Time};
use crate::sequence::TransidSource;
use crate::store::audit::tests::{NOON, row};
use crate::store::audit::verify::{Scope, verify};
use crate::store::cache::CacheRow;
use crate::store::{Store, StoreOptions};

fn about(now: Time) -> About {
    About {
        version: "1.2.3".to_owned(),
        accounts: vec!["100001".to_owned()],
        node: 0,
        by: "by=operator from=local".to_owned(),
        now,
    }
}

/// A clock that is behind every restore of these tests but one.
fn clock() -> Clock {
    Clock::manual(NOON).0
}

fn later(seconds: u64) -> Time {
    NOON.plus(std::time::Duration::from_secs(seconds))
}

fn open(dir: &Path, now: Time) -> Store {
    Store::open(dir, StoreOptions::default(), &Clock::manual(now).0).unwrap()
}

/// A store in use, with one row in each database.
fn used(dir: &Path) -> Store {
    let store = open(dir, NOON);
    assert_eq!(store.audit.append(row(NOON, "before")).wait(), Ok(()));
    TransidSource::new(Arc::clone(&store.state), 0, Clock::manual(NOON).0)
        .next(&AppId::parse("100001").unwrap())
        .unwrap();
    store.cache.save(
        CacheRow {
            group: "fleet".into(),
            operation: "userstatusrealsingle".into(),
            card: Card::parse(CardKind::Msisdn, "14765004176").unwrap(),
            parameters: String::new(),
            code: "0".into(),
            status: Some("00".into()),
            answered_at: NOON,
            body: "{}".into(),
            charset: None,
            carrier: None,
            stale: false,
        },
        NOON,
    );
    store
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| file_name(&entry.unwrap().path())).collect();
    names.sort();
    names
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

#[test]
fn a_store_in_use_is_backed_up_and_restored() {
    let folders = tempfile::tempdir().unwrap();
    let at = |name: &str| folders.path().join(name);
    let store = used(&at("data"));
    store.cache.flush().wait().unwrap();
    let done = back_up(&at("data"), &at("copy"), &about(later(60)), false).unwrap();
    assert!(done.without_cache.is_none() && done.not_noted.is_none(), "{done:?}");
    let expected =
        ["anchors.log", "audit-2026-01.db", "audit-anchor.pub", "cache.db", "manifest.json", "state.db"];
    assert_eq!(
        (names(&at("copy")), names(folders.path())),
        (expected.map(String::from).into(), vec!["copy".into(), "data".into()])
    );
    for name in expected {
        assert_eq!(
            fs::metadata(at("copy").join(name)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{name}"
        );
    }
    // The copy of the audit verifies on its own, with its own anchors.
    let anchors = anchor::read(&at("copy").join(anchor::LOG)).unwrap().anchors;
    let scope = Scope { anchors: &anchors, own_anchors: true, ..Scope::default() };
    let report = verify(&at("copy"), &scope, |_, _| {}).unwrap();
    assert_eq!((report.damage.len(), report.anchors), (0, anchors.len() as u64), "{report:?}");
    assert_eq!(store.audit.append(row(later(61), "after")).wait(), Ok(()));
    store.close();
    drop(store);

    let restored = restore(
        &at("copy"),
        &at("new"),
        Some(rustix::process::getegid().as_raw()),
        &about(later(100)),
        &clock(),
    )
    .unwrap();
    assert_eq!(restored.floor, later(220).as_secs());
    assert!(restored.through >= later(100));
    let mode = |name: &str| fs::metadata(at("new").join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state.db"), mode("audit-2026-01.db"), mode("anchors.log")), (0o600, 0o640, 0o640));
    let store = open(&at("new"), later(101));
    assert_eq!(
        store.audit.lost().unwrap().through,
        Time::from_micros(restored.through.as_micros() / 1_000 * 1_000)
    );
    let first = TransidSource::new(Arc::clone(&store.state), 0, Clock::manual(later(101)).0)
        .next(&AppId::parse("100001").unwrap())
        .unwrap();
    assert_eq!(first.stamp().to_unix(), restored.floor);
    let stored = store.cache.load(
        "fleet",
        "userstatusrealsingle",
        &Card::parse(CardKind::Msisdn, "14765004176").unwrap(),
        "",
    );
    assert!(stored.unwrap().unwrap().stale, "a later purge may have removed it");
    store.close();
    let notes: Vec<(String, String)> = rusqlite::Connection::open(at("new").join("audit-2026-01.db"))
        .unwrap()
        .prepare("SELECT text, detail FROM note JOIN name ON name.id = what ORDER BY note.id")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let kinds: Vec<_> = notes.iter().map(|(what, _)| what.as_str()).collect();
    assert!(kinds.contains(&"restored") && kinds.contains(&"lost"), "{notes:?}");
    assert!(
        notes[kinds.iter().position(|kind| *kind == "restored").unwrap()]
            .1
            .starts_with("by=operator from=local selection=2026-01-15T12:01")
    );
    // The rows that the original wrote later are known to be missing.
    let verified = verify(&at("new"), &Scope::default(), |_, _| {}).unwrap();
    assert_eq!(verified.damage, []);
    assert_eq!(names(&at("new")).iter().filter(|name| name.starts_with("note-")).count(), 0);
}

#[test]
fn a_restore_by_root_leaves_files_of_the_owner_of_the_folder() {
    let folders = tempfile::tempdir().unwrap();
    let at = |name: &str| folders.path().join(name);
    used(&at("data")).close();
    back_up(&at("data"), &at("copy"), &about(NOON), true).unwrap();
    fs::create_dir(at("new")).unwrap();
    // Only the superuser can give a folder away; for other users the owner is the same.
    let owner = if std::os::unix::fs::chown(at("new"), Some(65_534), None).is_ok() {
        65_534
    } else {
        fs::metadata(at("new")).unwrap().uid()
    };
    restore(&at("copy"), &at("new"), None, &about(later(1)), &clock()).unwrap();
    for name in names(&at("new")) {
        assert_eq!(fs::metadata(at("new").join(&name)).unwrap().uid(), owner, "{name}");
    }
    assert!(names(&at("new")).contains(&"store.lock".to_owned()));
}

#[test]
fn a_disk_without_room_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(check_room(dir.path(), 1), Ok(()));
    let error = check_room(dir.path(), u64::MAX).unwrap_err().to_string();
    assert!(error.contains("MiB are needed") && error.contains("make room"), "{error}");
}

#[test]
fn the_backup_is_noted_in_the_original() {
    let folders = tempfile::tempdir().unwrap();
    let (data, copy) = (folders.path().join("data"), folders.path().join("copy"));
    used(&data).close();
    back_up(&data, &copy, &about(later(1)), true).unwrap();
    assert_eq!(names(&copy).iter().filter(|name| name.ends_with(".key")).count(), 1);
    let note = names(&data).into_iter().find(|name| name.starts_with("note-")).unwrap();
    assert!(note.ends_with("-backup"));
    let text = fs::read_to_string(data.join(note)).unwrap();
    assert_eq!(text, format!("by=operator from=local selection={} keys", copy.display()));
}

#[test]
fn an_interrupted_backup_is_replaced_and_a_failed_one_leaves_nothing() {
    let folders = tempfile::tempdir().unwrap();
    let at = |name: &str| folders.path().join(name);
    used(&at("data")).close();
    fs::create_dir(at("copy.part")).unwrap();
    for name in ["state.db", "cache.db-journal", "manifest.json"] {
        fs::write(at("copy.part").join(name), "of a killed process").unwrap();
    }
    // Damage in a file that must be copied.
    let state = fs::read(at("data/state.db")).unwrap();
    fs::write(at("data/state.db"), "no database".repeat(1_000)).unwrap();
    back_up(&at("data"), &at("copy"), &about(NOON), false).unwrap_err();
    assert_eq!(names(folders.path()), ["data"]);
    fs::write(at("data/state.db"), state).unwrap();
    // The cache may be damaged or missing.
    fs::write(at("data/cache.db"), "no database".repeat(1_000)).unwrap();
    assert!(back_up(&at("data"), &at("copy"), &about(NOON), false).unwrap().without_cache.is_some());
    remove(&at("data/cache.db"));
    assert!(back_up(&at("data"), &at("copy2"), &about(NOON), false).unwrap().without_cache.is_some());
    restore(&at("copy2"), &at("new"), None, &about(NOON), &clock()).unwrap();
    open(&at("new"), later(1)).close();

    // A folder that is used or not empty stays as it is.
    let error = back_up(&at("data"), &at("copy"), &about(NOON), false).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    fs::create_dir(at("mine.part")).unwrap();
    fs::write(at("mine.part/thesis.txt"), "").unwrap();
    let error = back_up(&at("data"), &at("mine"), &about(NOON), false).unwrap_err().to_string();
    assert!(error.contains("another origin") && at("mine.part/thesis.txt").exists(), "{error}");
    let part = PartFolder::create(&at("busy")).unwrap();
    let error = back_up(&at("data"), &at("busy"), &about(NOON), false).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    drop(part);
    assert!(!at("busy.part").exists());
}

#[test]
fn a_restore_that_is_refused_writes_nothing() {
    let folders = tempfile::tempdir().unwrap();
    let at = |name: &str| folders.path().join(name);
    used(&at("data")).close();
    let made = about(later(10));
    back_up(&at("data"), &at("copy"), &made, false).unwrap();
    let manifest = fs::read_to_string(at("copy/manifest.json")).unwrap();
    let refused = |about: &About, words: &str| {
        let error = restore(&at("copy"), &at("new"), None, about, &clock()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!at("new").exists(), "{words}");
    };
    for (version, is_older) in
        [("1.2.2", true), ("1.1.9", true), ("0.9.0", true), ("1.2.3-rc1", false), ("2.0.0", false)]
    {
        let own = About { version: version.to_owned(), ..about(later(11)) };
        match is_older {
            true => refused(&own, "an older one"),
            false => assert!(read_for_test(&at("copy"), &own)),
        }
    }
    refused(&About { accounts: vec!["200001".into()], ..about(later(11)) }, "another fleet");
    refused(&about(later(9)), "set the clock");
    for (from, to, words) in [
        ("\"format\": 1", "\"format\": 2", "an older one"),
        ("\"schema\": 2\n", "\"schema\": 99\n", "supports versions up to"),
        ("\"state.db\"", "\"../state.db\"", "no file of a backup"),
        ("\"cache.db\"", "\"state.db\"", "no file of a backup"),
    ] {
        assert!(manifest.contains(from), "{from}: {manifest}");
        fs::write(at("copy/manifest.json"), manifest.replacen(from, to, 1)).unwrap();
        refused(&about(later(11)), words);
    }
    fs::write(at("copy/manifest.json"), &manifest).unwrap();
    for name in ["audit-2026-01.db", "state.db", "anchors.log"] {
        let path = at("copy").join(name);
        let bytes = fs::read(&path).unwrap();
        let mut altered = bytes.clone();
        altered[0] ^= 1;
        fs::write(&path, altered).unwrap();
        refused(&about(later(11)), "differs from the manifest");
        fs::write(&path, &bytes[1..]).unwrap();
        refused(&about(later(11)), "differs from the manifest");
        fs::write(&path, bytes).unwrap();
    }

    // A folder in use, or with files.
    let error = |words: &str| {
        let before = names(&at("new"));
        let error =
            restore(&at("copy"), &at("new"), None, &about(later(11)), &clock()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(names(&at("new")), before);
    };
    let store = open(&at("new"), NOON);
    error("in use by process");
    store.close();
    drop(store);
    error("not empty");
    // Another key, then the right one.
    fs::remove_dir_all(at("new")).unwrap();
    fs::create_dir(at("new")).unwrap();
    let other = at("other");
    open(&other, NOON).close();
    fs::copy(other.join("audit-anchor.key"), at("new/audit-anchor.key")).unwrap();
    error("another fleet");
    fs::copy(at("data/audit-anchor.key"), at("new/audit-anchor.key")).unwrap();
    fs::write(at("new/admin.token"), "0123456789abcdef").unwrap();
    restore(&at("copy"), &at("new"), None, &about(later(11)), &clock()).unwrap();
    open(&at("new"), later(12)).close();
}

fn read_for_test(from: &Path, about: &About) -> bool {
    let to = tempfile::tempdir().unwrap();
    restore(from, &to.path().join("new"), None, about, &clock()).is_ok()
}

#[test]
fn an_interrupted_restore_prevents_a_start_until_it_is_completed() {
    let folders = tempfile::tempdir().unwrap();
    let at = |name: &str| folders.path().join(name);
    used(&at("data")).close();
    back_up(&at("data"), &at("copy"), &about(NOON), true).unwrap();
    fs::create_dir(at("new")).unwrap();
    for (name, text) in [
        ("restore.unfinished", ""),
        ("state.db", "half"),
        ("audit-2026-01.db.part", "half"),
        ("note-1-restored", "by=operator"),
    ] {
        fs::write(at("new").join(name), text).unwrap();
    }
    let error = Store::open(&at("new"), StoreOptions::default(), &Clock::manual(NOON).0).err().unwrap();
    assert!(error.to_string().contains("run `cmiot-proxy restore` again"), "{error}");
    restore(&at("copy"), &at("new"), None, &about(later(1)), &clock()).unwrap();
    assert!(!at("new/restore.unfinished").exists() && !at("new/note-1-restored").exists());
    open(&at("new"), later(2)).close();
    // Killed while the marker was written.
    fs::create_dir(at("third")).unwrap();
    fs::write(at("third/restore.unfinished.part"), "run").unwrap();
    // The copying ends later than the command began.
    let slow = Clock::manual(later(9)).0;
    let restored = restore(&at("copy"), &at("third"), None, &about(later(3)), &slow).unwrap();
    assert!(restored.through >= later(9) && restored.floor >= later(9).as_secs() + 120, "{restored:?}");
    assert!(names(&at("third")).iter().all(|name| !name.starts_with("restore.unfinished")));
}
