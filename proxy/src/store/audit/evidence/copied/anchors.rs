//! Compares the anchors of a store with the copies of its chains.
//!
//! A store has several chains after it was set back; an anchor is that of one of them. An anchor whose row is not copied, and
//! that ends no copied batch, is compared with nothing.

use super::super::anchor::{Anchor, PublicKey};
use crate::store::audit::log::chain::Hash;

/// The anchors of one store.
#[derive(Debug)]
pub struct CopiedAnchors {
    /// In the order of their rows.
    anchors: Vec<Compared>,
    /// The next one to compare.
    next: usize,
    /// The first row after which two chains part: a later anchor may be of a chain that has not copied its row.
    parted_after: i64,
    /// Anchors whose signature is not one of the store's key.
    pub unsigned: Vec<Anchor>,
}

#[derive(Debug)]
struct Compared {
    anchor: Anchor,
    is_confirmed: bool,
    contradiction: Option<String>,
}

impl CopiedAnchors {
    /// The anchors of the store with this key.
    pub(crate) fn new(key: &PublicKey, mut anchors: Vec<Anchor>) -> Self {
        anchors.sort_by_key(|anchor| anchor.last);
        let (signed, unsigned) = anchors.into_iter().partition(|anchor: &Anchor| anchor.is_signed_by(key));
        let compared = |anchor| Compared { anchor, is_confirmed: false, contradiction: None };
        Self {
            anchors: Vec::into_iter(signed).map(compared).collect(),
            next: 0,
            parted_after: i64::MAX,
            unsigned,
        }
    }

    /// The number of anchors that the store has signed.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// The number of anchors that name a head which the copy has.
    pub fn confirmed(&self) -> usize {
        self.anchors.iter().filter(|one| one.is_confirmed).count()
    }

    /// The contradictions: anchors whose row has another head in the copy.
    pub fn contradictions(&self) -> impl Iterator<Item = &str> {
        let is_certain = |one: &&Compared| !one.is_confirmed && one.anchor.last <= self.parted_after;
        self.anchors.iter().filter(is_certain).filter_map(|one| one.contradiction.as_deref())
    }

    /// Begins a chain after row `base`, which parts from another one there unless it is the first: earlier anchors are not of
    /// it.
    pub(crate) fn begin_chain(&mut self, base: i64, is_first: bool) {
        if !is_first {
            self.parted_after = self.parted_after.min(base);
        }
        self.go_to(base);
    }

    /// Continues with the anchors at or after a row.
    pub(crate) fn go_to(&mut self, row: i64) {
        self.next = self.anchors.partition_point(|one| one.anchor.last < row);
    }

    /// Compares the anchors up to row `last`, where the copy has this head: that of a batch whose first row is `first`.
    pub(crate) fn check(&mut self, last: i64, head: &Hash, first: i64) {
        while let Some(one) = self.anchors.get_mut(self.next).filter(|one| one.anchor.last < last) {
            let anchor = &one.anchor;
            if anchor.last >= first {
                one.contradiction.get_or_insert_with(|| {
                    format!("the anchor of {} at row {} does not end a batch", anchor.time, anchor.last)
                });
            }
            self.next += 1;
        }
        let text = head.to_string();
        // Several heads may be those of one row: of the batch that it ends, of the next segment.
        for one in self.anchors[self.next..].iter_mut().take_while(|one| one.anchor.last == last) {
            let anchor = &one.anchor;
            if anchor.head == text {
                one.is_confirmed = true;
            } else {
                one.contradiction.get_or_insert_with(|| {
                    format!("the anchor of {} at row {} has another head", anchor.time, anchor.last)
                });
            }
        }
    }
}
