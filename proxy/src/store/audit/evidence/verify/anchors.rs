//! Compares the chain with anchors: each anchor in scope names the end of a batch with its head, or something is
//! damaged.
//!
//! A batch ends where a commit ended, so an anchor whose row ends no batch shows that batches were merged, split or
//! hashed again. Contradictions are reported at the end, when all notes are known: rows that the proxy itself found
//! missing at a start have a note `lost`.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::RangeInclusive;
use std::vec;

use super::{BatchSpan, Report, Scope};
use crate::store::audit::evidence::anchor::Anchor;
use crate::store::audit::log::chain::Hash;
use crate::store::audit::log::month::Month;

/// The anchors in scope, by month, in the order of their rows.
pub(super) struct AnchorsInScope<'a>(BTreeMap<Month, Vec<&'a Anchor>>);

/// A contradiction: damage, unless the rows are noted as lost.
pub(super) struct Contradiction<'a> {
    pub(super) month: Month,
    pub(super) batch: Option<BatchSpan>,
    pub(super) by: Evidence<'a>,
    pub(super) what: String,
}

/// The evidence for a contradiction.
pub(super) enum Evidence<'a> {
    Anchor(&'a Anchor),
    /// The numbers of missing rows; empty when none are missing.
    MissingRows(RangeInclusive<i64>),
}

/// The anchors of one segment, while its batches are read.
pub(super) struct SegmentAnchors<'a> {
    month: Month,
    anchors: Peekable<vec::IntoIter<&'a Anchor>>,
    /// The number of anchors compared.
    pub(super) compared: u64,
    /// The last row that an anchor confirms.
    pub(super) confirmed: Option<i64>,
    pub(super) wrong: Vec<Contradiction<'a>>,
}

impl<'a> AnchorsInScope<'a> {
    /// The anchors in scope. An anchor that no key has signed is damage.
    pub(super) fn new(scope: &Scope<'a>, report: &mut Report) -> Self {
        let mut held: BTreeMap<Month, Vec<&Anchor>> = BTreeMap::new();
        for anchor in scope.anchors {
            let Some(month) = anchor.month().filter(|&month| scope.has(month)) else { continue };
            let keys = scope.public_keys;
            if keys.is_empty() || keys.iter().any(|key| anchor.is_signed_by(key)) {
                held.entry(month).or_default().push(anchor);
            } else {
                let what = format!(
                    "the anchor of {} for row {} is not signed by this key",
                    anchor.time, anchor.last
                );
                report.damage(month, None, what);
            }
        }
        for anchors in held.values_mut() {
            anchors.sort_by_key(|anchor| anchor.last);
        }
        Self(held)
    }

    /// The months that have anchors.
    pub(super) fn months(&self) -> impl Iterator<Item = Month> + '_ {
        self.0.keys().copied()
    }

    /// Takes the anchors of a month.
    pub(super) fn take(&mut self, month: Month) -> SegmentAnchors<'a> {
        let anchors = self.0.remove(&month).unwrap_or_default().into_iter().peekable();
        SegmentAnchors { month, anchors, compared: 0, confirmed: None, wrong: Vec::new() }
    }
}

impl<'a> SegmentAnchors<'a> {
    /// Adds a segment that does not follow its predecessor; these rows are missing.
    pub(super) fn missing_before(&mut self, what: String, rows: RangeInclusive<i64>) {
        self.wrong.push(Contradiction {
            month: self.month,
            batch: None,
            by: Evidence::MissingRows(rows),
            what,
        });
    }

    /// Compares the anchors up to this row: a batch ends at it with this head, or a segment begins after it, with its
    /// seed and the head before.
    pub(super) fn check_head(&mut self, last: i64, heads: &[&Hash], batch: Option<BatchSpan>) {
        while let Some(anchor) = self.anchors.next_if(|anchor| anchor.last <= last) {
            self.compared += 1;
            let what = if anchor.last < last && batch.is_none() {
                "which is before the first row here"
            } else if anchor.last < last {
                "which does not end a batch: batches were merged, or rows hashed again"
            } else if heads.iter().all(|head| anchor.head != head.to_string()) {
                "whose head is another: rows up to it were altered and hashed again"
            } else {
                self.confirmed = Some(last);
                continue;
            };
            let what = format!("contradicts the anchor of {} at row {}, {what}", anchor.time, anchor.last);
            self.wrong.push(Contradiction { month: self.month, batch, by: Evidence::Anchor(anchor), what });
        }
    }

    /// Adds the anchors after the last row.
    pub(super) fn finish(&mut self, last: i64) {
        for anchor in self.anchors.by_ref() {
            self.compared += 1;
            let what = format!(
                "is cut off: the anchor of {} knows row {}, and the last one here is {last}",
                anchor.time, anchor.last
            );
            self.wrong.push(Contradiction {
                month: self.month,
                batch: None,
                by: Evidence::Anchor(anchor),
                what,
            });
        }
    }

    /// The remaining anchors, for a missing segment.
    pub(super) fn rest(self) -> impl Iterator<Item = &'a Anchor> {
        self.anchors
    }
}
