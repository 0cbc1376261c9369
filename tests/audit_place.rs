//! Segments that are removed, renamed or replaced while the proxy writes them: it starts a new segment with a note, and
//! refuses the stamps of the lost rows until they are acknowledged.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use cmiot_proxy::clock::Time;
use cmiot_proxy::store::audit::acknowledge;

use crate::support::{Clocked, MSISDN, Output, Proxy, Setup, card_number, carrier, eventually, logged, run};

const TAILS: [&str; 3] = ["", "-wal", "-shm"];

fn with(path: &Path, tail: &str) -> String {
    format!("{}{tail}", path.display())
}

/// The number and text of the note about a lost segment.
fn note(path: &Path) -> Option<(i64, String)> {
    let segment = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    segment
        .query_row(
            "SELECT note.id, detail FROM note JOIN name ON name.id = what WHERE text = 'segment-lost'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .ok()?
}

/// The numbers of all records of a segment.
fn numbers(path: &Path) -> Vec<i64> {
    let segment = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a segment");
    let mut numbers = segment.prepare("SELECT id FROM record ORDER BY id").expect("a table");
    numbers.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a number")).collect()
}

async fn audit(proxy: &Proxy, command: &str) -> Output {
    run(Path::new("/"), &["audit", command, "--dir", proxy.data().to_str().unwrap()], &[]).await
}

/// Harms a segment with records, without a request; asserts that a new segment follows it.
async fn is_begun_anew(harm: impl Fn(&Path)) -> Proxy {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).start().await;
    for n in 0..5 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    let path = proxy.audit_file();
    let last = *numbers(&path).last().expect("records");
    harm(&path);
    let (first, text) = eventually("the note", || async { note(&path) }).await;
    assert_eq!(first, last + 1, "numbers go on");
    assert!(text.contains(&format!("after row {last}")), "{text}");
    assert!(proxy.log().contains("was removed, renamed or replaced"), "{}", proxy.log());
    eventually("the proxy to be ready", || async {
        (proxy.admin("/ready", "").await.status == 200).then_some(())
    })
    .await;
    proxy.look_up(&card_number(7)).await.assert_normal();
    let before = numbers(&path);
    for _ in 0..2 {
        // The lost rows are the only damage, until they are acknowledged.
        let found = audit(&proxy, "verify").await.failed(1, [""]);
        let damage = found.out.lines().filter(|line| line.starts_with("DAMAGE"));
        let words = format!("rows 1-{last} through ");
        assert!(damage.clone().count() > 0, "{}", found.out);
        let noted = |line: &str| line.contains(&words) && line.contains(", not acknowledged");
        assert!(damage.clone().all(noted), "{}", found.out);
        proxy.restart().await;
        assert_eq!(numbers(&path), before, "later records last");
    }
    audit(&proxy, "acknowledge").await.success();
    let verified = audit(&proxy, "verify").await.success();
    assert!(verified.out.contains("chain ok") && verified.out.contains("LOST "), "{}", verified.out);
    proxy
}

