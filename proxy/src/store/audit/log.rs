//! The log: rows, the tables and files that hold them, the transaction that appends them, and the chain over them.
//!
//! | module | contents |
//! | --- | --- |
//! | [`month`] | a segment's month, its file, the segments of a folder |
//! | `columns`, `value`, `row` | the tables, the rows in them, and their columns; a value; a row of any table |
//! | [`identity`] | keyed hashes of card numbers, and the keys |
//! | `body` | the body of a carrier reply, as far as a row keeps it |
//! | [`chain`] | the digest of a batch |
//! | `copied`, `copy_digest` | rows, batches and segments as they are copied to a central database; their digest |
//! | `insert`, `append` | one transaction of rows |
//! | `link` | a segment's head, its manifest, and its link to the segment before |
//! | `loss`, `notes` | a loss as its note names it; notes that commands leave for the writer |
//! | `segment_identity`, `disk_space` | the files of an open segment; the free space of the disk |

pub(crate) mod append;
pub(crate) mod body;
pub mod chain;
pub(crate) mod columns;
pub(crate) mod copied;
pub(crate) mod copy_digest;
pub(crate) mod disk_space;
pub mod identity;
pub(crate) mod insert;
pub(crate) mod link;
pub(crate) mod loss;
pub mod month;
pub(crate) mod notes;
pub(crate) mod row;
pub(crate) mod segment_identity;
pub(crate) mod value;
