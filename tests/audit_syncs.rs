//! A failed sync is never trusted again: what was answered afterwards survives a power loss, or the process ends.

use rusqlite::{Connection, OpenFlags};

use crate::support::{Proxy, Query, Setup, card_number, carrier, eventually};

/// Asks about new cards; the queries that were answered, and how many were refused for want of a record.
async fn asked(proxy: &Proxy, count: u32) -> (Vec<Query>, i64) {
    let (mut answered, mut refused) = (Vec::new(), 0);
    for n in 0..count {
        let query = proxy.sign(&card_number(n));
        let response = proxy.get(&query).await;
        match response.code().as_str() {
            "0" => answered.push(query),
            _ => {
                response.assert_refusal_for("73", "audit unavailable");
                refused += 1;
            }
        }
    }
    (answered, refused)
}

/// After a power loss each answered request has its record, once, the chain is whole, and none is answered again.
async fn all_is_kept(proxy: &mut Proxy, answered: &[Query]) {
    proxy.lose_power().await;
    proxy.start_again().await;
    let audit = proxy.audit();
    for query in answered {
        let records = audit.iter().filter(|row| row.transid.as_deref() == Some(query.transid())).count();
        assert_eq!(records, 1, "{query:?}");
        assert_eq!(proxy.get(query).await.code(), "7");
    }
    crate::audit_faults::verified(&proxy.data()).await;
}

/// A transaction that keeps the WAL as it is.
fn reader(proxy: &Proxy) -> Connection {
    let reader =
        Connection::open_with_flags(proxy.audit_file(), OpenFlags::SQLITE_OPEN_READ_ONLY).expect("a segment");
    reader.execute_batch("BEGIN").expect("a transaction");
    let _: i64 = reader.query_row("SELECT count(*) FROM record", [], |row| row.get(0)).expect("a table");
    reader
}

#[tokio::test]
async fn one_failed_sync_is_made_good_before_anything_is_answered() {
    let carrier = carrier().await;
    for with_reader in [false, true] {
        let mut proxy = Setup::with_carrier(&carrier).start_on_losing_disk().await;
        let (mut answered, _) = asked(&proxy, 5).await;
        let reader = with_reader.then(|| reader(&proxy));
        proxy.fail_syncs(1);
        let (more, refused) = asked(&proxy, 5).await;
        assert_eq!(refused, 0, "nobody notices: {}", proxy.log());
        assert!(proxy.log().contains("its WAL is written again"), "{}", proxy.log());
        answered.extend(more);
        answered.extend(asked(&proxy, 20).await.0);
        drop(reader);
        all_is_kept(&mut proxy, &answered).await;
    }
}

#[tokio::test]
async fn until_it_is_made_good_all_are_refused_and_each_is_counted_once() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).start_on_losing_disk().await;
    let (mut answered, _) = asked(&proxy, 5).await;
    // The commit's, and that of the first attempt to make it good.
    proxy.fail_syncs(2);
    let (_, refused) = asked(&proxy, 10).await;
    assert_eq!(refused, 10);
    assert_eq!(proxy.admin("/ready", "").await.status, 503);
    eventually("the last attempt", || async {
        (proxy.admin("/ready", "").await.status == 200).then_some(())
    })
    .await;
    answered.extend(asked(&proxy, 20).await.0);
    assert_eq!(answered.len(), 25);
    let gap = crate::audit_faults::gap(&proxy);
    // Those that were refused before anything was tried have a record that says so.
    let recorded = proxy.audit().iter().filter(|row| row.code == "73").count();
    assert_eq!(gap.0, 0);
    assert_eq!(gap.1 + i64::try_from(recorded).unwrap(), refused, "each has a record or is counted, once");
    let audit = proxy.audit();
    assert_eq!(audit.iter().filter(|row| row.code == "0").count(), 25, "no record of a refused one says 0");
    all_is_kept(&mut proxy, &answered).await;
}

#[tokio::test]
async fn a_disk_that_does_not_take_it_twice_ends_the_process() {
    let carrier = carrier().await;
    for policy in ["refuse", "answer"] {
        let mut proxy =
            Setup::with_carrier(&carrier).set("audit.on_failure", policy).start_on_losing_disk().await;
        let (answered, _) = asked(&proxy, 10).await;
        proxy.fail_syncs(1_000);
        proxy.look_up(&card_number(0)).await;
        let status = proxy.ended().await;
        assert_eq!(status.code(), Some(1), "{}", proxy.log());
        let log = proxy.log();
        let last = log.lines().find(|line| line.contains("the store cannot go on")).unwrap_or_default();
        assert!(last.contains("ERROR") && last.contains("check the disk"), "{log}");
        proxy.fail_syncs(0);
        proxy.start_again().await;
        all_is_kept(&mut proxy, &answered).await;
    }
}

#[tokio::test]
async fn a_start_makes_durable_what_it_found_before_it_answers() {
    let carrier = carrier().await;
    let mut proxy =
        Setup::with_carrier(&carrier).set("audit.durability", "process").start_on_losing_disk().await;
    // Committed, and not synced: the process dies, the machine does not.
    let (mut answered, _) = asked(&proxy, 10).await;
    let wal = format!("{}-wal", proxy.audit_file().display());
    // https://sqlite.org/fileformat2.html, 4.1: a WAL that is begun anew has other salts.
    let salts = || std::fs::read(&wal).expect("a WAL").get(16..24).map(<[u8]>::to_vec);
    proxy.kill9().await;
    let found = salts();
    assert!(found.is_some());
    proxy.start_again().await;
    assert_ne!(salts(), found, "nothing is appended to what was found");
    proxy.lose_power().await;
    proxy.start_again().await;
    let audit = proxy.audit();
    answered.retain(|query| !audit.iter().any(|row| row.transid.as_deref() == Some(query.transid())));
    assert_eq!(answered.len(), 0, "what a start found survives a power loss");
}
