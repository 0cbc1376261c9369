//! `cmiot-proxy audit`, on the folder of a running proxy.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::{Card, Clocked, ICCID, MSISDN, NORMAL, Output, Proxy, Setup, carrier, eventually, run};

/// From 2026-01-15, the initial time of a clocked proxy, to 2026-02-15.
const A_MONTH: Duration = Duration::from_secs(31 * 86_400);

async fn audit(dir: &Path, arguments: &[&str]) -> Output {
    let dir = dir.to_str().unwrap();
    run(Path::new("/"), &[&["audit"], arguments, &["--dir", dir]].concat(), &[]).await
}

/// A proxy whose audit has one lookup in January and one in February.
async fn two_months(setup: &Setup) -> Clocked {
    let proxy = setup.start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    // By passing time, since a clock step starts no new month.
    proxy.clock.advance(A_MONTH);
    proxy.look_up(&ICCID).await.assert_normal();
    proxy
}

#[tokio::test]
async fn tables_fit_a_hundred_columns_and_wide_shows_the_rest() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    proxy.look_up(&ICCID).await.assert_normal();
    proxy.look_up(&Card::new("msisdn", "1476500417x")).await.assert_refusal("38");
    let folder = proxy.config().parent().unwrap().to_owned();
    let table = async |words: &[&str]| {
        let words = [words, &["--config", "cmiot-proxy.toml"]].concat();
        let (out, mut widest) = (run(&folder, &words, &[]).await.success().out, 0);
        out.lines().for_each(|line| widest = widest.max(line.chars().count()));
        (out, widest)
    };
    let (query, width) = table(&["audit", "query"]).await;
    assert!(width <= 100, "{query}");
    for whole in [MSISDN.number, ICCID.number, "card-format"] {
        assert!(query.contains(whole), "{whole}: {query}");
    }
    assert!(!query.contains("latency_ms"), "{query}");
    let (query, _) = table(&["audit", "query", "--wide"]).await;
    assert!(query.contains("latency_ms") && query.contains("carrier_transid"), "{query}");
    for words in [&["audit", "stats"][..], &["audit", "changes"], &["client", "list"]] {
        let (narrow, width) = table(words).await;
        assert!(width <= 100, "{words:?}: {narrow}");
        table(&[words, &["--wide"]].concat()).await;
    }
}

