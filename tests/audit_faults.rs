//! Disk and clock faults under the audit: no response without its record or its count, and recovery without a restart.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use cmiot_proxy::clock::Time;
use rusqlite::Connection;

use crate::support::{ICCID, MSISDN, Proxy, Setup, carrier, eventually, run};

/// Both policies of `[audit] on_failure`, and the code of a hit while no record can be written.
const POLICIES: [(&str, &str); 2] = [("refuse", "73"), ("answer", "0")];

/// The audit's counts of responses and refusals without a record.
pub(crate) fn gap(proxy: &Proxy) -> (i64, i64) {
    let segment = Connection::open_with_flags(proxy.audit_file(), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
    segment
        .unwrap()
        .query_row("SELECT coalesce(sum(answered), 0), coalesce(sum(refused), 0) FROM gap", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap()
}

/// Looks up a cached card until the audit cannot be written.
async fn until_it_fails(proxy: &Proxy) {
    eventually("a write error of the audit", || async {
        proxy.look_up(&MSISDN).await;
        proxy.log().contains("audit records cannot be written").then_some(())
    })
    .await;
}

pub(crate) async fn verified(dir: &Path) {
    let verified = run(Path::new("/"), &["audit", "verify", "--dir", dir.to_str().unwrap()], &[]).await;
    assert!(verified.success().out.contains("chain ok"));
}

/// Asserts that hits follow the policy while no record can be written, and that after `mend` the proxy recovers without a
/// restart and counts the responses without a record.
async fn the_policy_holds(proxy: &Proxy, code: &str, mend: impl FnOnce()) {
    for _ in 0..2 {
        let response = proxy.look_up(&MSISDN).await;
        match code {
            "73" => response.assert_refusal_for("73", "audit unavailable"),
            _ => response.assert_normal(),
        }
    }
    if code == "73" {
        let ready = proxy.admin("/ready", "").await;
        assert_eq!(ready.status, 503, "{}", ready.text());
    }
    let labels = [("outcome", "failed"), ("reason", "audit")];
    let failed = proxy.metrics().await.value("cmiot_lookups_total", labels).unwrap_or_default();
    assert_eq!(failed > 0.0, code == "73", "{failed}");
    mend();
    // The proxy recovers without any request.
    let (answered, refused) = eventually("the count of responses without a record", || async {
        Some(gap(proxy)).filter(|(answered, refused)| answered + refused >= 2)
    })
    .await;
    assert!(
        if code == "73" { answered == 0 } else { refused == 0 },
        "{answered} answered, {refused} refused"
    );
    eventually("the proxy to be ready", || async {
        (proxy.admin("/ready", "").await.status == 200).then_some(())
    })
    .await;
    proxy.look_up(&MSISDN).await.assert_normal();
    verified(&proxy.data()).await;
}

#[tokio::test]
async fn a_full_disk_stops_records_until_there_is_space() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let setup = Setup::with_carrier(&carrier).set("audit.on_failure", policy).set("audit.min_free", "0B");
        let proxy = setup.start_on_small_disk(8).await;
        proxy.look_up(&MSISDN).await.assert_normal();
        proxy.fill_disk(0);
        until_it_fails(&proxy).await;
        the_policy_holds(&proxy, code, || proxy.empty_disk()).await;
    }
}

#[tokio::test]
async fn below_the_reserve_nothing_is_written_while_there_is_room() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let setup =
            Setup::with_carrier(&carrier).set("audit.on_failure", policy).set("audit.min_free", "2MiB");
        let proxy = setup.start_on_small_disk(16).await;
        proxy.look_up(&MSISDN).await.assert_normal();
        proxy.fill_disk(1 << 20);
        until_it_fails(&proxy).await;
        let rows = proxy.audit().len();
        the_policy_holds(&proxy, code, || {
            assert_eq!(proxy.audit().len(), rows, "no record since");
            proxy.empty_disk();
        })
        .await;
        assert!(proxy.log().contains("min_free asks for 2 MiB"));
    }
}

