//! Reading the audit: written records are read back unchanged, alterations are detected, and no content of a file causes
//! a panic.
//!
//! The first byte of the input selects the case: a lookup made of the rest is written and read again; or the rest alters
//! a segment, with three bytes per change (two for the position, one to XOR); or the rest is a file of anchors.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use cmiot_proxy::audit::render;
use cmiot_proxy::clock::{Clock, Time};
use cmiot_proxy::store::audit::anchor::{self, Anchor, PublicKey};
use cmiot_proxy::store::audit::query::{self, Bucket, Field, Fields, Filter, LOOKUP};
use cmiot_proxy::store::audit::verify::{Scope, verify};
use cmiot_proxy::store::audit::{
    AuditReader, AuditStore, CallRow, Durability, LookupRow, Options, RefusedRow,
};
use cmiot_signer::{AppId, Card, CardKind};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// 2026-01-15T12:00:00+08:00, and its segment.
const NOON: Time = Time::from_secs(1_768_449_600);
const SEGMENT: &str = "audit-2026-01.db";

/// The most changes per input: an attacker would not make more.
const CHANGES: usize = 8;

/// Lookups per folder: a larger folder only makes each of them slower.
const MOST: u32 = 5_000;

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind % 3 {
        0 => comes_back(rest),
        1 => shows_or_changes_nothing(rest),
        _ => reads_anchors(rest),
    }
});

/// A store to write to, with its number of lookups.
static WRITTEN: Mutex<Option<(TempDir, AuditStore, u32)>> = Mutex::new(None);

fn comes_back(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().filter(|line| !line.is_empty());
    let row = LookupRow {
        client: next().and_then(|text| AppId::parse(text).ok()),
        card: next().and_then(|text| Card::parse(CardKind::Iccid, text).ok()),
        transid: next().map(Into::into),
        code: next().unwrap_or_default().into(),
        carrier_code: next().map(Into::into),
        status: next().map(Into::into),
        carrier_transid: next().map(Into::into),
        authenticated: text.len().is_multiple_of(2),
        ..row(NOON)
    };
    let mut written = WRITTEN.lock().expect("a panic ends the run");
    let (dir, store, rows) = written.get_or_insert_with(|| {
        let dir = folder();
        let store = open(dir.path());
        (dir, store, 0)
    });
    assert_eq!(store.append(row.clone()).wait(), Ok(()));
    let found = query::lookups(dir.path(), &Filter::default(), 1, None).expect("a whole segment");
    let field = |name: &str| {
        let at = query::position(LOOKUP, name);
        match &found[0][at] {
            Field::Text(text) => Some(text.as_str()),
            Field::Null => None,
            other => panic!("{name} is {other:?}"),
        }
    };
    assert_eq!(field("client"), row.client.as_ref().map(AppId::as_str));
    assert_eq!(field("card"), row.card.as_ref().map(Card::as_str));
    assert_eq!(field("transid"), row.transid.as_ref().map(|text| text.as_str()));
    assert_eq!(field("code"), Some(row.code.as_str()));
    assert_eq!(field("carrier_code"), row.carrier_code.as_ref().map(|text| text.as_str()));
    assert_eq!(field("status"), row.status.as_ref().map(|text| text.as_str()));
    assert_eq!(field("carrier_transid"), row.carrier_transid.as_ref().map(|text| text.as_str()));
    *rows += 1;
    if *rows >= MOST {
        let (dir, store, _) = written.take().expect("it was there");
        store.close();
        let whole = verify(dir.path(), &Scope::default(), |_, _| {}).expect("a whole segment");
        assert_eq!(whole.damage, []);
    }
}

/// A complete audit, whose copies are altered.
struct Whole {
    dir: TempDir,
    segment: Vec<u8>,
    anchors: Vec<Anchor>,
    key: PublicKey,
    rows: Vec<Fields>,
}

static WHOLE: LazyLock<Whole> = LazyLock::new(|| {
    let dir = folder();
    let store = open(dir.path());
    for n in 0..12 {
        let at = NOON.plus(Duration::from_secs(n));
        store.append_call(call(at));
        assert_eq!(store.append(row(at)).wait(), Ok(()));
    }
    store.append_refused(RefusedRow { peer: None, reason: "token", count: 9, first: NOON, last: NOON });
    store.close();
    Whole {
        segment: fs::read(dir.path().join(SEGMENT)).expect("a segment"),
        anchors: anchor::read(&dir.path().join(anchor::LOG)).expect("anchors").anchors,
        key: PublicKey::of_folder(dir.path()).expect("a key"),
        rows: look_ups(dir.path()).expect("a whole segment"),
        dir,
    }
});

