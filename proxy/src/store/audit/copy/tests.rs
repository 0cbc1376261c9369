//! Shipments of small audits, taken by a central database in memory, which is then verified.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use cmiot_signer::{Card, CardKind};
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::store::audit::anchor::{CopyKey, PublicKey};
use crate::store::audit::copied::{CopiedAnchors, CopiedChain, CopyReport, CopyVerifier};
use crate::store::audit::tests::{NOON, row};
use crate::store::audit::{AuditStore, CallRow, NoteRow, Options, anchor};

/// A node: its audit, and a clock.
struct Node {
    dir: TempDir,
    clock: Clock,
    hand: ManualClock,
}

impl Node {
    fn new() -> Self {
        let (clock, hand) = Clock::manual(NOON);
        Self { dir: tempfile::tempdir().unwrap(), clock, hand }
    }

    /// Writes this many batches, each of a lookup and a call, and one of a note, in a process of its own.
    fn write(&self, batches: u32) {
        let store = AuditStore::open(self.dir.path(), Options::default(), self.clock.clone()).unwrap();
        for number in 0..batches {
            let at = self.clock.now();
            store.append_call(CallRow {
                at,
                transid: Some("1000012026011511593300000001".into()),
                previous: None,
                card: Card::parse(CardKind::Msisdn, "14765004176").ok(),
                account: "fleet-1".into(),
                operation: "userstatusrealsingle",
                code: Some("0".into()),
                fault: None,
                status: None,
                latency: Duration::from_millis(30),
                bytes: Some(60),
                body: store.body(b"{}"),
            });
            let transid = format!("a\\b\0{number}");
            assert_eq!(store.append(row(at, &transid)).wait(), Ok(()));
        }
        store
            .append_note(NoteRow { at: self.clock.now(), what: "unaccounted", detail: "x".into() })
            .wait()
            .unwrap();
        store.close();
    }

    fn pass_a_month(&self) {
        self.hand.advance(Duration::from_secs(31 * 86_400));
    }

    fn months(&self) -> Vec<Month> {
        crate::store::audit::month::list(self.dir.path()).unwrap()
    }
}

/// A central database.
struct Centre {
    with_records: bool,
    chains: Vec<Chain>,
}

struct Chain {
    base: (i64, Hash),
    position: Position,
    segments: Vec<EnteredSegment>,
    missing: Vec<MissingRows>,
    batches: Vec<CopiedBatch>,
    rows: [Vec<CopiedRow>; Table::ALL.len()],
}

impl Centre {
    fn new(node: &Node, with_records: bool) -> Self {
        let mut centre = Self { with_records, chains: Vec::new() };
        let (last, head) = origin(node.dir.path()).unwrap().unwrap();
        centre.begin(last, head);
        centre
    }

    fn begin(&mut self, last: i64, head: Hash) {
        self.chains.push(Chain {
            base: (last, head),
            position: Position::base(last, head),
            segments: Vec::new(),
            missing: Vec::new(),
            batches: Vec::new(),
            rows: Default::default(),
        });
    }

    /// Takes shipments of about `most` rows until there is none. Whether the audit is another one.
    fn take(&mut self, node: &Node, most: i64) -> bool {
        loop {
            let chain = self.chains.last_mut().unwrap();
            match next(node.dir.path(), &chain.position, self.with_records, most).unwrap() {
                Next::Nothing => return false,
                Next::Fork => return true,
                Next::Shipment(shipment) => {
                    assert_eq!(shipment.from, chain.position);
                    assert_ne!(shipment.to, chain.position, "progress");
                    chain.position = shipment.to;
                    chain.segments.extend(shipment.entered);
                    chain.missing.extend(shipment.missing);
                    chain.batches.extend(shipment.batches);
                    for (all, more) in chain.rows.iter_mut().zip(shipment.rows) {
                        all.extend(more);
                    }
                }
            }
        }
    }

    fn count(&self, table: Table) -> usize {
        self.chains.iter().map(|chain| chain.rows[table as usize].len()).sum()
    }

