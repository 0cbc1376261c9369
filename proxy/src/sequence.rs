//! Transids for calls to the carrier: one per attempt, and none twice.
//!
//! A transid is (appid, stamp, number). The first two of the number's eight digits are the node, so that several proxies
//! may share an account; each node has the numbers 1 to 999,999. Then the numbers wrap around and a new *lap* starts. No
//! transid is used twice, across restarts and steps of the clock, because `state.db` keeps for each (appid, node) a
//! [`HighWaterMark`] for which this holds:
//!
//! 1. Within a lap no number is used twice: a number is used only after a committed lease that put `next`
//!    above it, and `next` only grows.
//! 2. No stamp above `ceiling` was ever used, in any lap: a stamp is used only up to a ceiling committed before.
//! 3. The `floor` of a new lap is above every stamp used before, and no stamp of the lap is below it. So two equal
//!    numbers of different laps have different stamps.
//!
//! A lap that starts right after a restart can rely on (2) only: its floor is `ceiling` + 1 s, up to
//! [`LeaseConfig::ahead`] after the clock. Within one process the stamps that were really used are known, so stamps do
//! not run ahead of the clock when laps are short. A source relies on that knowledge, and on its block, only while the
//! high-water mark is the one that it wrote: another source of the same (appid, node) in the process may have moved it.
//!
//! A stamp is max(clock, floor): if the clock steps back, stamps follow it as far as the floor of the lap, since the
//! numbers within a lap differ. The clock is the believed one ([`Clock::believed`]): an hour ahead by mistake would raise
//! the ceiling permanently.

pub mod unaccounted;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cmiot_signer::{AppId, Sequence, Stamp, StampError, Transid};

use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::state::{HighWaterMark, StateStore};

/// Numbers per node: its share of the eight digits. 0 is not used: the carrier's numbers start at 1.
const LAP: u32 = 1_000_000;

/// Nodes that two leading digits distinguish.
const NODES: u8 = 100;

/// Size of a lease, which takes one commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseConfig {
    /// Numbers per lease: a restart skips at most this many.
    pub block: u32,
    /// Seconds from the stamp to the ceiling.
    pub ahead: u64,
}

impl Default for LeaseConfig {
    /// A thousand numbers and a minute: one commit per minute at a low rate, one per thousand calls at a high one.
    fn default() -> Self {
        Self { block: 1_000, ahead: 60 }
    }
}

/// The transids of one node, for all accounts.
pub struct TransidSource {
    state: Arc<StateStore>,
    node: u8,
    leasing: LeaseConfig,
    clock: Clock,
    sequences: Mutex<HashMap<AppId, Arc<AccountSequence>>>,
}

/// Reason for having no transid: the call cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransidUnavailable {
    /// A lease could not be committed.
    #[error("no numbers for transids can be leased: {0}")]
    State(#[from] StoreError),
    /// The clock is unset, or the clock or the floor is beyond 2099.
    #[error("no stamp for a transid: {0}")]
    Stamp(StampError),
    /// Other callers used up lease after lease before this one got a number.
    #[error("too many callers ask for transids at once; ask again")]
    TooManyCallers,
}

impl TransidSource {
    /// # Panics
    /// When the node is not 0 to 99, which the check of the configuration excludes.
    pub fn new(state: Arc<StateStore>, node: u8, clock: Clock) -> Self {
        Self::with_leasing(state, node, clock, LeaseConfig::default())
    }

    /// [`Self::new`] with leases of another size.
    ///
    /// # Panics
    /// When the node is not 0 to 99, or the leases are empty.
    pub fn with_leasing(state: Arc<StateStore>, node: u8, clock: Clock, leasing: LeaseConfig) -> Self {
        assert!(node < NODES, "a node is 0 to 99, not {node}");
        assert!(leasing.block > 0, "a lease needs numbers");
        Self { state, node, leasing, clock, sequences: Mutex::default() }
    }

    /// The next transid of an account. It may wait for the disk (a lease), so async code calls it on a blocking thread,
    /// after [`Self::try_next`].
    ///
    /// # Errors
    /// When no lease can be committed, or the clock is outside 2000 to 2099.
    pub fn next(&self, appid: &AppId) -> Result<Transid, TransidUnavailable> {
        /// In each round but the last, other callers took a whole block of transids.
        const ROUNDS: usize = 100;
        let sequence = self.sequence(appid);
        for _ in 0..ROUNDS {
            if let Some(transid) = self.take(&sequence, appid)? {
                return Ok(transid);
            }
            self.lease(&sequence, appid)?;
        }
        Err(TransidUnavailable::TooManyCallers)
    }

    /// The next transid of an account if that needs no lease. Never waits for the disk.
    pub fn try_next(&self, appid: &AppId) -> Option<Transid> {
        self.take(&self.sequence(appid), appid).ok().flatten()
    }

