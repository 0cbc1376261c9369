//! Hands out the transids that go to the carrier: one an attempt, and never the same twice.
//!
//! A transid is (appid, stamp, number). Of the eight digits of the number the first two are the node's, so
//! that several proxies may share an account; 1 to 999,999 are left to each node. Then they start again: a new
//! *lap*. Never the same twice, across restarts and whatever the clock does, because `state.db` keeps for each
//! (appid, node) a [`HighWaterMark`] of which this holds:
//!
//! 1. Within a lap no number is used twice: a number is used only after a committed lease that put `next`
//!    above it, and `next` only grows.
//! 2. No stamp above `ceiling` was ever used, in any lap: a stamp is used only up to a ceiling committed before.
//! 3. A new lap's `floor` is above every stamp used before, and no stamp of the lap is below it. So two equal
//!    numbers of different laps have different stamps.
//!
//! A lap that begins right after a restart has only (2) to go by: its floor is `ceiling` + 1 s, up to
//! [`LeaseConfig::ahead`] after the clock. Within one process the stamps really used are known, which keeps stamps
//! from running away when laps are short. A source trusts that knowledge, and its block, only while the
//! position is as it left it itself: another source of the same (appid, node) in the process may have moved it.
//!
//! A stamp is max(clock, floor): with the clock it goes back as far as the lap's floor, since within a lap the numbers
//! differ. The clock is the believed one ([`Clock::believed`]): a wrong hour ahead would raise the ceiling for good.

pub mod unaccounted;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cmiot_signer::{AppId, Sequence, Stamp, StampError, Transid};

use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::state::{HighWaterMark, StateStore};

/// Numbers of one node: its share of the eight digits. The first, 0, is not used: the carrier's begin at 1.
const LAP: u32 = 1_000_000;

/// Nodes that the two leading digits can tell apart.
const NODES: u8 = 100;

/// How much is leased with one commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseConfig {
    /// Numbers: at most so many are skipped by a restart.
    pub block: u32,
    /// Seconds that the ceiling lies above the stamp.
    pub ahead: u64,
}

impl Default for LeaseConfig {
    /// A thousand numbers and a minute: one commit a minute of few calls, one a thousand of many.
    fn default() -> Self {
        Self { block: 1_000, ahead: 60 }
    }
}

/// The source of one node, for all accounts.
pub struct TransidSource {
    state: Arc<StateStore>,
    node: u8,
    leasing: LeaseConfig,
    clock: Clock,
    lines: Mutex<HashMap<AppId, Arc<AccountSequence>>>,
}

/// Why there is no transid: the call may not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransidUnavailable {
    /// No lease could be committed.
    #[error("no numbers for transids can be leased: {0}")]
    State(#[from] StoreError),
    /// The clock is unset or beyond 2099, or the floor is.
    #[error("no stamp for a transid: {0}")]
    Stamp(StampError),
    /// Lease after lease was used up by other callers before this one got a number.
    #[error("too many callers ask for transids at once; ask again")]
    Crowded,
}

impl TransidSource {
    /// The source of a node, which is the first two digits of its sequence.
    ///
    /// # Panics
    /// When the node is not 0 to 99: the configuration is checked before.
    pub fn new(state: Arc<StateStore>, node: u8, clock: Clock) -> Self {
        Self::with_leasing(state, node, clock, LeaseConfig::default())
    }

    /// [`Self::new`] with leases of another size.
    ///
    /// # Panics
    /// When the node is not 0 to 99, or the leases are empty.
    pub fn with_leasing(state: Arc<StateStore>, node: u8, clock: Clock, leasing: LeaseConfig) -> Self {
        assert!(node < NODES, "a node is 0 to 99, not {node}");
        assert!(leasing.block > 0, "a lease without numbers is none");
        Self { state, node, leasing, clock, lines: Mutex::default() }
    }

    /// The next transid of an account. Now and then it waits for the disk (a lease), so async code calls it on
    /// a blocking thread, or tries [`Self::try_next`] first.
    ///
    /// # Errors
    /// When no lease can be committed, or the clock is outside 2000 to 2099.
    pub fn next(&self, appid: &AppId) -> Result<Transid, TransidUnavailable> {
        /// Each round but the last was lost to other callers, who got a block's worth of transids meanwhile.
        const ROUNDS: usize = 100;
        let line = self.line(appid);
        for _ in 0..ROUNDS {
            if let Some(transid) = self.draw(&line, appid)? {
                return Ok(transid);
            }
            self.lease(&line, appid)?;
        }
        Err(TransidUnavailable::Crowded)
    }

