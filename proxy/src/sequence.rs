//! Hands out the transids that go to the carrier: one an attempt, and never the same twice.
//!
//! A transid is (appid, stamp, number). Of the eight digits of the number the first two are the node's, so
//! that several proxies may share an account; 1 to 999,999 are left to each node. Then they start again: a new
//! *lap*. Never the same twice, across restarts and whatever the clock does, because `state.db` keeps for each
//! (appid, node) a [`Position`] of which this holds:
//!
//! 1. Within a lap no number is used twice: a number is used only after a committed lease that put `next`
//!    above it, and `next` only grows.
//! 2. No stamp above `ceiling` was ever used, in any lap: a stamp is used only up to a ceiling committed before.
//! 3. A new lap's `floor` is above every stamp used before, and no stamp of the lap is below it. So two equal
//!    numbers of different laps have different stamps.
//!
//! A lap that begins right after a restart has only (2) to go by: its floor is `ceiling` + 1 s, up to
//! [`Leasing::ahead`] after the clock. Within one process the stamps really used are known, which keeps stamps
//! from running away when laps are short. A source trusts that knowledge, and its block, only while the
//! position is as it left it itself: another source of the same (appid, node) in the process may have moved it.
//!
//! Within a process stamps never go back: each is max(clock, the last one, floor).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cmiot_signer::{AppId, Sequence, Stamp, StampError, Transid};

use crate::clock::Clock;
use crate::store::StoreError;
use crate::store::state::{Position, StateStore};

/// Numbers of one node: its share of the eight digits. The first, 0, is not used: the carrier's begin at 1.
const LAP: u32 = 1_000_000;

/// Nodes that the two leading digits can tell apart.
const NODES: u8 = 100;

/// How much is leased with one commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leasing {
    /// Numbers: at most so many are skipped by a restart.
    pub block: u32,
    /// Seconds that the ceiling lies above the stamp.
    pub ahead: u64,
}

impl Default for Leasing {
    /// A thousand numbers and a minute: one commit a minute of few calls, one a thousand of many.
    fn default() -> Self {
        Self { block: 1_000, ahead: 60 }
    }
}

/// The source of one node, for all accounts.
pub struct TransidSource {
    state: Arc<StateStore>,
    node: u8,
    leasing: Leasing,
    clock: Clock,
    lines: Mutex<HashMap<AppId, Arc<Line>>>,
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
        Self::with_leasing(state, node, clock, Leasing::default())
    }

    /// [`Self::new`] with leases of another size.
    ///
    /// # Panics
    /// When the node is not 0 to 99, or the leases are empty.
    pub fn with_leasing(state: Arc<StateStore>, node: u8, clock: Clock, leasing: Leasing) -> Self {
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
    fn draw(&self, line: &Line, appid: &AppId) -> Result<Option<Transid>, TransidUnavailable> {
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
        held.last = seconds;
        Ok(Some(Transid::new(appid, stamp, sequence)))
    }

    /// Commits a lease, then lets the line use it. One caller a line leases, the others wait for it.
    fn lease(&self, line: &Line, appid: &AppId) -> Result<(), TransidUnavailable> {
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

    fn line(&self, appid: &AppId) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lines.entry(*appid).or_default())
    }
}

/// One account's sequence.
#[derive(Default)]
struct Line {
    /// Held while a lease is committed.
    leasing: Mutex<()>,
    /// Held for the moment of a draw.
    held: Mutex<Held>,
}

impl Line {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a line may use, and what it knows.
#[derive(Clone, Debug)]
struct Held {
    /// As this source left it; nothing leased yet at first.
    position: Position,
    /// The numbers leased and not yet used.
    numbers: Range<u32>,
    /// The last stamp used here, 0 before the first.
    last: u64,
    /// No stamp used by anybody else, earlier processes included, is above it.
    others: u64,
}

struct Lease {
    position: Position,
    numbers: Range<u32>,
    others: u64,
    /// Whether the numbers are those of before, under a higher ceiling.
    extended: bool,
}

impl Default for Held {
    fn default() -> Self {
        // A `next` that no file can hold: the first position read is never taken for one's own.
        Self { position: Position { next: 0, floor: 0, ceiling: 0 }, numbers: 0..0, last: 0, others: 0 }
    }
}

impl Held {
    fn stamp(&self, clock: &Clock) -> u64 {
        clock.now().as_secs().max(self.last).max(self.position.floor)
    }

    /// The lease that follows the position `read`, for a stamp that is `wanted` now.
    fn lease(&self, read: Position, wanted: u64, leasing: Leasing) -> Lease {
        let own = read == self.position;
        let others = if own { self.others } else { read.ceiling };
        let ceiling = |stamp: u64| read.ceiling.max(stamp.saturating_add(leasing.ahead));

        // Only the stamp has left the lease: the block goes on under a higher ceiling.
        if own && !self.numbers.is_empty() {
            let position = Position { ceiling: ceiling(wanted), ..read };
            return Lease { position, numbers: self.numbers.clone(), others, extended: true };
        }
        // A block of this lap, or the first of a new one, above every stamp used before.
        let (first, floor) = if read.next < LAP {
            (read.next, read.floor)
        } else {
            (1, others.max(self.last).saturating_add(1))
        };
        let end = first.saturating_add(leasing.block).min(LAP);
        let position = Position { next: end, floor, ceiling: ceiling(wanted.max(floor)) };
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
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Hand, Time};
    use crate::store::state::Lost;

