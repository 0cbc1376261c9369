//! Evidence that the log is as it was written: signed anchors, verification, and rows that are known to be lost.

pub mod anchor;
pub mod copied;
pub(crate) mod lost;
pub mod verify;
