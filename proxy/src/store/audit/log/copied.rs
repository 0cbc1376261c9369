//! Rows, batches and segments as they are copied to a central database.

use super::chain::{Hash, Limits, Manifest};
use super::month::Month;

/// Rows that are no longer in the audit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MissingRows {
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// The head that the segment after them follows.
    pub(crate) head: Hash,
}

/// A segment at the entry of the copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EnteredSegment {
    pub(crate) month: Month,
    /// The row that its first one follows.
    pub(crate) before: i64,
    /// The head that it follows.
    pub(crate) previous: Hash,
    pub(crate) seed: Hash,
    /// The digest before the entry.
    pub(crate) digest: Hash,
    pub(crate) manifest: Vec<Manifest>,
}

/// A batch of which rows are copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CopiedBatch {
    pub(crate) limits: Limits,
    /// The hash that it follows.
    pub(crate) previous: Hash,
    pub(crate) hash: Hash,
    /// The number of its rows that are copied.
    pub(crate) copied: i64,
    /// The digest of the copy after it.
    pub(crate) digest: Hash,
}

/// A row that is copied.
#[derive(Debug)]
pub(crate) struct CopiedRow {
    pub(crate) id: i64,
    /// In the order of the columns of [`VERSION`](super::columns::VERSION).
    pub(crate) values: Vec<CopiedValue>,
}

/// A value that is copied; names are spelled out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CopiedValue {
    Null,
    Int(i64),
    Text(Box<str>),
    Blob(Box<[u8]>),
}