fn shows_or_changes_nothing(changes: &[u8]) {
    let Whole { dir, segment, anchors, key, rows } = &*WHOLE;
    let mut altered = segment.clone();
    for change in changes.chunks_exact(3).take(CHANGES) {
        let offset = (usize::from(u16::from_be_bytes([change[0], change[1]])) * altered.len()) >> 16;
        altered[offset] ^= change[2];
    }
    let (dir, path) = (dir.path(), dir.path().join(SEGMENT));
    fs::write(&path, &altered).expect("a folder of ours");
    let scope = Scope { anchors, public_keys: std::slice::from_ref(key), ..Scope::default() };
    let report = verify(dir, &scope, |_, _| {});
    let found = look_ups(dir);
    if report.is_ok_and(|report| report.damage.is_empty()) && found.is_ok() {
        assert_eq!(found.as_ref().ok(), Some(rows), "altered, and verified all the same");
    }
    // None of these functions trusts a file.
    for row in found.unwrap_or_default() {
        let _ = (render::json_line(LOOKUP, &row), render::csv_line(&row));
    }
    let since = NOON.minus(Duration::from_secs(600));
    let reader = AuditReader::new(dir);
    let _ = reader.authenticated_since(since, |_| std::ops::ControlFlow::Continue(()));
    let _ = reader.highest_carrier_stamp();
    let _ = query::stats(dir, &Filter::default(), Bucket::Day);
    let _ = query::changes(dir, &Filter::default(), None, |_| std::ops::ControlFlow::Continue(()));
    let _ = query::lookup(dir, 2);
    for left in ["-wal", "-shm"] {
        let _ = fs::remove_file(dir.join(format!("{SEGMENT}{left}")));
    }
}

fn reads_anchors(text: &[u8]) {
    let dir = &WHOLE.dir;
    let path = dir.path().join("anchors-of-others");
    fs::write(&path, text).expect("a folder of ours");
    if let Ok(lines) = anchor::read(&path) {
        for anchor in &lines.anchors {
            // Only the one key has signed these, and its anchors are not secret.
            assert!(!anchor.is_signed_by(&WHOLE.key) || WHOLE.anchors.contains(anchor));
        }
    }
}

fn look_ups(dir: &Path) -> Result<Vec<Fields>, cmiot_proxy::store::StoreError> {
    query::lookups(dir, &Filter::default(), usize::MAX, None)
}

/// A folder in memory, if there is one. A run may end without cleanup, so each removes the folders of earlier runs.
fn folder() -> TempDir {
    const NAME: &str = "cmiot-fuzz-audit-";
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    for left in fs::read_dir(&parent).expect("a folder for files").flatten() {
        let name = left.file_name().into_string().unwrap_or_default();
        let run = name.strip_prefix(NAME).and_then(|run| run.split('-').next()?.parse::<u32>().ok());
        if run.is_some_and(|run| !Path::new(&format!("/proc/{run}")).exists()) {
            let _ = fs::remove_dir_all(left.path());
        }
    }
    let prefix = format!("{NAME}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).expect("a temporary folder")
}

fn open(dir: &Path) -> AuditStore {
    let options = Options { durability: Durability::Process, run: 8, ..Options::default() };
    AuditStore::open(dir, options, Clock::manual(NOON).0).expect("a new store")
}

fn row(at: Time) -> LookupRow {
    LookupRow {
        at,
        client: AppId::parse("GW0001").ok(),
        group: Some("fleet".into()),
        account: Some("fleet-1".into()),
        peer: [192, 0, 2, 7].into(),
        operation: Some("userstatusrealsingle"),
        card: Card::parse(CardKind::Msisdn, "14765004176").ok(),
        transid: Some("GW00012026011512000000000001".into()),
        outcome: "hit",
        reason: None,
        code: "0".into(),
        carrier_code: Some("0".into()),
        status: Some("00".into()),
        age: Some(Duration::from_millis(27_250)),
        carrier_transid: Some("1000012026011511593300000001".into()),
        latency: Duration::from_micros(1_234),
        authenticated: true,
        action: false,
    }
}

fn call(at: Time) -> CallRow {
    CallRow {
        at,
        transid: Some("1000012026011511593300000001".into()),
        previous: None,
        card: Some(Card::parse(CardKind::Msisdn, "14765004176").expect("a card")),
        account: "fleet-1".into(),
        operation: "userstatusrealsingle",
        code: Some("0".into()),
        fault: None,
        status: Some("00".into()),
        latency: Duration::from_millis(30),
        bytes: Some(60),
        body: None,
    }
}
