//! `cmiot-proxy audit verify`: output and exit code with anchors of each kind of log, without anchors, after damage, after a
//! loss; and the times at which the proxy writes anchors.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cmiot_proxy::store::audit::anchor::{self, Anchor};
use rusqlite::Connection;

use crate::support::{
    Clocked, ICCID, IMSI, MSISDN, Output, Proxy, Setup, carrier, dropping_triggers, eventually, run,
};

async fn audit(dir: &Path, arguments: &[&str]) -> Output {
    let dir = dir.to_str().unwrap();
    run(Path::new("/"), &[&["audit"], arguments, &["--dir", dir]].concat(), &[]).await
}

/// Removes all batches of the segment but the first, as the owner of the file can.
fn cut_off(segment: &Path) {
    dropping_triggers(segment, |connection| {
        let last: i64 = connection.query_row("SELECT min(last) FROM batch", [], |row| row.get(0)).unwrap();
        for table in ["record", "call"] {
            connection.execute(&format!("DELETE FROM {table} WHERE id > ?1"), [last]).unwrap();
        }
        connection.execute("DELETE FROM batch WHERE last > ?1", [last]).unwrap();
    });
}

/// Waits until an alarm ends.
async fn alarm_ended(proxy: &Proxy, alarm: &str) {
    eventually("the alarm to end", || async {
        (!proxy.admin("/ready", "").await.text().contains(alarm)).then_some(())
    })
    .await;
}

/// Ends the proxy by SIGTERM.
async fn drain(proxy: &mut Proxy) {
    proxy.signal("TERM").await;
    proxy.ended().await;
}

/// The anchors that a clocked proxy has written.
fn anchors(proxy: &Clocked) -> Vec<Anchor> {
    anchor::read(&proxy.data().join("anchors.log")).unwrap().anchors
}

