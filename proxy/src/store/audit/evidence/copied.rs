//! Verifies the copy of a chain at a central database, by the code that verifies segments.
//!
//! A copy shows more or less, by what is copied of a batch:
//!
//! - all its rows: the hash of the batch is computed again from them, and from the hash before;
//! - some of its rows: their number, and the digest of the copy, which the store has signed. The hash cannot be computed.
//!
//! The digest covers every batch of which something is copied, every segment and every range of missing rows, in their order.
//! So what was changed, removed or inserted is found up to the last signed position, also by someone who can write to the
//! database but has not the key of the store's anchors. A copy that was set back to an earlier signed position is whole: only
//! an anchor after it, or the node itself, shows that.

mod anchors;

use std::collections::{BTreeMap, BTreeSet};

pub use self::anchors::CopiedAnchors;
use super::anchor::PublicKey;
use super::verify::names::Names;
use super::verify::source::{Cell, Expected, MOST_DAMAGE, ReadRow, Source, hash_rows, own_faults_of};
use crate::store::audit::log::chain::{self, Digest, Hash, Limits};
use crate::store::audit::log::columns::{Table, VERSION};
use crate::store::audit::log::copied::{CopiedBatch, EnteredSegment, MissingRows};
use crate::store::audit::log::copy_digest;
use crate::store::audit::log::month::Month;

/// Notes of a proxy that has found its audit to be another one than before.
const EXPLAINING: [&str; 3] = ["restored", "lost", "segment-lost"];

/// A chain at the central database, as its own row has it.
#[derive(Clone, Debug)]
pub struct CopiedChain {
    /// Its number there.
    pub id: i64,
    /// The node.
    pub node: i16,
    /// The public key of the node's store.
    pub store: PublicKey,
    /// The chain that it continues, up to its base.
    pub parent: Option<i64>,
    /// Whether the store has an earlier chain.
    pub is_later: bool,
    /// The row that its first one follows.
    pub base: i64,
    pub(crate) base_head: Hash,
    /// The last row up to which it is copied.
    pub last: i64,
    pub(crate) head: Hash,
    pub(crate) digest: Hash,
    pub(crate) signature: Vec<u8>,
}

/// The result of the verification of one chain.
#[derive(Debug)]
pub struct CopyReport {
    /// The chain.
    pub chain: CopiedChain,
    /// Batches of which rows are copied.
    pub batches: u64,
    /// Batches whose hash was computed from their rows.
    pub whole: u64,
    /// Rows that are copied.
    pub rows: u64,
    /// Rows that are not copied, since the node copies no records.
    pub uncopied: u64,
    /// Ranges of rows that the node no longer had.
    pub missing: Vec<(i64, i64)>,
    /// Months that were removed at the central database.
    pub dropped: Vec<Month>,
    /// Of a chain that does not continue the one before: the note of the proxy that says why.
    pub explained: Option<String>,
    /// All damage, in the order found.
    pub damage: Vec<String>,
}

/// One chain, while it is verified.
pub(crate) struct CopyVerifier<'a> {
    report: CopyReport,
    segments: Vec<EnteredSegment>,
    missing: BTreeMap<i64, MissingRows>,
    dropped: BTreeSet<Month>,
    anchors: &'a mut CopiedAnchors,
    names: Names,
    /// The last row that was read or passed.
    last: i64,
    /// The head there; none after rows that are not copied.
    head: Option<Hash>,
    digest: Hash,
}

impl<'a> CopyVerifier<'a> {
    pub(crate) fn new(
        chain: CopiedChain,
        mut segments: Vec<EnteredSegment>,
        missing: Vec<MissingRows>,
        dropped: BTreeSet<Month>,
        anchors: &'a mut CopiedAnchors,
    ) -> Self {
        segments.sort_by_key(|segment| (segment.before, segment.month));
        let (last, head) = (chain.base, chain.base_head);
        anchors.begin_chain(last, !chain.is_later);
        Self {
            report: CopyReport {
                chain,
                batches: 0,
                whole: 0,
                rows: 0,
                uncopied: 0,
                missing: Vec::new(),
                dropped: Vec::new(),
                explained: None,
                damage: Vec::new(),
            },
            segments,
            missing: missing.into_iter().map(|missing| (missing.first, missing)).collect(),
            dropped,
            anchors,
            names: Names::default(),
            last,
            head: Some(head),
            digest: copy_digest::base(last, &head),
        }
    }

