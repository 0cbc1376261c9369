//! Transids that were leased and have no row in the audit: the trace of calls that were in flight at a crash.
//!
//! Numbers are used in order, so those before the last one with a row were used: each of them without a row is a call that
//! was sent, or about to be sent. Those after it may have been used or not. A drain that ended every call leaves none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use cmiot_signer::{AppId, Stamp};

use super::LAP;
use crate::clock::Time;
use crate::store::StoreError;
use crate::store::audit::{AuditReader, NoteRow};
use crate::store::state::{Leased, StateStore};

/// The most ranges that a note lists.
const RANGES: usize = 20;

/// Notes about unaccounted transids, and the leases that they account for.
#[derive(Debug, Default)]
pub struct Unaccounted {
    /// One per account and node with numbers that have no row.
    pub notes: Vec<NoteRow>,
    /// The last block that they cover.
    pub last: Option<i64>,
}

/// Finds unaccounted transids. Blocks.
///
/// # Errors
/// When the state or the audit cannot be read.
pub fn find(state: &StateStore, audit_reader: &AuditReader, now: Time) -> Result<Unaccounted, StoreError> {
    let leased = state.leased()?;
    let last = leased.last().map(|block| block.id);
    let mut lines: BTreeMap<(AppId, u8), Vec<Leased>> = BTreeMap::new();
    for block in leased {
        lines.entry((block.appid, block.node)).or_default().push(block);
    }
    let mut notes = Vec::new();
    for ((appid, node), blocks) in lines {
        let since = blocks.iter().map(|block| block.since).min().unwrap_or_default();
        let until = blocks.iter().map(|block| block.until).max().unwrap_or_default();
        // A stamp beyond 2099 was never used.
        let (Ok(since), Ok(until)) = (Stamp::from_unix(since), Stamp::from_unix(until)) else { continue };
        let called = audit_reader.called(&appid, since, until)?;
        let of_node = called.into_iter().filter(|number| number / LAP == u32::from(node));
        let called = of_node.map(|number| number % LAP).collect();
        let blocks: Vec<_> = blocks.iter().map(|block| block.first..block.past).collect();
        if let Some(found) = text(&blocks, &called) {
            let detail = format!("appid={appid} node={node:02} since={since} until={until} {found}");
            notes.push(NoteRow { at: now, what: "unaccounted", detail });
        }
    }
    Ok(Unaccounted { notes, last })
}

