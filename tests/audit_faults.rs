//! Disks and clocks that fail: no answer without its record, or its count; and all is well again by itself.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use cmiot_proxy::clock::Time;
use rusqlite::Connection;

use crate::support::{ICCID, MSISDN, Proxy, Setup, carrier, eventually, run};

/// Both policies, and the code that a hit gets while nothing can be written.
const POLICIES: [(&str, &str); 2] = [("refuse", "73"), ("answer", "0")];

/// Answered and refused without a record, as the audit has it.
pub(crate) fn gap(proxy: &Proxy) -> (i64, i64) {
    let segment = Connection::open_with_flags(proxy.audit_file(), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY);
    segment
        .unwrap()
        .query_row("SELECT coalesce(sum(answered), 0), coalesce(sum(refused), 0) FROM gap", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap()
}

/// Asks about a card that is known until the audit cannot be written.
async fn until_it_fails(proxy: &Proxy) {
    eventually("trouble", || async {
        proxy.look_up(&MSISDN).await;
        proxy.log().contains("audit records cannot be written").then_some(())
    })
    .await;
}

pub(crate) async fn verified(dir: &Path) {
    let verified = run(Path::new("/"), &["audit", "verify", "--dir", dir.to_str().unwrap()], &[]).await;
    assert!(verified.success().out.contains("chain ok"));
}

/// While nothing can be written a known card's answer is what the policy says; mended, all is well again by itself, and
/// what had no record is counted.
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
    let metrics = proxy.admin("/metrics", "").await;
    let failed = r#"cmiot_look_ups_total{outcome="failed",reason="audit"}"#;
    assert_eq!(metrics.text().contains(failed), code == "73", "{}", metrics.text());
    mend();
    // Nobody asks meanwhile.
    let (answered, refused) = eventually("the count of what has no record", || async {
        Some(gap(proxy)).filter(|(answered, refused)| answered + refused >= 2)
    })
    .await;
    assert!(
        if code == "73" { answered == 0 } else { refused == 0 },
        "{answered} answered, {refused} refused"
    );
    eventually("to be ready", || async { (proxy.admin("/ready", "").await.status == 200).then_some(()) })
        .await;
    proxy.look_up(&MSISDN).await.assert_normal();
    verified(&proxy.data()).await;
}

#[tokio::test]
async fn a_full_disk() {
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
async fn a_disk_that_turns_read_only() {
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
async fn a_writer_that_stalls_longer_than_anybody_waits() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let setup =
            Setup::with_carrier(&carrier).set("audit.on_failure", policy).set("gateway.deadline", "1s");
        let proxy = setup.start_on_failing_disk().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        let before = proxy.audit().len();
        let begun = tokio::time::Instant::now();
        proxy.set_disk_fault("stall");
        let stalled = [proxy.sign(&MSISDN), proxy.sign(&MSISDN)];
        // The first one's row is being committed, and it waits for that where it may not be answered without.
        let (client, query) = (proxy.clone(), stalled[0].clone());
        let first = tokio::spawn(async move { client.get(&query).await });
        // Not answered at once, or answered without a record: its row has been taken by then.
        tokio::time::sleep_until(begun + Duration::from_millis(500)).await;
        assert_eq!(proxy.get(&stalled[1]).await.code(), code);
        tokio::time::sleep_until(begun + Duration::from_secs(5)).await;
        proxy.set_disk_fault("well");
        assert_eq!(first.await.unwrap().code(), "0");
        // What was given up on is written all the same, and says what its client was told.
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
async fn a_page_that_is_corrupt() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let proxy = Setup::with_carrier(&carrier).set("audit.on_failure", policy).start().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        // Everything is moved into the file, and the proxy is made to read it again by another program's commit.
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
        let place = u64::try_from(page - 1).unwrap() * 4_096;
        file.read_exact_at(&mut good, place).unwrap();
        file.write_all_at(&[0xa5; 4_096], place).unwrap();
        until_it_fails(&proxy).await;
        assert!(proxy.log().contains("malformed"), "{}", proxy.log());
        // The page from a backup, and no restart.
        the_policy_holds(&proxy, code, || file.write_all_at(&good, place).unwrap()).await;
    }
}

#[tokio::test]
async fn a_segment_that_is_moved_away_is_begun_anew() {
    let carrier = carrier().await;
    for (policy, code) in POLICIES {
        let proxy = Setup::with_carrier(&carrier).set("audit.on_failure", policy).start().await;
        proxy.look_up(&MSISDN).await.assert_normal();
        let path = proxy.audit_file();
        // So long as it is held, the proxy cannot write; then it looks for the file by its name.
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
            // The last to close the file has removed the other two, mostly.
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
        // What is in the file that was moved is missing here, until somebody says that he knows.
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
        let turn = Time::from_secs(1_769_875_200);
        let seconds = Duration::from_secs;
        // From 2026-01-15T12:00:00+08:00, by both clocks: what follows are small steps.
        proxy.clock.advance(turn.since(Time::from_secs(1_768_449_600)));
        for (now, card) in [
            (turn.minus(seconds(9)), MSISDN),
            (turn.plus(seconds(9)), MSISDN),
            (turn.minus(seconds(6)), ICCID),
            (turn.plus(seconds(12)), ICCID),
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
        assert_eq!(of("2026-02"), [msisdn, iccid.clone(), iccid], "what is written into never goes back");
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
        // Whoever may read the file beside the segment may take a shared lock on it.
        let index = std::fs::File::open(format!("{}-shm", proxy.audit_file().display())).unwrap();
        rustix::fs::fcntl_lock(&index, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
        let named = format!("process {} ", std::process::id());
        let asked = proxy.look_up(&MSISDN);
        let ready = eventually("a name", || async {
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