#[tokio::test]
async fn an_export_is_what_its_manifest_says_and_progress_is_no_part_of_it() {
    let carrier = carrier().await;
    let proxy = two_months(&Setup::with_carrier(&carrier)).await;
    let to = tempfile::tempdir().unwrap();
    for (format, lines) in [("csv", 2), ("json", 1)] {
        let file = to.path().join(format);
        let name = file.to_str().unwrap();
        let export = &["export", "--month", "2026-01", "--format", format, name];
        let exported = audit(&proxy.data(), export).await.success();
        let bytes = std::fs::read(&file).unwrap();
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let calls = std::fs::read_to_string(format!("{name}.calls")).unwrap();
        let calls_hash: String = Sha256::digest(&calls).iter().map(|byte| format!("{byte:02x}")).collect();
        // Standard output is for programs: no progress bar.
        let expected = format!("1 lookups, SHA-256 {hash}\n1 carrier calls, SHA-256 {calls_hash}\n");
        assert_eq!(exported.out, expected);
        let manifest = std::fs::read_to_string(format!("{name}.manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["sha256"], hash);
        assert_eq!((&manifest["rows"], &manifest["month"]), (&1.into(), &"2026-01".into()));
        assert_eq!(
            (&manifest["calls"]["rows"], &manifest["calls"]["sha256"]),
            (&1.into(), &calls_hash.into())
        );
        assert_eq!(manifest["calls"]["file"], format!("{format}.calls"));
        assert_eq!(calls.lines().count(), lines);
        // The hash of the carrier's body, and the head that the anchors of this month have.
        let call = calls.lines().last().unwrap();
        assert!(call.contains(MSISDN.number) && call.contains("sha256:"), "{call}");
        let anchors = std::fs::read_to_string(proxy.data().join("anchors.log")).unwrap();
        let chain = &manifest["chain"];
        let head = format!("\"last\":{},\"head\":{}", chain["last"], chain["head"]);
        assert!(
            anchors.lines().any(|line| line.contains("2026-01") && line.contains(&head)),
            "{head}: {anchors}"
        );
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), lines);
        let last = text.lines().last().unwrap();
        assert!(last.contains(MSISDN.number) && last.contains("2026-01-15T12:00:00"), "{last}");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // An existing file is not overwritten.
        audit(&proxy.data(), export).await.failed(1, [name]);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_month_without_a_segment_is_named_with_the_months_that_there_are() {
    let carrier = carrier().await;
    let proxy = two_months(&Setup::with_carrier(&carrier)).await;
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("out");
    let name = file.to_str().unwrap();
    let empty = to.path().to_str().unwrap();
    for month in ["2025-12", "2030-01"] {
        for command in [
            &["export", "--month", month, name][..],
            &["backup", "--month", month, name],
            &["hash", "--month", month, MSISDN.number],
            &["erase", "--month", month, "--yes"],
        ] {
            let failed = audit(&proxy.data(), command).await;
            let failed = failed.failed(1, [month, "no segment of this month", "2026-01 and 2026-02"]);
            assert!(!failed.err.contains("owner") && !failed.err.contains("mount"), "{}", failed.err);
            assert!(!file.exists() && std::fs::read_dir(to.path()).unwrap().next().is_none());
        }
    }
    audit(&proxy.data(), &["erase", "--month", "2026-01", "--yes"]).await.failed(1, ["cards as they are"]);
    // A folder without segments is an error, no empty audit: the path is probably wrong.
    for command in [
        &["query"][..],
        &["show", "1"],
        &["changes"],
        &["stats"],
        &["export", "--month", "2026-01", name],
        &["backup", name],
        &["prune", "--keep", "12mo"],
        &["hash", MSISDN.number],
        &["erase", "--month", "2026-01", "--yes"],
        &["acknowledge"],
    ] {
        audit(to.path(), command).await.failed(1, [empty, "no segment of the audit", "[store]"]);
        assert!(std::fs::read_dir(to.path()).unwrap().next().is_none(), "{command:?}");
    }
    audit(&to.path().join("none"), &["query"]).await.failed(1, ["none", "No such file"]);
    let segment = proxy.data().join("audit-2026-01.db");
    audit(&segment, &["query"]).await.failed(1, ["not a folder"]);
    let anchors = to.path().join("anchors.log");
    let verify = &["verify", "--anchors", anchors.to_str().unwrap()];
    audit(&proxy.data(), verify).await.failed(1, ["anchors.log", "check the path"]);
    audit(&proxy.data(), &["backup", segment.to_str().unwrap()]).await.failed(1, ["name another file"]);
    proxy.stop().await;
}

#[tokio::test]
async fn filters_and_numbers_that_no_record_can_meet_are_errors() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    for (code, command, said) in [
        (2, &["query", "--limit", "0"][..], "--limit"),
        (2, &["query", "--limit=-1"], "--limit"),
        (2, &["query", "--limit", "1000001"], "1000000"),
        (2, &["query", "--before", "0"], "--before"),
        (2, &["query", "--before=-1"], "--before"),
        (2, &["show", "0"], "0 is not"),
        (2, &["query", "--since", "tomorrow"], "--since"),
        (1, &["query", "--since", "1969-12-31"], "--since: it is before 1970"),
        (1, &["query", "--since", "2026-02-01", "--until", "2026-01-01"], "not before until"),
        (1, &["changes", "--since", "2026-02-01", "--until", "2026-01-01"], "not before until"),
        (1, &["stats", "--until", "2026-01-01"], "not before until"),
        (1, &["verify", "--from", "2026-02", "--to", "2026-01"], "--from 2026-02 is after --to 2026-01"),
        (1, &["query", "--outcome", "hits"], "hit, stale, miss, collapsed, refused, failed"),
        (1, &["query", "--status", "normal"], "00 normal"),
        (1, &["query", "--code", "-"], "--code"),
        (1, &["query", "--client", "a b"], "--client"),
        (1, &["query", "--peer", "gateway"], "--peer"),
        (1, &["query", "--transid", ""], "--transid"),
    ] {
        audit(&proxy.data(), command).await.failed(code, [said]);
    }
    let found =
        audit(&proxy.data(), &["query", "--format", "json", "--limit", "1000000", "--status", "00"]).await;
    assert_eq!(found.success().out.lines().count(), 1);
}

#[tokio::test]
async fn a_look_up_is_shown_with_its_calls_and_its_changes() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let dir = proxy.data();
    let found = audit(&dir, &["query", "--format", "json", "--outcome", "miss"]).await.success();
    let row: Value = serde_json::from_str(found.out.trim()).unwrap();
    let shown = audit(&dir, &["show", &row["id"].to_string()]).await.success();
    for said in [MSISDN.number, "carrier calls: 1", &carrier.calls()[0].transid, "normal"] {
        assert!(shown.out.contains(said), "{said}: {}", shown.out);
    }
    let segment = Connection::open_with_flags(proxy.audit_file(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let call: i64 = segment.query_row("SELECT id FROM call", [], |row| row.get(0)).unwrap();
    let shown = audit(&dir, &["show", &call.to_string()]).await.success();
    assert!(shown.out.starts_with("carrier call\n"), "{}", shown.out);
    assert!(shown.out.contains(&carrier.calls()[0].transid), "{}", shown.out);
    assert_eq!(audit(&dir, &["show", "4711"]).await.failed(1, ["no row", "4711"]).out, "");
    let changes = audit(&dir, &["changes", "--format", "csv", "--card", MSISDN.number]).await.success();
    assert_eq!(changes.out, "card,kind,from,to,after,before,lookup\n");
}

#[tokio::test]
async fn a_backup_of_a_live_segment_verifies() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let to = tempfile::tempdir().unwrap();
    let copy = to.path().join(proxy.audit_file().file_name().unwrap());
    audit(&proxy.data(), &["backup", copy.to_str().unwrap()]).await.success();
    proxy.look_up(&MSISDN).await.assert_normal();
    let verified = audit(to.path(), &["verify"]).await.success();
    assert!(verified.out.contains("1 segments, ") && verified.out.contains("chain ok"), "{}", verified.out);
    let found = audit(to.path(), &["query", "--format", "csv"]).await.success();
    assert_eq!(found.out.lines().count(), 2, "the backup has the rows of its time");
    audit(&proxy.data(), &["backup", copy.to_str().unwrap()]).await.failed(1, ["exists"]);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn copies_are_for_their_owner_alone_and_replace_what_an_interrupted_command_left() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let to = tempfile::tempdir().unwrap();
    let segment = proxy.audit_file();
    let month = segment.file_stem().unwrap().to_str().unwrap().strip_prefix("audit-").unwrap();
    let (copy, export) = (to.path().join(segment.file_name().unwrap()), to.path().join("month.csv"));
    for left in
        [&copy, &export, &export.with_added_extension("calls"), &export.with_added_extension("manifest.json")]
    {
        std::fs::write(left.with_added_extension("part"), "of a killed command").unwrap();
    }
    // The command was killed between its two renames.
    std::fs::write(export.with_added_extension("manifest.json"), "{}").unwrap();
    audit(&proxy.data(), &["backup", copy.to_str().unwrap()]).await.success();
    audit(&proxy.data(), &["export", "--month", month, export.to_str().unwrap()]).await.success();
    let manifest = std::fs::read(export.with_added_extension("manifest.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&manifest).unwrap()["rows"], 1);
    let mut left = 0;
    for entry in std::fs::read_dir(to.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        left += 1;
    }
    assert_eq!(left, 4);
    // An export of a missing month leaves no file.
    let none = to.path().join("none.csv");
    audit(&proxy.data(), &["export", "--month", "2020-01", none.to_str().unwrap()]).await.failed(1, [""]);
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 4);
}

#[tokio::test]
async fn after_a_stop_the_month_is_one_file_that_needs_nothing_beside_it() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let (segment, setup) = (proxy.audit_file(), proxy.setup().clone());
    let header = |at: usize| std::fs::read(&segment).unwrap()[at];
    let folder = proxy.stop().await;
    // 1 means a rollback journal, 2 a WAL: https://sqlite.org/fileformat2.html, 1.3.3.
    assert_eq!((header(18), header(19)), (1, 1));
    for tail in ["-wal", "-shm", "-journal"] {
        assert!(!Path::new(&format!("{}{tail}", segment.display())).exists(), "{tail}");
    }
    let proxy = Proxy::start_in(folder, setup).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(proxy.audit().len(), 2);
    assert!(audit(&proxy.data(), &["verify"]).await.success().out.contains("chain ok"));
}

#[tokio::test]
async fn pruning_leaves_what_verifies_and_a_note() {
    let carrier = carrier().await;
    let proxy = two_months(&Setup::with_carrier(&carrier)).await;
    let dir = proxy.data();
    audit(&dir, &["prune", "--keep", "1mo"]).await.failed(1, ["--force"]);
    let dry = audit(&dir, &["prune", "--keep", "1mo", "--force", "--dry-run"]).await.success();
    assert_eq!(dry.out, "2026-01 would be deleted\n");
    assert!(dir.join("audit-2026-01.db").exists());
    let pruned = audit(&dir, &["prune", "--keep", "1mo", "--force"]).await.success();
    assert_eq!(pruned.out, "2026-01 deleted\n");
    assert!(!dir.join("audit-2026-01.db").exists() && dir.join("audit-2026-02.db").exists());
    // The running proxy makes a row of the note within seconds.
    let newest = dir.join("audit-2026-02.db");
    let segment = Connection::open_with_flags(newest, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let note = || {
        proxy.clock.advance(Duration::from_secs(1));
        segment.query_row("SELECT id FROM note", [], |row| row.get::<_, i64>(0)).ok()
    };
    let note = eventually("the row of a note", || std::future::ready(note())).await;
    let shown = audit(&dir, &["show", &note.to_string()]).await.success();
    assert!(shown.out.starts_with("note\n"), "{}", shown.out);
    assert!(shown.out.contains("pruned") && shown.out.contains("2026-01"), "{}", shown.out);
    let verified = audit(&dir, &["verify"]).await.success();
    assert!(verified.out.contains("2026-01: not here; its manifest: "), "{}", verified.out);
    assert!(verified.out.contains("chain ok"), "{}", verified.out);
    proxy.stop().await;
}

#[tokio::test]
async fn keyed_identities_are_found_by_their_key_and_gone_with_it() {
    let carrier = carrier().await;
    let proxy = two_months(&Setup::with_carrier(&carrier).set("audit.identifiers", "keyed")).await;
    let dir = proxy.data();
    let hashed = audit(&dir, &["hash", "--month", "2026-01", MSISDN.number]).await.success();
    let hash = hashed.out.split_whitespace().nth(2).unwrap().to_owned();
    // A body that was kept elsewhere is found by the hash in the calls' rows.
    let reply = tempfile::tempdir().unwrap();
    let file = reply.path().join("reply.json");
    std::fs::write(&file, NORMAL).unwrap();
    let printed = audit(&dir, &["hash", "--body", file.to_str().unwrap()]).await.success().out;
    let bodies: Vec<_> = printed.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert!(bodies.len() == 3 && bodies[0].starts_with("sha256:") && bodies[1] != bodies[2], "{printed}");
    for (month, body) in ["2026-02", "2026-01"].into_iter().zip(&bodies[1..]) {
        let path = dir.join(format!("audit-{month}.db"));
        let segment = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let calls = "SELECT count(*) FROM carrier_call WHERE body = ?1";
        let found: i64 = segment.query_row(calls, [body], |row| row.get(0)).unwrap();
        assert!(found > 0 && printed.contains(&format!("{month} ")), "{month}: {printed}");
    }
    audit(&dir, &["hash", "--body", "nosuch", MSISDN.number]).await.failed(2, ["--body"]);
    let query = &["query", "--format", "json", "--card", MSISDN.number];
    let found = audit(&dir, query).await.success();
    let row: Value = serde_json::from_str(found.out.trim()).unwrap();
    assert_eq!((&row["card"], &row["masked"]), (&hash.clone().into(), &"147********".into()));
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("audit-") {
            let bytes = std::fs::read(&path).unwrap();
            let number = MSISDN.number.as_bytes();
            assert!(!bytes.windows(number.len()).any(|it| it == number), "{}", path.display());
        }
    }
    audit(&dir, &["erase", "--month", "2026-02", "--yes"]).await.failed(1, ["not over"]);
    audit(&dir, &["erase", "--month", "2026-01"]).await.failed(2, ["--yes"]);
    audit(&dir, &["erase", "--month", "2026-01", "--yes"]).await.success();
    audit(&dir, &["hash", "--month", "2026-01", MSISDN.number]).await.failed(1, ["no key"]);
    assert_eq!(audit(&dir, query).await.success().out, "");
    assert!(audit(&dir, &["verify"]).await.success().out.contains("chain ok"));
    proxy.stop().await;
}

#[tokio::test]
async fn without_a_terminal_there_is_no_bar() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let verified = audit(&proxy.data(), &["verify"]).await.success();
    assert_eq!(verified.err, "");
    assert!(verified.out.ends_with("chain ok\n"), "{}", verified.out);
}

#[cfg(feature = "parquet")]
#[tokio::test]
async fn a_month_is_exported_as_parquet() {
    let carrier = carrier().await;
    let proxy = two_months(&Setup::with_carrier(&carrier)).await;
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("2026-01.parquet");
    let export = &["export", "--month", "2026-01", "--format", "parquet", file.to_str().unwrap()];
    assert!(audit(&proxy.data(), export).await.success().out.starts_with("1 lookups, SHA-256 "));
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    proxy.stop().await;
}
