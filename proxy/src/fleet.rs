//! A fleet: several proxies that act as one through a database that they share. SQL is in `store/fleet`.
//!
//! [`Fleet`] is one node's part in it. Everything here has a defined result while the database is away: the node is then
//! *alone*, and each caller states what is weakened.

use std::fmt;
use std::sync::Arc;

use ring::hmac;
use tokio::sync::watch;

use crate::clock::Time;
use crate::config::fleet::Fleet as Settings;
use crate::store::fleet::Link;

/// One node's part in the fleet.
pub struct Fleet {
    /// The settings of `[fleet]`, fixed until the process ends.
    pub settings: Arc<Settings>,
    /// The database.
    pub link: Arc<Link>,
    /// The number of this node.
    pub node: u8,
    key: hmac::Key,
    membership: watch::Sender<Membership>,
}

/// Whether this node has a life in the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// Its heartbeat is stored under this life.
    Member { life: i64 },
    /// Its heartbeat is not stored since this time.
    Alone { since: Time },
}

impl Fleet {
    /// The node of these settings, alone until its first heartbeat is stored.
    pub fn new(settings: &Settings, node: u8, now: Time) -> Self {
        let (membership, _) = watch::channel(Membership::Alone { since: now });
        Self {
            link: Arc::new(Link::new(settings, node)),
            node,
            key: hmac::Key::new(hmac::HMAC_SHA256, settings.key.expose()),
            settings: Arc::new(settings.clone()),
            membership,
        }
    }

    /// The life of this node; none while it is alone.
    pub fn life(&self) -> Option<i64> {
        if self.link.is_open() {
            return None;
        }
        match *self.membership.borrow() {
            Membership::Member { life } => Some(life),
            Membership::Alone { .. } => None,
        }
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
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("node", &self.node).finish_non_exhaustive()
    }
}