    /// A number of the block with a stamp of the lap; `None` if a lease is due first.
    fn take(&self, sequence: &AccountSequence, appid: &AppId) -> Result<Option<Transid>, TransidUnavailable> {
        let mut state = sequence.state();
        let seconds = state.stamp(&self.clock);
        if state.numbers.is_empty() || seconds > state.mark.ceiling {
            return Ok(None);
        }
        let stamp = Stamp::from_unix(seconds).map_err(TransidUnavailable::Stamp)?;
        let number = u32::from(self.node) * LAP + state.numbers.start;
        // Cannot fail: at most 99 * 1,000,000 + 999,999, and a block never has 0.
        let Ok(number) = Sequence::new(number) else { return Ok(None) };
        state.numbers.start += 1;
        state.last = state.last.max(seconds);
        Ok(Some(Transid::new(appid, stamp, number)))
    }

    /// Commits a lease, then installs it. One caller per sequence leases, the others wait for it.
    fn lease(&self, sequence: &AccountSequence, appid: &AppId) -> Result<(), TransidUnavailable> {
        let _one = sequence.leasing.lock().unwrap_or_else(PoisonError::into_inner);
        let state = sequence.state().clone();
        let stamp = state.stamp(&self.clock);
        if !state.numbers.is_empty() && stamp <= state.mark.ceiling {
            return Ok(()); // Another caller has leased meanwhile.
        }
        // A stamp that cannot be written is an error before anything is committed for it.
        Stamp::from_unix(stamp).map_err(TransidUnavailable::Stamp)?;
        let mut lease = None;
        self.state.advance(appid, self.node, |read| {
            let next = state.lease(read, stamp, self.leasing);
            let mark = next.mark;
            lease = Some(next);
            mark
        })?;
        if let Some(lease) = lease {
            sequence.state().install(lease);
        }
        Ok(())
    }

    fn sequence(&self, appid: &AppId) -> Arc<AccountSequence> {
        let mut sequences = self.sequences.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sequences.entry(*appid).or_default())
    }
}

/// One account's sequence.
#[derive(Default)]
struct AccountSequence {
    /// Held while a lease is committed.
    leasing: Mutex<()>,
    /// Held for a moment, while a number is taken.
    state: Mutex<SequenceState>,
}

impl AccountSequence {
    fn state(&self) -> MutexGuard<'_, SequenceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lease of a sequence, and the stamps that are known to be used.
#[derive(Clone, Debug)]
struct SequenceState {
    /// The high-water mark as this source wrote it.
    mark: HighWaterMark,
    /// Numbers that are leased and not used.
    numbers: Range<u32>,
    /// The greatest stamp that this source used, 0 before the first.
    last: u64,
    /// No stamp that other sources used, earlier processes included, is above this.
    foreign_ceiling: u64,
}

struct Lease {
    mark: HighWaterMark,
    numbers: Range<u32>,
    foreign_ceiling: u64,
    /// Whether the numbers are the same as before, with a higher ceiling.
    extended: bool,
}

impl Default for SequenceState {
    fn default() -> Self {
        // No file has this `next`: the first mark that is read never counts as our own.
        let mark = HighWaterMark { next: 0, floor: 0, ceiling: 0 };
        Self { mark, numbers: 0..0, last: 0, foreign_ceiling: 0 }
    }
}

impl SequenceState {
    fn stamp(&self, clock: &Clock) -> u64 {
        clock.believed().as_secs().max(self.mark.floor)
    }

    /// The lease that follows the mark `read`, for a call with this stamp.
    fn lease(&self, read: HighWaterMark, stamp: u64, leasing: LeaseConfig) -> Lease {
        let own = read == self.mark;
        let foreign_ceiling = if own { self.foreign_ceiling } else { read.ceiling };
        let ceiling = |stamp: u64| read.ceiling.max(stamp.saturating_add(leasing.ahead));

        // Only the stamp is above the lease: the block remains, with a higher ceiling.
        if own && !self.numbers.is_empty() {
            let mark = HighWaterMark { ceiling: ceiling(stamp), ..read };
            return Lease { mark, numbers: self.numbers.clone(), foreign_ceiling, extended: true };
        }
        // The next block of this lap, or the first block of a new lap, above every stamp used before.
        let (first, floor) = if read.next < LAP {
            (read.next, read.floor)
        } else {
            (1, foreign_ceiling.max(self.last).saturating_add(1))
        };
        let end = first.saturating_add(leasing.block).min(LAP);
        let mark = HighWaterMark { next: end, floor, ceiling: ceiling(stamp.max(floor)) };
        Lease { mark, numbers: first..end, foreign_ceiling, extended: false }
    }

    fn install(&mut self, lease: Lease) {
        self.mark = lease.mark;
        self.foreign_ceiling = lease.foreign_ceiling;
        // Numbers of an extended block may have been used while the lease was committed.
        if !lease.extended {
            self.numbers = lease.numbers;
        }
    }
}

#[cfg(test)]
mod tests;