#[tokio::test]
async fn a_disk_that_turns_read_only_stops_records_until_it_is_writable() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let proxy =
            Setup::with_carrier(&carrier).set("audit.on_failure", policy).start_on_failing_disk().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        proxy.set_disk_fault("readonly");
        until_it_fails(&proxy).await;
        the_policy_holds(&proxy, code, || proxy.set_disk_fault("well")).await;
    }
}

#[tokio::test]
async fn a_stalled_sync_outlasts_every_deadline_and_loses_no_record() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let setup =
            Setup::with_carrier(&carrier).set("audit.on_failure", policy).set("gateway.deadline", "500ms");
        let proxy = setup.start_on_failing_disk().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        let before = proxy.audit().len();
        proxy.set_disk_fault("stall");
        let stalled = [proxy.sign(&MSISDN), proxy.sign(&MSISDN)];
        // Its row is being committed. With the policy `refuse`, the response waits for the commit, past its deadline.
        let (client, query) = (proxy.clone(), stalled[0].clone());
        let first = tokio::spawn(async move { client.get(&query).await });
        eventually("the stall of its commit", || async { proxy.disk_stalls().then_some(()) }).await;
        // This row waits for the next commit. With the policy `refuse`, its refusal comes at its deadline, which is later
        // than that of the first. With the policy `answer`, both responses come without a commit.
        assert_eq!(proxy.get(&stalled[1]).await.code(), code);
        let first = if policy == "answer" {
            let first = first.await;
            proxy.set_disk_fault("none");
            first
        } else {
            assert!(!first.is_finished(), "it waits for its commit");
            proxy.set_disk_fault("none");
            first.await
        };
        assert_eq!(first.unwrap().code(), "0");
        // The row of the refused request is written too, with the code of its response.
        let found = eventually("the late records", || async {
            let audit = proxy.audit();
            stalled
                .iter()
                .all(|query| audit.iter().any(|row| row.transid.as_deref() == Some(query.transid())))
                .then_some(audit.len())
        })
        .await;
        assert_eq!(found, before + 2);
        let codes: Vec<_> = proxy.audit()[before..].iter().map(|row| row.code.clone()).collect();
        assert_eq!(codes, ["0", code]);
        proxy.look_up(&MSISDN).await.assert_normal();
        assert_eq!(gap(&proxy), (0, 0), "each of them has its record");
        verified(&proxy.data()).await;
    }
}

#[tokio::test]
async fn a_corrupt_page_stops_records_until_it_is_restored() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let proxy = Setup::with_carrier(&carrier).set("audit.on_failure", policy).start().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        // A checkpoint moves all pages into the file; the commit of another connection makes the proxy read them again.
        let path = proxy.audit_file();
        let other = Connection::open(&path).unwrap();
        let page: i64 = other
            .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'batch'", [], |row| row.get(0))
            .unwrap();
        let version: i64 = other.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        other.pragma_update(None, "user_version", version).unwrap();
        other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(other);
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut good = [0; 4_096];
        let offset = u64::try_from(page - 1).unwrap() * 4_096;
        file.read_exact_at(&mut good, offset).unwrap();
        file.write_all_at(&[0xa5; 4_096], offset).unwrap();
        until_it_fails(&proxy).await;
        assert!(proxy.log().contains("malformed"), "{}", proxy.log());
        // The page is restored from a backup, without a restart.
        the_policy_holds(&proxy, code, || file.write_all_at(&good, offset).unwrap()).await;
    }
}