    /// Verifies the next batch; `source` is at its first row, or at rows that belong to no batch.
    pub(crate) fn batch<S: Source>(
        &mut self,
        &CopiedBatch { limits, previous, hash, copied, digest: stored_digest }: &CopiedBatch,
        source: &mut S,
    ) -> Result<(), S::Error> {
        self.pass_to(limits.first);
        let Limits { first, last, .. } = limits;
        let mut wrong = own_faults_of(&limits, VERSION);
        if first <= self.last {
            wrong.push(format!("begins with row {first} after row {}: it is inserted or altered", self.last));
        }
        let between = first.saturating_sub(self.last).saturating_sub(1);
        if between > 0 {
            self.report.uncopied += between.unsigned_abs();
        } else if self.head.is_some_and(|head| head != previous) {
            wrong.push("does not follow the batch before".to_owned());
        }
        let length = last.saturating_sub(first).saturating_add(1);
        let partial = copied != length;
        let mut digests = (
            copy_digest::batch(&self.digest, &previous, &hash),
            (!partial).then(|| Digest::batch(&previous)),
        );
        let expected = Expected { limits, schema: VERSION, partial };
        let explained = &mut self.report.explained;
        let hashed = hash_rows(
            expected,
            source,
            &mut self.names,
            &mut digests,
            &mut wrong,
            |source, ReadRow { table, .. }, _| {
                if table == Table::Note && explained.is_none() {
                    *explained = explaining(source)?;
                }
                Ok(())
            },
        )?;
        let (digest, whole) = digests;
        if hashed.rows != copied {
            wrong.push(format!("{} of its rows are here, and {copied} were copied", hashed.rows));
        }
        if whole.is_some_and(|whole| whole.finish_batch(limits) != hash) {
            wrong.push("its rows are not those that were committed, or not in that order".to_owned());
        }
        if digest.finish_batch(limits) != stored_digest && wrong.is_empty() {
            wrong.push(
                "its rows, or what was copied before them, are not what the node has copied".to_owned(),
            );
        }
        for what in wrong {
            self.damage(format!("batch of rows {first} to {last}: {what}"));
        }
        self.anchors.check(first.saturating_sub(1), &previous, first.saturating_sub(1));
        self.anchors.check(last, &hash, first);
        self.report.batches += 1;
        self.report.whole += u64::from(!partial);
        self.report.rows += hashed.rows.unsigned_abs();
        self.report.uncopied += length.saturating_sub(hashed.rows).max(0).unsigned_abs();
        // The rest is judged by what is stored, so that one fault is one line.
        (self.last, self.head, self.digest) = (self.last.max(last), Some(hash), stored_digest);
        Ok(())
    }

    /// Reports a row that belongs to no batch.
    pub(crate) fn stray(&mut self, table: Table, id: i64) {
        self.damage(format!("row {id} of table {} belongs to no batch", table.name()));
    }

    /// Compares the number of batches that were verified with that of all up to the position.
    pub(crate) fn count_batches(&mut self, all: i64) {
        if all.unsigned_abs() != self.report.batches {
            self.damage(format!("has {all} batches, and {} of them in their order", self.report.batches));
        }
    }

    /// Verifies the end: what follows the last batch, the position, and its signature. `unread` are rows after all batches.
    pub(crate) fn finish(mut self, unread: impl IntoIterator<Item = (Table, i64)>) -> CopyReport {
        self.pass_to(i64::MAX);
        for (table, id) in unread {
            self.stray(table, id);
        }
        let chain = self.report.chain.clone();
        let after = chain.last.saturating_sub(self.last);
        if after < 0 {
            self.damage(format!("has row {}, and its position is row {}", self.last, chain.last));
        } else if after > 0 {
            self.report.uncopied += after.unsigned_abs();
        } else if self.head.is_some_and(|head| head != chain.head) {
            self.damage(format!(
                "its position has another head than its batch that ends with row {}",
                chain.last
            ));
        }
        if self.digest != chain.digest {
            self.damage(format!(
                "what is copied up to row {} is not what the node has signed: it was changed, removed or inserted",
                chain.last
            ));
        }
        let message = copy_digest::signed(chain.last, &chain.head, &chain.digest);
        if !chain.store.has_signed(&message, &chain.signature) {
            self.damage(format!("its position at row {} is not signed by the key of the store", chain.last));
        }
        self.anchors.check(chain.last, &chain.head, chain.last);
        if chain.is_later && self.report.explained.is_none() {
            self.damage(format!(
                "does not continue the chain before after row {}, and no note says why: the audit of the node was set back or \
                 replaced",
                chain.base
            ));
        }
        self.report
    }

