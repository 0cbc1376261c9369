//! Failed syncs of the audit: the records of later responses survive a power loss, or the process ends.

use rusqlite::{Connection, OpenFlags};

use crate::support::{Proxy, Query, Setup, card_number, carrier, eventually};

/// Looks up cards; the queries with a response of the carrier, and the number refused for lack of a record.
async fn look_up_cards(proxy: &Proxy, count: u32) -> (Vec<Query>, i64) {
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

/// Asserts that after a power loss each of these requests has one record, the chain is whole, and all are refused as replays.
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

/// A read transaction, which keeps the WAL from being reset.
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
        let (mut answered, _) = look_up_cards(&proxy, 5).await;
        let reader = with_reader.then(|| reader(&proxy));
        proxy.fail_syncs(1);
        let (more, refused) = look_up_cards(&proxy, 5).await;
        assert_eq!(refused, 0, "no request is refused: {}", proxy.log());
        assert!(proxy.log().contains("its WAL is written again"), "{}", proxy.log());
        answered.extend(more);
        answered.extend(look_up_cards(&proxy, 20).await.0);
        drop(reader);
        all_is_kept(&mut proxy, &answered).await;
    }
}

#[tokio::test]
async fn until_it_is_made_good_all_are_refused_and_each_is_counted_once() {
    let carrier = carrier().await;
    let mut proxy = Setup::with_carrier(&carrier).start_on_losing_disk().await;
    let (mut answered, _) = look_up_cards(&proxy, 5).await;
    // The sync of the commit, and that of the first repair.
    proxy.fail_syncs(2);
    let (_, refused) = look_up_cards(&proxy, 10).await;
    assert_eq!(refused, 10);
    assert_eq!(proxy.admin("/ready", "").await.status, 503);
    eventually("the second repair", || async {
        (proxy.admin("/ready", "").await.status == 200).then_some(())
    })
    .await;
    answered.extend(look_up_cards(&proxy, 20).await.0);
    assert_eq!(answered.len(), 25);
    let gap = crate::audit_faults::gap(&proxy);
    // Requests that were refused before a write was tried have a record.
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
        let (answered, _) = look_up_cards(&proxy, 10).await;
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
    // Committed, not synced: the process is killed, the machine stays up.
    let (mut answered, _) = look_up_cards(&proxy, 10).await;
    let wal = format!("{}-wal", proxy.audit_file().display());
    // https://sqlite.org/fileformat2.html, 4.1: a WAL that starts over has other salts.
    let salts = || std::fs::read(&wal).expect("a WAL").get(16..24).map(<[u8]>::to_vec);
    proxy.kill9().await;
    let found = salts();
    assert!(found.is_some());
    proxy.start_again().await;
    assert_ne!(salts(), found, "the start does not append to the WAL that it finds");
    proxy.lose_power().await;
    proxy.start_again().await;
    let audit = proxy.audit();
    answered.retain(|query| !audit.iter().any(|row| row.transid.as_deref() == Some(query.transid())));
    assert_eq!(answered.len(), 0, "the records that a start finds survive a power loss");
}