#[tokio::test]
async fn removed() {
    is_begun_anew(|path| {
        for tail in TAILS {
            std::fs::remove_file(with(path, tail)).unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn renamed_and_whole_under_its_new_name() {
    let proxy = is_begun_anew(|path| {
        for tail in TAILS {
            std::fs::rename(with(path, tail), with(&path.with_file_name("away.db"), tail)).unwrap();
        }
    })
    .await;
    assert_eq!(numbers(&proxy.data().join("away.db")).len(), 5);
}

#[tokio::test]
async fn its_database_alone_renamed() {
    let proxy = is_begun_anew(|path| std::fs::rename(path, path.with_file_name("away.db")).unwrap()).await;
    assert_eq!(numbers(&proxy.data().join("away.db")).len(), 5, "its WAL was checkpointed into it");
}

#[tokio::test]
async fn replaced_by_an_older_copy_which_is_kept() {
    let proxy = is_begun_anew(|path| {
        let copy = path.with_file_name("copy");
        std::fs::copy(path, &copy).unwrap();
        std::fs::rename(copy, path).unwrap();
    })
    .await;
    let kept = format!("{}.lost-1", proxy.audit_file().display());
    assert!(Path::new(&kept).exists());
}

#[tokio::test]
async fn a_removed_wal_loses_nothing_and_a_hard_link_is_not_noticed() {
    let carrier = carrier().await;
    let proxy = Setup::with_carrier(&carrier).start().await;
    for n in 0..5 {
        proxy.look_up(&card_number(n)).await.assert_normal();
    }
    let path = proxy.audit_file();
    std::fs::hard_link(&path, path.with_file_name("backup")).unwrap();
    for tail in ["-wal", "-shm"] {
        std::fs::remove_file(with(&path, tail)).unwrap();
    }
    eventually("a new WAL", || async { Path::new(&with(&path, "-wal")).exists().then_some(()) }).await;
    eventually("the proxy to be ready", || async {
        (proxy.admin("/ready", "").await.status == 200).then_some(())
    })
    .await;
    proxy.look_up(&card_number(7)).await.assert_normal();
    assert_eq!(numbers(&path).len(), 6);
    assert_eq!(note(&path), None, "the segment has all of its rows");
    crate::audit_faults::verified(&proxy.data()).await;
}

#[tokio::test]
async fn what_lost_rows_used_stays_refused_over_a_restart_until_it_is_acknowledged() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).start().await;
    let used = proxy.sign(&MSISDN);
    proxy.get(&used).await.assert_normal();
    let path = proxy.audit_file();
    for tail in TAILS {
        std::fs::remove_file(with(&path, tail)).unwrap();
    }
    eventually("the note", || async { note(&path) }).await;
    eventually("the proxy to be ready", || async {
        (proxy.admin("/ready", "").await.status == 200).then_some(())
    })
    .await;
    // This process knows the used transids, so it refuses only those.
    proxy.get(&used).await.assert_refusal_for("7", "used before");
    proxy.look_up(&MSISDN).await.assert_normal();
    let calls = carrier.count();
    for _ in 0..2 {
        proxy.restart().await;
        assert!(proxy.admin("/ready", "").await.text().contains("alarm: rows-lost: "));
        proxy.get(&used).await.assert_refusal_for("7", "stamp");
        proxy.look_up(&MSISDN).await.assert_refusal_for("7", "stamp");
    }
    let acknowledged = audit(&proxy, "acknowledge").await.success();
    assert!(acknowledged.out.starts_with("acknowledged: "), "{}", acknowledged.out);
    eventually("a response with code 0", || async {
        (proxy.look_up(&MSISDN).await.code() == "0").then_some(())
    })
    .await;
    let later = proxy.sign(&MSISDN);
    proxy.get(&later).await.assert_normal();
    proxy.restart().await;
    proxy.get(&later).await.assert_refusal_for("7", "used before");
    proxy.look_up(&MSISDN).await.assert_normal();
    assert_eq!(carrier.count(), calls, "all of it from the cache");
    assert!(!proxy.admin("/ready", "").await.text().contains("rows-lost"));
}

fn now(proxy: &Clocked) -> Time {
    Time::from_secs(i64::try_from(proxy.gateway.now()).unwrap())
}

#[tokio::test]
async fn a_month_that_cannot_be_read_refuses_the_stamps_of_its_rows_until_it_is_acknowledged() {
    // 2026-02-01T00:00:00+08:00.
    const FEBRUARY: i64 = 1_769_875_200;
    for remove in [true, false] {
        let carrier = carrier().await;
        let setup = Setup::with_carrier(&carrier);
        let proxy = setup.start_clocked().await;
        let proxy = proxy.restart_at(Time::from_secs(FEBRUARY - 20), &setup).await;
        let used = proxy.sign(&MSISDN);
        proxy.get(&used).await.assert_normal();
        proxy.clock.advance(std::time::Duration::from_secs(40));
        proxy.look_up(&MSISDN).await.assert_normal();
        let january = proxy.data().join("audit-2026-01.db");
        let at = now(&proxy);
        // The drain writes into the next month.
        if remove {
            std::fs::remove_file(&january).unwrap();
        } else {
            eventually("the month to be sealed", || async {
                (!Path::new(&with(&january, "-wal")).exists()).then_some(())
            })
            .await;
            std::fs::write(&january, "x".repeat(8_192)).unwrap();
        }
        let mut proxy = proxy;
        for _ in 0..2 {
            proxy = proxy.restart_at(at, &setup).await;
            proxy.get(&used).await.assert_refusal_for("7", "stamp");
            proxy.look_up(&MSISDN).await.assert_refusal_for("7", "stamp");
            eventually("the alarm", || async {
                proxy.clock.advance(std::time::Duration::from_secs(1));
                proxy.admin("/ready").await.text().contains("rows-lost").then_some(())
            })
            .await;
        }
        let acknowledged = acknowledge(&proxy.data(), "by=test", at).unwrap();
        assert_eq!(acknowledged.len(), 1);
        eventually("a response with code 0", || async {
            proxy.clock.advance(std::time::Duration::from_secs(1));
            (proxy.look_up(&MSISDN).await.code() == "0").then_some(())
        })
        .await;
        let later = proxy.sign(&MSISDN);
        proxy.get(&later).await.assert_normal();
        let at = now(&proxy);
        let proxy = proxy.restart_at(at, &setup).await;
        proxy.get(&later).await.assert_refusal_for("7", "used before");
        proxy.look_up(&MSISDN).await.assert_normal();
        assert!(!proxy.admin("/ready").await.text().contains("rows-lost"));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn what_left_the_memory_by_a_wrong_clock_stays_refused_when_its_rows_are_lost() {
    let carrier = carrier().await;
    let setup = Setup::with_carrier(&carrier).set("gateway.clock_skew", "5m");
    let proxy = setup.start_clocked().await;
    let used = proxy.sign(&MSISDN);
    proxy.get(&used).await.assert_normal();
    // A clock that runs fast moves `used` out of the window.
    for _ in 0..20 {
        proxy.clock.advance(std::time::Duration::from_secs(60));
        proxy.look_up(&MSISDN).await.assert_normal();
    }
    let january = proxy.data().join("audit-2026-01.db");
    for tail in TAILS {
        std::fs::remove_file(with(&january, tail)).unwrap();
    }
    eventually("the note", || async {
        proxy.clock.advance(std::time::Duration::from_secs(1));
        note(&january)
    })
    .await;
    eventually("the proxy to be ready", || async {
        (proxy.admin("/ready").await.status == 200).then_some(())
    })
    .await;
    proxy.clock.step(-1_200);
    proxy.get(&used).await.assert_refusal("7");
    eventually("the audit to be read back", || async {
        logged("were read back from the audit").then_some(())
    })
    .await;
    proxy.get(&used).await.assert_refusal("7");
    // No record of it is left: after the acknowledgement it is accepted.
    acknowledge(&proxy.data(), "by=test", now(&proxy)).unwrap();
    eventually("a response with code 0", || async {
        proxy.clock.advance(std::time::Duration::from_secs(1));
        (proxy.get(&used).await.code() == "0").then_some(())
    })
    .await;
    proxy.stop().await;
}