/// The numbers without a row of these blocks, which are in the order of their leases.
fn text(blocks: &[Range<u32>], called: &BTreeSet<u32>) -> Option<String> {
    let has_row = |number: &u32| called.contains(number);
    let mut ranges: Vec<(bool, Range<u32>)> = Vec::new();
    // The last number with a row, with the index of its block.
    let last_used = blocks
        .iter()
        .enumerate()
        .rev()
        .find_map(|(index, block)| block.clone().rev().find(has_row).map(|number| (index, number)));
    for (index, block) in blocks.iter().enumerate() {
        for number in block.clone().filter(|number| !has_row(number)) {
            let sent = last_used.is_some_and(|last| (index, number) < last);
            match ranges.last_mut() {
                Some((before, range)) if *before == sent && range.end == number => range.end += 1,
                _ => ranges.push((sent, number..number + 1)),
            }
        }
    }
    let of = |sent: bool| {
        let all = || ranges.iter().filter(|(one, _)| *one == sent).map(|(_, range)| range);
        let mut text = format!("{}:", all().map(|range| range.end - range.start).sum::<u32>());
        for (nth, range) in all().take(RANGES).enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            // Writing to a String does not fail.
            let _ = match range.end - range.start {
                1 => write!(text, "{comma}{}", range.start),
                _ => write!(text, "{comma}{}-{}", range.start, range.end - 1),
            };
        }
        if all().count() > RANGES {
            text.push_str(",...");
        }
        text
    };
    (!ranges.is_empty()).then(|| format!("sent={} perhaps={}", of(true), of(false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    use cmiot_signer::{Card, CardKind, Transid};

    use crate::clock::Clock;
    use crate::sequence::{LeaseConfig, TransidSource};
    use crate::store::audit::CallRow;
    use crate::store::{Store, StoreOptions};

    #[test]
    fn numbers_without_a_row_are_listed_by_whether_they_were_used() {
        let set = |numbers: &[u32]| numbers.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(text(std::slice::from_ref(&(1..4)), &set(&[1, 2, 3])), None);
        assert_eq!(text(&[], &set(&[])), None);
        assert_eq!(text(std::slice::from_ref(&(1..11)), &set(&[])).unwrap(), "sent=0: perhaps=10:1-10");
        assert_eq!(
            text(std::slice::from_ref(&(1..11)), &set(&[1, 2, 5, 7])).unwrap(),
            "sent=3:3-4,6 perhaps=3:8-10"
        );
        // A new lap starts at one again: the order is that of the leases.
        assert_eq!(text(&[9..11, 1..4], &set(&[9, 2])).unwrap(), "sent=2:10,1 perhaps=1:3");
        let odd: BTreeSet<u32> = (1..200).filter(|number| number % 2 == 1).collect();
        let many = text(std::slice::from_ref(&(1..200)), &odd).unwrap();
        assert!(many.starts_with("sent=99:2,4,6,") && many.contains(",40,...") && many.len() < 200, "{many}");
    }

    #[test]
    fn calls_without_a_row_are_found_once_and_none_after_a_clean_end() {
        let dir = tempfile::tempdir().unwrap();
        let now = Time::from_secs(1_768_449_600);
        let (clock, manual) = Clock::manual(now);
        let appid = AppId::parse("100001").unwrap();
        let open = || Store::open(dir.path(), StoreOptions::default(), &clock).unwrap();
        let source = |store: &Store| {
            let leasing = LeaseConfig { block: 10, ahead: 60 };
            TransidSource::with_leasing(Arc::clone(&store.state), 7, clock.clone(), leasing)
        };
        let called = |store: &Store, transid: &Transid| {
            store.audit.append_call(CallRow {
                at: now,
                transid: Some(transid.as_str().into()),
                previous: None,
                card: Card::parse(CardKind::Msisdn, "14765004176").ok(),
                account: "fleet".into(),
                operation: "userstatusrealsingle",
                code: None,
                fault: Some("timeout"),
                status: None,
                latency: Duration::ZERO,
                bytes: None,
                body: None,
            });
        };

        // Twelve are used, over two blocks and some time, and three of them have no row.
        let store = open();
        let transids = source(&store);
        for number in 1..=12 {
            let transid = transids.next(&appid).unwrap();
            if ![3, 4, 12].contains(&number) {
                called(&store, &transid);
            }
            manual.advance(Duration::from_secs(30));
        }
        store.close_with_calls_in_flight();
        drop((transids, store));
        let store = open();
        for _ in 0..2 {
            let found = find(&store.state, &store.audit_reader, now).unwrap();
            let details: Vec<_> = found.notes.iter().map(|note| note.detail.as_str()).collect();
            assert_eq!(details.len(), 1);
            assert!(details[0].starts_with("appid=100001 node=07 since=20260114120000 until=2026011512"));
            assert!(details[0].ends_with(" sent=2:3-4 perhaps=9:12-20"), "{details:?}");
        }
        let last = find(&store.state, &store.audit_reader, now).unwrap().last.unwrap();
        store.state.account_for(last).unwrap();
        assert!(find(&store.state, &store.audit_reader, now).unwrap().notes.is_empty(), "noted once");

        // A later lease is not accounted for by it, but by a clean end.
        let transids = source(&store);
        called(&store, &transids.next(&appid).unwrap());
        assert_eq!(find(&store.state, &store.audit_reader, now).unwrap().notes.len(), 1);
        store.close();
        drop((transids, store));
        let store = open();
        let found = find(&store.state, &store.audit_reader, now).unwrap();
        assert!(found.notes.is_empty() && found.last.is_none(), "{found:?}");
    }
}