    /// Verifies the last chain.
    fn verify(&self, node: &Node, dropped: &[Month]) -> (CopyReport, CopiedAnchors) {
        let chain = self.chains.last().unwrap();
        let key = CopyKey::open(node.dir.path()).unwrap();
        let store = PublicKey::of_folder(node.dir.path()).unwrap();
        let Position { last, head, digest } = chain.position;
        let stated = CopiedChain {
            id: 1,
            node: 1,
            store: store.clone(),
            parent: None,
            is_later: self.chains.len() > 1,
            base: chain.base.0,
            base_head: chain.base.1,
            last,
            head,
            digest,
            signature: key.sign(last, &head, &digest),
        };
        let anchors = anchor::read(&node.dir.path().join(anchor::LOG)).unwrap().anchors;
        let mut anchors = CopiedAnchors::new(&store, anchors);
        let dropped: BTreeSet<Month> = dropped.iter().copied().collect();
        let (segments, missing) = (chain.segments.clone(), chain.missing.clone());
        let is_kept = |id: i64| {
            let of = |segment: &&EnteredSegment| segment.before < id;
            let segment = chain.segments.iter().filter(of).max_by_key(|segment| segment.before);
            segment.is_none_or(|segment| !dropped.contains(&segment.month))
        };
        let mut rows = Rows { rows: &chain.rows, next: [0; Table::ALL.len()] };
        for table in Table::ALL {
            while rows.next(table).is_some_and(|id| !is_kept(id)) {
                let Ok(()) = rows.advance(table);
            }
        }
        let mut verifier = CopyVerifier::new(stated, segments, missing, dropped.clone(), &mut anchors);
        for batch in chain.batches.iter().filter(|batch| is_kept(batch.limits.first)) {
            let Ok(()) = verifier.batch(batch, &mut rows);
        }
        (verifier.finish(rows.unread()), anchors)
    }
}

/// Rows in memory.
struct Rows<'a> {
    rows: &'a [Vec<CopiedRow>; Table::ALL.len()],
    next: [usize; Table::ALL.len()],
}

impl Source for Rows<'_> {
    type Error = Infallible;

    fn next(&self, table: Table) -> Option<i64> {
        self.rows[table as usize].get(self.next[table as usize]).map(|row| row.id)
    }

    fn advance(&mut self, table: Table) -> Result<(), Infallible> {
        self.next[table as usize] += 1;
        Ok(())
    }

    fn cell(&self, table: Table, place: usize) -> Result<Cell<'_>, Infallible> {
        let row = &self.rows[table as usize][self.next[table as usize]];
        let class = table.columns(VERSION)[place - 1].class;
        Ok(match &row.values[place - 1] {
            CopiedValue::Null => Cell::Null,
            CopiedValue::Int(number) => Cell::Int(*number),
            CopiedValue::Text(text) if class == Class::Name => Cell::Name(text),
            CopiedValue::Text(text) => Cell::Text(text.as_bytes()),
            CopiedValue::Blob(bytes) => Cell::Blob(bytes),
        })
    }
}

#[test]
fn shipments_of_any_size_are_the_whole_audit_over_months_and_starts() {
    for (with_records, most) in [(true, 1), (true, 5), (true, 1_000), (false, 1), (false, 1_000)] {
        let node = Node::new();
        node.write(3);
        let mut centre = Centre::new(&node, with_records);
        assert!(!centre.take(&node, most));
        node.write(2);
        node.pass_a_month();
        node.write(4);
        // A month without a row.
        node.pass_a_month();
        AuditStore::open(node.dir.path(), Options::default(), node.clock.clone()).unwrap().close();
        assert!(!centre.take(&node, most));
        node.pass_a_month();
        node.write(1);
        assert!(!centre.take(&node, most));
        assert_eq!(centre.count(Table::Call), 10);
        assert_eq!(centre.count(Table::Note), 4);
        assert_eq!(centre.count(Table::Record), if with_records { 10 } else { 0 });
        let (report, anchors) = centre.verify(&node, &[]);
        assert_eq!(report.damage, [""; 0]);
        assert_eq!(report.uncopied, if with_records { 0 } else { 10 });
        assert_eq!(report.whole == report.batches, with_records, "{report:?}");
        assert_eq!(anchors.contradictions().count(), 0);
        if with_records {
            assert_eq!(anchors.confirmed(), anchors.len());
        }
        let (report, anchors) = centre.verify(&node, &node.months()[1..2]);
        assert_eq!((report.damage, report.dropped.len()), (vec![], 1));
        assert_eq!(anchors.contradictions().count(), 0);
    }
}