    const START: u64 = 1_768_449_600;

    fn appid() -> AppId {
        AppId::parse("100001").unwrap()
    }

    /// The transids used so far: whoever uses one twice is caught.
    #[derive(Default)]
    struct Carrier(HashSet<(u64, u32)>);

    impl Carrier {
        fn take(&mut self, transid: &Transid) -> u64 {
            let (stamp, number) = (transid.stamp().to_unix(), transid.sequence().get());
            assert!(self.0.insert((stamp, number)), "{} was sent twice", transid.as_str());
            stamp
        }
    }

    fn state(dir: &std::path::Path) -> Arc<StateStore> {
        Arc::new(StateStore::open(dir, Lost::Refuse).unwrap())
    }

    fn source(state: &Arc<StateStore>, node: u8, clock: &Clock, block: u32) -> TransidSource {
        TransidSource::with_leasing(Arc::clone(state), node, clock.clone(), Leasing { block, ahead: 60 })
    }

    fn at_start() -> (Clock, Hand) {
        Clock::manual(Time::from_secs(START.cast_signed()))
    }

    #[test]
    fn numbers_begin_at_one_behind_the_nodes_digits() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, _hand) = at_start();
        let state = state(dir.path());
        for (node, first, second) in [(0, 1, 2), (7, 7_000_001, 7_000_002), (99, 99_000_001, 99_000_002)] {
            let source = TransidSource::new(Arc::clone(&state), node, clock.clone());
            let numbers = [(); 2].map(|()| source.next(&appid()).unwrap().sequence().get());
            assert_eq!(numbers, [first, second]);
        }
    }

    #[test]
    fn a_stamp_is_the_clock_but_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = at_start();
        let source = source(&state(dir.path()), 0, &clock, 10);
        let stamp = || source.next(&appid()).unwrap().stamp().to_unix();
        assert_eq!(stamp(), START);
        hand.advance(Duration::from_secs(3_600));
        assert_eq!(stamp(), START + 3_600);
        hand.set(Time::from_secs(5));
        assert_eq!(stamp(), START + 3_600);
    }

    #[test]
    fn a_lap_that_is_used_up_begins_above_every_stamp_used() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, _hand) = at_start();
        let state = state(dir.path());
        let first = source(&state, 3, &clock, LAP);
        let mut carrier = Carrier::default();
        for _ in 1..LAP {
            assert_eq!(carrier.take(&first.next(&appid()).unwrap()), START);
        }
        // This process knows what it used: one second on, not a minute.
        let next = first.next(&appid()).unwrap();
        assert_eq!((carrier.take(&next), next.sequence().get()), (START + 1, 3_000_001));
        // Another has the committed ceiling to go by.
        let next = source(&state, 3, &clock, LAP).next(&appid()).unwrap();
        assert_eq!((carrier.take(&next), next.sequence().get()), (START + 62, 3_000_001));
    }

    #[test]
    fn what_needs_no_lease_is_had_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = at_start();
        let source = source(&state(dir.path()), 0, &clock, 2);
        assert_eq!(source.try_next(&appid()), None, "nothing is leased yet");
        source.next(&appid()).unwrap();
        assert!(source.try_next(&appid()).is_some());
        assert_eq!(source.try_next(&appid()), None, "the block is used up");
        source.next(&appid()).unwrap();
        hand.advance(Duration::from_secs(61));
        assert_eq!(source.try_next(&appid()), None, "the stamp is above the ceiling");
        let extended = source.next(&appid()).unwrap();
        assert_eq!(extended.sequence().get(), 4, "a higher ceiling costs no numbers");
    }

    #[test]
    fn an_unset_clock_and_a_lost_disk_give_no_transid() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(Time::EPOCH);
        let source = source(&state(dir.path()), 0, &clock, 10);
        assert_eq!(source.next(&appid()), Err(TransidUnavailable::Stamp(StampError::Unset)));
        hand.set(Time::from_secs(START.cast_signed()));
        let other = rusqlite::Connection::open(dir.path().join("state.db")).unwrap();
        other
            .execute_batch(
                "CREATE TRIGGER broken BEFORE INSERT ON sequence BEGIN SELECT RAISE(ABORT, 'no'); END",
            )
            .unwrap();
        assert!(matches!(source.next(&appid()), Err(TransidUnavailable::State(_))));
        other.execute_batch("DROP TRIGGER broken").unwrap();
        assert_eq!(source.next(&appid()).unwrap().sequence().get(), 1);
    }

    #[test]
    fn threads_never_get_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = at_start();
        let state = state(dir.path());
        // Two sources of one node: what a mistaken second one may not break.
        let sources = [source(&state, 0, &clock, 50), source(&state, 0, &clock, 70)];
        let drawn: Vec<Transid> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (source, hand) = (&sources[thread % 2], &hand);
                    scope.spawn(move || {
                        let mut mine: Vec<Transid> = Vec::new();
                        for step in 0..500 {
                            if step % 100 == 99 {
                                hand.advance(Duration::from_secs(45));
                            }
                            mine.push(source.next(&appid()).unwrap());
                        }
                        assert!(mine.is_sorted_by_key(|transid| transid.stamp().to_unix()));
                        mine
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut carrier = Carrier::default();
        for transid in &drawn {
            carrier.take(transid);
        }
        assert_eq!(carrier.0.len(), 2_000);
    }

    /// Takes every number of the lap but the last `left`, as another lessee of the node might.
    fn skip_to_the_end(state: &StateStore, node: u8, left: u32) {
        state.advance(&appid(), node, |read| Position { next: read.next.max(LAP - left), ..read }).unwrap();
    }

    #[test]
    fn a_lap_is_above_what_another_source_used() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = at_start();
        let state = state(dir.path());
        let (first, second) = (source(&state, 0, &clock, 5), source(&state, 0, &clock, 5));
        let mut carrier = Carrier::default();
        let mut draw = |source: &TransidSource| carrier.take(&source.next(&appid()).unwrap());
        skip_to_the_end(&state, 0, 10);
        for _ in 0..5 {
            draw(&first);
        }
        hand.advance(Duration::from_secs(50));
        for _ in 0..5 {
            assert_eq!(draw(&second), START + 50);
        }
        // The next lap, by the one who did not use the latest stamp; then the second's numbers again.
        hand.set(Time::from_secs(START.cast_signed()));
        assert_eq!(draw(&first), START + 111, "above the second's ceiling");
        skip_to_the_end(&state, 0, 5);
        hand.advance(Duration::from_secs(50));
        for _ in 0..9 {
            draw(&first);
        }
    }

    #[test]
    fn a_block_of_a_lap_gone_by_is_not_used_on() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = at_start();
        let state = state(dir.path());
        let (slow, quick) = (source(&state, 0, &clock, 5), source(&state, 0, &clock, 5));
        let mut carrier = Carrier::default();
        let mut draw = |source: &TransidSource| carrier.take(&source.next(&appid()).unwrap());
        skip_to_the_end(&state, 0, 10);
        draw(&slow);
        for _ in 0..6 {
            draw(&quick);
        }
        // The quick one is a lap on, and comes to the numbers that the slow one still holds.
        skip_to_the_end(&state, 0, 10);
        hand.advance(Duration::from_secs(600));
        for _ in 0..9 {
            draw(&quick);
        }
        for _ in 0..5 {
            draw(&slow);
        }
    }

    /// What can happen to the proxies that share an account.
    #[derive(Clone, Debug)]
    enum Event {
        /// A source draws so many.
        Draw { source: usize, count: u32 },
        /// All are killed and start again.
        Kill,
        /// Another lessee of node 0 takes all numbers of the lap but so many.
        Skip(u32),
        /// The clock moves by so many seconds.
        Step(i64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0..SOURCES, 1_u32..40).prop_map(|(source, count)| Event::Draw { source, count }),
            1 => Just(Event::Kill),
            2 => (0_u32..100).prop_map(Event::Skip),
            1 => (-200_i64..200).prop_map(Event::Step),
            1 => Just(Event::Step(-86_400 * 30)),
        ]
    }

    /// Two sources of node 0 in one process, and one of node 1.
    const SOURCES: usize = 3;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn no_transid_is_ever_used_twice(
            events in prop::collection::vec(event(), 1..60),
            block in prop_oneof![1_u32..50, Just(400_000_u32)],
        ) {
            let mut dir = tempfile::tempdir().unwrap();
            let (clock, hand) = at_start();
            let open = |dir: &std::path::Path| {
                let state = state(dir);
                let nodes: [u8; SOURCES] = [0, 0, 1];
                let sources = nodes.map(|node| (source(&state, node, &clock, block), 0));
                (state, sources)
            };
            let (mut state, mut sources) = open(dir.path());
            let mut carrier = Carrier::default();
            for event in events {
                match event {
                    Event::Draw { source, count } => {
                        let (source, last) = &mut sources[source];
                        for _ in 0..count {
                            let stamp = carrier.take(&source.next(&appid()).unwrap());
                            prop_assert!(stamp >= *last, "a stamp went back in one process");
                            *last = stamp;
                        }
                    }
                    Event::Kill => {
                        // The files as they are at that moment, nothing closed.
                        let left = tempfile::tempdir().unwrap();
                        for file in ["state.db", "state.db-wal"] {
                            fs::copy(dir.path().join(file), left.path().join(file)).unwrap();
                        }
                        (state, sources) = open(left.path());
                        dir = left;
                    }
                    Event::Skip(left) => skip_to_the_end(&state, 0, left),
                    Event::Step(seconds) => {
                        hand.set(Time::from_secs(clock.now().as_secs().cast_signed() + seconds));
                    }
                }
            }
        }
    }
}
