//! A fleet: several proxies that act as one through a database that they share. SQL is in `store/fleet`.
//!
//! [`Fleet`] is one node's part in it. Everything here has a defined result while the database is away: the node is then
//! *alone* (`fleet/alone.rs`), and each caller states what is weakened.

mod agreement;
mod alone;
pub mod flights;
pub mod hints;
mod identity;
mod nodes;
mod orphans;
pub mod purge;

pub mod budget;
pub mod rate;
pub mod shares;

pub mod replay;
pub mod ship;
pub mod statuses;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::hmac;
use tokio::sync::watch;

use crate::alarms::Alarms;
use crate::clock::{Clock, Time};
use crate::config::fleet::Fleet as Settings;
use crate::metrics::Metrics;
use crate::store::audit::AuditStore;
use crate::store::fleet::Link;
use crate::store::fleet::nodes::Identity;
pub use agreement::Agreement;
pub use alone::Cause;
use hints::Hints;
pub use identity::identity_of;
use nodes::Heart;
pub use nodes::{CatchUp, Refused};
use orphans::Fences;

/// Age of the last heartbeat from which on the node is alone. Less than the lease, so that the node stops to act under a
/// life before the others consider it gone.
const ALONE_AFTER: Duration = Duration::from_millis(4_500);

/// One node's part in the fleet.
pub struct Fleet {
    /// The settings of `[fleet]`, fixed until the process ends.
    pub settings: Arc<Settings>,
    /// The database.
    pub link: Arc<Link>,
    /// The number of this node.
    pub node: u8,
    /// Notifications that flights have landed.
    pub hints: Arc<Hints>,
    /// The hashes of the settings that all nodes need alike.
    pub agreement: ArcSwap<Agreement>,
    key: hmac::Key,
    local: Local,
    membership: watch::Sender<Membership>,
    /// Whether the audit has a note of the start of the present time alone. Locked while the membership changes, so that the
    /// notes in the audit have the order of the changes.
    is_noted: Mutex<bool>,
    heart: tokio::sync::Mutex<Heart>,
    /// When the last heartbeat that was stored was sent, by the monotonic clock.
    last_beat: Mutex<Duration>,
    /// The end of the pause of grants after lost commits, by the monotonic clock.
    paused_until: Mutex<Duration>,
    catch_up: OnceLock<CatchUp>,
    fences: Fences,
}

/// The parts of this process that the fleet uses.
pub struct Local {
    /// This node, as it presents itself to the database.
    pub identity: Identity,
    /// The clock.
    pub clock: Clock,
    /// Conditions that need the operator.
    pub alarms: Alarms,
    /// The audit, which has a note when the node begins to be alone, and one at the end.
    pub audit: Arc<AuditStore>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// Whether this node has a life in the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// Its heartbeat is stored under this life.
    Member {
        /// The life.
        life: i64,
    },
    /// It acts without the others since this time.
    Alone {
        /// The time, by this machine's clock.
        since: Time,
    },
}

impl Fleet {
    /// The node of these settings, alone until its first heartbeat is stored.
    pub fn new(settings: &Settings, local: Local) -> Self {
        let settings = Arc::new(settings.clone());
        let node = local.identity.node;
        let link = Arc::new(Link::new(&settings, node, Arc::clone(&local.metrics)));
        let (membership, _) = watch::channel(Membership::Alone { since: local.clock.now() });
        Self {
            heart: tokio::sync::Mutex::new(Heart::new(&link)),
            link,
            node,
            hints: Arc::default(),
            agreement: ArcSwap::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, settings.key.expose()),
            settings,
            local,
            membership,
            is_noted: Mutex::default(),
            last_beat: Mutex::default(),
            paused_until: Mutex::default(),
            catch_up: OnceLock::new(),
            fences: Fences::default(),
        }
    }

    /// The life of this node; none while it is alone. If it begins to be alone with this call, the note in the audit is
    /// queued before this returns.
    pub fn life(&self) -> Option<i64> {
        let Membership::Member { life } = *self.membership.borrow() else { return None };
        if self.link.is_open() {
            self.leave(&Cause::Breaker);
            return None;
        }
        if self.is_overdue() {
            self.leave(&Cause::Heartbeat);
            return None;
        }
        Some(life)
    }

    /// Whether this node may take a block of a budget or a slot of a rate: it is not alone, and no failover has lost
    /// commits in the last ten seconds.
    pub fn may_lease(&self) -> bool {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        self.life().is_some() && self.local.clock.monotonic() >= until
    }

    /// The name of a lookup in shared tables: 16 bytes of an HMAC under the key of the fleet over the parts, each with its
    /// length.
    pub fn shared_key(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let mut key = [0; 16];
        key.copy_from_slice(&tag.as_ref()[..16]); // the tag has 32 bytes
        key
    }

    fn is_overdue(&self) -> bool {
        let last = *self.last_beat.lock().unwrap_or_else(PoisonError::into_inner);
        self.local.clock.monotonic().saturating_sub(last) > ALONE_AFTER
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("node", &self.node).finish_non_exhaustive()
    }
}
