//! Rows that an anchor knows and the folder no longer has.

use crate::clock::Time;

/// Rows are missing that nobody has acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The time of the last anchor that knows them: requests up to it may have no record any more.
    pub through: Time,
}