#[test]
fn a_month_that_was_pruned_before_its_copy_is_stated_once() {
    let node = Node::new();
    node.write(3);
    let mut centre = Centre::new(&node, true);
    assert!(!centre.take(&node, 1_000));
    for _ in 0..3 {
        node.pass_a_month();
        node.write(2);
    }
    let months = node.months();
    for month in &months[1..] {
        fs::remove_file(month.path(node.dir.path())).unwrap();
    }
    assert!(!centre.take(&node, 1_000));
    let (report, _) = centre.verify(&node, &[]);
    assert_eq!(report.damage, [""; 0]);
    // Three rows of the first month are copied: 3 calls, 3 lookups, 1 note.
    assert_eq!(report.missing, [(8, 17)]);
    assert_eq!(centre.count(Table::Call), 5);
    assert!(!centre.take(&node, 1_000), "nothing more");
}

#[test]
fn a_copy_that_begins_after_a_pruned_month_has_no_missing_rows() {
    let node = Node::new();
    node.write(3);
    node.pass_a_month();
    node.write(2);
    let months = node.months();
    fs::remove_file(months[1].path(node.dir.path())).unwrap();
    let mut centre = Centre::new(&node, true);
    assert!(!centre.take(&node, 1_000));
    let (report, _) = centre.verify(&node, &[]);
    assert_eq!((report.damage, report.missing, report.chain.base), (vec![], vec![], 7));
}

#[test]
fn an_audit_that_was_set_back_is_another_one_from_its_first_other_row_on() {
    for notices in [true, false] {
        let node = Node::new();
        node.write(3);
        let saved = tempfile::tempdir().unwrap();
        let segment = node.months()[0].path(node.dir.path());
        fs::copy(&segment, saved.path().join("saved")).unwrap();
        node.write(3);
        let mut centre = Centre::new(&node, false);
        assert!(!centre.take(&node, 2));
        let end = centre.chains[0].position.clone();
        assert!(has(node.dir.path(), end.last, end.head).unwrap());
        fs::copy(saved.path().join("saved"), &segment).unwrap();
        assert!(centre.take(&node, 2), "it ends before the copy");
        if !notices {
            fs::remove_file(node.dir.path().join(anchor::LOG)).unwrap();
        }
        node.write(1);
        assert!(centre.take(&node, 2), "it has other rows");
        let is_common = |batch: &&CopiedBatch| has(node.dir.path(), batch.limits.last, batch.hash).unwrap();
        let common: Vec<&CopiedBatch> = centre.chains[0].batches.iter().filter(is_common).collect();
        let base = common.last().unwrap();
        let (last, head) = (base.limits.last, base.hash);
        assert_eq!(last, 7);
        centre.begin(last, head);
        assert!(!centre.take(&node, 2));
        let (report, _) = centre.verify(&node, &[]);
        if notices {
            // The proxy has compared its audit with its last anchor.
            assert_eq!(report.damage, [""; 0]);
            assert!(report.explained.unwrap().starts_with("lost: 2026-01 rows 8-14"));
        } else {
            let [damage] = report.damage.as_slice() else { panic!("{report:?}") };
            assert!(damage.contains("does not continue the chain before after row 7"), "{damage}");
        }
    }
}

#[test]
fn damage_of_a_segment_is_an_error_and_is_not_copied() {
    let node = Node::new();
    node.write(3);
    let segment = node.months()[0].path(node.dir.path());
    let connection = Connection::open(&segment).unwrap();
    connection
        .execute_batch(
            "DROP TRIGGER record_stays; UPDATE record SET code = '1' WHERE id = (SELECT min(id) FROM record)",
        )
        .unwrap();
    let (last, head) = origin(node.dir.path()).unwrap().unwrap();
    let error = next(node.dir.path(), &Position::base(last, head), true, 1_000).err().unwrap().to_string();
    assert!(error.contains("audit-2026-01.db"), "{error}");
}
