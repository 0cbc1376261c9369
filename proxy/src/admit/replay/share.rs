//! Shares of the replay table: whose transid it is, what its group holds, and which bound is reached.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use cmiot_signer::AppId;

/// Whose transid it is, and what its group may hold.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The client.
    pub appid: &'a AppId,
    /// Its group.
    pub group: &'a Arc<str>,
    /// Transids that the group may hold.
    pub group_share: usize,
}

/// What a group holds.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) held: AtomicUsize,
}

/// Refusals of a group's requests for want of room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FullReport {
    /// The client that was refused last.
    pub client: AppId,
    /// What was full.
    pub bound: CapacityBound,
    /// How many requests were refused.
    pub refused: u64,
}

/// A bound of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapacityBound {
    /// The client's share.
    Client,
    /// The share of its group.
    Group,
    /// The whole table.
    Table,
}

impl CapacityBound {
    /// The key of `[gateway]` that sets it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Client => "max_transids_per_client",
            Self::Group => "max_transids_per_group",
            Self::Table => "max_transids",
        }
    }
}