/// The number of the last row of a segment.
fn last_row(proxy: &Clocked, month: &str) -> i64 {
    let segment = Connection::open(proxy.data().join(format!("audit-{month}.db"))).unwrap();
    segment.query_row("SELECT max(last) FROM batch", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn an_anchor_is_written_every_anchor_every_and_at_the_end_of_a_month() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("audit.anchor_every", "5m").start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let first = eventually("the anchor of the first batch", || async {
        anchors(&proxy).last().filter(|anchor| anchor.last > 0).cloned()
    })
    .await;
    // A batch is committed after the maintenance that follows the batch before it.
    proxy.clock.advance(Duration::from_secs(299));
    for _ in 0..2 {
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    assert_eq!(anchors(&proxy).last(), Some(&first), "no anchor before anchor_every");
    proxy.clock.advance(Duration::from_secs(2));
    proxy.look_up(&MSISDN).await.assert_normal();
    // The anchor may be written before the last of these rows is committed.
    eventually("the next anchor", || async {
        anchors(&proxy).last().filter(|anchor| anchor.last > first.last).cloned()
    })
    .await;
    proxy.stop().await;

    // Longer than the month, so that only its end is a reason for an anchor.
    let proxy = Setup::with_carrier(&carrier).set("audit.anchor_every", "1440h").start_clocked().await;
    for _ in 0..3 {
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    let last = last_row(&proxy, "2026-01");
    assert!(anchors(&proxy).iter().all(|anchor| anchor.last < last), "{:?}", anchors(&proxy));
    proxy.clock.advance(Duration::from_secs(31 * 86_400));
    proxy.look_up(&MSISDN).await.assert_normal();
    let last = last_row(&proxy, "2026-01");
    eventually("the anchor of January's last row", || async {
        anchors(&proxy).into_iter().find(|anchor| anchor.segment == "2026-01" && anchor.last == last)
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn the_first_bad_batch_of_each_segment_is_printed_and_the_others_are_counted() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start_clocked().await;
    for _ in 0..2 {
        for _ in 0..5 {
            proxy.look_up(&MSISDN).await.assert_normal();
        }
        proxy.clock.advance(Duration::from_secs(31 * 86_400));
    }
    proxy.look_up(&MSISDN).await.assert_normal();
    let data = proxy.data();
    let mut bad = Vec::new();
    for month in ["2026-01", "2026-02"] {
        // All batches but the first: one row of each is edited.
        let batches = dropping_triggers(&data.join(format!("audit-{month}.db")), |connection| {
            let mut lasts = connection.prepare("SELECT last FROM batch ORDER BY last").unwrap();
            let lasts: Vec<i64> =
                lasts.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            let edited =
                connection.execute("UPDATE record SET status = '77' WHERE id > ?1", [lasts[0]]).unwrap();
            assert_eq!(edited, lasts.len() - 1, "one record per batch");
            lasts
        });
        bad.push((month, batches));
    }
    let found = audit(&data, &["verify"]).await.failed(1, [""]);
    for (month, batches) in bad {
        let lines: Vec<&str> =
            found.out.lines().filter(|line| line.starts_with(&format!("DAMAGE {month}: "))).collect();
        let printed: Vec<&&str> = lines.iter().filter(|line| line.contains("batch of rows ")).collect();
        let first = format!("batch of rows {} to {} from ", batches[0] + 1, batches[1]);
        assert!(!printed.is_empty() && printed.iter().all(|line| line.contains(&first)), "{lines:?}");
        let others = format!("DAMAGE {month}: {} more batches", batches.len() - 2);
        assert!(lines.contains(&others.as_str()), "{others}: {lines:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn rows_after_the_last_anchor_are_named() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).set("audit.anchor_every", "1440h").start_clocked().await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let anchored = eventually("the anchor of the first batch", || async {
        anchors(&proxy).last().map(|anchor| anchor.last).filter(|last| *last > 0)
    })
    .await;
    let data = proxy.data();
    let named = format!("rows after {anchored} of 2026-01 ");
    // The carrier call and the lookup may be in two batches, of which the anchor covers the first.
    let segment = rusqlite::Connection::open(data.join("audit-2026-01.db")).unwrap();
    let last: i64 = segment.query_row("SELECT max(last) FROM batch", [], |row| row.get(0)).unwrap();
    let whole = audit(&data, &["verify"]).await.success();
    assert_eq!(whole.out.contains("rows after "), last > anchored, "{}", whole.out);
    proxy.look_up(&MSISDN).await.assert_normal();
    let later = audit(&data, &["verify"]).await.success();
    assert!(later.out.contains(&named), "{}", later.out);
    proxy.stop().await;
}

#[tokio::test]
async fn anchors_of_a_shipped_log_show_a_cut_off_tail() {
    for format in ["text", "json"] {
        let carrier = carrier().await;
        let proxy = Setup::with_carrier(&carrier).set("log.format", format).start().await;
        for card in [MSISDN, ICCID, IMSI] {
            proxy.look_up(&card).await.assert_normal();
        }
        let (data, segment) = (proxy.data(), proxy.audit_file());
        let key = fs::read_to_string(data.join("audit-anchor.pub")).unwrap();
        let first = eventually("the anchor of the first batch", || async {
            let anchors = fs::read_to_string(data.join("anchors.log")).unwrap();
            (!anchors.lines().all(|line| line.contains("\"last\":0,"))).then_some(anchors)
        })
        .await;
        assert!(first.ends_with('\n'));
        let shipped = tempfile::tempdir().unwrap();
        let log = shipped.path().join("log");
        // Drained, so that its last anchor is in the log.
        let mut proxy = proxy;
        drain(&mut proxy).await;
        fs::write(&log, proxy.log()).unwrap();
        let log = log.to_str().unwrap();
        let against = ["verify", "--public-key", key.trim(), "--anchors", log];
        let whole = audit(&data, &against).await.success();
        assert!(whole.out.contains("anchors compared, signed by the key"), "{}", whole.out);
        assert!(
            whole.out.contains("chain ok") && !whole.out.contains("after the last anchor"),
            "{}",
            whole.out
        );
        // With another public key, each anchor is damage.
        let other = ["verify", "--public-key", &"ab".repeat(32), "--anchors", log];
        assert!(audit(&data, &other).await.failed(1, [""]).out.contains("is not signed by this key"));
        cut_off(&segment);
        let found = audit(&data, &against).await.failed(1, [""]);
        assert!(found.out.contains("is cut off") && found.out.contains("chain DAMAGED"), "{}", found.out);
    }
}

#[tokio::test]
async fn nothing_verified_and_nothing_compared_are_no_success_and_the_limits_are_said() {
    let carrier = carrier().await;
    let proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join(proxy.audit_file().file_name().unwrap());
    audit(&proxy.data(), &["backup", file.to_str().unwrap()]).await.success();
    let alone = audit(copy.path(), &["verify"]).await.success();
    assert!(alone.out.contains("no anchors: tail and origin not shown"), "{}", alone.out);
    assert!(alone.out.contains("the chain has no key"), "{}", alone.out);
    let nothing = audit(copy.path(), &["verify", "--to", "2020-01"]).await.failed(1, [""]);
    assert!(nothing.out.contains("nothing verified: no segment in scope"), "{}", nothing.out);
    let empty = tempfile::tempdir().unwrap();
    audit(empty.path(), &["verify"]).await.failed(1, [""]);
    // A log without an anchor; one with anchors of other months only; one with a torn line in the middle; one with a torn
    // last line.
    let log = copy.path().join("log");
    let name = log.to_str().unwrap();
    let against = ["verify", "--anchors", name];
    let anchors = fs::read_to_string(proxy.data().join("anchors.log")).unwrap();
    let line = anchors.lines().next().unwrap();
    fs::write(&log, "INFO serving\n").unwrap();
    let none = audit(copy.path(), &against).await.failed(1, [""]);
    assert!(none.out.contains("no anchor of a segment in scope"), "{}", none.out);
    assert!(none.out.contains("chain NOT COMPARED"), "{}", none.out);
    fs::write(&log, line.replace("\"segment\":\"20", "\"segment\":\"10")).unwrap();
    audit(copy.path(), &[&against[..], &["--from", "2020-01"]].concat()).await.failed(1, [""]);
    fs::write(&log, format!("{line}\n{}\n{line}\n", &line[..90])).unwrap();
    audit(copy.path(), &against).await.failed(1, ["line 2"]);
    fs::write(&log, format!("{line}\n{}", &line[..90])).unwrap();
    audit(copy.path(), &against).await.success();
}

#[tokio::test]
async fn a_segment_that_is_gone_at_a_start_is_an_alarm_until_it_is_acknowledged() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    drain(&mut proxy).await;
    let data = proxy.data();
    let kept = tempfile::tempdir().unwrap();
    let anchors = kept.path().join("anchors.log");
    fs::copy(data.join("anchors.log"), &anchors).unwrap();
    fs::write(proxy.audit_file(), "").unwrap();
    let alarm = "alarm: rows-lost: audit rows are missing: ";
    for _ in 0..2 {
        proxy.start_again().await;
        let ready = proxy.admin("/ready", "").await;
        assert_eq!(ready.status, 200);
        assert!(ready.text().contains(alarm), "{}", ready.text());
        assert!(proxy.log().contains("ERROR") && proxy.log().contains("audit rows are missing"));
        drain(&mut proxy).await;
    }
    let found = audit(&data, &["verify"]).await.failed(1, [""]);
    assert!(found.out.contains("not acknowledged"), "{}", found.out);
    proxy.start_again().await;
    assert!(audit(&data, &["acknowledge"]).await.success().out.starts_with("acknowledged: "));
    alarm_ended(&proxy, alarm).await;
    drain(&mut proxy).await;
    proxy.start_again().await;
    assert!(!proxy.admin("/ready", "").await.text().contains(alarm));
    let own = audit(&data, &["verify"]).await.success();
    assert!(own.out.contains("LOST noted at "), "{}", own.out);
    let elsewhere = ["verify", "--anchors", anchors.to_str().unwrap()];
    let found = audit(&data, &elsewhere).await.failed(1, [""]);
    assert!(found.out.contains(", acknowledged at "), "{}", found.out);
}

#[tokio::test]
async fn a_changed_signing_key_is_an_error_and_a_note_and_both_keys_verify() {
    let carrier = carrier().await;
    let mut proxy = Proxy::with_carrier(&carrier).await;
    proxy.look_up(&MSISDN).await.assert_normal();
    drain(&mut proxy).await;
    let data = proxy.data();
    let key = || fs::read_to_string(data.join("audit-anchor.pub")).unwrap().trim().to_owned();
    let former = key();
    fs::remove_file(data.join("audit-anchor.key")).unwrap();
    proxy.start_again().await;
    proxy.look_up(&ICCID).await.assert_normal();
    assert!(proxy.log().contains("the key that signs audit anchors has changed"), "{}", proxy.log());
    drain(&mut proxy).await;
    let connection = Connection::open(proxy.audit_file()).unwrap();
    let note: String = connection
        .query_row(
            "SELECT detail FROM note JOIN name ON name.id = what WHERE text = 'key-changed'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(note, format!("from {former} to {}", key()));
    let anchors = data.join("anchors.log");
    let against = ["verify", "--anchors", anchors.to_str().unwrap(), "--public-key", &former];
    audit(&data, &against).await.failed(1, [""]);
    audit(&data, &[&against[..], &["--public-key", &key()]].concat()).await.success();
}

#[tokio::test]
async fn segments_of_version_1_are_verified_queried_and_exported() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/audit-1");
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let verified = audit(dir.path(), &["verify"]).await.success();
    assert!(
        verified.out.contains("2 segments, ") && verified.out.contains("70 rows: chain ok"),
        "{}",
        verified.out
    );
    // The clock may be wrong, so months count from the newest record.
    let kept = audit(dir.path(), &["prune", "--keep", "6mo"]).await.success();
    assert_eq!(kept.out, "");
    assert!(kept.err.contains("the newest record is of 2026-02"), "{}", kept.err);
    let query = audit(dir.path(), &["query", "--format", "csv", "--limit", "100"]).await.success();
    assert_eq!(query.out.lines().count(), 1 + 32, "{}", query.out);
    for month in ["2026-01", "2026-02"] {
        let file = dir.path().join(month);
        audit(dir.path(), &["export", "--month", month, "--format", "csv", file.to_str().unwrap()])
            .await
            .success();
        assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 1 + 16);
    }
}
