//! Limits of the replay cache per client and per group.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use cmiot_signer::AppId;

/// The client and group that a transid counts against.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub appid: &'a AppId,
    pub group: &'a Arc<str>,
    /// The maximum number of transids of the group.
    pub group_share: usize,
}

/// The number of transids of a group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) transids: AtomicUsize,
}

/// Refusals of a group's requests because a limit was reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FullReport {
    /// The last refused client.
    pub client: AppId,
    pub bound: CapacityBound,
    /// The number of refused requests.
    pub refused: u64,
}

/// A limit that was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapacityBound {
    /// The client's limit.
    Client,
    /// The limit of its group.
    Group,
    /// The limit of the whole cache.
    Table,
}

impl CapacityBound {
    /// The `[gateway]` key that sets the limit.
    pub fn key(self) -> &'static str {
        match self {
            Self::Client => "max_transids_per_client",
            Self::Group => "max_transids_per_group",
            Self::Table => "max_transids",
        }
    }
}