    /// The next transid of an account if that takes no lease. Never waits for the disk.
    pub fn try_next(&self, appid: &AppId) -> Option<Transid> {
        self.draw(&self.line(appid), appid).ok().flatten()
    }

    /// A number of the block under a stamp of the lap, unless a lease is due first.
    fn draw(&self, line: &AccountSequence, appid: &AppId) -> Result<Option<Transid>, TransidUnavailable> {
        let mut held = line.held();
        let seconds = held.stamp(&self.clock);
        if held.numbers.is_empty() || seconds > held.position.ceiling {
            return Ok(None);
        }
        let stamp = Stamp::from_unix(seconds).map_err(TransidUnavailable::Stamp)?;
        let number = u32::from(self.node) * LAP + held.numbers.start;
        // Cannot fail: at most 99 * 1,000,000 + 999,999, and a block never has 0.
        let Ok(sequence) = Sequence::new(number) else { return Ok(None) };
        held.numbers.start += 1;
        held.last = held.last.max(seconds);
        Ok(Some(Transid::new(appid, stamp, sequence)))
    }

    /// Commits a lease, then lets the line use it. One caller a line leases, the others wait for it.
    fn lease(&self, line: &AccountSequence, appid: &AppId) -> Result<(), TransidUnavailable> {
        let _one = line.leasing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = line.held().clone();
        let wanted = held.stamp(&self.clock);
        if !held.numbers.is_empty() && wanted <= held.position.ceiling {
            return Ok(()); // Another caller has leased meanwhile.
        }
        // A stamp that cannot be written is found before anything is committed for it.
        Stamp::from_unix(wanted).map_err(TransidUnavailable::Stamp)?;
        let mut lease = None;
        self.state.advance(appid, self.node, |read| {
            let next = held.lease(read, wanted, self.leasing);
            let position = next.position;
            lease = Some(next);
            position
        })?;
        if let Some(lease) = lease {
            line.held().adopt(lease);
        }
        Ok(())
    }

    fn line(&self, appid: &AppId) -> Arc<AccountSequence> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lines.entry(*appid).or_default())
    }
}

/// One account's sequence.
#[derive(Default)]
struct AccountSequence {
    /// Held while a lease is committed.
    leasing: Mutex<()>,
    /// Held for the moment of a draw.
    held: Mutex<Held>,
}

impl AccountSequence {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a line may use, and what it knows.
#[derive(Clone, Debug)]
struct Held {
    /// As this source left it; nothing leased yet at first.
    position: HighWaterMark,
    /// The numbers leased and not yet used.
    numbers: Range<u32>,
    /// The greatest stamp used here, 0 before the first.
    last: u64,
    /// No stamp used by anybody else, earlier processes included, is above it.
    others: u64,
}

struct Lease {
    position: HighWaterMark,
    numbers: Range<u32>,
    others: u64,
    /// Whether the numbers are those of before, under a higher ceiling.
    extended: bool,
}

impl Default for Held {
    fn default() -> Self {
        // A `next` that no file can hold: the first position read is never taken for one's own.
        Self { position: HighWaterMark { next: 0, floor: 0, ceiling: 0 }, numbers: 0..0, last: 0, others: 0 }
    }
}

impl Held {
    fn stamp(&self, clock: &Clock) -> u64 {
        clock.believed().as_secs().max(self.position.floor)
    }

    /// The lease that follows the position `read`, for a stamp that is `wanted` now.
    fn lease(&self, read: HighWaterMark, wanted: u64, leasing: LeaseConfig) -> Lease {
        let own = read == self.position;
        let others = if own { self.others } else { read.ceiling };
        let ceiling = |stamp: u64| read.ceiling.max(stamp.saturating_add(leasing.ahead));

        // Only the stamp has left the lease: the block goes on under a higher ceiling.
        if own && !self.numbers.is_empty() {
            let position = HighWaterMark { ceiling: ceiling(wanted), ..read };
            return Lease { position, numbers: self.numbers.clone(), others, extended: true };
        }
        // A block of this lap, or the first of a new one, above every stamp used before.
        let (first, floor) = if read.next < LAP {
            (read.next, read.floor)
        } else {
            (1, others.max(self.last).saturating_add(1))
        };
        let end = first.saturating_add(leasing.block).min(LAP);
        let position = HighWaterMark { next: end, floor, ceiling: ceiling(wanted.max(floor)) };
        Lease { position, numbers: first..end, others, extended: false }
    }

    fn adopt(&mut self, lease: Lease) {
        self.position = lease.position;
        self.others = lease.others;
        // Numbers of an extended block may have been drawn while the lease was committed.
        if !lease.extended {
            self.numbers = lease.numbers;
        }
    }
}

#[cfg(test)]
mod tests;