    /// Passes missing rows and enters segments before row `first`.
    fn pass_to(&mut self, first: i64) {
        loop {
            let waits = |segment: &EnteredSegment| segment.before < first;
            let follows = |segment: &EnteredSegment| waits(segment) && segment.digest == self.digest;
            if let Some(at) = self.segments.iter().position(follows) {
                let segment = self.segments.remove(at);
                self.enter(&segment);
                continue;
            }
            let missing = self.missing.first_entry().filter(|entry| *entry.key() < first);
            if let Some(missing) = missing.map(std::collections::btree_map::OccupiedEntry::remove) {
                self.miss(&missing);
                continue;
            }
            if !self.segments.first().is_some_and(waits) {
                return;
            }
            let segment = self.segments.remove(0);
            self.damage(format!(
                "the segment of {} after row {} does not follow what is here before it",
                segment.month, segment.before
            ));
            self.digest = segment.digest;
            self.head = None;
            self.enter(&segment);
        }
    }

    fn enter(&mut self, segment: &EnteredSegment) {
        let EnteredSegment { month, before, previous, seed, .. } = segment;
        self.report.uncopied += before.saturating_sub(self.last).max(0).unsigned_abs();
        if *before == self.last && self.head.is_some_and(|head| head != *previous) {
            self.damage(format!("the segment of {month} does not follow row {before}"));
        }
        if *seed != chain::seed(&month.to_string(), previous, *before, &segment.manifest) {
            self.damage(format!("the segment of {month} after row {before}, or its manifest, was altered"));
        }
        self.anchors.check(*before, previous, *before);
        self.anchors.check(*before, seed, *before);
        self.last = self.last.max(*before);
        self.digest = copy_digest::segment(&self.digest, *before, seed);
        self.head = Some(*seed);
        if self.dropped.contains(month) {
            self.report.dropped.push(*month);
            self.leave_dropped();
        }
    }

    /// Goes on after a segment whose rows were removed here: with what the next one states, or the position.
    fn leave_dropped(&mut self) {
        let chain = &self.report.chain;
        (self.last, self.head, self.digest) = match self.segments.first() {
            Some(next) => (next.before, Some(next.previous), next.digest),
            None => (chain.last, Some(chain.head), chain.digest),
        };
        while self.missing.first_entry().is_some_and(|entry| *entry.key() <= self.last) {
            self.missing.pop_first();
        }
        self.anchors.go_to(self.last);
    }

    fn miss(&mut self, missing: &MissingRows) {
        let MissingRows { first, last, head } = missing;
        self.report.missing.push((*first, *last));
        self.report.uncopied += first.saturating_sub(self.last).saturating_sub(1).max(0).unsigned_abs();
        self.digest = copy_digest::missing(&self.digest, *first, *last, head);
        self.last = self.last.max(*last);
        self.head = Some(*head);
    }

    fn damage(&mut self, what: String) {
        if self.report.damage.len() < MOST_DAMAGE {
            self.report.damage.push(what);
        }
    }
}

/// The next note, if it says that the audit is another one than before.
fn explaining<S: Source>(source: &S) -> Result<Option<String>, S::Error> {
    const WHAT: usize = Table::Note.position("what");
    const DETAIL: usize = Table::Note.position("detail");
    let Cell::Name(what) = source.cell(Table::Note, WHAT)? else { return Ok(None) };
    let Cell::Text(detail) = source.cell(Table::Note, DETAIL)? else { return Ok(None) };
    Ok(EXPLAINING.contains(&what).then(|| format!("{what}: {}", String::from_utf8_lossy(detail))))
}