#[tokio::test]
async fn a_segment_that_is_moved_away_is_begun_anew() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let proxy = Setup::with_carrier(&carrier).set("audit.on_failure", policy).start().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        let path = proxy.audit_file();
        // The proxy cannot write any record. Then it looks for the file by its name.
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(
                "CREATE TRIGGER broken BEFORE INSERT ON record BEGIN SELECT RAISE(ABORT, 'no'); END",
            )
            .unwrap();
        drop(other);
        until_it_fails(&proxy).await;
        assert_eq!(proxy.look_up(&MSISDN).await.code(), code);
        for tail in ["", "-wal", "-shm"] {
            let from = format!("{}{tail}", path.display());
            // The last connection to close may have removed WAL and index.
            let moved = std::fs::rename(&from, format!("{from}.away"));
            assert!(moved.is_ok() || !tail.is_empty(), "{moved:?}");
        }
        eventually("a new segment with a record", || async {
            proxy.look_up(&MSISDN).await;
            let new = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
            new.query_row("SELECT id FROM record", [], |_| Ok(())).ok()
        })
        .await;
        let (answered, refused) = gap(&proxy);
        assert!(if code == "73" { refused > 0 } else { answered > 0 });
        // The rows of the moved file are damage until they are acknowledged.
        let dir = proxy.data();
        let audit = async |command: &str| {
            run(Path::new("/"), &["audit", command, "--dir", dir.to_str().unwrap()], &[]).await
        };
        let verified = audit("verify").await;
        assert_eq!(verified.code, Some(1), "{verified:?}");
        assert!(
            verified.out.contains("as lost: ") && verified.out.contains("not acknowledged"),
            "{verified:?}"
        );
        let alarm = "alarm: rows-lost: audit rows are missing: ";
        assert!(proxy.admin("/ready", "").await.text().contains(alarm));
        assert!(audit("acknowledge").await.success().out.contains("acknowledged: "));
        eventually("the alarm to end", || async {
            (!proxy.admin("/ready", "").await.text().contains(alarm)).then_some(())
        })
        .await;
        assert!(audit("verify").await.success().out.contains("LOST noted at "));
    }
}

#[tokio::test]
async fn a_clock_that_steps_back_over_the_end_of_a_month() {
    for (policy, _) in POLICIES {
        let carrier = carrier().await;
        let proxy = Setup::with_carrier(&carrier).set("audit.on_failure", policy).start_clocked().await;
        // 2026-02-01T00:00:00+08:00
        let boundary = Time::from_secs(1_769_875_200);
        let seconds = Duration::from_secs;
        // By passing time from 2026-01-15T12:00:00+08:00; the steps below are small.
        proxy.clock.advance(boundary.since(Time::from_secs(1_768_449_600)));
        for (now, card) in [
            (boundary.minus(seconds(9)), MSISDN),
            (boundary.plus(seconds(9)), MSISDN),
            (boundary.minus(seconds(6)), ICCID),
            (boundary.plus(seconds(12)), ICCID),
        ] {
            proxy.clock.set(now);
            proxy.look_up(&card).await.assert_normal();
        }
        let of = |month: &str| -> Vec<Option<String>> {
            let segment = proxy.data().join(format!("audit-{month}.db"));
            let segment =
                Connection::open_with_flags(segment, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
            let mut cards = segment.prepare("SELECT card FROM record ORDER BY id").unwrap();
            cards.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let [msisdn, iccid] = [MSISDN, ICCID].map(|card| Some(card.number.to_owned()));
        assert_eq!(of("2026-01"), std::slice::from_ref(&msisdn));
        assert_eq!(of("2026-02"), [msisdn, iccid.clone(), iccid], "records go into the newest segment");
        verified(&proxy.data()).await;
        assert_eq!(carrier.duplicates(), []);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_process_that_holds_a_lock_is_named_and_stops_nothing_for_good() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let proxy = Setup::with_carrier(&carrier).set("audit.on_failure", policy).start().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        // A reader of the WAL index may take a shared lock on it.
        let index = std::fs::File::open(format!("{}-shm", proxy.audit_file().display())).unwrap();
        rustix::fs::fcntl_lock(&index, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
        let named = format!("process {} ", std::process::id());
        let asked = proxy.look_up(&MSISDN);
        let ready = eventually("the process in the alarm", || async {
            let ready = proxy.admin("/ready", "").await;
            ready.text().contains(&named).then_some(ready)
        });
        let (response, _) = tokio::join!(asked, ready);
        assert_eq!(response.code(), code);
        assert!(proxy.log().contains(&named), "{}", proxy.log());
        drop(index);
        eventually("no alarm", || async {
            let ready = proxy.admin("/ready", "").await;
            (ready.status == 200 && !ready.text().contains("audit-locked")).then_some(())
        })
        .await;
        proxy.look_up(&MSISDN).await.assert_normal();
        verified(&proxy.data()).await;
    }
}
